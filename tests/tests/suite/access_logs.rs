//! Access logs: the lines that Envoy writes for the same traffic, each exactly once, and files that cannot be written.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use proxy_tests::http2::{self, block_on};
use proxy_tests::{
    After, Backend, Bootstrap, Cut, EchoBackend, Generations, Proxy, Signal, Wire, eventually,
    http_protocol_options, only_proxyd, refusing_address, unused_address,
};
use tempfile::TempDir;

/// A directory for logs.
struct Logs(TempDir);

/// Has lines written soon.
const SOON: [&str; 2] = ["--file-flush-interval-msec", "10"];

impl Logs {
    fn new() -> Logs {
        Logs(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The `access_log` list with one file logger whose line is `format` and a line feed.
    fn text(&self, name: &str, format: &str) -> String {
        self.logger(name, &format!("{{text_format_source: {{inline_string: \"{format}\\n\"}}}}"), "")
    }

    fn logger(&self, name: &str, format: &str, filter: &str) -> String {
        format!("[{}]", self.entry(name, format, filter))
    }

    fn entry(&self, name: &str, format: &str, filter: &str) -> String {
        let path = self.path(name);
        let path = path.display();
        let file = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
        format!(
            "{{name: file, {filter} typed_config: {{\"@type\": {file}, path: \"{path}\", log_format: {format}}}}}"
        )
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Waits for so many lines, and for no more. Sorted: each worker writes by itself.
    fn lines(&self, name: &str, count: usize) -> Vec<String> {
        eventually(&format!("{count} lines in {name}"), || {
            (self.read(name).matches('\n').count() >= count).then_some(())
        });
        let mut lines: Vec<_> = self.read(name).lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), count, "{lines:?}");
        lines.sort();
        lines
    }
}

fn http(backend: std::net::SocketAddr, access_log: &str) -> Bootstrap {
    Bootstrap::http(backend).filter_with(&format!("{{access_log: {access_log}}}"))
}

const FATE: &str = "%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% \
    %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER% %UPSTREAM_REQUEST_ATTEMPT_COUNT%";

#[test]
fn a_line_tells_how_a_request_ended() {
    let logs = Logs::new();
    let backend = Backend::saying("hello");
    let table = "[{match: {path: /gone}, route: {cluster: nowhere}}, {match: {path: /direct}, direct_response: {status: 418}}, \
        {match: {prefix: /b}, route: {cluster: backend}}]";
    let bootstrap =
        http(backend.address(), &logs.text("log", FATE)).cluster("nowhere", refusing_address()).routes(table);
    let proxy = Proxy::start_with(&bootstrap, &SOON);
    for target in ["/b?q=1", "/gone", "/direct", "/nothing"] {
        drop(proxy.get(target));
    }
    let body = "POST /b HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    assert_eq!(proxy.connect().ask(body).status(), 200);
    drop(proxy.connect().ask("NONSENSE\r\n\r\n"));
    let refused = "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}";
    assert_eq!(
        logs.lines("log", 6),
        [
            "- - HTTP/1.1 400 DPE http1.codec_error 0 11 - 0".to_owned(),
            "GET /b?q=1 HTTP/1.1 200 - via_upstream 0 5 backend 1".to_owned(),
            "GET /direct HTTP/1.1 418 - direct_response 0 0 - 0".to_owned(),
            format!("GET /gone HTTP/1.1 503 UF {refused} 0 98 nowhere 1"),
            "GET /nothing HTTP/1.1 404 NR route_not_found 0 0 - 0".to_owned(),
            "POST /b HTTP/1.1 200 - via_upstream 3 5 backend 1".to_owned(),
        ]
    );
}

/// As many proxies add a line of their own to what a client says of its way: the log must not tell the client's words alone.
#[test]
fn all_lines_of_a_header_are_told_where_they_are_one_value() {
    let logs = Logs::new();
    let format = "%REQ(X-FORWARDED-FOR)%|%REQ(VIA)%|%REQ(ORIGIN)%|%REQ(X-MY)%|%REQ(COOKIE)%|\
                  %RESP(VIA)%|%RESP(ORIGIN)%|%RESP(SET-COOKIE)%|%TRAILER(GRPC-MESSAGE)%|%TRAILER(VIA)%";
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nvia: a\r\nvia: b\r\norigin: c\r\norigin: d\r\nset-cookie: e\r\n\
         set-cookie: f\r\n\r\n2\r\nok\r\n0\r\ngrpc-message: g\r\ngrpc-message: h\r\nvia: i\r\nvia: j\r\n\r\n",
    );
    let bootstrap = http(backend.address(), &logs.text("log", format))
        .filter_with("http_protocol_options: {enable_trailers: true}")
        .cluster_with(
            "backend",
            &http_protocol_options(
                "{explicit_http_config: {http_protocol_options: {enable_trailers: true}}}",
            ),
        );
    let proxy = Proxy::start_with(&bootstrap, &SOON);
    let lines = "x-forwarded-for: 1.1.1.1\r\nvia: \r\nx-forwarded-for: 2.2.2.2\r\nvia: k\r\nvia:\r\nvia: l\r\norigin: m\r\n\
                 origin: n\r\nx-my: o\r\nx-my: p\r\ncookie: q\r\ncookie: r\r\nte: trailers\r\n";
    drop(proxy.get_with("/", lines));
    assert_eq!(logs.lines("log", 1), ["1.1.1.1,2.2.2.2|k,l|m,n|o|q|a,b|c|e|g,h|i"]);
}

#[test]
fn a_client_that_goes_away_has_its_line() {
    let logs = Logs::new();
    let backend = Backend::raw(|wire, _| {
        drop(wire.try_request());
        let _ = wire.is_closed();
    });
    let proxy = Proxy::start_with(&http(backend.address(), &logs.text("log", FATE)), &SOON);
    let mut client = proxy.connect();
    client.send("GET /hang HTTP/1.1\r\nhost: a\r\n\r\n");
    proxy.stat_becomes("cluster.backend.upstream_rq_active", 1);
    drop(client);
    assert_eq!(logs.lines("log", 1), ["GET /hang HTTP/1.1 0 DC downstream_remote_disconnect 0 0 backend 1"]);
}

#[test]
fn a_stream_that_is_taken_back_has_its_line() {
    let logs = Logs::new();
    let backend = Backend::raw(|wire, _| {
        drop(wire.try_request());
        let _ = wire.is_closed();
    });
    let proxy = Proxy::start_with(&http(backend.address(), &logs.text("log", FATE)), &SOON);
    block_on(async {
        let mut client = http2::Client::connect(proxy.listener("main")).await;
        let (response, send) = client.open(http2::request("GET", "/hang"), true).await;
        let active = || (proxy.stat("cluster.backend.upstream_rq_active") == 1).then_some(());
        http2::eventually("the request to be under way", active).await;
        drop((response, send));
        let is_told = || logs.read("log").contains('\n').then_some(());
        http2::eventually("the line", is_told).await;
    });
    assert_eq!(logs.lines("log", 1), ["GET /hang HTTP/2 0 DR http2.remote_reset 0 0 backend 1"]);
}

#[test]
fn a_refused_request_says_what_was_wrong_with_it() {
    let logs = Logs::new();
    let backend = Backend::saying("ok");
    let limits = "{max_request_headers_kb: 1, common_http_protocol_options: {max_headers_count: 8}}";
    let format = "%RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS%";
    let bootstrap = http(backend.address(), &logs.text("log", format)).filter_with(limits);
    let proxy = Proxy::start_with(&bootstrap, &SOON);
    let host = |rest: &str| format!("GET / HTTP/1.1\r\nhost: a\r\n{rest}\r\n\r\n");
    let cases = [
        (host("transfer-encoding: gzip"), "501 http1.invalid_transfer_encoding"),
        (host(&"a: b\r\n".repeat(20)), "431 http1.too_many_headers"),
        (host(&format!("a: {}", "x".repeat(3000))), "431 http1.headers_too_large"),
        (
            host("content-length: 1\r\ntransfer-encoding: chunked"),
            "400 http1.content_length_and_chunked_not_allowed",
        ),
        (host("content-length: x"), "400 http1.codec_error"),
        (host("x: a\0b"), "400 http1.invalid_characters"),
        (host("connection: x-forwarded-for"), "400 http1.connection_header_rejected"),
        ("GET foo HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "400 http1.codec_error"),
        ("GET http:///x HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "400 http1.invalid_url"),
        ("CONNECT foo HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "400 http1.invalid_url"),
        ("GET / HTTP/1.1\r\nhost: a\"b\r\n\r\n".to_owned(), "400 http.invalid_authority"),
        ("GET / HTTP/1.0\r\nhost: a\r\n\r\n".to_owned(), "426 low_version"),
    ];
    for (request, _) in &cases {
        drop(proxy.connect().send_if_open(request).finish().rest());
    }
    let mut expected = cases.map(|(_, expected)| format!("{expected} DPE"));
    expected.sort();
    assert_eq!(logs.lines("log", expected.len()), expected);
}

#[test]
fn a_response_that_breaks_off_names_the_upstream() {
    let logs = Logs::new();
    // With an end or with a reset, within the body or within the head.
    let backend = Backend::new(|request, wire| {
        let (how, place) = request.target()[1..].split_once('/').unwrap();
        wire.send_if_open("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n");
        wire.send_if_open(if place == "body" { "\r\nhalf" } else { "x-half: " });
        if how == "reset" {
            wire.reset_on_close();
        }
        After::Close
    });
    let proxy = Proxy::start_with(&http(backend.address(), &logs.text("log", FATE)), &SOON);
    for path in ["end/body", "end/head", "reset/body", "reset/head"] {
        let mut client = proxy.connect();
        client.send(format!("GET /{path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"));
        drop(client.rest());
    }
    let body = "HTTP/1.1 200 UPE upstream_reset_after_response_started{protocol_error} 0 4 backend 1";
    let head = "HTTP/1.1 502 UPE upstream_reset_before_response_started{protocol_error} 0 87 backend 1";
    let expected = [("end/body", body), ("end/head", head), ("reset/body", body), ("reset/head", head)];
    assert_eq!(logs.lines("log", 4), expected.map(|(path, rest)| format!("GET /{path} {rest}")));
}

#[test]
fn an_answer_of_a_filter_names_the_cluster_that_was_chosen() {
    let logs = Logs::new();
    let backend = Backend::saying("ok");
    let fault = "{abort: {http_status: 418, percentage: {numerator: 100}}, headers: [{name: x-stop, present_match: true}]}";
    let table = "[{match: {prefix: /nowhere}, non_forwarding_action: {}}, {match: {prefix: /}, route: {cluster: backend}}]";
    let bootstrap = http(
        backend.address(),
        &logs.text("log", "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %UPSTREAM_CLUSTER%"),
    )
    .routes(table)
    .http_filter("fault", "fault.v3.HTTPFault", fault);
    let proxy = Proxy::start_with(&bootstrap, &SOON);
    let stopped = proxy.connect().ask("GET /a HTTP/1.1\r\nhost: a\r\nx-stop: 1\r\n\r\n");
    assert_eq!(stopped.status(), 418);
    assert_eq!(proxy.get("/b").status(), 200);
    assert_eq!(proxy.get("/nowhere").status(), 503);
    assert_eq!(logs.lines("log", 3), ["/a 418 FI backend", "/b 200 - backend", "/nowhere 503 NC -"]);
}

#[test]
fn a_response_that_a_limit_cuts_says_which_limit() {
    let logs = Logs::new();
    let backend = Backend::raw(|wire, _| {
        wire.head();
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
        wire.rest();
    });
    let table = "[{match: {prefix: /route}, route: {cluster: backend, timeout: 0.2s}},
        {match: {prefix: /idle}, route: {cluster: backend, timeout: 0s, idle_timeout: 0.2s}},
        {match: {prefix: /life}, route: {cluster: backend, timeout: 0s, max_stream_duration: {max_stream_duration: 0.2s}}}]";
    let format = "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%";
    let proxy = Proxy::start_with(&http(backend.address(), &logs.text("log", format)).routes(table), &SOON);
    for path in ["/route", "/idle", "/life"] {
        let answer = proxy.connect().send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).try_response();
        assert_eq!(answer, Err(Cut::InBody(4)));
        block_on(async {
            let mut client = http2::Client::connect(proxy.listener("main")).await;
            let (response, _) = client.open(http2::request("GET", path), true).await;
            assert!(http2::answer(response).await.is_err());
        });
    }
    let idle = "/idle 200 SI stream_idle_timeout";
    let life = "/life 200 - max_duration_timeout";
    let route = "/route 200 UT response_timeout";
    assert_eq!(logs.lines("log", 6), [idle, idle, life, life, route, route]);
}

#[test]
fn json_keeps_types_and_sorts_keys() {
    let logs = Logs::new();
    let backend = Backend::saying("hello");
    let object = "{z: true, code: \"%RESPONSE_CODE%\", mixed: \"%RESPONSE_CODE% %REQ(x)%\", none: \"%REQ(nope)%\", \
        list: [\"%REQ(nope)%\", \"%BYTES_SENT%\"], inner: {b: \"%REQ(x):3%\", a: \"%PROTOCOL%\"}, flags: \"%RESPONSE_FLAGS%\", \
        query: \"%QUERY_PARAM(q)%\", path: \"%PATH(NQ)%\"}";
    let (all, some) = (
        logs.entry("all", &format!("{{json_format: {object}}}"), ""),
        logs.entry("some", &format!("{{omit_empty_values: true, json_format: {object}}}"), ""),
    );
    let proxy = Proxy::start_with(&http(backend.address(), &format!("[{all}, {some}]")), &SOON);
    drop(proxy.get_with("/p?q=a%20b", "x: say \"hi\"\r\n"));
    assert_eq!(
        logs.lines("all", 1),
        ["{\"code\":200,\"flags\":\"-\",\"inner\":{\"a\":\"HTTP/1.1\",\"b\":\"say\"},\"list\":[null,5],\
          \"mixed\":\"200 say \\\"hi\\\"\",\"none\":null,\"path\":\"/p\",\"query\":\"a b\",\"z\":true}"]
    );
    assert_eq!(
        logs.lines("some", 1),
        ["{\"code\":200,\"flags\":\"-\",\"inner\":{\"a\":\"HTTP/1.1\",\"b\":\"say\"},\"list\":[5],\
          \"mixed\":\"200 say \\\"hi\\\"\",\"path\":\"/p\",\"query\":\"a b\",\"z\":true}"]
    );
}

#[test]
fn the_default_line_is_envoys() {
    let logs = Logs::new();
    let backend = Backend::saying("hello");
    let path = logs.path("log");
    let file = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";
    let log = format!("[{{name: a, typed_config: {{\"@type\": {file}, path: \"{}\"}}}}]", path.display());
    let proxy = Proxy::start_with(&http(backend.address(), &log), &SOON);
    drop(proxy.get_with("/x", "user-agent: me\r\nx-request-id: 7\r\n"));
    let line = logs.lines("log", 1).remove(0);
    let (time, rest) = line.split_once("] ").unwrap();
    assert!(
        time.starts_with("[20") && time.ends_with('Z') && time.len() == "[2026-11-24T06:07:58.057Z".len(),
        "{time}"
    );
    let host = backend.address();
    assert!(rest.starts_with("\"GET /x HTTP/1.1\" 200 - 0 5 "), "{rest}");
    assert!(rest.ends_with(&format!(" \"-\" \"me\" \"7\" \"example.com\" \"{host}\"")), "{rest}");
}

#[test]
fn filters_choose_what_is_told() {
    let logs = Logs::new();
    let backend = Backend::saying("hello");
    let format = "{text_format_source: {inline_string: \"%REQ(:PATH)%\\n\"}}";
    let errors =
        "filter: {status_code_filter: {comparison: {op: GE, value: {default_value: 400, runtime_key: k}}}},";
    let flagged = "filter: {response_flag_filter: {flags: [NR]}},";
    let marked = "filter: {and_filter: {filters: [{header_filter: {header: {name: x-log, string_match: {exact: yes}}}}, \
        {not_health_check_filter: {}}]}},";
    let never = "filter: {runtime_filter: {runtime_key: k, percent_sampled: {numerator: 0}}},";
    let started = "filter: {log_type_filter: {types: [DownstreamEnd], exclude: true}},";
    let all: Vec<_> = [
        ("errors", errors),
        ("flagged", flagged),
        ("marked", marked),
        ("never", never),
        ("other", started),
        ("all", ""),
    ]
    .map(|(name, filter)| logs.entry(name, format, filter))
    .into();
    let bootstrap = http(backend.address(), &format!("[{}]", all.join(", ")))
        .routes("[{match: {prefix: /ok}, route: {cluster: backend}}]");
    let proxy = Proxy::start_with(&bootstrap, &SOON);
    drop(proxy.get("/missing"));
    drop(proxy.get_with("/ok/marked", "x-log: yes\r\n"));
    drop(proxy.get("/ok/plain"));
    assert_eq!(logs.lines("all", 3), ["/missing", "/ok/marked", "/ok/plain"]);
    assert_eq!(logs.lines("errors", 1), ["/missing"]);
    assert_eq!(logs.lines("flagged", 1), ["/missing"]);
    assert_eq!(logs.lines("marked", 1), ["/ok/marked"]);
    assert_eq!((logs.read("never"), logs.read("other")), (String::new(), String::new()));
}

#[test]
fn connections_and_attempts_have_lines_of_their_own() {
    let logs = Logs::new();
    let backend = Backend::saying("hello");
    let connection = logs.text("connection", "%ACCESS_LOG_TYPE% %PROTOCOL% %BYTES_RECEIVED% %RESPONSE_CODE%");
    let attempt = logs.text(
        "attempt",
        "%ACCESS_LOG_TYPE% %UPSTREAM_CLUSTER% %RESPONSE_CODE% %BYTES_RECEIVED% %BYTES_SENT% %RESP(content-length)% \
        %UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    );
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let bootstrap = Bootstrap::http(backend.address())
        .listener_with(&format!("{{access_log: {connection}}}"))
        .filter_with(&format!(
            "{{http_filters: [{{name: router, typed_config: {{\"@type\": {router}, upstream_log: {attempt}}}}}]}}"
        ));
    let proxy = Proxy::start_with(&bootstrap, &SOON);
    let request = "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab";
    let mut client = proxy.connect();
    assert_eq!(client.ask(request).status(), 200);
    assert_eq!(client.ask(request).status(), 200);
    // Attempts are counted for the stream, and told in its line.
    assert_eq!(logs.lines("attempt", 2), ["UpstreamEnd backend 200 5 2 5 0"; 2]);
    assert_eq!(logs.read("connection"), "");
    drop(client);
    assert_eq!(logs.lines("connection", 1), [format!("NotSet HTTP/1.1 {} 0", 2 * request.len())]);
}

#[test]
fn a_tcp_session_has_one_line() {
    let logs = Logs::new();
    let backend = EchoBackend::new();
    let format =
        "%ACCESS_LOG_TYPE% %BYTES_RECEIVED% %BYTES_SENT% %RESPONSE_FLAGS% %UPSTREAM_HOST% %UPSTREAM_CLUSTER%";
    let bootstrap = Bootstrap::tcp(backend.address())
        .filter_with(&format!("{{access_log: {}}}", logs.text("log", format)));
    let proxy = Proxy::start_with(&bootstrap, &SOON);
    let mut client = proxy.connect();
    client.send("four");
    assert_eq!(client.bytes(4), b"four");
    assert_eq!(logs.read("log"), "");
    drop(client);
    let host = backend.address();
    assert_eq!(logs.lines("log", 1), [format!("TcpConnectionEnd 4 4 - {host} backend")]);
}

#[test]
fn a_tcp_session_that_moves_to_another_process_has_one_line_for_both() {
    only_proxyd!("Envoy cuts it");
    let logs = Logs::new();
    let backend = EchoBackend::new();
    let format = "%DURATION% %BYTES_RECEIVED% %BYTES_SENT% %RESPONSE_FLAGS% %UPSTREAM_HOST% %UPSTREAM_CLUSTER% \
        %UPSTREAM_WIRE_BYTES_SENT% %UPSTREAM_REQUEST_ATTEMPT_COUNT%";
    let bootstrap = Bootstrap::tcp(backend.address())
        .filter_with(&format!("{{access_log: {}}}", logs.text("log", format)));
    let proxy = Generations::start(&bootstrap, &[&SOON[..], &["--confirm-after", "0.1"]].concat());
    let mut client = proxy.connect();
    assert_eq!(client.send("four").bytes(4), b"four");
    let before = Instant::now();
    for _ in 0..2 {
        proxy.restart(&[]);
        assert_eq!(client.send("more").bytes(4), b"more");
    }
    assert_eq!(proxy.only(3).epoch, 2);
    assert_eq!(client.send("sixsix").bytes(6), b"sixsix");
    // Of all processes, and the way from one to the other.
    let lived = before.elapsed().as_millis();
    drop(client);
    let line = logs.lines("log", 1).remove(0);
    let (time, line) = line.split_once(' ').unwrap();
    assert!(time.parse::<u128>().unwrap() >= lived, "{time} {lived}");
    assert_eq!(line, format!("18 18 - {} backend 18 1", backend.address()));
}

#[test]
fn a_tcp_session_without_a_host_says_why() {
    let logs = Logs::new();
    let nowhere = unused_address();
    let format = "%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG% %UPSTREAM_HOST% %UPSTREAM_TRANSPORT_FAILURE_REASON%";
    let bootstrap =
        Bootstrap::tcp(nowhere).filter_with(&format!("{{access_log: {}}}", logs.text("log", format)));
    let proxy = Proxy::start_with(&bootstrap, &SOON);
    assert!(proxy.connect().is_closed());
    let flags = "UF,URX UpstreamConnectionFailure,UpstreamRetryLimitExceeded";
    assert_eq!(
        logs.lines("log", 1),
        [format!("{flags} {nowhere} delayed_connect_error:_Connection_refused")]
    );
}

#[test]
fn files_are_opened_anew_on_a_signal_and_over_admin() {
    let logs = Logs::new();
    let backend = Backend::saying("hello");
    let proxy = Proxy::start_with(&http(backend.address(), &logs.text("log", "%REQ(:PATH)%")), &SOON);
    drop(proxy.get("/1"));
    logs.lines("log", 1);
    let rotate = |name: &str| fs::rename(logs.path("log"), logs.path(name)).unwrap();
    let is_there = || eventually("the file to be there again", || logs.path("log").exists().then_some(()));
    rotate("first");
    proxy.signal(Signal::SIGUSR1);
    is_there();
    drop(proxy.get("/2"));
    assert_eq!(logs.lines("log", 1), ["/2"]);
    rotate("second");
    assert_eq!(proxy.admin_post("/reopen_logs").text(), "OK\n");
    is_there();
    drop(proxy.get("/3"));
    assert_eq!(logs.lines("log", 1), ["/3"]);
    assert_eq!((logs.read("first"), logs.read("second")), ("/1\n".to_owned(), "/2\n".to_owned()));
}

#[test]
fn what_is_left_is_written_at_the_end() {
    only_proxyd!("Envoy drops what it has buffered when it ends");
    let logs = Logs::new();
    let backend = Backend::saying("hello");
    let mut proxy = Proxy::start(&http(backend.address(), &logs.text("log", "%REQ(:PATH)%")));
    for target in ["/1", "/2", "/3"] {
        drop(proxy.get(target));
    }
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.exit().success());
    assert_eq!(logs.lines("log", 3), ["/1", "/2", "/3"]);
}

#[test]
fn a_full_disk_loses_lines_and_no_request() {
    only_proxyd!("filesystem.lines_lost is ours");
    let logs = Logs::new();
    let backend = Backend::saying("hello");
    let log = logs.text("log", "%REQ(:PATH)%").replace(&logs.path("log").display().to_string(), "/dev/full");
    let proxy = Proxy::start_with(&http(backend.address(), &log), &SOON);
    for _ in 0..10 {
        assert_eq!(proxy.get("/").status(), 200);
    }
    proxy.stat_becomes("filesystem.lines_lost", 10);
    proxy.stat_becomes("filesystem.write_total_buffered", 0);
}

#[test]
fn a_pipe_that_nobody_reads_holds_nothing_up() {
    only_proxyd!("Envoy does not start: it opens the pipe and waits for a reader");
    let logs = Logs::new();
    let path = logs.path("log");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let backend = Backend::saying("hello");
    let proxy = Proxy::start_with(&http(backend.address(), &logs.text("log", "%REQ(x)%")), &SOON);
    let reader = fs::File::options().read(true).write(true).open(&path).unwrap();
    let header = format!("x: {}\r\n", "y".repeat(50_000));
    // More than a pipe holds.
    for _ in 0..4 {
        assert_eq!(proxy.get_with("/", &header).status(), 200);
    }
    drop(reader);
    assert_eq!(proxy.get("/").status(), 200);
}

#[test]
fn standard_output_is_a_log_like_any_other() {
    let backend = Backend::saying("hello");
    let stdout = "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog";
    let format = "{text_format_source: {inline_string: \"told: %REQ(:PATH)%\\n\"}}";
    let log = format!("[{{name: stdout, typed_config: {{\"@type\": {stdout}, log_format: {format}}}}}]");
    let proxy = Proxy::start_with(&http(backend.address(), &log), &SOON);
    drop(proxy.get("/x"));
    eventually("the line on standard output", || proxy.log().contains("told: /x\n").then_some(()));
}

#[test]
fn a_log_of_the_start_comes_before_the_answer() {
    let logs = Logs::new();
    let backend = Backend::raw(|wire, _| {
        drop(wire.try_request());
        let _ = wire.is_closed();
    });
    let bootstrap =
        http(backend.address(), &logs.text("log", "%ACCESS_LOG_TYPE% %REQ(:PATH)% %RESPONSE_CODE%"))
            .filter_with("{access_log_options: {flush_access_log_on_new_request: true}}");
    let proxy = Proxy::start_with(&bootstrap, &SOON);
    let mut client: Wire = proxy.connect();
    client.send("GET /x HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(logs.lines("log", 1), ["DownstreamStart /x 0"]);
    drop(client);
    assert_eq!(logs.lines("log", 2), ["DownstreamEnd /x 0", "DownstreamStart /x 0"]);
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error_of_the_configuration() {
    only_proxyd!("the words and the place are ours");
    let directory = TempDir::new().unwrap();
    let logs = Logs(TempDir::new_in(directory.path()).unwrap());
    let log = logs.text("log", "x").replace(&logs.path("log").display().to_string(), "/nonexistent/log");
    let file = directory.path().join("config.yaml");
    fs::write(&file, http(unused_address(), &log).to_yaml()).unwrap();
    let errors = validate(&file);
    assert!(errors.contains("cannot be written"), "{errors}");
    assert!(errors.contains("access_log[0].typed_config.path"), "{errors}");
}

fn validate(file: &Path) -> String {
    let program = proxy_tests::proxyd();
    let output = std::process::Command::new(program)
        .args(["run", "--mode", "validate", "-c"])
        .arg(file)
        .output()
        .unwrap();
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}
