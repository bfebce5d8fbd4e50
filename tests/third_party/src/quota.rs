//! A network filter that lets so many connections through on each worker, and no more.

use std::cell::Cell;
use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;

use proxy_filters::extensions::ConnectionContext;
use proxy_filters::http::FilterWorker;
use proxy_net::{CloseReason, Connection, LocalBoxFuture, NetworkFilter, NextNetwork};
use proxy_stats::stats_block;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    connections: u32,
}

stats_block! {
    /// `quota.*`.
    struct Stats {
        counters: refused;
    }
}

struct Quota {
    left: Cell<u32>,
    stats: Stats,
}

pub(crate) fn plan(
    settings: Arc<Settings>,
    context: &ConnectionContext<'_>,
) -> Result<impl Fn(&FilterWorker) -> Rc<dyn NetworkFilter> + use<>, Box<dyn Error + Send + Sync>> {
    if settings.connections == 0 {
        return Err("a quota of no connections lets nobody through".into());
    }
    let stats = Stats::new(&context.root.scope("quota."));
    Ok(move |_: &FilterWorker| -> Rc<dyn NetworkFilter> {
        Rc::new(Quota { left: Cell::new(settings.connections), stats: stats.clone() })
    })
}

impl NetworkFilter for Quota {
    fn serve<'a>(
        &'a self,
        connection: Connection,
        next: NextNetwork<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CloseReason>> {
        Box::pin(async move {
            let Some(left) = self.left.get().checked_sub(1) else {
                self.stats.refused.inc();
                return Err(CloseReason::Denied("the quota is used up"));
            };
            self.left.set(left);
            next.serve(connection).await
        })
    }
}
