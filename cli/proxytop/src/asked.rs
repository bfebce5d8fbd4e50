//! What only the proxy itself can tell: hosts, routes, names. Read from the answers of its admin handlers, which are Envoy's.

use std::path::PathBuf;

use proxy_control::answers::address;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The newest answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// When, in milliseconds since 1970; 0: not yet.
    pub(crate) at_ms: u64,
    /// Why there is no answer.
    pub(crate) trouble: Option<String>,
    pub(crate) version: String,
    pub(crate) hosts: Vec<Host>,
    pub(crate) routes: Vec<Route>,
    pub(crate) log_files: Vec<PathBuf>,
}

/// What is to be asked for, because it is on the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) hosts: bool,
    pub(crate) configuration: bool,
    /// Lines of the access log.
    pub(crate) log: bool,
    pub(crate) version: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Host {
    pub(crate) cluster: String,
    pub(crate) address: String,
    /// `healthy`, or the first reason why not.
    pub(crate) health: String,
    pub(crate) connections: u64,
    pub(crate) active: u64,
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    pub(crate) timeouts: u64,
    pub(crate) connect_failures: u64,
    pub(crate) weight: u64,
    pub(crate) zone: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Route {
    pub(crate) place: String,
    pub(crate) domains: String,
    pub(crate) matched: String,
    pub(crate) action: String,
    pub(crate) timeout: String,
}

/// The version in `/server_info`.
pub(crate) fn version(info: &Value) -> String {
    let version = info["version"].as_str().unwrap_or_default();
    let mut parts = version.split('/');
    match (parts.next(), parts.next()) {
        (Some("proxyd"), Some(number)) => format!("proxyd {number}"),
        (Some(_), Some(number)) => format!("Envoy {number}"),
        _ => version.to_owned(),
    }
}

/// The hosts in `/clusters?format=json`.
pub(crate) fn hosts(clusters: &Value) -> Vec<Host> {
    let mut hosts = Vec::new();
    for cluster in list(&clusters["cluster_statuses"]) {
        let name = text(&cluster["name"]);
        for host in list(&cluster["host_statuses"]) {
            let stat = |name: &str| {
                let found = list(&host["stats"]).find(|stat| stat["name"] == name);
                found.and_then(|stat| stat["value"].as_str()?.parse().ok()).unwrap_or(0)
            };
            let locality = &host["locality"];
            let zone = ["region", "zone", "sub_zone"].map(|part| text(&locality[part]));
            hosts.push(Host {
                cluster: name.clone(),
                address: address(&host["address"]),
                health: health(&host["health_status"]).to_owned(),
                connections: stat("cx_active"),
                active: stat("rq_active"),
                requests: stat("rq_total"),
                errors: stat("rq_error"),
                timeouts: stat("rq_timeout"),
                connect_failures: stat("cx_connect_fail"),
                weight: host["weight"].as_u64().unwrap_or(0),
                zone: zone.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/"),
            });
        }
    }
    hosts
}

fn health(status: &Value) -> &'static str {
    let is = |name: &str| status[name].as_bool().unwrap_or(false);
    if is("failed_active_health_check") {
        return "failed";
    }
    if is("failed_outlier_check") {
        return "ejected";
    }
    match status["eds_health_status"].as_str() {
        _ if is("failed_active_degraded_check") => "degraded",
        Some("DEGRADED") => "degraded",
        Some("UNHEALTHY") => "unhealthy",
        Some("DRAINING") => "draining",
        Some("TIMEOUT") => "timeout",
        _ => "healthy",
    }
}

/// The route configurations in `/config_dump`, static and dynamic.
pub(crate) fn routes(dump: &Value) -> Vec<Route> {
    let mut routes = Vec::new();
    let dumps = list(&dump["configs"]).filter(|config| is_of(config, "RoutesConfigDump"));
    for config in dumps {
        for group in ["static_route_configs", "dynamic_route_configs"] {
            for entry in list(&config[group]) {
                add_routes(&entry["route_config"], &mut routes);
            }
        }
    }
    routes
}

fn add_routes(configuration: &Value, routes: &mut Vec<Route>) {
    let name = text(&configuration["name"]);
    for host in list(&configuration["virtual_hosts"]) {
        let domains: Vec<_> = list(&host["domains"]).map(text).collect();
        for route in list(&host["routes"]) {
            if routes.len() >= MOST_ROUTES {
                return;
            }
            routes.push(Route {
                place: format!("{name}/{}", text(&host["name"])),
                domains: domains.join(" "),
                matched: matched(&route["match"]),
                action: action(route),
                timeout: text(&route["route"]["timeout"]),
            });
        }
    }
}

fn matched(rule: &Value) -> String {
    let kinds = [
        ("prefix", "prefix "),
        ("path", "path "),
        ("path_separated_prefix", "path prefix "),
        ("connect_matcher", "CONNECT "),
    ];
    let found = kinds.iter().find(|(field, _)| !rule[field].is_null());
    let mut said = match found {
        Some((field, word)) => format!("{word}{}", text(&rule[field])).trim_end().to_owned(),
        None if !rule["safe_regex"].is_null() => format!("regex {}", text(&rule["safe_regex"]["regex"])),
        None => "other".to_owned(),
    };
    for (field, word) in [("headers", "header"), ("query_parameters", "parameter")] {
        for condition in list(&rule[field]) {
            said.push_str(&format!(", {word} {}", text(&condition["name"])));
        }
    }
    said
}

fn action(route: &Value) -> String {
    let target = &route["route"];
    if !target["cluster"].is_null() {
        return text(&target["cluster"]);
    }
    if !target["cluster_header"].is_null() {
        return format!("cluster in header {}", text(&target["cluster_header"]));
    }
    if !target["weighted_clusters"].is_null() {
        let clusters = list(&target["weighted_clusters"]["clusters"]);
        let weights: Vec<_> =
            clusters.map(|cluster| format!("{} {}", text(&cluster["name"]), cluster["weight"])).collect();
        return weights.join(", ");
    }
    if !route["direct_response"].is_null() {
        return format!("answer {}", route["direct_response"]["status"]);
    }
    if let Some(redirect) = route["redirect"].as_object() {
        let parts = redirect.iter().filter(|(_, value)| value.is_string()).map(|(name, value)| {
            format!("{} {}", name.trim_end_matches("_redirect").trim_end_matches("_rewrite"), text(value))
        });
        return format!("redirect {}", parts.collect::<Vec<_>>().join(" "));
    }
    "other".to_owned()
}

/// Files of access logs in `/config_dump`.
pub(crate) fn log_files(dump: &Value) -> Vec<PathBuf> {
    let mut files = Vec::new();
    find_files(dump, 0, &mut files);
    files
}

fn find_files(value: &Value, depth: usize, files: &mut Vec<PathBuf>) {
    if depth > MOST_DEPTH || files.len() >= MOST_FILES {
        return;
    }
    match value {
        Value::Object(fields) => {
            if is_of(value, "FileAccessLog")
                && let Some(path) = value["path"].as_str().map(PathBuf::from)
                && !files.contains(&path)
            {
                files.push(path);
            }
            fields.values().for_each(|field| find_files(field, depth + 1, files));
        }
        Value::Array(items) => items.iter().for_each(|item| find_files(item, depth + 1, files)),
        _ => {}
    }
}

fn is_of(value: &Value, message: &str) -> bool {
    value["@type"].as_str().is_some_and(|kind| kind.rsplit('.').next() == Some(message))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

const MOST_ROUTES: usize = 100_000;
const MOST_FILES: usize = 64;
const MOST_DEPTH: usize = 64;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hosts_are_read_with_their_health() {
        let socket = json!({ "socket_address": { "address": "::1", "port_value": 80 } });
        let clusters = json!({ "cluster_statuses": [{ "name": "a", "host_statuses": [
            { "address": socket, "stats": [{ "name": "rq_total", "value": "7" }, { "name": "cx_active" }],
              "health_status": { "eds_health_status": "HEALTHY" }, "weight": 2,
              "locality": { "region": "eu", "zone": "1" } },
            { "address": { "pipe": { "path": "/run/x" } },
              "health_status": { "failed_active_health_check": true } },
        ] }] });
        let hosts = hosts(&clusters);
        assert_eq!((&*hosts[0].address, hosts[0].requests, &*hosts[0].zone), ("[::1]:80", 7, "eu/1"));
        assert_eq!((&*hosts[1].address, &*hosts[1].health), ("/run/x", "failed"));
    }

    #[test]
    fn routes_say_what_they_match_and_do() {
        let dump = json!({ "configs": [{ "@type": "t/envoy.admin.v3.RoutesConfigDump", "static_route_configs": [
            { "route_config": { "name": "r", "virtual_hosts": [{ "name": "v", "domains": ["a", "b"], "routes": [
                { "match": { "prefix": "/x", "headers": [{ "name": "h" }] }, "route": { "cluster": "c", "timeout": "3s" } },
                { "match": { "safe_regex": { "regex": "/y.*" } }, "direct_response": { "status": 404 } },
                { "match": { "path": "/z" }, "redirect": { "path_redirect": "/q" } },
            ] }] } }] }] });
        let said: Vec<_> =
            routes(&dump).into_iter().map(|route| format!("{} -> {}", route.matched, route.action)).collect();
        assert_eq!(
            said,
            ["prefix /x, header h -> c", "regex /y.* -> answer 404", "path /z -> redirect path /q"]
        );
        assert_eq!(routes(&dump)[0].place, "r/v");
    }

    #[test]
    fn log_files_are_found_wherever_they_are() {
        let log = json!({ "@type": "t/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": "/a" });
        assert_eq!(log_files(&json!([{ "x": { "typed_config": log } }, log])), [PathBuf::from("/a")]);
        assert!(log_files(&Value::Null).is_empty());
        assert_eq!(routes(&json!({ "configs": 3 })), []);
    }
}
