//! Time limits that come with a request, and the headers that the router keeps to itself (Envoy's
//! `FilterUtility::finalTimeout`).

use std::time::Duration;

use proxy_config::settings::Router;

use crate::headers::Headers;
use crate::message::Request;
use crate::name::HeaderId;

/// How long the upstream may take; `None` is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the end of the request to the end of the response.
    pub global: Option<Duration>,
    /// For one try; shorter than `global`.
    pub per_try: Option<Duration>,
}

/// The time limits of a request: the route's, unless `x-envoy-upstream-rq-timeout-ms` and its like say otherwise (only
/// trusted peers' survive until here). Those headers are taken out, and the upstream is told what it has in
/// `x-envoy-expected-rq-timeout-ms`, unless the router suppresses Envoy's headers.
pub fn take_timeouts(request: &mut Request, route: Option<Duration>, router: &Router) -> Timeouts {
    let headers = &mut request.headers;
    let mut global = milliseconds(route);
    if router.respect_expected_timeout && headers.contains(HeaderId::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS) {
        global = number(headers, HeaderId::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS).unwrap_or(global);
    } else {
        global = number(headers, HeaderId::X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS).unwrap_or(global);
        headers.remove(HeaderId::X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS);
    }
    let mut per_try = number(headers, HeaderId::X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS).unwrap_or(0);
    headers.remove(HeaderId::X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS);
    if global > 0 && per_try >= global {
        per_try = 0;
    }
    let expected = if per_try > 0 { per_try } else { global };
    if expected > 0 && !router.suppress_envoy_headers {
        let mut digits = itoa::Buffer::new();
        headers.set(HeaderId::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, digits.format(expected).as_bytes());
    }
    Timeouts { global: duration(global), per_try: duration(per_try) }
}

/// Removes what is said to this router and not to the upstream.
pub fn remove_router_headers(headers: &mut Headers) {
    for id in ROUTERS {
        headers.remove(id);
    }
    headers.remove("x-envoy-upstream-stream-duration-ms");
}

/// Milliseconds, 0 for ever, as the headers have it.
fn milliseconds(timeout: Option<Duration>) -> u64 {
    timeout.map_or(0, |timeout| u64::try_from(timeout.as_millis()).unwrap_or(LONGEST))
}

fn duration(milliseconds: u64) -> Option<Duration> {
    (milliseconds > 0).then(|| Duration::from_millis(milliseconds))
}

fn number(headers: &Headers, id: HeaderId) -> Option<u64> {
    let text = std::str::from_utf8(super::only_value(headers, id)?).ok()?;
    text.trim().parse().ok().filter(|&number| number <= LONGEST)
}

/// A hundred years: what is said to be longer is no number to us, and adding it to a point in time is safe.
const LONGEST: u64 = 100 * 366 * 24 * 3600 * 1000;

const ROUTERS: [HeaderId; 8] = [
    HeaderId::X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT,
    HeaderId::X_ENVOY_MAX_RETRIES,
    HeaderId::X_ENVOY_RETRIABLE_HEADER_NAMES,
    HeaderId::X_ENVOY_RETRIABLE_STATUS_CODES,
    HeaderId::X_ENVOY_RETRY_GRPC_ON,
    HeaderId::X_ENVOY_RETRY_ON,
    HeaderId::X_ENVOY_UPSTREAM_ALT_STAT_NAME,
    HeaderId::X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::fixtures::{get, text};

    /// Global and per-try limit in ms, the header that goes upstream, whether the request's own limit is still there.
    fn taken(route: u64, router: &Router, lines: &[(&str, &str)]) -> (u64, u64, Option<String>, bool) {
        let mut request = get("/", lines);
        let timeouts = take_timeouts(&mut request, duration(route), router);
        let expected = request.headers.value(HeaderId::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS);
        let expected = expected.map(|value| text(value).to_owned());
        let kept = request.headers.contains(HeaderId::X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS);
        (milliseconds(timeouts.global), milliseconds(timeouts.per_try), expected, kept)
    }

    const GLOBAL: &str = "x-envoy-upstream-rq-timeout-ms";
    const PER_TRY: &str = "x-envoy-upstream-rq-per-try-timeout-ms";
    const EXPECTED: &str = "x-envoy-expected-rq-timeout-ms";

    /// As Envoy 1.40 told its upstream.
    #[test]
    fn limits_come_from_headers_or_route() {
        let router = Router::default();
        for (route, lines, global, per_try, expected) in [
            (15000, &[][..], 15000, 0, Some("15000")),
            (15000, &[(GLOBAL, "abc")], 15000, 0, Some("15000")),
            (15000, &[(GLOBAL, "0")], 0, 0, None),
            (15000, &[(GLOBAL, "5000")], 5000, 0, Some("5000")),
            (15000, &[(GLOBAL, "-1")], 15000, 0, Some("15000")),
            (15000, &[(GLOBAL, "+5000")], 5000, 0, Some("5000")),
            (15000, &[(GLOBAL, "18446744073709551615")], 15000, 0, Some("15000")),
            (15000, &[(GLOBAL, "1"), (GLOBAL, "2")], 15000, 0, Some("15000")),
            (15000, &[(GLOBAL, "5000"), (PER_TRY, "100")], 5000, 100, Some("100")),
            (15000, &[(PER_TRY, "99999")], 15000, 0, Some("15000")),
            (15000, &[(PER_TRY, "15000")], 15000, 0, Some("15000")),
            (15000, &[(PER_TRY, "x")], 15000, 0, Some("15000")),
            (15000, &[(GLOBAL, "0"), (PER_TRY, "100")], 0, 100, Some("100")),
            (15000, &[(EXPECTED, "700")], 15000, 0, Some("15000")),
            (15000, &[(EXPECTED, "zz"), (GLOBAL, "4000")], 4000, 0, Some("4000")),
            (0, &[], 0, 0, None),
            (0, &[(EXPECTED, "700")], 0, 0, Some("700")),
            (0, &[(PER_TRY, "99999")], 0, 99999, Some("99999")),
        ] {
            let expected = expected.map(str::to_owned);
            assert_eq!(taken(route, &router, lines), (global, per_try, expected, false), "{lines:?}");
        }
    }

    #[test]
    fn an_expected_timeout_is_respected_on_request() {
        let router = Router { respect_expected_timeout: true, ..Router::default() };
        for (lines, global, expected, kept) in [
            (&[(EXPECTED, "700")][..], 700, "700", false),
            (&[(EXPECTED, "0")], 0, "0", false),
            (&[(EXPECTED, "zz"), (GLOBAL, "4000")], 15000, "15000", true),
            (&[(GLOBAL, "5000")], 5000, "5000", false),
        ] {
            assert_eq!(
                taken(15000, &router, lines),
                (global, 0, Some(expected.to_owned()), kept),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn suppressed_headers_are_not_added() {
        let router = Router { suppress_envoy_headers: true, ..Router::default() };
        assert_eq!(taken(15000, &router, &[]), (15000, 0, None, false));
    }

    #[test]
    fn what_is_said_to_the_router_stays_here() {
        let mut request = get("/", &[("x-envoy-retry-on", "5xx"), ("x", "y"), ("x-envoy-max-retries", "1")]);
        remove_router_headers(&mut request.headers);
        assert_eq!(crate::route::fixtures::lines(&request.headers), [("x", "y")]);
    }
}
