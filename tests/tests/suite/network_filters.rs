//! Network filters: those that answer by themselves, and those that turn connections away from the ones behind them.

use std::fs;

use proxy_tests::{
    Backend, Bootstrap, EchoBackend, Generations, Proxy, Wire, eventually, network_filter, only_proxyd,
};
use serde_json::json;

const LIMIT: &str = "connection_limit.v3.ConnectionLimit";
const RATE: &str = "local_ratelimit.v3.LocalRateLimit";
const RBAC: &str = "rbac.v3.RBAC";

/// A listener `main` with one terminal filter.
fn terminal(kind: &str, fields: &str) -> Bootstrap {
    Bootstrap::empty().listener("main", json!({"filters": [network_filter(kind, fields)]})).stat_prefixes()
}

fn echo() -> Bootstrap {
    terminal("echo.v3.Echo", "{}")
}

fn serves(wire: &mut Wire) {
    assert_eq!(wire.send("ping").bytes(4), b"ping");
}

fn is_turned_away(proxy: &Proxy) {
    assert!(proxy.connect().send_if_open("x").is_closed());
}

#[test]
fn echo_says_what_it_hears() {
    let proxy = Proxy::start(&echo());
    let mut wire = proxy.connect();
    serves(&mut wire);
    let bytes = vec![7; 1_000_000];
    let (mut sender, sent) = (wire.duplicate(), bytes.clone());
    let sending = std::thread::spawn(move || {
        sender.send(sent);
    });
    assert!(wire.bytes(bytes.len()) == bytes);
    sending.join().unwrap();
    assert!(wire.finish().is_closed());
    proxy.stat_becomes("listener.main.downstream_cx_active", 0);
}

#[test]
fn a_direct_response_is_all_there_is() {
    let proxy = Proxy::start(&terminal("direct_response.v3.Config", "{response: {inline_string: hello}}"));
    assert_eq!(proxy.connect().rest(), b"hello");
    let silent = Proxy::start(&terminal("direct_response.v3.Config", "{}"));
    assert!(silent.connect().rest().is_empty());
    proxy.stat_becomes("listener.main.downstream_cx_total", 1);
    proxy.stat_becomes("listener.main.downstream_cx_destroy", 1);
}

#[test]
fn connections_over_the_limit_are_closed() {
    let proxy = Proxy::start(&echo().network_filter(LIMIT, "{stat_prefix: few, max_connections: 2}"));
    let (mut one, mut two) = (proxy.connect(), proxy.connect());
    serves(&mut one);
    serves(&mut two);
    is_turned_away(&proxy);
    proxy.stat_becomes("connection_limit.few.limited_connections", 1);
    proxy.stat_becomes("connection_limit.few.active_connections", 2);
    drop(two);
    proxy.stat_becomes("connection_limit.few.active_connections", 1);
    serves(&mut proxy.connect());
    serves(&mut one);
}

#[test]
fn a_connection_over_the_limit_may_be_kept_for_a_while() {
    let limit = "{stat_prefix: few, max_connections: 1, delay: 60s}";
    let proxy = Proxy::start(&echo().network_filter(LIMIT, limit));
    let mut one = proxy.connect();
    serves(&mut one);
    let mut two = proxy.connect();
    two.send("nobody hears this");
    proxy.stat_becomes("connection_limit.few.limited_connections", 1);
    assert_eq!(proxy.stat("connection_limit.few.active_connections"), 2);
    drop(two);
    proxy.stat_becomes("connection_limit.few.active_connections", 1);
    let limit = "{stat_prefix: few, max_connections: 1, delay: 0.2s}";
    let proxy = Proxy::start(&echo().network_filter(LIMIT, limit));
    let mut one = proxy.connect();
    serves(&mut one);
    is_turned_away(&proxy);
}

#[test]
fn connections_that_are_kept_take_no_place() {
    only_proxyd!("in Envoy they count against the limit");
    let limit = "{stat_prefix: few, max_connections: 1, delay: 60s}";
    let proxy = Proxy::start(&echo().network_filter(LIMIT, limit));
    let mut one = proxy.connect();
    serves(&mut one);
    let _kept = proxy.connect();
    proxy.stat_becomes("connection_limit.few.limited_connections", 1);
    drop(one);
    proxy.stat_becomes("connection_limit.few.active_connections", 1);
    serves(&mut proxy.connect());
}

#[test]
fn a_limit_that_is_switched_off_lets_all_through() {
    let off = "runtime_enabled: {default_value: false, runtime_key: none}";
    let limit = format!("{{stat_prefix: few, max_connections: 1, {off}}}");
    let bucket = "token_bucket: {max_tokens: 1, fill_interval: 1000s}";
    let rate = format!("{{stat_prefix: slow, {bucket}, {off}}}");
    let proxy = Proxy::start(&echo().network_filter(LIMIT, &limit).network_filter(RATE, &rate));
    let mut wires: Vec<_> = (0..3).map(|_| proxy.connect()).collect();
    wires.iter_mut().for_each(serves);
    assert_eq!(proxy.stat("connection_limit.few.active_connections"), 0);
    assert_eq!(proxy.stat("local_rate_limit.slow.rate_limited"), 0);
}

#[test]
fn connections_cost_tokens() {
    let bucket = "{stat_prefix: slow, token_bucket: {max_tokens: 3, fill_interval: 1000s}}";
    let proxy = Proxy::start(&echo().network_filter(RATE, bucket));
    (0..3).for_each(|_| serves(&mut proxy.connect()));
    is_turned_away(&proxy);
    is_turned_away(&proxy);
    proxy.stat_becomes("local_rate_limit.slow.rate_limited", 2);
    let fast = "{stat_prefix: fast, token_bucket: {max_tokens: 1, fill_interval: 0.05s}}";
    let proxy = Proxy::start(&echo().network_filter(RATE, fast));
    eventually("tokens to come again", || {
        let mut wire = proxy.connect();
        wire.send_if_open("ping");
        let served = wire.try_bytes(4).is_some();
        (served && proxy.stat("local_rate_limit.fast.rate_limited") > 0).then_some(())
    });
}

#[test]
fn a_bucket_may_be_shared_by_several_listeners() {
    let bucket = |key: &str| {
        let rate = format!(
            "{{stat_prefix: slow, share_key: '{key}', token_bucket: {{max_tokens: 1, fill_interval: 1000s}}}}"
        );
        json!({"filters": [network_filter(RATE, &rate), network_filter("echo.v3.Echo", "{}")]})
    };
    for (key, served) in [("", 2), ("key", 1)] {
        let proxy =
            Proxy::start(&Bootstrap::empty().listener("main", bucket(key)).listener("other", bucket(key)));
        let answered = ["main", "other"].into_iter().filter(|name| {
            let mut wire = Wire::connect(proxy.listener(name));
            wire.send_if_open("ping").try_bytes(4).is_some()
        });
        assert_eq!(answered.count(), served);
        proxy.stat_becomes("local_rate_limit.slow.rate_limited", 2 - served as u64);
    }
}

/// Whether a connection from 127.0.0.1, and one from 127.0.0.2, are served.
fn admitted(proxy: &Proxy) -> [bool; 2] {
    [1, 2].map(|last| {
        let mut wire = Wire::connect_from(([127, 0, 0, last], 0).into(), proxy.listener("main"));
        wire.send_if_open("ping").try_bytes(4).is_some()
    })
}

fn policy(action: &str, permission: &str, principal: &str) -> String {
    format!(
        "{{action: {action}, policies: {{one: {{permissions: [{permission}], principals: [{principal}]}}}}}}"
    )
}

fn judged(rules: &str) -> Proxy {
    Proxy::start(&echo().network_filter(RBAC, &format!("{{stat_prefix: who, rules: {rules}}}")))
}

const ANY: &str = "{any: true}";
const SECOND: &str = "{address_prefix: 127.0.0.2, prefix_len: 32}";

#[test]
fn rbac_goes_by_where_a_connection_comes_from() {
    for field in ["source_ip", "direct_remote_ip", "remote_ip"] {
        let proxy = judged(&policy("ALLOW", ANY, &format!("{{{field}: {SECOND}}}")));
        assert_eq!(admitted(&proxy), [false, true], "{field}");
        proxy.stat_becomes("who.rbac.allowed", 1);
        proxy.stat_becomes("who.rbac.denied", 1);
        assert_eq!(proxy.stat("who.rbac.shadow_allowed") + proxy.stat("who.rbac.shadow_denied"), 0);
    }
}

#[test]
fn rbac_goes_by_where_a_connection_goes_to() {
    let range = |prefix: &str| format!("{{destination_ip: {{address_prefix: {prefix}, prefix_len: 8}}}}");
    for (permission, served) in [
        (range("127.0.0.0"), true),
        (range("10.0.0.0"), false),
        ("{destination_port: 1}".to_owned(), false),
        ("{not_rule: {destination_port: 1}}".to_owned(), true),
        ("{destination_port_range: {start: 1, end: 2}}".to_owned(), false),
        ("{destination_port_range: {start: 1024, end: 65536}}".to_owned(), true),
        ("{requested_server_name: {exact: a}}".to_owned(), false),
        ("{requested_server_name: {exact: ''}}".to_owned(), true),
    ] {
        let proxy = judged(&policy("ALLOW", &permission, ANY));
        assert_eq!(admitted(&proxy), [served; 2], "{permission}");
    }
}

#[test]
fn rbac_puts_rules_together() {
    let first = "{remote_ip: {address_prefix: 127.0.0.1, prefix_len: 32}}";
    let second = format!("{{remote_ip: {SECOND}}}");
    for (principal, expected) in [
        (format!("{{and_ids: {{ids: [{first}, {second}]}}}}"), [false, false]),
        (format!("{{or_ids: {{ids: [{first}, {second}]}}}}"), [true, true]),
        (format!("{{not_id: {first}}}"), [false, true]),
        (format!("{{and_ids: {{ids: [{ANY}, {{not_id: {second}}}]}}}}"), [true, false]),
        (format!("{first}, {second}"), [true, true]),
    ] {
        assert_eq!(admitted(&judged(&policy("ALLOW", ANY, &principal))), expected, "{principal}");
        let refused = expected.map(|allowed| !allowed);
        assert_eq!(admitted(&judged(&policy("DENY", ANY, &principal))), refused, "{principal}");
    }
    let permission = "{and_rules: {rules: [{any: true}, {or_rules: {rules: [{destination_port: 1}]}}]}}";
    assert_eq!(admitted(&judged(&policy("ALLOW", permission, ANY))), [false, false]);
}

#[test]
fn rbac_without_a_policy_denies_and_without_rules_allows() {
    assert_eq!(admitted(&judged("{}")), [false, false]);
    assert_eq!(admitted(&judged("{action: DENY}")), [true, true]);
    assert_eq!(admitted(&judged(&policy("LOG", ANY, ANY))), [true, true]);
    let proxy = Proxy::start(&echo().network_filter(RBAC, "{stat_prefix: who}"));
    assert_eq!(admitted(&proxy), [true, true]);
    assert_eq!(proxy.stat("who.rbac.allowed"), 0);
}

#[test]
fn shadow_rules_are_only_counted() {
    let shadow = policy("DENY", ANY, &format!("{{remote_ip: {SECOND}}}"));
    let fields = format!(
        "{{stat_prefix: who, shadow_rules_stat_prefix: next, shadow_rules: {shadow}, rules: {}}}",
        policy("ALLOW", ANY, ANY)
    );
    let proxy = Proxy::start(&echo().network_filter(RBAC, &fields));
    assert_eq!(admitted(&proxy), [true, true]);
    proxy.stat_becomes("who.rbac.allowed", 2);
    proxy.stat_becomes("who.rbac.next.shadow_allowed", 1);
    proxy.stat_becomes("who.rbac.next.shadow_denied", 1);
}

#[test]
fn a_denied_connection_may_be_kept_for_a_while() {
    let kept = |delay: &str| format!("{{stat_prefix: who, rules: {{}}, delay_deny: {delay}}}");
    let proxy = Proxy::start(&echo().network_filter(RBAC, &kept("0.2s")));
    is_turned_away(&proxy);
    let proxy = Proxy::start(&echo().network_filter(RBAC, &kept("60s")));
    let mut wire = proxy.connect();
    wire.send("x");
    proxy.stat_becomes("who.rbac.denied", 1);
    assert_eq!(proxy.stat("listener.main.downstream_cx_active"), 1);
}

#[test]
fn a_denied_client_hears_nothing_of_the_server() {
    only_proxyd!("Envoy judges at the first byte, and lets the server speak until then");
    let backend = Backend::raw(|wire, _| {
        wire.send("welcome");
    });
    let proxy = Proxy::start(
        &Bootstrap::tcp(backend.address()).network_filter(RBAC, "{stat_prefix: who, rules: {}}"),
    );
    assert!(proxy.connect().rest().is_empty());
    proxy.stat_becomes("who.rbac.denied", 1);
    assert_eq!(backend.connections(), 0);
}

#[test]
fn filters_act_in_their_order() {
    let rbac =
        format!("{{stat_prefix: who, rules: {}}}", policy("ALLOW", ANY, &format!("{{remote_ip: {SECOND}}}")));
    let bucket = "{stat_prefix: slow, token_bucket: {max_tokens: 2, fill_interval: 1000s}}";
    let proxy = Proxy::start(&echo().network_filter(RBAC, &rbac).network_filter(RATE, bucket));
    assert_eq!(admitted(&proxy), [false, true]);
    assert_eq!(admitted(&proxy), [false, false], "there are no tokens left");
    proxy.stat_becomes("who.rbac.denied", 1);
    proxy.stat_becomes("local_rate_limit.slow.rate_limited", 2);
}

#[test]
fn connections_that_are_turned_away_are_counted_and_logged_by_the_filters_behind() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("log");
    let line = "%RESPONSE_FLAGS% %CONNECTION_TERMINATION_DETAILS% %UPSTREAM_CLUSTER%\n";
    let log = json!({"access_log": [{"name": "file", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": path, "log_format": {"text_format_source": {"inline_string": line}}}}]});
    let backend = EchoBackend::new();
    let logged = || Bootstrap::tcp(backend.address()).filter_with(&log.to_string());
    let written = |bootstrap: &Bootstrap| {
        let _ = fs::remove_file(&path);
        let proxy = Proxy::start_with(bootstrap, &["--file-flush-interval-msec", "10"]);
        is_turned_away(&proxy);
        proxy.stat_becomes("tcp.tcp.downstream_cx_total", 1);
        eventually("a line", || fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n')))
    };
    let bucket = "{stat_prefix: slow, token_bucket: {max_tokens: 0, fill_interval: 1000s}}";
    assert_eq!(written(&logged().network_filter(RATE, bucket)), "URX - -\n");
    let denied = policy("DENY", ANY, ANY).replace("one:", "'every one':");
    let denied = format!("{{stat_prefix: who, rules: {denied}}}");
    let line = written(&logged().network_filter(RBAC, &denied));
    assert!(line.starts_with("- rbac_access_denied_matched_policy[every_one] "), "{line}");

    let http = Proxy::start(&Bootstrap::http(backend.address()).network_filter(RATE, bucket));
    is_turned_away(&http);
    http.stat_becomes("http.ingress.downstream_cx_total", 1);
    http.stat_becomes("http.ingress.downstream_cx_destroy", 1);
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// An HTTP listener behind all filters that let connections through.
fn guarded(rules: &str) -> Bootstrap {
    Bootstrap::empty()
        .listener("main", proxy_tests::direct_response_chain("hello"))
        .network_filter(RBAC, &format!("{{stat_prefix: who, rules: {rules}}}"))
        .network_filter(RATE, "{stat_prefix: slow, token_bucket: {max_tokens: 1, fill_interval: 1000s}}")
        .network_filter(LIMIT, "{stat_prefix: few, max_connections: 2}")
}

#[test]
fn a_connection_that_was_let_through_moves_in_a_restart() {
    only_proxyd!("proxyctl is ours");
    let proxy = Generations::start(&guarded(&policy("ALLOW", ANY, ANY)), &["--confirm-after", "0.1"]);
    let mut one = proxy.connect();
    assert_eq!(one.ask(GET).text(), "hello");
    proxy.restart(&[]);
    let _ = proxy.only(2);
    assert_eq!(one.ask(GET).text(), "hello");
    // It has paid its token in the old process, and counts in the new one.
    let mut two = proxy.connect();
    assert_eq!(two.ask(GET).text(), "hello");
    proxy.stat_becomes("connection_limit.few.active_connections", 2);
    is_turned_away(&proxy);
    proxy.stat_becomes("connection_limit.few.limited_connections", 1);
    assert_eq!(proxy.stat("local_rate_limit.slow.rate_limited"), 0);
    assert_eq!(proxy.stat("who.rbac.allowed"), 2);
}

#[test]
fn a_connection_that_new_rules_deny_does_not_move() {
    only_proxyd!("proxyctl is ours");
    let proxy = Generations::start(&guarded(&policy("ALLOW", ANY, ANY)), &["--confirm-after", "0.1"]);
    let mut one = proxy.connect();
    assert_eq!(one.ask(GET).text(), "hello");
    let stricter = guarded(&policy("DENY", ANY, ANY));
    let stricter = proxy.file("stricter.yaml", &stricter.to_yaml());
    proxy.restart(&["-c", &stricter]);
    let _ = proxy.only(2);
    assert!(one.is_closed(), "the old process has asked it to end");
    is_turned_away(&proxy);
}
