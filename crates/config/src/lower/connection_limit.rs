//! `envoy.filters.network.connection_limit` and `local_ratelimit`: how many connections, and how many in what time.

use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::network::connection_limit::v3 as limit_v3;
use envoy_types::pb::envoy::extensions::filters::network::local_ratelimit::v3 as rate_v3;
use envoy_types::pb::envoy::r#type::v3 as type_v3;

use super::{Context, value};
use crate::settings::{ConnectionLimit, NetworkRateLimit, TokenBucket};
use crate::{Code, Path};

pub(super) fn connection_limit(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &limit_v3::ConnectionLimit,
) -> Option<ConnectionLimit> {
    let delay = value::limit(context, &path.field("delay"), message.delay.as_ref(), None);
    let Some(max_connections) = &message.max_connections else {
        context.missing(&path.field("max_connections"), "max_connections is required");
        return None;
    };
    Some(ConnectionLimit {
        stat_prefix: message.stat_prefix.clone(),
        max_connections: max_connections.value,
        delay,
        enabled: value::feature(context, message.runtime_enabled.as_ref()),
    })
}

pub(super) fn rate_limit(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &rate_v3::LocalRateLimit,
) -> Option<NetworkRateLimit> {
    let bucket = token_bucket(context, &path.field("token_bucket"), message.token_bucket.as_ref())?;
    Some(NetworkRateLimit {
        stat_prefix: message.stat_prefix.clone(),
        bucket,
        enabled: value::feature(context, message.runtime_enabled.as_ref()),
        share_key: Some(message.share_key.as_str()).filter(|key| !key.is_empty()).map(Into::into),
    })
}

/// A bucket of a local rate limit, which is filled every 50 ms or less often.
pub(super) fn token_bucket(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&type_v3::TokenBucket>,
) -> Option<TokenBucket> {
    let Some(message) = message else {
        context.missing(path, "a token bucket is required");
        return None;
    };
    let interval = path.field("fill_interval");
    let Some(fill_interval) = value::duration(context, &interval, message.fill_interval.as_ref()) else {
        context.missing(&interval, "fill_interval is required");
        return None;
    };
    if fill_interval < LEAST_INTERVAL {
        context.error(&interval, Code::OUT_OF_RANGE, "at least 0.05s is expected");
    }
    let per_fill = path.field("tokens_per_fill");
    let tokens_per_fill =
        value::number(context, &per_fill, message.tokens_per_fill.as_ref(), 1..=u32::MAX, 1);
    Some(TokenBucket { max_tokens: message.max_tokens, tokens_per_fill, fill_interval })
}

/// Envoy's.
const LEAST_INTERVAL: Duration = Duration::from_millis(50);
