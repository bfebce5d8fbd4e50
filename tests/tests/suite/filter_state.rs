//! Filter state that the configuration sets, who goes by it, and what formats tell of it; and metadata of listeners.

use proxy_tests::{Backend, Bootstrap, EchoBackend, Generations, Proxy, only_proxyd, tcp_filter_chain};

/// An entry of `set_filter_state`.
fn value(key: &str, format: &str, more: &str) -> String {
    format!(
        "{{object_key: {key}, format_string: {{text_format_source: {{inline_string: '{format}'}}}}{more}}}"
    )
}

fn text(key: &str, format: &str) -> String {
    value(key, format, ", factory_key: envoy.string")
}

/// Lets the response tell of each of these.
fn telling(bootstrap: Bootstrap, formats: &[&str]) -> Bootstrap {
    let header =
        |(index, format): (usize, &&str)| format!("{{header: {{key: x-told-{index}, value: '{format}'}}}}");
    let headers: Vec<_> = formats.iter().enumerate().map(header).collect();
    bootstrap.route_config_with(&format!("{{response_headers_to_add: [{}]}}", headers.join(", ")))
}

fn told<const N: usize>(proxy: &Proxy, lines: &str) -> [Option<String>; N] {
    let response = proxy.get_with("/", lines);
    std::array::from_fn(|index| response.header(&format!("x-told-{index}")).map(str::to_owned))
}

fn some<const N: usize>(texts: [&str; N]) -> [Option<String>; N] {
    texts.map(|text| Some(text.to_owned()).filter(|text| !text.is_empty()))
}

fn with_http(bootstrap: Bootstrap, values: &[String]) -> Bootstrap {
    let fields = format!("{{on_request_headers: [{}]}}", values.join(", "));
    bootstrap.http_filter("envoy.filters.http.set_filter_state", "set_filter_state.v3.Config", &fields)
}

#[test]
fn formats_tell_what_a_request_has_set() {
    let backend = Backend::saying("ok");
    let values = [
        text("first", "%REQ(x-in)%"),
        text("later", "again %FILTER_STATE(first:PLAIN)%"),
        text("twice", "one"),
        text("twice", "two"),
        text("missing", "%REQ(x-none)%"),
        "{object_key: skipped, factory_key: envoy.string, skip_if_empty: true, format_string: {omit_empty_values: true, text_format_source: {inline_string: '%REQ(x-none)%'}}}".to_owned(),
        value("envoy.tcp_proxy.cluster", "nobody", ""),
        value("envoy.string", "itself", ""),
    ];
    let proxy = Proxy::start(&telling(
        with_http(Bootstrap::http(backend.address()), &values),
        &[
            "%FILTER_STATE(first:PLAIN)%",
            "%FILTER_STATE(first)%",
            "%FILTER_STATE(first:TYPED)%",
            "%FILTER_STATE(first:PLAIN):2%",
            "%FILTER_STATE(later:PLAIN)%",
            "%FILTER_STATE(twice:PLAIN)%",
            "%FILTER_STATE(missing:PLAIN)%",
            "<%FILTER_STATE(skipped:PLAIN)%>",
            "%FILTER_STATE(envoy.tcp_proxy.cluster:PLAIN)%",
            "<%FILTER_STATE(envoy.tcp_proxy.cluster:TYPED)%>",
            "%FILTER_STATE(envoy.string:PLAIN)%",
            "<%FILTER_STATE(first:FIELD:name)%>",
            "<%FILTER_STATE(unknown)%>",
        ],
    ));
    assert_eq!(
        told(&proxy, "x-in: a\"b\r\n"),
        some([
            "a\"b",
            "\"a\\\"b\"",
            "\"a\\\"b\"",
            "a\"",
            "again a\"b",
            "two",
            "-",
            "<>",
            "nobody",
            "<>",
            "itself",
            "<>",
            "<>"
        ])
    );
}

#[test]
fn the_route_may_be_found_anew() {
    let backend = Backend::saying("ok");
    let fields = format!("{{on_request_headers: [{}], clear_route_cache: true}}", text("key", "value"));
    let proxy = Proxy::start(&telling(
        Bootstrap::http(backend.address()).http_filter(
            "envoy.filters.http.set_filter_state",
            "set_filter_state.v3.Config",
            &fields,
        ),
        &["%FILTER_STATE(key:PLAIN)%"],
    ));
    assert_eq!(told(&proxy, ""), some(["value"]));
}

#[test]
fn requests_see_what_their_connection_has_set() {
    let backend = Backend::saying("ok");
    let fields = format!("{{on_new_connection: [{}]}}", text("port", "%DOWNSTREAM_LOCAL_PORT%"));
    let own = [text("own", "%FILTER_STATE(port:PLAIN)%")];
    let bootstrap = telling(
        with_http(Bootstrap::http(backend.address()), &own),
        &["%FILTER_STATE(port:PLAIN)%", "%FILTER_STATE(own:PLAIN)%"],
    );
    let proxy = Proxy::start(&bootstrap.network_filter("set_filter_state.v3.Config", &fields));
    let port = proxy.listener("main").port().to_string();
    assert_eq!(told(&proxy, ""), some([&*port, &*port]));
}

#[test]
fn connections_that_have_state_move_and_keep_it() {
    only_proxyd!("connections of Envoy do not move");
    let backend = Backend::saying("ok");
    let fields = format!("{{on_new_connection: [{}]}}", text("peer", "%DOWNSTREAM_REMOTE_ADDRESS%"));
    let bootstrap = telling(Bootstrap::http(backend.address()), &["%FILTER_STATE(peer:PLAIN)%"]);
    let bootstrap = bootstrap.network_filter("set_filter_state.v3.Config", &fields);
    let proxy = Generations::start(&bootstrap, &["--confirm-after", "0.1"]);
    let mut wire = proxy.connect();
    let peer = wire.local_address().to_string();
    for _ in 0..2 {
        let response = wire.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!((response.status(), response.header("x-told-0")), (200, Some(&*peer)));
        proxy.restart(&[]);
    }
}

#[test]
fn tunnels_move_with_their_state_and_the_name_of_their_route() {
    only_proxyd!("Envoy cuts them");
    let backend = Backend::raw(|wire, _| {
        wire.head();
        wire.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n");
        while let Some(bytes) = wire.some() {
            wire.send_if_open(bytes);
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let log = format!(
        "{{upgrade_configs: [{{upgrade_type: websocket}}], access_log: [{{name: file, typed_config: {{
            '@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: '{}', log_format:
            {{text_format_source: {{inline_string: \"%ROUTE_NAME% %FILTER_STATE(in:PLAIN)% %BYTES_SENT%\\n\"}}}}}}}}]}}",
        path.display()
    );
    let bootstrap = Bootstrap::http(backend.address())
        .routes("[{name: sockets, match: {prefix: /}, route: {cluster: backend}}]")
        .filter_with(&log);
    let bootstrap = with_http(bootstrap, &[text("in", "%REQ(x-in)%")]);
    let proxy = Generations::start(&bootstrap, &["--confirm-after", "0.1"]);
    let mut client = proxy.connect();
    let upgrade = "connection: upgrade\r\nupgrade: websocket";
    client.send(format!("GET / HTTP/1.1\r\nhost: a\r\nx-in: mine\r\n{upgrade}\r\n\r\n"));
    assert_eq!(client.head().status(), 101);
    for _ in 0..2 {
        proxy.restart(&[]);
        assert_eq!(client.send("more").bytes(4), b"more");
    }
    assert_eq!(proxy.only(3).epoch, 2);
    drop(client);
    proxy.stat_becomes("http.ingress.downstream_cx_upgrades_active", 0);
    // What has not been written yet is written at the end.
    drop(proxy);
    assert_eq!(std::fs::read_to_string(path).unwrap(), "sockets mine 8\n");
}

#[test]
fn a_connection_may_name_the_cluster_of_tcp_proxy() {
    let (usual, named) = (EchoBackend::new(), EchoBackend::new());
    let start = |value: &str| {
        let fields = format!("{{on_new_connection: [{value}]}}");
        let bootstrap = Bootstrap::empty()
            .cluster("usual", usual.address())
            .cluster("named", named.address())
            .listener("main", tcp_filter_chain("usual"));
        Proxy::start(&bootstrap.network_filter("set_filter_state.v3.Config", &fields))
    };
    let goes_to = |proxy: &Proxy, cluster: &str| {
        let mut wire = proxy.connect();
        assert_eq!(wire.send("ping").bytes(4), b"ping");
        proxy.stat_becomes(&format!("cluster.{cluster}.upstream_cx_total"), 1);
    };
    goes_to(&start(&value("envoy.tcp_proxy.cluster", "named", "")), "named");
    goes_to(
        &start(&value("envoy.tcp_proxy.cluster", "named", ", factory_key: envoy.tcp_proxy.cluster")),
        "named",
    );
    goes_to(&start(&text("other", "named")), "usual");
    let nowhere = start(&value("envoy.tcp_proxy.cluster", "nobody", ""));
    assert!(nowhere.connect().send_if_open("ping").is_closed());
    nowhere.stat_becomes("tcp.tcp.downstream_cx_no_route", 1);
}

#[test]
fn formats_tell_the_metadata_of_listeners_and_filter_chains() {
    let backend = Backend::saying("ok");
    let bootstrap = Bootstrap::http(backend.address())
        .listener_with("{metadata: {filter_metadata: {ns: {name: edge, list: [1, {a: b}]}}}}");
    let bootstrap = telling(
        bootstrap,
        &[
            "%METADATA(LISTENER:ns:name)%",
            "%METADATA(LISTENER:ns:list)%",
            "<%METADATA(LISTENER:ns:none)%>",
            "%METADATA(LISTENER_FILTER_CHAIN:ns:name)%",
            "<%METADATA(LISTENER_FILTER_CHAIN:ns:list)%>",
        ],
    );
    let bootstrap = bootstrap.filter_chain_with("{metadata: {filter_metadata: {ns: {name: chain}}}}");
    let proxy = Proxy::start(&bootstrap);
    assert_eq!(told(&proxy, ""), some(["edge", "[1,{\"a\":\"b\"}]", "<>", "chain", "<>"]));
    let without =
        Proxy::start(&telling(Bootstrap::http(backend.address()), &["<%METADATA(LISTENER:ns:name)%>"]));
    assert_eq!(told(&without, ""), some(["<>"]));
}
