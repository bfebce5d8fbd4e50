//! `envoy.filters.http.compressor` and `envoy.filters.http.decompressor`.

use std::io::{Read, Write};
use std::net::SocketAddr;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use proxy_tests::{After, Backend, Bootstrap, Message, Proxy};

const GZIP: &str = "compressor_library: {name: text, typed_config: {'@type': type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip}}";
const BROTLI: &str = "compressor_library: {name: text, typed_config: {'@type': type.googleapis.com/envoy.extensions.compression.brotli.compressor.v3.Brotli}}";
const ZSTD: &str = "compressor_library: {name: text, typed_config: {'@type': type.googleapis.com/envoy.extensions.compression.zstd.compressor.v3.Zstd}}";
const STATS: &str = "http.ingress.compressor.text.gzip";

/// What the backend says: long enough, and worth compressing.
fn text() -> String {
    "All that is gold does not glitter. ".repeat(200)
}

/// Answers with the header lines that the request asks for, a `;` between them, and as many bytes of [`text`] as `x-length`.
fn backend() -> Backend {
    Backend::new(|request, wire| {
        let lines: String = request
            .headers
            .find("x-give")
            .unwrap_or_default()
            .split('|')
            .map(|line| format!("{line}\r\n"))
            .collect();
        let lines = lines.trim_start_matches("\r\n");
        let length = request.headers.find("x-length").map_or(usize::MAX, |length| length.parse().unwrap());
        let body = &text()[..length.min(text().len())];
        let status = request.headers.find("x-status").unwrap_or("200");
        wire.send(format!("HTTP/1.1 {status} OK\r\ncontent-length: {}\r\n{lines}\r\n", body.len()));
        if request.method() != "HEAD" {
            wire.send(body);
        }
        After::KeepOpen
    })
}

fn compressing(backend: &Backend, fields: &str) -> Bootstrap {
    Bootstrap::http(backend.address()).http_filter(
        "envoy.filters.http.compressor",
        "compressor.v3.Compressor",
        &format!("{{{fields}}}"),
    )
}

fn unzipped(body: &[u8]) -> String {
    let mut out = String::new();
    GzDecoder::new(body).read_to_string(&mut out).unwrap();
    out
}

fn zipped(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn coding(response: &Message) -> Option<&str> {
    response.header("content-encoding")
}

#[test]
fn what_a_client_accepts_is_compressed() {
    let backend = backend();
    let proxy = Proxy::start(&compressing(&backend, GZIP));
    let response = proxy.get_with("/", "accept-encoding: gzip\r\nx-give: content-type: text/plain\r\n");
    assert_eq!((response.status(), coding(&response)), (200, Some("gzip")));
    assert_eq!(response.header("vary"), Some("Accept-Encoding"));
    assert_eq!(
        (response.header("content-length"), response.header("transfer-encoding")),
        (None, Some("chunked"))
    );
    assert!(response.body.len() < text().len() / 5);
    assert_eq!(unzipped(&response.body), text());
    assert_eq!(backend.request().header("accept-encoding"), Some("gzip"));

    let plain = proxy.get("/");
    assert_eq!((coding(&plain), plain.header("vary")), (None, Some("Accept-Encoding")));
    assert_eq!(plain.text(), text());
    proxy.stat_becomes(&format!("{STATS}.compressed"), 1);
    proxy.stat_becomes(&format!("{STATS}.not_compressed"), 1);
    proxy.stat_becomes(&format!("{STATS}.no_accept_header"), 1);
    proxy.stat_becomes(&format!("{STATS}.header_compressor_used"), 1);
    proxy.stat_becomes(&format!("{STATS}.total_uncompressed_bytes"), text().len() as u64);
}

#[test]
fn what_is_not_to_be_compressed_is_left_alone() {
    let backend = backend();
    let proxy = Proxy::start(&compressing(&backend, GZIP));
    // What the backend says, whether it is compressed, `vary` and `etag` then.
    let cases = [
        ("", true, Some("Accept-Encoding"), None),
        ("content-type: text/html; charset=utf-8", true, Some("Accept-Encoding"), None),
        ("content-type: TEXT/HTML", true, Some("Accept-Encoding"), None),
        ("content-type: application/json", true, Some("Accept-Encoding"), None),
        ("content-type: image/svg+xml", true, Some("Accept-Encoding"), None),
        ("content-type: application/xhtml+xml", true, Some("Accept-Encoding"), None),
        ("content-type: text/x-js", true, Some("Accept-Encoding"), None),
        ("content-type: image/png", false, None, None),
        ("content-type:", false, None, None),
        ("content-type: ;charset=utf-8", false, None, None),
        ("content-type: application/grpc", false, None, None),
        ("content-encoding: br", false, None, None),
        ("cache-control: public, No-Transform", false, None, None),
        ("etag: \"strong\"", true, Some("Accept-Encoding"), None),
        ("etag: W/\"weak\"", true, Some("Accept-Encoding"), Some("W/\"weak\"")),
        ("vary: Origin", true, Some("Origin, Accept-Encoding"), None),
        ("vary: Origin,Accept-Encoding", true, Some("Origin,Accept-Encoding"), None),
        ("vary: Origin|vary: Cookie", true, Some("Origin,Cookie, Accept-Encoding"), None),
        ("content-type: text/plain|content-type: image/png", false, None, None),
    ];
    for (give, compressed, vary, etag) in cases {
        let response = proxy.get_with("/", &format!("accept-encoding: gzip\r\nx-give: {give}\r\n"));
        assert_eq!(coding(&response) == Some("gzip"), compressed, "{give}");
        assert_eq!((response.header("vary"), response.header("etag")), (vary, etag), "{give}");
    }
    let short = proxy.get_with("/", "accept-encoding: gzip\r\nx-length: 29\r\n");
    assert_eq!((coding(&short), short.header("vary")), (None, None));
    assert_eq!(coding(&proxy.get_with("/", "accept-encoding: gzip\r\nx-length: 30\r\n")), Some("gzip"));
    proxy.stat_becomes(&format!("{STATS}.content_length_too_small"), 1);
    let mut client = proxy.connect();
    let head = client.send("HEAD / HTTP/1.1\r\nhost: a\r\naccept-encoding: gzip\r\n\r\n").head();
    assert_eq!(coding(&head), None);
}

#[test]
fn settings_decide_what_is_compressed() {
    let backend = backend();
    let response = "response_direction_config: {common_config: {min_content_length: 1000, content_type: [a/b]}, disable_on_etag_header: true, \
                    remove_accept_encoding_header: true, uncompressible_response_codes: [206]}";
    let proxy = Proxy::start(&compressing(&backend, &format!("{GZIP}, {response}")));
    let ask = |lines: &str| {
        let response = proxy.get_with("/", &format!("accept-encoding: gzip\r\n{lines}"));
        coding(&response).is_some()
    };
    assert!(ask("x-give: content-type: A/B\r\n"));
    assert!(!ask("x-give: content-type: text/plain\r\n"));
    assert!(!ask("x-give: content-type: a/b\r\nx-length: 999\r\n"));
    assert!(!ask("x-give: etag: \"e\"\r\n"));
    assert!(!ask("x-status: 206\r\n"));
    proxy.stat_becomes(&format!("{STATS}.not_compressed_etag"), 1);
    assert!(backend.requests().iter().all(|request| request.header("accept-encoding").is_none()));
}

#[test]
fn what_was_decided_is_told() {
    let backend = backend();
    let response = "response_direction_config: {status_header_enabled: true, disable_on_etag_header: true, uncompressible_response_codes: [206]}";
    let bootstrap = compressing(&backend, &format!("{BROTLI}, {response}")).http_filter(
        "envoy.filters.http.compressor",
        "compressor.v3.Compressor",
        &format!("{{{GZIP}, {response}}}"),
    );
    let proxy = Proxy::start(&bootstrap);
    // Both tell why they do not; the first reason in their order.
    let ask = |lines: &str| {
        let response = proxy.get_with("/", lines);
        let told = response.headers.all("x-envoy-compression-status").join(",");
        (told, coding(&response).map(str::to_owned))
    };
    for (lines, reason) in [
        ("x-length: 2\r\nx-give: content-type: image/png", "ContentLengthTooSmall"),
        ("x-give: content-type: image/png|etag: \"e\"", "ContentTypeNotAllowed"),
        ("x-status: 206\r\nx-give: etag: \"e\"", "EtagNotAllowed"),
        ("x-status: 206", "StatusCodeNotAllowed"),
    ] {
        for accept in ["accept-encoding: gzip\r\n", ""] {
            let told = format!("gzip;{reason},br;{reason}");
            assert_eq!(ask(&format!("{accept}{lines}\r\n")), (told, None), "{lines}");
        }
    }
    let length = text().len();
    for accept in ["gzip", "br"] {
        let told = format!("{accept};Compressed;OriginalLength={length}");
        assert_eq!(ask(&format!("accept-encoding: {accept}\r\n")), (told, Some(accept.to_owned())));
    }
    // What is no affair of the filter's settings is not told.
    for (lines, encoded) in [
        ("x-give: content-encoding: x\r\naccept-encoding: gzip\r\n", Some("x")),
        ("x-give: cache-control: no-transform\r\naccept-encoding: gzip\r\nx-length: 2\r\n", None),
        ("accept-encoding: identity\r\n", None),
        ("x-length: 0\r\naccept-encoding: gzip\r\n", None),
    ] {
        assert_eq!(ask(lines), (String::new(), encoded.map(str::to_owned)), "{lines}");
    }
    proxy.stat_becomes(&format!("{STATS}.response.compressed"), 1);
    proxy.stat_becomes(&format!("{STATS}.response.not_compressed"), 13);
    proxy.stat_becomes(&format!("{STATS}.request.not_compressed"), 14);
    proxy.stat_becomes(&format!("{STATS}.no_accept_header"), 0);
    proxy.stat_becomes(&format!("{STATS}.not_compressed_etag"), 2);
}

#[test]
fn etags_may_become_weak() {
    let backend = backend();
    let proxy = Proxy::start(&compressing(
        &backend,
        &format!("{GZIP}, response_direction_config: {{weaken_etag_on_compress: true}}"),
    ));
    let response = proxy.get_with("/", "accept-encoding: gzip\r\nx-give: etag: \"e\"\r\n");
    assert_eq!((coding(&response), response.header("etag")), (Some("gzip"), Some("W/\"e\"")));
}

#[test]
fn of_several_the_one_that_the_client_likes_best_compresses() {
    let backend = backend();
    let bootstrap = compressing(&backend, BROTLI)
        .http_filter("zstd", "compressor.v3.Compressor", &format!("{{{ZSTD}}}"))
        .http_filter("gzip", "compressor.v3.Compressor", &format!("{{{GZIP}}}"));
    let proxy = Proxy::start(&bootstrap);
    let cases = [
        ("gzip", Some("gzip")),
        ("br", Some("br")),
        ("zstd", Some("zstd")),
        ("gzip, br", Some("gzip")),
        ("gzip;q=0.5, br;q=0.9, zstd;q=0.1", Some("br")),
        ("*", Some("br")),
        ("br;q=0, *", Some("zstd")),
        ("identity, br;q=0.5", None),
        ("deflate", None),
        ("gzip;q=0", None),
    ];
    for (accepted, expected) in cases {
        let response = proxy.get_with("/", &format!("accept-encoding: {accepted}\r\n"));
        assert_eq!(coding(&response), expected, "{accepted}");
        if expected == Some("gzip") {
            assert_eq!(unzipped(&response.body), text());
        }
    }
    proxy.stat_becomes(&format!("{STATS}.header_compressor_used"), 2);
    proxy.stat_becomes(&format!("{STATS}.header_compressor_overshadowed"), 3);
    proxy.stat_becomes(&format!("{STATS}.header_wildcard"), 2);
    proxy.stat_becomes(&format!("{STATS}.header_identity"), 1);
    proxy.stat_becomes(&format!("{STATS}.header_not_valid"), 2);
}

#[test]
fn codings_are_known_whatever_their_case() {
    proxy_tests::only_proxyd!("Envoy knows them in lower case only, against RFC 9110 section 8.4.1");
    let backend = backend();
    let proxy = Proxy::start(&compressing(&backend, GZIP));
    assert_eq!(coding(&proxy.get_with("/", "accept-encoding: GZip\r\n")), Some("gzip"));
}

#[test]
fn of_those_that_the_client_likes_equally_the_one_to_choose_first_compresses() {
    let backend = backend();
    let bootstrap = compressing(&backend, &format!("choose_first: true, {BROTLI}")).http_filter(
        "gzip",
        "compressor.v3.Compressor",
        &format!("{{{GZIP}}}"),
    );
    let proxy = Proxy::start(&bootstrap);
    for (accepted, expected) in
        [("gzip, br", "br"), ("br, gzip", "br"), ("identity, gzip, br", "br"), ("gzip, br;q=0.9", "gzip")]
    {
        let response = proxy.get_with("/", &format!("accept-encoding: {accepted}\r\n"));
        assert_eq!(coding(&response), Some(expected), "{accepted}");
    }
}

#[test]
fn routes_may_do_without() {
    let backend = backend();
    let kind = "'@type': type.googleapis.com/envoy.extensions.filters.http.compressor.v3.CompressorPerRoute";
    let route = |path: &str, config: &str| {
        format!(
            "- {{match: {{path: {path}}}, route: {{cluster: backend}}, typed_per_filter_config: {{envoy.filters.http.compressor: {{{kind}, {config}}}}}}}\n"
        )
    };
    let routes = [
        route("/never", "disabled: true"),
        route("/removed", "overrides: {response_direction_config: {remove_accept_encoding_header: true}}"),
    ];
    let proxy = Proxy::start(&compressing(&backend, GZIP).routes(&routes.concat()));
    let lines = "accept-encoding: gzip\r\n";
    assert_eq!(coding(&proxy.get_with("/never", lines)), None);
    assert_eq!(coding(&proxy.get_with("/removed", lines)), Some("gzip"));
    let seen: Vec<_> =
        backend.requests().iter().map(|request| request.header("accept-encoding").is_some()).collect();
    assert_eq!(seen, [true, false]);
}

#[test]
fn requests_are_compressed_if_asked_for() {
    let backend = backend();
    let proxy = Proxy::start(&compressing(&backend, &format!("{GZIP}, request_direction_config: {{}}")));
    let body = text();
    let length = body.len();
    let response = proxy.connect().ask(format!(
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n{body}"
    ));
    assert_eq!(response.status(), 200);
    let request = backend.request();
    assert_eq!((request.header("content-encoding"), request.header("content-length")), (Some("gzip"), None));
    assert_eq!(unzipped(&request.body), body);
    proxy.stat_becomes(&format!("{STATS}.request.compressed"), 1);
    proxy.stat_becomes(&format!("{STATS}.request.total_uncompressed_bytes"), length as u64);
    let small = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nab";
    assert_eq!(proxy.connect().ask(small).status(), 200);
    assert_eq!(backend.requests()[1].text(), "ab");
    proxy.stat_becomes(&format!("{STATS}.request.not_compressed"), 1);
}

/// Takes off what the library called `name` made.
fn decompressing(backend: &Backend, name: &str) -> Bootstrap {
    decompressing_with(backend.address(), name, "")
}

fn decompressing_with(backend: SocketAddr, name: &str, fields: &str) -> Bootstrap {
    let kind = match name {
        "gzip" => "Gzip",
        "brotli" => "Brotli",
        _ => "Zstd",
    };
    let library = format!("type.googleapis.com/envoy.extensions.compression.{name}.decompressor.v3.{kind}");
    let filter =
        format!("{{decompressor_library: {{name: text, typed_config: {{'@type': {library}}}}}{fields}}}");
    Bootstrap::http(backend).http_filter(
        "envoy.filters.http.decompressor",
        "decompressor.v3.Decompressor",
        &filter,
    )
}

#[test]
fn what_one_proxy_compresses_another_takes_off() {
    for (name, compressor, coding) in
        [("gzip", GZIP, "gzip"), ("brotli", BROTLI, "br"), ("zstd", ZSTD, "zstd")]
    {
        let backend = backend();
        let inner = Proxy::start(&compressing(&backend, compressor));
        let outer = Proxy::start(&decompressing_with(inner.listener("main"), name, ""));
        let response = outer.get("/");
        assert_eq!((response.status(), response.header("content-encoding")), (200, None), "{name}");
        assert!(response.text() == text(), "{name}");
        assert_eq!(backend.request().header("accept-encoding"), Some(coding));
        let stats = format!("http.ingress.decompressor.text.{name}.response");
        outer.stat_becomes(&format!("{stats}.decompressed"), 1);
        outer.stat_becomes(&format!("{stats}.total_uncompressed_bytes"), text().len() as u64);
    }
}

#[test]
fn requests_are_decompressed_and_what_is_not_compressed_passes() {
    let backend = backend();
    let filter = |fields: &str| Proxy::start(&decompressing_with(backend.address(), "gzip", fields));
    let proxy = filter("");
    let compressed = {
        let compressing = Proxy::start(&compressing(&backend, GZIP));
        compressing.get_with("/", "accept-encoding: gzip\r\n").body
    };
    let post = |proxy: &Proxy, lines: &str, body: &[u8]| {
        let mut client = proxy.connect();
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n{lines}\r\n", body.len()));
        assert_eq!(client.ask(body).status(), 200);
        backend.requests().pop().unwrap()
    };
    let request = post(&proxy, "content-encoding: gzip\r\n", &compressed);
    assert_eq!((request.header("content-encoding"), request.text() == text()), (None, true));
    let request = post(&proxy, "content-encoding: gzip\r\ncache-control: no-transform\r\n", &compressed);
    assert_eq!((request.header("content-encoding"), request.body == compressed), (Some("gzip"), true));
    let request = post(&proxy, "content-encoding: br\r\naccept-encoding: br\r\n", b"plain");
    assert_eq!((request.header("content-encoding"), request.text()), (Some("br"), "plain"));
    assert_eq!(request.header("accept-encoding"), Some("br,gzip"));
    let stats = "http.ingress.decompressor.text.gzip.request";
    proxy.stat_becomes(&format!("{stats}.decompressed"), 1);
    proxy.stat_becomes(&format!("{stats}.not_decompressed"), 2);

    let off = filter(
        ", request_direction_config: {common_config: {enabled: {default_value: false, runtime_key: r}}, advertise_accept_encoding: false}",
    );
    let request = post(&off, "content-encoding: gzip\r\n", &compressed);
    assert_eq!((request.header("content-encoding"), request.header("accept-encoding")), (Some("gzip"), None));
}

#[test]
fn codings_and_what_is_accepted_may_stand_in_several_lines() {
    let backend = backend();
    let proxy = Proxy::start(&decompressing(&backend, "gzip"));
    let zipped = zipped(b"inside");
    let head = format!(
        "POST / HTTP/1.1\r\nhost: a\r\naccept-encoding: br\r\naccept-encoding: zstd\r\ncontent-encoding: gzip\r\n\
         content-encoding: br\r\ncontent-length: {}\r\n\r\n",
        zipped.len()
    );
    assert_eq!(proxy.connect().ask([head.as_bytes(), &zipped[..]].concat()).status(), 200);
    let request = backend.request();
    assert_eq!(request.text(), "inside");
    assert_eq!(request.headers.all("content-encoding"), ["br"]);
    assert_eq!(request.headers.all("accept-encoding"), ["br,zstd,gzip"]);
}

/// `text` as the library called `name` has it.
fn compressed(name: &str, text: &[u8]) -> Vec<u8> {
    let compressor = match name {
        "gzip" => GZIP,
        "brotli" => BROTLI,
        _ => ZSTD,
    };
    let backend = Backend::answering(
        [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len()).as_bytes(), text].concat(),
    );
    let proxy = Proxy::start(&compressing(&backend, compressor));
    proxy.get_with("/", "accept-encoding: gzip, br, zstd\r\n").body
}

#[test]
fn half_of_a_message_does_not_look_whole() {
    proxy_tests::only_proxyd!("Envoy forwards what there is, as if it were all");
    for (name, coding) in [("gzip", "gzip"), ("brotli", "br"), ("zstd", "zstd")] {
        let whole = compressed(name, text().as_bytes());
        for length in [1, 5, whole.len() / 2, whole.len() - 1] {
            let half = whole[..length].to_vec();
            let message = |head: &str, half: &[u8]| {
                let head =
                    format!("{head}\r\ncontent-encoding: {coding}\r\ncontent-length: {length}\r\n\r\n");
                [head.as_bytes(), half].concat()
            };
            let backend = Backend::answering(message("HTTP/1.1 200 OK", &half));
            let proxy = Proxy::start(&decompressing(&backend, name));
            let refused = proxy.connect().ask(message("POST / HTTP/1.1\r\nhost: a", &half));
            assert_eq!(refused.status(), 400, "{name} {length}");
            // The head of the response is out when its body turns out to be less than it should be.
            let mut client = proxy.connect();
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            assert!(client.try_response().is_err(), "{name} {length}");
        }
    }
}

#[test]
fn nothing_at_all_is_not_half_of_a_message() {
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    );
    let proxy = Proxy::start(&decompressing(&backend, "gzip"));
    let request =
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let response = proxy.connect().ask(request);
    assert_eq!((response.status(), response.text()), (200, ""));
}

#[test]
fn nonsense_is_a_broken_request() {
    proxy_tests::only_proxyd!("Envoy forwards what came before the fault, as if it were all");
    let backend = backend();
    let proxy = Proxy::start(&decompressing(&backend, "gzip"));
    let request = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\ncontent-encoding: gzip\r\n\r\nnonsense";
    assert_eq!(proxy.connect().ask(request).status(), 400);
}
