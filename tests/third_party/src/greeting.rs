//! An HTTP filter that greets: in a response header, with a text that routes may change.

use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;

use proxy_filters::http::{FilterContext, FilterWorker, HttpFilterPlan};
use proxy_http::filter::{FilterIndex, Filtered, HttpFilter, Reset};
use proxy_http::{Response, StreamInfo};
use proxy_stats::stats_block;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    text: String,
}

#[derive(Deserialize)]
pub(crate) struct PerRoute {
    text: String,
}

stats_block! {
    /// `http.<stat_prefix>.greeting.*`.
    struct Stats {
        counters: greeted;
    }
}

struct Greeting {
    index: FilterIndex,
    settings: Arc<Settings>,
    stats: Stats,
}

pub(crate) fn plan(
    settings: Arc<Settings>,
    context: &FilterContext<'_>,
) -> Result<impl HttpFilterPlan + use<>, Box<dyn Error + Send + Sync>> {
    let (index, stats) = (context.index, Stats::new(&context.scope.scope("greeting.")));
    Ok(move |_: &FilterWorker| -> Box<dyn HttpFilter> {
        Box::new(Greeting { index, settings: Arc::clone(&settings), stats: stats.clone() })
    })
}

impl HttpFilter for Greeting {
    fn response<'a>(
        &'a self,
        stream: &'a Rc<StreamInfo>,
        response: &'a mut Response,
    ) -> Filtered<'a, Result<(), Reset>> {
        let route = stream.route();
        let own = route.as_ref().and_then(|route| route.filter_config::<PerRoute>(self.index));
        let text = own.map_or(&self.settings.text, |own| &own.text);
        response.headers.append("x-greeting", text.as_bytes());
        self.stats.greeted.inc();
        Filtered::Now(Ok(()))
    }
}
