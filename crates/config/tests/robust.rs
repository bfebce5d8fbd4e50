//! Nothing that a file or a peer holds may panic or hang.

use std::fs;

use proptest::prelude::*;
use proxy_config::{Findings, LoadInputs, LoadOptions, Locator, check_message, load_bootstrap, redacted};

#[allow(clippy::unwrap_used)]
fn load_text(suffix: &str, bytes: &[u8]) {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join(format!("a.{suffix}"));
    fs::write(&path, bytes).unwrap();
    let inputs = LoadInputs { file: Some(path), yaml_override: None, options: LoadOptions::default() };
    load_bootstrap(&inputs).findings.into_vec();
}

/// Text made of what YAML and JSON are made of, and of names that lead into the message.
fn document() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ": ",
        ",",
        "- ",
        "\n",
        "\n  ",
        "\n    ",
        " ",
        "\t",
        "\"",
        "'",
        "&a ",
        "*a",
        "<<: ",
        "!ignore ",
        "!!str ",
        "|",
        "|\n ",
        ">-\n ",
        "? ",
        "#",
        "---\n",
        "...\n",
        "%YAML 1.2\n",
        "\\u",
        "\\ud800",
        "1",
        "-5",
        "0x",
        "1e9",
        "1s",
        "null",
        "~",
        "yes",
        "\u{e9}",
        "\u{feff}",
        "static_resources",
        "clusters",
        "name",
        "node",
        "metadata",
        "admin",
        "typed_config",
        "@type",
        "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "value",
        "google.protobuf.Struct",
        "xds.type.v3.TypedStruct",
        "type_url",
        "layered_runtime",
        "layers",
        "static_layer",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn documents_never_panic(text in document()) {
        load_text("yaml", text.as_bytes());
        load_text("json", text.as_bytes());
    }

    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        load_text("yaml", &bytes);
        load_text("json", &bytes);
        load_text("pb", &bytes);
        for name in ["envoy.config.listener.v3.Listener", "google.protobuf.Any", "google.protobuf.Timestamp",
                     "google.protobuf.Value", "google.protobuf.Duration"] {
            check_message(name, &bytes, &LoadOptions::default(), &mut Findings::new(Locator::default()));
            redacted(name, &bytes);
        }
    }
}

#[test]
fn binary_messages_nested_without_end_are_refused() {
    // google.protobuf.Value { list_value { values { ... } } }
    let mut bytes = Vec::new();
    for _ in 0..10_000 {
        for key in [0x0a, 0x32] {
            let mut outer = vec![key];
            prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
            outer.extend_from_slice(&bytes);
            bytes = outer;
        }
        if bytes.len() > 100_000 {
            break;
        }
    }
    redacted("google.protobuf.Value", &bytes);
    // An Any in an Any in an Any ...
    let mut any: Vec<u8> = Vec::new();
    for _ in 0..2000 {
        let url = b"a/google.protobuf.Any";
        let mut outer = vec![0x0a, url.len() as u8];
        outer.extend_from_slice(url);
        outer.push(0x12);
        prost::encoding::encode_varint(any.len() as u64, &mut outer);
        outer.extend_from_slice(&any);
        any = outer;
    }
    redacted("google.protobuf.Any", &any);
    let mut findings = Findings::default();
    check_message("google.protobuf.Any", &any, &LoadOptions::default(), &mut findings);
    assert!(findings.has_errors());
}
