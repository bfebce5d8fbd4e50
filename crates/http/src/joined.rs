//! Headers that Envoy keeps as one line: several lines of such a name are one value joined with `,`, and an addition
//! extends the line there is. All others stay separate lines, of which the first is the value.
//!
//! Lines go on as they came; only who reads a value sees them as one. The names were found by asking Envoy 1.40, one by one.

use std::borrow::Cow;

use crate::headers::{Headers, Key};

/// Which list applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Request,
    Response,
    RequestTrailers,
    ResponseTrailers,
}

impl Headers {
    /// What the header says in a message of this direction: all its lines where they are one value, else the first.
    pub fn value_in<'k>(&self, direction: Direction, key: impl Into<Key<'k>>) -> Option<Cow<'_, [u8]>> {
        let key = key.into();
        self.value_if(key, || is_joined(key.name(), direction))
    }

    /// All lines as one value, for headers where they are that in every message that has them. Empty ones are left out.
    pub fn joined<'k>(&self, key: impl Into<Key<'k>>) -> Option<Cow<'_, [u8]>> {
        self.value_if(key.into(), || true)
    }

    /// A single line, as nearly all headers have, costs no more than to look for a second one.
    fn value_if(&self, key: Key<'_>, is_joined: impl FnOnce() -> bool) -> Option<Cow<'_, [u8]>> {
        let mut values = self.values(key);
        let first = values.next()?;
        if values.next().is_none() || !is_joined() {
            return Some(Cow::Borrowed(first));
        }
        Some(Cow::Owned(join(self.values(key))))
    }
}

/// Whether lines of the lower-case `name` are joined.
pub(crate) fn is_joined(name: &[u8], direction: Direction) -> bool {
    let among = |list: &[&str]| list.binary_search_by(|known| known.as_bytes().cmp(name)).is_ok();
    match direction {
        Direction::Request => among(REQUEST),
        Direction::Response => among(RESPONSE),
        Direction::RequestTrailers => false,
        Direction::ResponseTrailers => among(&["grpc-message", "grpc-status"]),
    }
}

/// All values that are not empty as one.
pub(crate) fn join<'a>(values: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut all = Vec::new();
    for value in values.filter(|value| !value.is_empty()) {
        if !all.is_empty() {
            all.push(b',');
        }
        all.extend_from_slice(value);
    }
    all
}

const REQUEST: &[&str] = &[
    "accept",
    "accept-encoding",
    "access-control-request-headers",
    "access-control-request-method",
    "access-control-request-private-network",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-type",
    "expect",
    "grpc-accept-encoding",
    "grpc-timeout",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "origin",
    "pragma",
    "proxy-status",
    "referer",
    "te",
    "user-agent",
    "via",
    "x-client-trace-id",
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-external-address",
    "x-envoy-force-trace",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-internal",
    "x-envoy-ip-tags",
    "x-envoy-is-timeout-retry",
    "x-envoy-max-retries",
    "x-envoy-original-host",
    "x-envoy-original-path",
    "x-envoy-original-url",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-stream-duration-ms",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-request-id",
];

const RESPONSE: &[&str] = &[
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-allow-private-network",
    "access-control-expose-headers",
    "access-control-max-age",
    "age",
    "cache-control",
    "content-encoding",
    "content-type",
    "date",
    "etag",
    "expires",
    "grpc-message",
    "grpc-status",
    "last-modified",
    "location",
    "proxy-status",
    "server",
    "vary",
    "via",
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-envoy-degraded",
    "x-envoy-immediate-health-check-fail",
    "x-envoy-ratelimited",
    "x-envoy-upstream-canary",
    "x-envoy-upstream-healthchecked-cluster",
    "x-envoy-upstream-service-time",
    "x-request-id",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_as_the_search_needs_them() {
        assert!(REQUEST.is_sorted() && RESPONSE.is_sorted());
    }

    #[test]
    fn a_value_is_what_all_its_lines_say_where_they_are_one() {
        let lines = [("via", "a"), ("via", ""), ("via", "b"), ("x-a", "1"), ("x-a", "2"), ("accept", "c")];
        let headers: Headers = lines.into_iter().chain([("origin", ""), ("origin", "o")]).collect();
        let said = |direction, name: &str| headers.value_in(direction, name);
        let expect = |text: &'static str| Some(Cow::Borrowed(text.as_bytes()));
        for (name, request, response) in
            [("via", "a,b", "a,b"), ("x-a", "1", "1"), ("accept", "c", "c"), ("origin", "o", "")]
        {
            assert_eq!(said(Direction::Request, name), expect(request), "{name}");
            assert_eq!(said(Direction::Response, name), expect(response), "{name}");
        }
        assert_eq!(said(Direction::RequestTrailers, "via"), expect("a"));
        assert_eq!(said(Direction::Request, "x-b"), None);
        assert!(matches!(said(Direction::Request, "accept"), Some(Cow::Borrowed(_))));
        assert_eq!(headers.joined("x-a"), expect("1,2"));
    }
}
