//! What goes upstream, against what Envoy 1.40 sent there.

use proxy_config::settings::{Cidr, HttpConnectionManager};

use super::fixtures::connection_manager;
use super::*;
use crate::route::fixtures::{get, lines, text};

const FOR: &str = "x-forwarded-for";
const PROTO: &str = "x-forwarded-proto";
const RANDOM: u128 = 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef;

fn context(peer: &str) -> ForwardingContext<'static> {
    ForwardingContext {
        peer: peer.parse().ok(),
        local_port: None,
        scheme: Scheme::Http,
        local_address: "192.0.2.2".parse().ok(),
        internal_addresses: &[],
        random: RANDOM,
    }
}

fn plain() -> HttpConnectionManager {
    connection_manager()
}

fn edge(xff_trusted_hops: u32) -> HttpConnectionManager {
    HttpConnectionManager { use_remote_address: true, xff_trusted_hops, ..connection_manager() }
}

/// `x-forwarded-for`, `x-envoy-external-address` and the client's address.
fn addresses(settings: &HttpConnectionManager, peer: &str, from: &[(&str, &str)]) -> [String; 3] {
    let mut request = get("/", from);
    let forwarded = prepare_request(&mut request, settings, &context(peer)).unwrap();
    let value = |name: &str| request.headers.values(name).map(text).collect::<Vec<_>>().join(" & ");
    let client = forwarded.client.map(|ip| ip.to_string()).unwrap_or_default();
    [value(FOR), value("x-envoy-external-address"), client]
}

#[test]
fn an_edge_proxy_writes_down_its_peer() {
    for (peer, forwarded, external) in [
        ("1.2.3.4", "1.2.3.4", "1.2.3.4"),
        ("127.0.0.1", "192.0.2.2", "127.0.0.1"),
        ("127.0.0.2", "127.0.0.2", "127.0.0.2"),
        ("2001:db8::1", "2001:db8::1", "2001:db8::1"),
        ("::1", "192.0.2.2", "::1"),
        ("::ffff:1.2.3.4", "1.2.3.4", "1.2.3.4"),
        ("a unix socket", "", ""),
    ] {
        let [xff, ext, _] = addresses(&edge(0), peer, &[]);
        assert_eq!((&*xff, &*ext), (forwarded, external), "{peer}");
    }
}

#[test]
fn the_client_is_found_behind_trusted_hops() {
    let junk_last: &[(&str, &str)] = &[(FOR, "1.1.1.1, junk")];
    let list: &[(&str, &str)] = &[(FOR, "8.8.8.8, 9.9.9.9")];
    let lines: &[(&str, &str)] = &[(FOR, "7.7.7.7,8.8.8.8"), (FOR, "9.9.9.9")];
    for (hops, from, forwarded, external) in [
        (0, &[(FOR, "9.9.9.9")][..], "9.9.9.9,1.2.3.4", "1.2.3.4"),
        (0, list, "8.8.8.8, 9.9.9.9,1.2.3.4", "1.2.3.4"),
        (0, lines, "7.7.7.7,8.8.8.8,9.9.9.9,1.2.3.4", "1.2.3.4"),
        (0, &[(FOR, "")], "1.2.3.4", "1.2.3.4"),
        (1, &[(FOR, "9.9.9.9")], "9.9.9.9,1.2.3.4", "9.9.9.9"),
        (1, list, "8.8.8.8, 9.9.9.9,1.2.3.4", "9.9.9.9"),
        (1, lines, "7.7.7.7,8.8.8.8,9.9.9.9,1.2.3.4", "9.9.9.9"),
        (1, &[(FOR, "junk")], "junk,1.2.3.4", "1.2.3.4"),
        (1, junk_last, "1.1.1.1, junk,1.2.3.4", "1.2.3.4"),
        (1, &[(FOR, "1.1.1.1:80")], "1.1.1.1:80,1.2.3.4", "1.2.3.4"),
        (2, &[(FOR, "9.9.9.9")], "9.9.9.9,1.2.3.4", "1.2.3.4"),
        (2, list, "8.8.8.8, 9.9.9.9,1.2.3.4", "8.8.8.8"),
        (2, lines, "7.7.7.7,8.8.8.8,9.9.9.9,1.2.3.4", "8.8.8.8"),
        (2, junk_last, "1.1.1.1, junk,1.2.3.4", "1.1.1.1"),
    ] {
        let [xff, ext, client] = addresses(&edge(hops), "1.2.3.4", from);
        assert_eq!((&*xff, &*ext), (forwarded, external), "{hops} hops, {from:?}");
        assert_eq!(client, external);
    }
}

#[test]
fn without_remote_address_the_header_is_believed_and_left_alone() {
    for (hops, from, client) in [
        (0, &[(FOR, "8.8.8.8, 9.9.9.9")][..], "9.9.9.9"),
        (1, &[(FOR, "8.8.8.8, 9.9.9.9")], "8.8.8.8"),
        (1, &[(FOR, "9.9.9.9")], "1.2.3.4"),
        (0, &[(FOR, "junk")], "1.2.3.4"),
        (0, &[], "1.2.3.4"),
    ] {
        let settings = HttpConnectionManager { xff_trusted_hops: hops, ..plain() };
        let before = from.first().map_or("", |(_, value)| value);
        assert_eq!(addresses(&settings, "1.2.3.4", from), [before, "", client], "{hops} hops, {from:?}");
    }
}

#[test]
fn appending_can_be_skipped() {
    let settings = HttpConnectionManager { skip_xff_append: true, ..edge(0) };
    assert_eq!(addresses(&settings, "1.2.3.4", &[(FOR, "9.9.9.9")]), ["9.9.9.9", "1.2.3.4", "1.2.3.4"]);
    assert_eq!(addresses(&settings, "1.2.3.4", &[]), ["", "1.2.3.4", "1.2.3.4"]);
}

#[test]
fn the_forwarded_protocol_is_kept_from_trusted_peers_only() {
    for (settings, from, header, scheme) in [
        (plain(), &[][..], "http", Scheme::Http),
        (plain(), &[(PROTO, "https")], "https", Scheme::Https),
        (plain(), &[(PROTO, "HTTPS")], "HTTPS", Scheme::Https),
        (plain(), &[(PROTO, "junk")], "junk", Scheme::Http),
        (edge(0), &[(PROTO, "https")], "http", Scheme::Http),
        (edge(1), &[(PROTO, "https")], "https", Scheme::Https),
        (edge(1), &[], "http", Scheme::Http),
    ] {
        let mut request = get("/", from);
        prepare_request(&mut request, &settings, &context("1.2.3.4")).unwrap();
        assert_eq!(request.headers.value(PROTO).map(text), Some(header));
        assert_eq!(request.scheme, scheme, "{from:?}");
    }
    let mut request = get("/", &[(PROTO, "https"), (PROTO, "http")]);
    prepare_request(&mut request, &plain(), &context("1.2.3.4")).unwrap();
    assert_eq!(request.scheme, Scheme::Http, "two protocols are none");
}

fn internal(use_remote_address: bool, from: &[(&str, &str)]) -> bool {
    let ranges = [Cidr { address: "10.0.0.0".parse().unwrap(), prefix_len: 8 }];
    let settings = HttpConnectionManager { use_remote_address, ..plain() };
    let context = ForwardingContext { internal_addresses: &ranges, ..context("10.1.1.1") };
    let mut request = get("/", from);
    let forwarded = prepare_request(&mut request, &settings, &context).unwrap();
    assert_eq!(request.headers.contains("x-envoy-internal"), forwarded.is_internal);
    assert_eq!(request.headers.contains("x-envoy-retry-on"), forwarded.is_internal);
    assert_eq!(
        request.headers.contains("x-envoy-external-address"),
        use_remote_address && !forwarded.is_internal
    );
    forwarded.is_internal
}

#[test]
fn clients_over_unix_sockets_are_internal_where_that_is_said() {
    for internal_unix_sockets in [false, true] {
        let settings = HttpConnectionManager { use_remote_address: true, internal_unix_sockets, ..plain() };
        let context = ForwardingContext { peer: None, ..context("") };
        let forwarded = prepare_request(&mut get("/", &[]), &settings, &context).unwrap();
        assert_eq!(forwarded.is_internal, internal_unix_sockets);
    }
}

#[test]
fn internal_is_a_single_trusted_address() {
    const RETRY: (&str, &str) = ("x-envoy-retry-on", "5xx");
    assert!(internal(true, &[RETRY]));
    assert!(!internal(true, &[RETRY, (FOR, "10.0.0.1")]));
    assert!(!internal(true, &[RETRY, (FOR, "")]));
    assert!(!internal(false, &[RETRY]));
    assert!(internal(false, &[RETRY, (FOR, "10.0.0.1")]));
    assert!(!internal(false, &[RETRY, (FOR, "9.9.9.9")]));
    assert!(!internal(false, &[RETRY, (FOR, "9.9.9.9, 10.0.0.1")]));
    assert!(!internal(false, &[RETRY, ("x-envoy-internal", "true")]));
}

#[test]
fn strangers_may_not_speak_to_the_proxy() {
    const ALWAYS: [&str; 12] = [
        "x-envoy-force-trace",
        "x-envoy-hedge-on-per-try-timeout",
        "x-envoy-internal",
        "x-envoy-ip-tags",
        "x-envoy-max-retries",
        "x-envoy-original-url",
        "x-envoy-retry-on",
        "x-envoy-upstream-alt-stat-name",
        "x-envoy-upstream-rq-timeout-ms",
        "x-envoy-expected-rq-timeout-ms",
        "x-envoy-upstream-stream-duration-ms",
        "x-forwarded-client-cert",
    ];
    const AT_THE_EDGE: [&str; 5] = [
        "x-envoy-decorator-operation",
        "x-envoy-downstream-service-cluster",
        "x-envoy-downstream-service-node",
        "x-envoy-original-host",
        "x-envoy-original-path",
    ];
    const NEVER: [&str; 4] =
        ["x-envoy-attempt-count", "x-envoy-is-timeout-retry", "x-client-trace-id", "x-forwarded-host"];
    let from: Vec<_> = ALWAYS.into_iter().chain(AT_THE_EDGE).chain(NEVER).map(|name| (name, "1")).collect();
    for settings in [plain(), edge(0)] {
        let mut request = get("/", &from);
        prepare_request(&mut request, &settings, &context("1.2.3.4")).unwrap();
        let has = |name: &&str| request.headers.contains(*name);
        assert!(!ALWAYS.iter().any(has));
        assert_eq!(
            AT_THE_EDGE.iter().filter(|name| has(name)).count(),
            if settings.use_remote_address { 0 } else { 5 }
        );
        assert!(NEVER.iter().all(has));
    }
}

#[test]
fn request_ids_are_kept_or_made() {
    const MADE: &str = "01234567-89ab-4def-8123-456789abcdef";
    const FOREIGN: &str = "12345678-1234-9234-9234-123456789012";
    let id = |settings: HttpConnectionManager, from: &[(&str, &str)]| {
        let settings = HttpConnectionManager { generate_request_id: true, ..settings };
        let mut request = get("/", from);
        prepare_request(&mut request, &settings, &context("1.2.3.4")).unwrap();
        request.headers.values("x-request-id").map(text).collect::<Vec<_>>().join(" ")
    };
    let keeping = || HttpConnectionManager { preserve_external_request_id: true, ..edge(0) };
    for (settings, from, expected) in [
        (plain(), "abc", "abc"),
        (plain(), FOREIGN, FOREIGN),
        (plain(), "", MADE),
        (edge(0), "abc", MADE),
        (edge(0), FOREIGN, MADE),
        (keeping(), "abc", "abc"),
        (keeping(), FOREIGN, "12345678-1234-4234-9234-123456789012"),
        (keeping(), "", MADE),
    ] {
        assert_eq!(id(settings, &[("x-request-id", from)]), expected, "{from}");
    }
    assert_eq!(id(plain(), &[]), MADE);
    let mut request = get("/", &[]);
    prepare_request(&mut request, &plain(), &context("1.2.3.4")).unwrap();
    assert!(!request.headers.contains("x-request-id"));
}

fn hop_by_hop(from: &[(&str, &str)]) -> Result<String, NotForwarded> {
    let mut request = get("/", from);
    prepare_request(&mut request, &plain(), &context("1.2.3.4"))?;
    let left = lines(&request.headers);
    let left = left.iter().filter(|(name, _)| *name != PROTO).map(|(name, value)| format!("{name}={value}"));
    Ok(left.collect::<Vec<_>>().join(" "))
}

#[test]
fn hop_by_hop_headers_stay_behind() {
    let long_te = format!("{}trailers", "a,".repeat(130));
    let nine = ["a"; 9].join(",");
    let ten = ["close"; 10].join(",");
    for (from, expected) in [
        (
            &[("connection", "close"), ("keep-alive", "1"), ("proxy-connection", "x"), ("trailer", "foo")][..],
            Ok("trailer=foo"),
        ),
        (&[("te", "gzip")], Ok("")),
        (&[("te", "gzip, trailers")], Ok("te=trailers")),
        (&[("te", "trailers;q=0.5")], Ok("")),
        (&[("te", "Trailers")], Ok("")),
        (&[("te", "trailers, gzip;q=1"), ("te", "deflate")], Ok("te=trailers")),
        (&[("connection", "x-foo, te"), ("x-foo", "1"), ("te", "trailers")], Ok("te=trailers")),
        (&[("connection", "keep-alive, X-Foo"), ("x-foo", "1"), ("x-foo", "2"), ("b", "3")], Ok("b=3")),
        (&[("connection", "x-foo"), ("connection", "x-bar"), ("x-foo", "1"), ("x-bar", "2")], Ok("")),
        (&[("connection", "a,,b"), ("a", "1"), ("b", "1")], Ok("")),
        (&[("connection", "x-forwarded-for"), (FOR, "1.1.1.1")], Err(NotForwarded::Nomination)),
        (&[("connection", "x-forwarded-host")], Err(NotForwarded::Nomination)),
        (&[("connection", "host")], Err(NotForwarded::Nomination)),
        (&[("connection", ":path")], Err(NotForwarded::Nomination)),
        (&[("connection", "te"), ("te", &long_te)], Err(NotForwarded::Nomination)),
        (&[("connection", &nine)], Ok("")),
        (&[("connection", &ten)], Err(NotForwarded::Nomination)),
        (&[("connection", "content-length"), ("content-length", "0")], Ok("content-length=0")),
        (&[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c"), ("http2-settings", "x")], Ok("")),
        (&[("upgrade", "websocket")], Ok("")),
        (&[("transfer-encoding", "chunked")], Ok("")),
        (&[("proxy-authorization", "y"), ("via", "1.1 x")], Ok("proxy-authorization=y via=1.1 x")),
    ] {
        assert_eq!(hop_by_hop(from), expected.map(str::to_owned), "{from:?}");
    }
}

#[test]
fn an_upgrade_is_asked_for_in_two_headers() {
    for (from, expected) in [
        (&[("connection", "upgrade"), ("upgrade", "websocket")][..], Some("websocket")),
        (&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")], Some("websocket")),
        (&[("connection", "foo"), ("upgrade", "websocket")], None),
        (&[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "foo")], Some("websocket,foo")),
        (&[("connection", "upgrade"), ("upgrade", "h2c"), ("upgrade", "websocket")], Some("h2c,websocket")),
        (&[("connection", "upgrade"), ("upgrade", ""), ("upgrade", "websocket")], Some("websocket")),
        (&[("connection", "upgrade")], None),
        (&[("connection", "Upgrade, HTTP2-Settings"), ("upgrade", "h2c")], None),
    ] {
        let request = get("/", from);
        assert_eq!(requested_upgrade(&request).as_deref().map(text), expected);
    }
}
