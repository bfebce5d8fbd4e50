//! `envoy.filters.http.set_filter_state`: leaves objects for other filters and for formats.

use std::rc::Rc;
use std::sync::Arc;

use proxy_config::settings::{self, LogType};
use proxy_http::access_log::{FormatContext, write_line};
use proxy_http::filter::{Filtered, Flow, HttpFilter, Reset};
use proxy_http::{Request, StreamInfo};
use proxy_net::FilterStateText;

use super::{FilterContext, FilterWorker, HttpFilterPlan};

/// The filter on main.
pub(super) struct SetFilterState(Arc<settings::SetFilterState>);

/// A worker's instance.
struct Filter {
    settings: Arc<settings::SetFilterState>,
    filter_chain: Rc<str>,
}

impl SetFilterState {
    pub(super) fn new(settings: &Arc<settings::SetFilterState>, _: &FilterContext<'_>) -> SetFilterState {
        SetFilterState(Arc::clone(settings))
    }
}

impl HttpFilterPlan for SetFilterState {
    fn build(&self, worker: &FilterWorker) -> Box<dyn HttpFilter> {
        Box::new(Filter { settings: Arc::clone(&self.0), filter_chain: Rc::clone(&worker.filter_chain) })
    }
}

impl HttpFilter for Filter {
    fn request<'a>(
        &'a self,
        stream: &'a Rc<StreamInfo>,
        request: &'a mut Request,
    ) -> Filtered<'a, Result<Flow, Reset>> {
        for value in &self.settings.values {
            let context = FormatContext::of_stream(stream, &self.filter_chain, LogType::NotSet);
            if let Some(object) = object(value, &FormatContext { request: Some(request), ..context }) {
                stream.filter_data().state.set(&value.key, Rc::new(object));
            }
        }
        if self.settings.clears_route {
            stream.clear_route();
        }
        Filtered::Now(Ok(Flow::Continue))
    }
}

/// What a value becomes; `None` where nothing is to be set.
pub(crate) fn object(
    value: &settings::FilterStateValue,
    context: &FormatContext<'_>,
) -> Option<FilterStateText> {
    let mut text = Vec::new();
    write_line(&value.format, context, &mut text);
    let skips = value.skip_if_empty && text.is_empty();
    (!skips).then(|| FilterStateText { kind: value.kind, text: text.into() })
}
