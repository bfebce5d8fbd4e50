//! Chains of HTTP filters that upgrades have of their own (`upgrade_configs[].filters`).

use h2::ext::Protocol;
use http::{Method, Request, Response};
use proxy_tests::http2::{self, Client, block_on};
use proxy_tests::{Backend, Bootstrap, Generations, Message, Proxy, only_proxyd};

/// A filter that says in requests and responses which chain it is of.
fn mark(chain: &str) -> String {
    let mutation = |key: &str| {
        format!(
            "[{{append: {{header: {{key: {key}, value: {chain}}}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}}}]"
        )
    };
    filter(
        "mark",
        "header_mutation.v3.HeaderMutation",
        &format!(
            "mutations: {{request_mutations: {}, response_mutations: {}}}",
            mutation("x-to"),
            mutation("x-from")
        ),
    )
}

fn filter(name: &str, type_name: &str, fields: &str) -> String {
    let fields = if fields.is_empty() { String::new() } else { format!(", {fields}") };
    format!(
        "{{name: {name}, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.{type_name}{fields}}}}}"
    )
}

fn router(fields: &str) -> String {
    filter("router", "router.v3.Router", fields)
}

/// Every chain has its mark; `plain` has none of its own, `off` is allowed by a route only, so is `new`, which has none.
fn bootstrap(backend: std::net::SocketAddr) -> Bootstrap {
    let chain = |name: &str| format!("[{}, {}]", mark(name), router(""));
    let per_route = "'@type': type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute";
    let disabled = "'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true";
    Bootstrap::http(backend)
        .filter_with(&format!(
            "{{http_filters: {}, upgrade_configs: [{{upgrade_type: plain}}, {{upgrade_type: websocket, filters: {}}},
               {{upgrade_type: CONNECT, filters: {}}}, {{upgrade_type: off, enabled: false, filters: {}}}],
               http2_protocol_options: {{allow_connect: true}}}}",
            chain("default"),
            chain("websocket"),
            chain("connect"),
            chain("off"),
        ))
        .routes(&format!(
            "[{{match: {{prefix: /in}}, route: {{cluster: backend}}}},
              {{match: {{prefix: /not}}, route: {{cluster: backend, upgrade_configs: [{{upgrade_type: websocket, enabled: false}}]}}}},
              {{match: {{prefix: /also}}, route: {{cluster: backend, upgrade_configs: [{{upgrade_type: off}}, {{upgrade_type: new}}]}}}},
              {{match: {{prefix: /direct}}, direct_response: {{status: 200}}}},
              {{match: {{prefix: /route}}, route: {{cluster: backend}}, typed_per_filter_config: {{mark: {{{per_route}, mutations: {{
                  response_mutations: [{{append: {{header: {{key: x-from, value: route}}}}}}]}}}}}}}},
              {{match: {{prefix: /passed-by}}, route: {{cluster: backend}}, typed_per_filter_config: {{mark: {{{disabled}}}}}}},
              {{match: {{connect_matcher: {{}}}}, route: {{cluster: backend}}}}]"
        ))
}

/// Agrees to everything, and says which chain it has been asked by.
fn agreeing() -> Backend {
    Backend::raw(|wire, _| {
        while let Ok(head) = wire.try_head() {
            let by = head.header("x-to").unwrap_or("none");
            let answer = match (head.method(), head.header("upgrade")) {
                ("CONNECT", _) => "200 OK\r\n".to_owned(),
                (_, Some(protocol)) => {
                    format!("101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n")
                }
                _ => "200 OK\r\ncontent-length: 0\r\n".to_owned(),
            };
            wire.send(format!("HTTP/1.1 {answer}x-by: {by}\r\n\r\n"));
            if !answer.contains("content-length") {
                while let Some(bytes) = wire.some() {
                    wire.send_if_open(bytes);
                }
                return;
            }
        }
    })
}

fn ask(proxy: &Proxy, path: &str, protocol: &str) -> Message {
    let head = match protocol {
        "" => format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"),
        "CONNECT" => "CONNECT far:80 HTTP/1.1\r\nhost: far:80\r\n\r\n".to_owned(),
        protocol => format!(
            "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
        ),
    };
    proxy.connect().send(head).head()
}

/// Status, the chain that the request went through, and what the response was told on its way back.
fn seen(answer: &Message) -> (u16, Option<&str>, Vec<&str>) {
    (answer.status(), answer.header("x-by"), answer.headers.all("x-from"))
}

#[test]
fn an_upgrade_goes_through_its_own_chain() {
    let backend = agreeing();
    let proxy = Proxy::start(&bootstrap(backend.address()));
    for (path, protocol, status, chain) in [
        ("/in", "", 200, "default"),
        ("/in", "websocket", 101, "websocket"),
        ("/in", "WebSocket", 101, "websocket"),
        ("/in", "plain", 101, "default"),
        ("/also", "off", 101, "off"),
        ("/also", "new", 101, "default"),
        ("", "CONNECT", 200, "connect"),
    ] {
        let answer = ask(&proxy, path, protocol);
        assert_eq!(seen(&answer), (status, Some(chain), vec![chain]), "{path} {protocol}");
    }
    proxy.stat_becomes("http.ingress.downstream_cx_upgrades_total", 6);
    proxy.stat_becomes("http.ingress.downstream_cx_upgrades_active", 0);
    proxy.stat_becomes("http.ingress.rq_total", 7);
}

#[test]
fn the_proxys_own_answers_go_through_the_chain_too() {
    let backend = agreeing();
    let proxy = Proxy::start(&bootstrap(backend.address()));
    for (path, protocol, status, chain) in [
        ("/direct", "websocket", 200, "websocket"),
        ("/nowhere", "websocket", 404, "websocket"),
        ("/nowhere", "off", 404, "default"),
        ("/nowhere", "unknown", 404, "default"),
        // Refused: it becomes no tunnel.
        ("/not", "websocket", 403, "default"),
        ("/in", "off", 403, "default"),
        ("/in", "unknown", 403, "default"),
        ("/direct", "unknown", 403, "default"),
    ] {
        let answer = ask(&proxy, path, protocol);
        assert_eq!(seen(&answer), (status, None, vec![chain]), "{path} {protocol}");
    }
    let nameless = |protocol: &str| {
        let head = format!("GET /in HTTP/1.1\r\nconnection: upgrade\r\nupgrade: {protocol}\r\n\r\n");
        proxy.connect().ask(head)
    };
    assert_eq!(seen(&nameless("websocket")), (400, None, vec!["websocket"]));
    assert_eq!(seen(&nameless("off")), (400, None, vec!["default"]));
    proxy.stat_becomes("http.ingress.downstream_rq_ws_on_non_ws_route", 4);
    proxy.stat_becomes("http.ingress.downstream_cx_upgrades_total", 2);
    proxy.stat_becomes("http.ingress.no_route", 3);
}

#[test]
fn routes_speak_to_filters_of_every_chain_by_name() {
    let backend = agreeing();
    let proxy = Proxy::start(&bootstrap(backend.address()));
    for (protocol, status, chain) in [("", 200, "default"), ("websocket", 101, "websocket")] {
        let answer = ask(&proxy, "/route", protocol);
        assert_eq!(seen(&answer), (status, Some(chain), vec![chain, "route"]), "{protocol}");
        let answer = ask(&proxy, "/passed-by", protocol);
        assert_eq!(seen(&answer), (status, Some("none"), vec![]), "{protocol}");
    }
}

#[test]
fn a_disabled_filter_of_a_chain_is_enabled_by_routes() {
    let backend = agreeing();
    let off = mark("websocket").replace("{name: mark", "{name: mark, disabled: true");
    let chain = format!("[{off}, {}]", router(""));
    let bootstrap = bootstrap(backend.address())
        .filter_with(&format!("upgrade_configs: [{{upgrade_type: websocket, filters: {chain}}}]"));
    let proxy = Proxy::start(&bootstrap);
    assert_eq!(seen(&ask(&proxy, "/in", "websocket")), (101, Some("none"), vec![]));
    assert_eq!(seen(&ask(&proxy, "/in", "")), (200, Some("default"), vec!["default"]));
    assert_eq!(
        seen(&ask(&proxy, "/route", "websocket")),
        (101, Some("websocket"), vec!["websocket", "route"])
    );
}

#[test]
fn each_chain_has_a_router_of_its_own() {
    let backend = agreeing();
    let chains = format!(
        "{{http_filters: [{}], upgrade_configs: [{{upgrade_type: websocket, filters: [{}]}}]}}",
        router(""),
        router("suppress_envoy_headers: true")
    );
    let proxy = Proxy::start(&Bootstrap::http(backend.address()).filter_with(&chains));
    let told = |protocol: &str| ask(&proxy, "/", protocol).header("x-envoy-upstream-service-time").is_some();
    assert!(told(""));
    assert!(!told("websocket"));
}

#[test]
fn filters_of_a_chain_know_their_own_neighbours() {
    let backend = agreeing();
    let gzip = filter(
        "gzip",
        "compressor.v3.Compressor",
        "compressor_library: {name: gzip, typed_config: {'@type': type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip}}",
    );
    let text = "x".repeat(100);
    let proxy = Proxy::start(
        &Bootstrap::http(backend.address())
            .filter_with(&format!(
                "{{http_filters: [{0}, {1}], upgrade_configs: [{{upgrade_type: websocket, filters: [{gzip}, {1}]}}]}}",
                mark("default"),
                router("")
            ))
            .routes(&format!(
                "[{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: {text}}}}}}}]"
            )),
    );
    let coding = |lines: &str| {
        let head = format!("GET / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n{lines}\r\n");
        proxy.connect().ask(head).header("content-encoding").map(str::to_owned)
    };
    assert_eq!(coding(""), None);
    assert_eq!(coding("connection: upgrade\r\nupgrade: websocket\r\n").as_deref(), Some("gzip"));
}

#[test]
fn extended_connect_goes_through_the_chain_of_its_protocol() {
    let backend = http2::Backend::serving(true, |request, mut respond| {
        Box::pin(async move {
            let by = request.headers().get("x-to").cloned();
            let answer = Response::builder().header("x-by", by.unwrap()).body(()).unwrap();
            let _ = respond.send_response(answer, true);
        })
    });
    let options = "explicit_http_config: {http2_protocol_options: {allow_connect: true}}";
    let proxy = Proxy::start(
        &bootstrap(backend.address()).cluster_with("backend", &proxy_tests::http_protocol_options(options)),
    );
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        client.until_upgrades().await;
        for (protocol, chain) in
            [(Some("websocket"), "websocket"), (Some("plain"), "default"), (None, "connect")]
        {
            let request = Request::builder().method(Method::CONNECT);
            let request = match protocol {
                Some("websocket") => request.uri("http://a/in").extension(Protocol::from_static("websocket")),
                Some(_) => request.uri("http://a/in").extension(Protocol::from_static("plain")),
                None => request.uri("far:80"),
            };
            let (response, _send) = client.open(request.body(()).unwrap(), false).await;
            let response = response.await.unwrap();
            let told = ["x-by", "x-from"].map(|name| response.headers()[name].to_str().unwrap());
            assert_eq!((response.status().as_u16(), told), (200, [chain; 2]), "{protocol:?}");
        }
    });
}

#[test]
fn tunnels_of_such_chains_live_through_hot_restarts() {
    only_proxyd!("Envoy cuts them");
    let backend = agreeing();
    let proxy = Generations::start(&bootstrap(backend.address()), &["--confirm-after", "0.1"]);
    let mut client = proxy.connect();
    let head = "GET /in HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    assert_eq!(seen(&client.send(head).head()), (101, Some("websocket"), vec!["websocket"]));
    for _ in 0..2 {
        proxy.restart(&[]);
    }
    assert_eq!(proxy.only(3).epoch, 2);
    client.send("after").finish();
    assert_eq!(client.rest(), b"after");
    proxy.stat_becomes("http.ingress.downstream_cx_upgrades_active", 0);
}
