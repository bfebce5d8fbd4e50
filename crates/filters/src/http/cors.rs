//! `envoy.filters.http.cors`: answers preflight requests, and tells browsers which origins may read a response.

use std::rc::Rc;

use bytes::Bytes;
use proxy_config::settings::{CorsPolicy, StringMatcher};
use proxy_http::filter::{FilterIndex, Filtered, Flow, HttpFilter, Reset};
use proxy_http::route::RouteEntry;
use proxy_http::{Headers, Method, Request, Response, StreamInfo};
use proxy_stats::stats_block;

use super::{FilterContext, FilterWorker, HttpFilterPlan};

stats_block! {
    /// `http.<stat_prefix>.cors.*`.
    pub(super) struct CorsStats {
        counters: origin_invalid, origin_valid;
    }
}

/// The filter, on main and on each worker.
#[derive(Clone)]
pub(super) struct Cors {
    index: FilterIndex,
    stats: CorsStats,
}

/// The policies of a route: what the first does not say, the next one does.
struct Policies<'r> {
    route: &'r RouteEntry,
    filter: FilterIndex,
}

/// The origin that a response may be told to.
struct Allowed {
    origin: Box<[u8]>,
    credentials: bool,
    exposed_headers: Bytes,
}

impl Cors {
    pub(super) fn new(context: &FilterContext<'_>) -> Cors {
        Cors { index: context.index, stats: CorsStats::new(&context.scope.scope("cors.")) }
    }

    /// The answer to a preflight request.
    fn decide(&self, stream: &StreamInfo, request: &Request, policies: &Policies<'_>) -> Option<Response> {
        let first = policies.all().next()?;
        let random = fastrand::u64(..);
        let enabled = first.enabled.has(random);
        if !enabled && !first.shadow.has(random) {
            return None;
        }
        let origin = &*request.headers.joined("origin").filter(|origin| !origin.is_empty())?;
        let allowed = policies.allow(origin);
        if allowed {
            self.stats.origin_valid.inc()
        } else {
            self.stats.origin_invalid.inc()
        }
        if !enabled {
            return None;
        }
        if allowed {
            stream.set_filter_local(self.index, policies.allowed(origin));
        }
        let method = request.headers.joined(REQUEST_METHOD).filter(|method| !method.is_empty());
        let method = method.filter(|_| request.method == Method::Options);
        if let Some(method) = method
            && (allowed || !policies.find(|policy| policy.forward_not_matching).unwrap_or(true))
        {
            stream.set_details("cors_response");
            return Some(preflight(request, policies, &method));
        }
        None
    }
}

/// What a preflight request is told besides what every response is told.
fn preflight(request: &Request, policies: &Policies<'_>, method: &[u8]) -> Response {
    let mut response = Response::new(200);
    let headers = &mut response.headers;
    if policies.credentials() {
        headers.append(ALLOW_CREDENTIALS, b"true");
    }
    let mut offer = |name, offered: Option<&Bytes>, wanted: &[u8]| match offered {
        Some(all) if &all[..] == b"*" => headers.append(name, wanted),
        Some(offered) => headers.append(name, offered),
        None => {}
    };
    offer("access-control-allow-methods", policies.text(|policy| &policy.methods), method);
    let wanted = request.headers.joined("access-control-request-headers").unwrap_or_default();
    offer("access-control-allow-headers", policies.text(|policy| &policy.headers), &wanted);
    if let Some(age) = policies.text(|policy| &policy.max_age) {
        headers.append("access-control-max-age", age);
    }
    if policies.find(|policy| policy.private_network) == Some(true)
        && request.headers.joined("access-control-request-private-network").as_deref() == Some(b"true")
    {
        headers.append("access-control-allow-private-network", b"true");
    }
    response
}

impl<'r> Policies<'r> {
    fn all(&self) -> impl Iterator<Item = &'r CorsPolicy> + use<'r> {
        self.route.filter_configs::<CorsPolicy>(self.filter)
    }

    fn find<T>(&self, said: impl Fn(&'r CorsPolicy) -> Option<T>) -> Option<T> {
        self.all().find_map(said)
    }

    fn text(&self, text: impl Fn(&'r CorsPolicy) -> &'r Bytes) -> Option<&'r Bytes> {
        self.find(|policy| Some(text(policy)).filter(|text| !text.is_empty()))
    }

    fn credentials(&self) -> bool {
        self.find(|policy| policy.credentials).unwrap_or(false)
    }

    fn allow(&self, origin: &[u8]) -> bool {
        let origins: Option<&[StringMatcher]> =
            self.find(|policy| (!policy.origins.is_empty()).then_some(&*policy.origins));
        origins.unwrap_or_default().iter().any(|allowed| allowed.matches(b"*") || allowed.matches(origin))
    }

    fn allowed(&self, origin: &[u8]) -> Allowed {
        Allowed {
            origin: origin.into(),
            credentials: self.credentials(),
            exposed_headers: self.text(|policy| &policy.exposed_headers).cloned().unwrap_or_default(),
        }
    }
}

impl Allowed {
    fn tell(&self, headers: &mut Headers) {
        headers.set(ALLOW_ORIGIN, &self.origin);
        if self.credentials {
            headers.set(ALLOW_CREDENTIALS, b"true");
        }
        if !self.exposed_headers.is_empty() {
            headers.set("access-control-expose-headers", &self.exposed_headers);
        }
    }
}

impl HttpFilterPlan for Cors {
    fn build(&self, _: &FilterWorker) -> Box<dyn HttpFilter> {
        Box::new(self.clone())
    }
}

impl HttpFilter for Cors {
    fn request<'a>(
        &'a self,
        stream: &'a Rc<StreamInfo>,
        request: &'a mut Request,
    ) -> Filtered<'a, Result<Flow, Reset>> {
        let route = stream.route();
        // As in Envoy, a route that does not forward has no such policies.
        let route = route.as_ref().filter(|route| route.chosen().forward().is_some());
        let reply = route.and_then(|route| {
            let policies = Policies { route, filter: self.index };
            self.decide(stream, request, &policies)
        });
        Filtered::Now(Ok(reply.map_or(Flow::Continue, Flow::Reply)))
    }

    fn response<'a>(
        &'a self,
        stream: &'a Rc<StreamInfo>,
        response: &'a mut Response,
    ) -> Filtered<'a, Result<(), Reset>> {
        if let Some(allowed) = stream.filter_local::<Allowed>(self.index) {
            allowed.tell(&mut response.headers);
        }
        Filtered::Now(Ok(()))
    }
}

const REQUEST_METHOD: &str = "access-control-request-method";
const ALLOW_ORIGIN: &str = "access-control-allow-origin";
const ALLOW_CREDENTIALS: &str = "access-control-allow-credentials";
