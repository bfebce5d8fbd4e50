//! `envoy.filters.http.grpc_web`.

use proxy_tests::{After, Backend, Bootstrap, Proxy, http_protocol_options, only_proxyd};

/// A message of five bytes in a frame of gRPC.
const FRAME: &str = "\0\0\0\0\x05hello";
const FRAME_TEXT: &str = "AAAAAAVoZWxsbw==";
/// `grpc-status:0` in a frame.
const TRAILERS: &[u8] = b"\x80\0\0\0\x0fgrpc-status:0\r\n";
const TRAILERS_TEXT: &str = "gAAAAA9ncnBjLXN0YXR1czowDQo=";

/// Answers as a gRPC service over HTTP/1 with trailers.
fn service() -> Backend {
    Backend::answering(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\na\r\n{FRAME}\r\n0\r\ngrpc-status: 0\r\n\r\n"
    ))
}

fn proxy(backend: &Backend) -> Proxy {
    let trailers = "explicit_http_config: {http_protocol_options: {enable_trailers: true}}";
    let bootstrap = Bootstrap::http(backend.address())
        .http_filter("envoy.filters.http.grpc_web", "grpc_web.v3.GrpcWeb", "{}")
        .filter_with("http_protocol_options: {enable_trailers: true}")
        .cluster_with("backend", &http_protocol_options(trailers));
    Proxy::start(&bootstrap)
}

fn call(content: &str, lines: &str, body: &str) -> String {
    format!(
        "POST /a.B/C HTTP/1.1\r\nhost: a\r\ncontent-type: {content}\r\ncontent-length: {}\r\n{lines}\r\n{body}",
        body.len()
    )
}

#[test]
fn binary_calls_get_their_trailers_in_the_body() {
    let backend = service();
    let proxy = proxy(&backend);
    let response = proxy.connect().ask(call("application/grpc-web+proto", "", FRAME));
    assert_eq!(
        (response.status(), response.header("content-type")),
        (200, Some("application/grpc-web+proto"))
    );
    assert_eq!(response.body, [FRAME.as_bytes(), TRAILERS].concat());
    assert_eq!(response.trailers.find("grpc-status"), None);
    let request = backend.request();
    assert_eq!(request.text(), FRAME);
    let sent =
        ["content-type", "te", "grpc-accept-encoding", "content-length"].map(|name| request.header(name));
    assert_eq!(sent, [Some("application/grpc"), Some("trailers"), Some("identity"), None]);
}

#[test]
fn text_calls_are_base64_both_ways() {
    let backend = service();
    let proxy = proxy(&backend);
    let accept = "accept: application/grpc-web-text\r\n";
    let response = proxy.connect().ask(call("application/grpc-web-text", accept, FRAME_TEXT));
    assert_eq!(response.header("content-type"), Some("application/grpc-web-text+proto"));
    assert_eq!(response.text(), format!("{FRAME_TEXT}{TRAILERS_TEXT}"));
    assert_eq!(backend.request().text(), FRAME);
    for broken in ["AAAAA", "AA!A"] {
        let refused = proxy.connect().ask(call("application/grpc-web-text", "", broken));
        let told = ["grpc-status", "grpc-message"].map(|name| refused.header(name));
        let expected = [Some("13"), Some("Bad gRPC-web request, invalid base64 data.")];
        assert_eq!((refused.status(), told), (400, expected), "{broken}");
    }
}

#[test]
fn a_text_answer_that_ends_inside_a_frame_does_not_look_whole() {
    only_proxyd!("Envoy leaves out what came of the frame, and without trailers goes on waiting");
    for trailers in ["grpc-status: 0\r\n", ""] {
        let backend = Backend::answering(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{}\r\n0\r\n{trailers}\r\n",
            &FRAME[..8]
        ));
        let proxy = proxy(&backend);
        let mut client = proxy.connect();
        let accept = "accept: application/grpc-web-text\r\n";
        client.send(call("application/grpc-web-text", accept, FRAME_TEXT));
        assert!(client.try_response().is_err(), "{trailers}");
    }
}

#[test]
fn other_answers_become_a_message() {
    let backend = Backend::answering(
        "HTTP/1.1 503 Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 8\r\n\r\nnot now%",
    );
    let proxy = proxy(&backend);
    let response = proxy.connect().ask(call("application/grpc-web", "", FRAME));
    assert_eq!((response.status(), response.text()), (503, ""));
    let told =
        ["grpc-status", "grpc-message", "content-type", "content-length"].map(|name| response.header(name));
    assert_eq!(told, [Some("14"), Some("not now%25"), Some("application/grpc-web+proto"), Some("0")]);
}

#[test]
fn other_requests_pass() {
    let backend = Backend::new(|request, wire| {
        assert_eq!(request.header("content-type"), Some("text/plain"));
        wire.send("HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ncontent-length: 2\r\n\r\nok");
        After::KeepOpen
    });
    let proxy = proxy(&backend);
    let response = proxy.connect().ask(call("text/plain", "", "hi"));
    assert_eq!((response.text(), response.header("content-type")), ("ok", Some("application/grpc")));
}
