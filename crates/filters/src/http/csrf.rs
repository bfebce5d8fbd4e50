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

/// What stands between scheme and path, without user information; all of it where it is no such address.
fn host_and_port(url: &[u8]) -> &[u8] {
    parse(url).unwrap_or(url)
}

fn parse(url: &[u8]) -> Option<&[u8]> {
    let at = memchr::memmem::find(url, b"://")?;
    let (scheme, rest) = (&url[..at], &url[at + 3..]);
    let is_scheme = scheme.first()?.is_ascii_alphabetic()
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    let end = rest.iter().position(|byte| b"/?".contains(byte)).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, host_and_port) = match memchr::memchr(b'@', authority) {
        Some(at) => (&authority[..at], &authority[at + 1..]),
        None => (&b""[..], authority),
    };
    let is_user = user.iter().all(|byte| byte.is_ascii_alphanumeric() || USER.contains(byte));
    let known =
        is_scheme && is_user && is_host_and_port(host_and_port) && path.iter().all(u8::is_ascii_graphic);
    known.then_some(host_and_port)
}

fn is_host_and_port(text: &[u8]) -> bool {
    let host = match text.split_first() {
        Some((b'[', rest)) => memchr::memchr(b']', rest).map_or(0, |end| end + 2),
        _ => memchr::memchr(b':', text).unwrap_or(text.len()),
    };
    let (host, port) = text.split_at(host);
    let is_host = |byte: &u8| byte.is_ascii_alphanumeric() || b".-".contains(byte);
    let is_port = |port: &[u8]| {
        port.iter().all(u8::is_ascii_digit)
            && std::str::from_utf8(port).is_ok_and(|port| port.parse::<u16>().is_ok())
    };
    (host.starts_with(b"[") || !host.is_empty() && host.iter().all(is_host))
        && port.split_first().is_none_or(|(colon, port)| *colon == b':' && is_port(port))
}

/// What user information may be of besides letters and digits.
const USER: &[u8] = b"-_.!~*'()%;:&=+$,";

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

#[cfg(test)]
mod tests {
    use super::*;

    /// As Envoy 1.40 compares them.
    #[test]
    fn what_is_no_address_is_taken_whole() {
        for url in [
            "http://x.com",
            "HTTP://x.com/",
            "foo-bar://x.com",
            "f1+://x.com",
            "http://x.com?q",
            "http://x.com/#q",
            "http://u:p@x.com",
            "http://@x.com",
            "http://x.com/x@y.com",
            "http://x.com/a://b",
            "http://x.com?@y.com",
        ] {
            assert_eq!(host_and_port(url.as_bytes()), b"x.com", "{url}");
        }
        for (url, expected) in
            [("https://x.com:443/", "x.com:443"), ("http://[::1]:80", "[::1]:80"), ("http://[::1]", "[::1]")]
        {
            assert_eq!(host_and_port(url.as_bytes()), expected.as_bytes(), "{url}");
        }
        for url in [
            "x.com",
            "",
            "http://",
            "http:///x.com",
            "://x.com",
            "1f://x.com",
            "a/b://x.com",
            "blob:http://x.com",
            "a@http://x.com",
            "b://http://x.com",
            "http://x.com#q",
            "http://y.com#@x.com",
            "http://y.com\\@x.com",
            "http://u@v@x.com",
            "http://x.com:",
            "http://x.com:99999",
            "http://x.com:+1",
            "http://x.com:abc",
            "http://x_y.com",
            "http://x.com/\u{80}",
            "http://[::1",
        ] {
            assert_eq!(host_and_port(url.as_bytes()), url.as_bytes(), "{url}");
        }
    }
}
