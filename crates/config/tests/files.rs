//! Files: formats by suffix, the override merged over them, and what cannot be read.

use std::fs;
use std::path::PathBuf;

use prost::Message;
use proxy_config::{Code, LoadInputs, LoadOptions, ValidateOptions, load_bootstrap, validate};
use tempfile::TempDir;

fn lenient() -> LoadOptions {
    LoadOptions { allow_unsupported: true, ..LoadOptions::default() }
}

#[allow(clippy::unwrap_used)]
fn write(dir: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, content).unwrap();
    path
}

fn load(file: Option<PathBuf>, yaml_override: Option<&str>) -> proxy_config::Loaded {
    load_bootstrap(&LoadInputs { file, yaml_override: yaml_override.map(str::to_owned), options: lenient() })
}

#[test]
fn yaml_json_and_binary_say_the_same() {
    let dir = TempDir::new().unwrap();
    let yaml = write(
        &dir,
        "a.YAML",
        "node: {id: \u{e4}\u{1f600}, metadata: {a: [1, x]}}\nstats_flush_interval: 1.5s\n",
    );
    let json = write(
        &dir,
        "a.json",
        "{\t\"node\": {\"id\": \"\\u00e4\\ud83d\\ude00\",\r\n \"metadata\": {\"a\": [1, \"x\"]}}, \"statsFlushInterval\": \"1.5s\"}",
    );
    let from_yaml = load(Some(yaml), None);
    let from_json = load(Some(json), None);
    assert!(!from_yaml.findings.has_errors() && !from_json.findings.has_errors());
    assert_eq!(from_yaml.bootstrap, from_json.bootstrap);
    let binary = write(&dir, "a.pb", from_yaml.bootstrap.encode_to_vec());
    let from_binary = load(Some(binary), None);
    assert!(!from_binary.findings.has_errors());
    assert_eq!(from_yaml.bootstrap, from_binary.bootstrap);
}

#[test]
fn the_override_merges_as_protobuf_does() {
    let dir = TempDir::new().unwrap();
    let file =
        write(&dir, "a.yaml", "node: {id: a, cluster: b}\nstatic_resources:\n  clusters:\n  - {name: one}\n");
    let loaded = load(Some(file), Some("node: {id: z}\nstatic_resources: {clusters: [{name: two}]}"));
    assert!(!loaded.findings.has_errors());
    let node = loaded.bootstrap.node.unwrap();
    assert_eq!((node.id.as_str(), node.cluster.as_str()), ("z", "b"));
    let clusters = loaded.bootstrap.static_resources.unwrap().clusters;
    assert_eq!(clusters.iter().map(|cluster| cluster.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
}

#[test]
fn findings_of_merged_sources_point_into_the_right_one() {
    let dir = TempDir::new().unwrap();
    let file = write(&dir, "a.yaml", "static_resources:\n  clusters:\n  - {name: one}\n  - {name: ''}\n");
    let loaded = load(Some(file.clone()), Some("static_resources: {clusters: [{name: two}, {name: ''}]}"));
    let found: Vec<_> =
        loaded.findings.into_vec().into_iter().filter(|finding| finding.code == Code::RULE).collect();
    let places: Vec<_> = found.iter().map(|finding| finding.place.as_ref().unwrap().to_string()).collect();
    assert_eq!(places, ["--config-yaml:1:51".to_owned(), format!("{}:4:12", file.display())]);
    assert_eq!(found[0].path, "static_resources.clusters[3].name");
}

#[test]
fn json_errors_have_line_and_column() {
    let dir = TempDir::new().unwrap();
    for (text, place) in [
        ("{\n  \"node\": {,}}", "2:12"),
        ("{\"node\": {}}\nx", "2:1"),
        ("{\"\u{e4}\": tru}", "1:7"),
        ("{\"a\": \"\\x\"}", "1:8"),
        ("{\"a\": \"\\ud800\"}", "1:8"),
        ("{\"a\": 01}", "1:7"),
        ("{\"a\"", "1:5"),
        ("{\"a\": \"", "1:8"),
    ] {
        let path = write(&dir, "a.json", text);
        let found = load(Some(path), None).findings.into_vec();
        let at = found[0].place.as_ref().unwrap();
        assert_eq!(
            (found[0].code, format!("{}:{}", at.line, at.column).as_str()),
            (Code::SYNTAX, place),
            "{text}"
        );
    }
}

#[test]
fn rules_hold_for_binary_messages_too() {
    let dir = TempDir::new().unwrap();
    let mut loaded = load(None, Some("static_resources: {clusters: [{name: a}]}"));
    loaded.bootstrap.static_resources.as_mut().unwrap().clusters[0].name.clear();
    let path = write(&dir, "a.pb", loaded.bootstrap.encode_to_vec());
    let found = load(Some(path), None).findings.into_vec();
    let rule = found.iter().find(|finding| finding.code == Code::RULE).unwrap();
    assert_eq!((rule.path.as_str(), rule.place.as_ref()), ("static_resources.clusters[0].name", None));
    let path = write(&dir, "b.pb", b"\xff\xff\xff");
    assert_eq!(load(Some(path), None).findings.into_vec()[0].code, Code::SYNTAX);
    // A field that the message type does not have.
    let path = write(&dir, "c.pb", b"\xf8\x7f\x01");
    assert_eq!(load(Some(path), None).findings.into_vec()[0].code, Code::UNKNOWN_FIELD);
}

#[test]
fn reports_say_which_files_cannot_be_read() {
    let dir = TempDir::new().unwrap();
    let good = write(&dir, "good.yaml", "{}");
    let bad = write(&dir, "bad.yaml", b"a: \n \xff");
    let text = write(&dir, "a.pb_text", "");
    let options = ValidateOptions { load: lenient(), no_files: false };
    let files = [good, bad, text, dir.path().join("none.yaml"), dir.path().to_owned()];
    let reports = validate(&files, &options);
    let unreadable: Vec<bool> = reports.iter().map(|report| report.unreadable).collect();
    assert_eq!(unreadable, [false, false, true, true, true]);
    let errors: Vec<bool> = reports.iter().map(|report| report.has_errors()).collect();
    assert_eq!(errors, [false, true, true, true, true]);
    let place = reports[1].findings[0].place.as_ref().unwrap();
    assert_eq!((place.line, place.column), (2, 2));
}
