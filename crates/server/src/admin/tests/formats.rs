//! Answers against files that Envoy 1.40 wrote for the same state.

use super::serving::{Answered, with_admin};

fn get(target: &'static str) -> Answered {
    with_admin(async move |admin| admin.get(target).await)
}

fn post(target: &'static str) -> Answered {
    with_admin(async move |admin| admin.request("POST", target, "host: 127.0.0.1\r\n").await)
}

fn assert_same(answered: &Answered, content_type: &str, golden: &str) {
    assert_eq!(answered.status, 200);
    assert_eq!(answered.header("content-type"), content_type);
    assert_eq!(answered.body, golden);
}

const TEXT: &str = "text/plain; charset=UTF-8";
const JSON: &str = "application/json";

#[test]
fn clusters() {
    assert_same(&get("/clusters"), TEXT, include_str!("../golden/clusters.txt"));
    assert_same(&get("/clusters?format=json"), JSON, include_str!("../golden/clusters.json"));
    assert_same(&get("/clusters?filter=none"), TEXT, "");
    assert_same(&get("/clusters?filter=none&format=json"), JSON, "{}\n");
    assert!(get("/clusters?filter=w").body.starts_with("two::observability_name::alt\n"));
    let bad = get("/clusters?filter=%5B");
    assert_eq!((bad.status, bad.body.as_str()), (400, "Invalid re2 regex"));
}

#[test]
fn listeners() {
    assert_same(&get("/listeners"), TEXT, include_str!("../golden/listeners.txt"));
    assert_same(&get("/listeners?format=json"), JSON, include_str!("../golden/listeners.json"));
}

#[test]
fn server_info() {
    let golden = include_str!("../golden/server_info.json").replace("VERSION", env!("CARGO_PKG_VERSION"));
    let golden = if cfg!(debug_assertions) { golden } else { golden.replace("DEBUG", "RELEASE") };
    assert_same(&get("/server_info"), JSON, &golden);
}

#[test]
fn memory() {
    assert_same(&get("/memory"), JSON, include_str!("../golden/memory.json"));
}

#[test]
fn config_dump() {
    assert_same(&get("/config_dump"), JSON, include_str!("../golden/config_dump.json"));
    let one = r#"{
 "configs": [
  {
   "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.StaticCluster",
   "cluster": {
    "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    "name": "one"
   }
  }
 ]
}
"#;
    assert_same(&get("/config_dump?resource=static_clusters&mask=cluster.name&name_regex=on."), JSON, one);
    assert_same(&get("/config_dump?resource=static_clusters&name_regex=on"), JSON, "{}\n");
    assert_same(&get("/config_dump?resource=dynamic_listeners"), JSON, "{}\n");
    let masked = get("/config_dump?mask=bootstrap.node.id").body;
    assert!(masked.contains("\"id\": \"test-id\"") && !masked.contains("last_updated"), "{masked}");
    for (target, status, text) in [
        ("/config_dump?resource=nope", 404, "nope not found in config dump"),
        (
            "/config_dump?resource=bootstrap",
            400,
            "bootstrap is not a repeated field. Use ?mask=bootstrap to get only this field",
        ),
        ("/config_dump?mask=nope", 400, "FieldMask nope could not be successfully applied to any configs."),
    ] {
        let answered = get(target);
        assert_eq!((answered.status, answered.body.as_str()), (status, text), "{target}");
    }
}

#[test]
fn logging() {
    let shown = post("/logging").body;
    assert!(shown.starts_with("active loggers:\n  admin: info\n  config: info\n"), "{shown}");
    assert!(shown.contains("\n  dns: debug\n") && shown.ends_with("\n  upstream: info\n\n"), "{shown}");
    assert!(post("/logging?level=off").body.contains("\n  dns: off\n"));
    assert!(post("/logging?paths=dns:trace,http:warning").body.contains("\n  dns: trace\n"));
    assert!(post("/logging?dns=error").body.contains("\n  dns: error\n"));
    for (target, error) in [
        ("/logging?level=loud", "unknown logger level"),
        ("/logging?foo=bar", "unknown logger level"),
        ("/logging?foo=info", "unknown logger name"),
        ("/logging?paths=dns", "empty logger name or empty logger level"),
        ("/logging?paths=dns:off,foo:debug", "unknown logger name"),
        ("/logging?level=info&foo=bar", "invalid number of parameters"),
        ("/logging?group=dns:debug", "group parameter requires fine-grain logging to be enabled"),
    ] {
        let answered = post(target);
        assert_eq!(answered.status, 400);
        assert!(
            answered.body.starts_with(&format!("error: {error}\n\nusage: /logging?<name>=<level> (")),
            "{target}"
        );
        assert!(
            answered
                .body
                .contains("\nlevels: trace debug info warning error critical off \nactive loggers:\n")
        );
        assert!(answered.body.contains("\n  dns: debug\n"), "nothing changed: {target}");
    }
}

#[test]
fn help_and_unknown_paths() {
    let help = get("/help");
    assert_same(&help, TEXT, include_str!("../golden/help.txt"));
    let unknown = get("/nope");
    assert_eq!((unknown.status, unknown.body), (404, format!("invalid path. {}", help.body)));
}

#[test]
fn the_home_page_lists_every_command_and_runs_nothing() {
    let page = get("/");
    assert_eq!(page.header("content-type"), "text/html; charset=UTF-8");
    assert!(page.body.contains("<form action='healthcheck/fail' method='post'>"), "{}", page.body);
    assert!(page.body.contains("&lt;") == page.body.contains("&gt;") && !page.body.contains("<script"));
}
