//! Header names that the proxy itself looks at, as small numbers.
//!
//! A name gets its id once, when a message is parsed; afterwards "is there an `expect`?" is a bit test.

/// A header name known to the proxy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct HeaderId(u8);

impl HeaderId {
    /// Any name that has no id of its own.
    pub const OTHER: HeaderId = HeaderId(0);

    /// The id of a lower-case `name`, or [`HeaderId::OTHER`].
    pub fn of(name: &[u8]) -> HeaderId {
        lookup(name)
    }

    /// The lower-case name; empty for [`HeaderId::OTHER`].
    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }

    /// A number below 64; 0 for [`HeaderId::OTHER`].
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The name of the id with this number.
    pub(crate) fn name_at(index: usize) -> Option<&'static str> {
        NAMES.get(index).copied().filter(|name| !name.is_empty())
    }

    pub(crate) fn bit(self) -> u64 {
        if self.0 == 0 { 0 } else { 1 << self.0 }
    }
}

macro_rules! header_ids {
    ($($id:ident = $name:literal,)*) => {
        header_ids!(@consts 1u8; $($id,)*);
        const NAMES: &[&str] = &["", $($name,)*];
        fn lookup(name: &[u8]) -> HeaderId {
            $(const $id: &[u8] = $name.as_bytes();)*
            // The compiler turns this into a switch on the length followed by few comparisons.
            match name { $($id => HeaderId::$id,)* _ => HeaderId::OTHER }
        }
    };
    (@consts $n:expr; $id:ident, $($rest:ident,)*) => {
        impl HeaderId { pub const $id: HeaderId = HeaderId($n); }
        header_ids!(@consts $n + 1; $($rest,)*);
    };
    (@consts $n:expr;) => {
        const _: () = assert!($n < 65, "ids index a 64-bit set");
    };
}

header_ids! {
    HOST = "host",
    CONNECTION = "connection",
    KEEP_ALIVE = "keep-alive",
    PROXY_CONNECTION = "proxy-connection",
    TE = "te",
    TRAILER = "trailer",
    TRANSFER_ENCODING = "transfer-encoding",
    UPGRADE = "upgrade",
    HTTP2_SETTINGS = "http2-settings",
    CONTENT_LENGTH = "content-length",
    CONTENT_TYPE = "content-type",
    EXPECT = "expect",
    DATE = "date",
    SERVER = "server",
    VIA = "via",
    USER_AGENT = "user-agent",
    ACCEPT = "accept",
    COOKIE = "cookie",
    LOCATION = "location",
    GRPC_STATUS = "grpc-status",
    GRPC_MESSAGE = "grpc-message",
    GRPC_TIMEOUT = "grpc-timeout",
    X_FORWARDED_FOR = "x-forwarded-for",
    X_FORWARDED_PROTO = "x-forwarded-proto",
    X_FORWARDED_CLIENT_CERT = "x-forwarded-client-cert",
    X_FORWARDED_HOST = "x-forwarded-host",
    X_FORWARDED_PORT = "x-forwarded-port",
    X_REQUEST_ID = "x-request-id",
    X_CLIENT_TRACE_ID = "x-client-trace-id",
    X_ENVOY_ATTEMPT_COUNT = "x-envoy-attempt-count",
    X_ENVOY_DECORATOR_OPERATION = "x-envoy-decorator-operation",
    X_ENVOY_DEGRADED = "x-envoy-degraded",
    X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER = "x-envoy-downstream-service-cluster",
    X_ENVOY_DOWNSTREAM_SERVICE_NODE = "x-envoy-downstream-service-node",
    X_ENVOY_EXPECTED_RQ_TIMEOUT_MS = "x-envoy-expected-rq-timeout-ms",
    X_ENVOY_EXTERNAL_ADDRESS = "x-envoy-external-address",
    X_ENVOY_FORCE_TRACE = "x-envoy-force-trace",
    X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT = "x-envoy-hedge-on-per-try-timeout",
    X_ENVOY_IMMEDIATE_HEALTH_CHECK_FAIL = "x-envoy-immediate-health-check-fail",
    X_ENVOY_INTERNAL = "x-envoy-internal",
    X_ENVOY_IP_TAGS = "x-envoy-ip-tags",
    X_ENVOY_IS_TIMEOUT_RETRY = "x-envoy-is-timeout-retry",
    X_ENVOY_MAX_RETRIES = "x-envoy-max-retries",
    X_ENVOY_ORIGINAL_HOST = "x-envoy-original-host",
    X_ENVOY_ORIGINAL_PATH = "x-envoy-original-path",
    X_ENVOY_ORIGINAL_URL = "x-envoy-original-url",
    X_ENVOY_OVERLOADED = "x-envoy-overloaded",
    X_ENVOY_RETRIABLE_HEADER_NAMES = "x-envoy-retriable-header-names",
    X_ENVOY_RETRIABLE_STATUS_CODES = "x-envoy-retriable-status-codes",
    X_ENVOY_RETRY_GRPC_ON = "x-envoy-retry-grpc-on",
    X_ENVOY_RETRY_ON = "x-envoy-retry-on",
    X_ENVOY_UPSTREAM_ALT_STAT_NAME = "x-envoy-upstream-alt-stat-name",
    X_ENVOY_UPSTREAM_CANARY = "x-envoy-upstream-canary",
    X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS = "x-envoy-upstream-rq-per-try-timeout-ms",
    X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE = "x-envoy-upstream-rq-timeout-alt-response",
    X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS = "x-envoy-upstream-rq-timeout-ms",
    X_ENVOY_UPSTREAM_SERVICE_TIME = "x-envoy-upstream-service-time",
    X_ENVOY_UPSTREAM_STREAM_DURATION_MS = "x-envoy-upstream-stream-duration-ms",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_finds_itself() {
        for (i, name) in NAMES.iter().enumerate().skip(1) {
            assert_eq!(HeaderId::of(name.as_bytes()), HeaderId(i as u8), "{name}");
            assert_eq!(HeaderId(i as u8).name(), *name);
        }
        assert_eq!(HeaderId::of(b"x-unknown"), HeaderId::OTHER);
        assert_eq!(HeaderId::of(b""), HeaderId::OTHER);
    }
}
