//! `envoy.filters.network.local_ratelimit`: a connection costs a token.

use std::sync::Arc;

use proxy_config::settings::{self, ResponseFlags};
use proxy_net::{
    CloseReason, Connection, ConnectionInfo, LocalBoxFuture, MovedConnection, NetworkFilter, NextNetwork,
};
use proxy_runtime::clock;
use proxy_stats::{Scope, stats_block};

use super::turn_away;
use crate::token_bucket::{SharedBuckets, TokenBucket};

stats_block! {
    /// `local_rate_limit.<stat_prefix>.*`.
    struct LocalRateLimitStats {
        counters: rate_limited;
    }
}

/// The filter; clones take from one bucket.
#[derive(Clone)]
pub struct LocalRateLimit(Arc<Shared>);

struct Shared {
    enabled: bool,
    stats: LocalRateLimitStats,
    bucket: Arc<TokenBucket>,
}

impl LocalRateLimit {
    /// `root` is the scope of the whole store, or what the listener restricts it to.
    pub fn new(
        settings: &settings::NetworkRateLimit,
        root: &Scope,
        buckets: &mut SharedBuckets,
    ) -> LocalRateLimit {
        let scope = root.scope(&format!("local_rate_limit.{}.", settings.stat_prefix));
        let now = clock::now();
        let bucket = match &settings.share_key {
            Some(key) => buckets.bucket(key, settings.bucket, now),
            None => Arc::new(TokenBucket::new(settings.bucket, now)),
        };
        let stats = LocalRateLimitStats::new(&scope);
        LocalRateLimit(Arc::new(Shared { enabled: settings.enabled, stats, bucket }))
    }

    /// One that comes from another process has paid there.
    fn admits(&self, connection: &Connection) -> bool {
        !self.0.enabled || connection.moved.is_some() || self.0.bucket.take(clock::now())
    }
}

impl NetworkFilter for LocalRateLimit {
    fn serve<'a>(
        &'a self,
        connection: Connection,
        next: NextNetwork<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CloseReason>> {
        Box::pin(async move {
            if self.admits(&connection) {
                return next.serve(connection).await;
            }
            self.0.stats.rate_limited.inc();
            if let Some(record) = &connection.info.record {
                record.set_flag(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
            }
            turn_away(connection, next, None, "over the local rate limit").await
        })
    }

    fn takes(&self, _moved: &MovedConnection, _info: &ConnectionInfo) -> bool {
        true
    }
}
