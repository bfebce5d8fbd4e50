//! `envoy.filters.http.csrf`: a request that changes something has to come from a page of the same host.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use proxy_config::settings::CsrfPolicy;
use proxy_http::filter::{FilterIndex, Filtered, Flow, HttpFilter, Reset};
use proxy_http::reply::FilterReply;
use proxy_http::{Method, Request, StreamInfo};
use proxy_stats::stats_block;

use super::{FilterContext, FilterWorker, HttpFilterPlan};

stats_block! {
    /// `http.<stat_prefix>.csrf.*`.
    pub(super) struct CsrfStats {
        counters: missing_source_origin, request_invalid, request_valid;
    }
}

/// The filter, on main and on each worker.
#[derive(Clone)]
pub(super) struct Csrf {
    index: FilterIndex,
    policy: Arc<CsrfPolicy>,
    stats: CsrfStats,
}

impl Csrf {
    pub(super) fn new(policy: &Arc<CsrfPolicy>, context: &FilterContext<'_>) -> Csrf {
        Csrf {
            index: context.index,
            policy: Arc::clone(policy),
            stats: CsrfStats::new(&context.scope.scope("csrf.")),
        }
    }

    /// Whether the request is refused.
    fn refuses(&self, policy: &CsrfPolicy, request: &Request) -> bool {
        let random = fastrand::u64(..);
        let enabled = policy.enabled.has(random);
        if !enabled && !policy.shadow.has(random) {
            return false;
        }
        let changes = matches!(request.method, Method::Post | Method::Put | Method::Delete | Method::Patch);
        if !changes {
            return false;
        }
        let source = &*source(request);
        if source.is_empty() {
            self.stats.missing_source_origin.inc();
        }
        let known = || policy.origins.iter().any(|origin| origin.matches(source));
        if !source.is_empty() && (source == host_and_port(request.authority()) || known()) {
            self.stats.request_valid.inc();
            return false;
        }
        if !source.is_empty() {
            self.stats.request_invalid.inc();
        }
        enabled
    }
}

/// Host and port of the page that sent the request, as far as it says so.
fn source(request: &Request) -> Cow<'_, [u8]> {
    let of = |name: &str| request.headers.joined(name).unwrap_or_default();
    let page = match of("origin") {
        // What a browser sends that is not to say it, nor by `referer`.
        origin if *origin == *b"null" => return Cow::default(),
        origin if origin.is_empty() => of("referer"),
        origin => origin,
    };
    match page {
        Cow::Borrowed(page) => Cow::Borrowed(host_and_port(page)),
        Cow::Owned(page) => Cow::Owned(host_and_port(&page).to_vec()),
    }
}

/// What stands between scheme and path, without user information; all of it where there is no scheme.
fn host_and_port(url: &[u8]) -> &[u8] {
    let Some(rest) = memchr::memmem::find(url, b"://").map(|at| &url[at + 3..]) else { return url };
    let end = rest.iter().position(|byte| b"/?#".contains(byte)).unwrap_or(rest.len());
    let authority = &rest[..end];
    memchr::memrchr(b'@', authority).map_or(authority, |at| &authority[at + 1..])
}

impl HttpFilterPlan for Csrf {
    fn build(&self, _: &FilterWorker) -> Box<dyn HttpFilter> {
        Box::new(self.clone())
    }
}

impl HttpFilter for Csrf {
    fn request<'a>(
        &'a self,
        stream: &'a Rc<StreamInfo>,
        request: &'a mut Request,
    ) -> Filtered<'a, Result<Flow, Reset>> {
        let route = stream.route();
        let policy =
            route.as_ref().and_then(|route| route.filter_config(self.index)).unwrap_or(&*self.policy);
        Filtered::Now(Ok(if self.refuses(policy, request) {
            Flow::Reply(FilterReply::new(403, "Invalid origin", "csrf_origin_mismatch").response(stream))
        } else {
            Flow::Continue
        }))
    }
}
