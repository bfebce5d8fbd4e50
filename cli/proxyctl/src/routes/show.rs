//! Explanations for people and for programs.

use std::sync::Arc;
use std::time::Duration;

use proxy_config::settings::Cluster;
use proxy_http::explain::{Answer, Chosen, Explanation, Forwarding, Outcome, Passed};
use serde_json::{Value, json};

pub(super) struct Shown<'a> {
    pub(super) told: &'a Explanation,
    pub(super) listener: &'a str,
    pub(super) filter_chain: &'a str,
    pub(super) route_config: &'a str,
    pub(super) clusters: &'a [Arc<Cluster>],
}

impl Shown<'_> {
    pub(super) fn lines(&self) -> Vec<String> {
        let told = self.told;
        let mut lines = vec![format!(
            "listener {}, filter chain {}, route configuration {:?}",
            self.listener, self.filter_chain, self.route_config
        )];
        lines.push(format!("host {}, path {}", told.host, told.path));
        if let Some(host) = &told.virtual_host {
            lines.push(format!("virtual host {}: domain `{}`", place("virtual_hosts", host), host.by));
        }
        passed("virtual_hosts", &told.other_hosts, MAX_HOSTS, &mut lines);
        if let Some(route) = &told.route {
            lines.push(format!("route {}: {}", place("routes", route), route.by));
        }
        passed("routes", &told.passed, usize::MAX, &mut lines);
        if !told.filters.is_empty() {
            let mark = |disabled| if disabled { " (disabled)" } else { "" };
            let filters = told
                .filters
                .iter()
                .map(|filter| format!("{} {}{}", filter.place, filter.name, mark(filter.disabled)));
            lines.push(format!("through {}", filters.collect::<Vec<_>>().join(", ")));
        }
        match &told.outcome {
            Outcome::Answered(answer) => answered(answer, &mut lines),
            Outcome::Forwarded(forwarding) => self.forwarded(forwarding, &mut lines),
        }
        lines
    }

    fn forwarded(&self, forwarding: &Forwarding, lines: &mut Vec<String>) {
        let told = self.told;
        let unknown = match (forwarding.cluster.as_str(), self.is_known(&forwarding.cluster)) {
            (_, true) => String::new(),
            ("", false) => format!(", which names none: {}", forwarding.not_found_status),
            (_, false) => format!(", which does not exist: {}", forwarding.not_found_status),
        };
        lines.push(format!("to cluster `{}`{unknown}", forwarding.cluster));
        let mut line = |text: String| lines.push(format!("  {text}"));
        if let Some(by) = &forwarding.chosen_by {
            line(format!("by {by}"));
        }
        if forwarding.host != told.host {
            line(format!("host {} becomes {}", told.host, forwarding.host));
        }
        if forwarding.host_of_endpoint {
            line(format!("host {} becomes the name of the endpoint, if it has one", forwarding.host));
        }
        if forwarding.path != told.path {
            line(format!("path {} becomes {}", told.path, forwarding.path));
        }
        forwarding.removed.iter().for_each(|(name, value)| line(format!("- {name}: {value}")));
        forwarding.added.iter().for_each(|(name, value)| line(format!("+ {name}: {value}")));
        let limits = [
            ("timeout", forwarding.timeout),
            ("idle timeout", forwarding.idle_timeout),
            ("stream duration", forwarding.max_stream_duration),
        ];
        let limits =
            limits.map(|(name, limit)| format!("{name} {}", limit.map_or("none".to_owned(), seconds)));
        line(limits.join(", "));
        if !forwarding.response_added.is_empty() || !forwarding.response_removed.is_empty() {
            line("response".to_owned());
            forwarding.response_removed.iter().for_each(|name| line(format!("  - {name}")));
            forwarding.response_added.iter().for_each(|(name, value)| line(format!("  + {name}: {value}")));
        }
    }

    fn is_known(&self, cluster: &str) -> bool {
        self.clusters.iter().any(|known| *known.name == *cluster)
    }

    pub(super) fn json(&self) -> Value {
        let told = self.told;
        let filters =
            told.filters.iter().map(|f| json!({"name": f.name, "place": f.place, "disabled": f.disabled}));
        let outcome = match &told.outcome {
            Outcome::Answered(answer) => json!({"answer": {
                "status": answer.status,
                "why": answer.why,
                "headers": headers(&answer.headers),
                "body_bytes": answer.body,
            }}),
            Outcome::Forwarded(forwarding) => json!({"forward": self.forwarding_json(forwarding)}),
        };
        let mut value = json!({
            "listener": self.listener,
            "filter_chain": self.filter_chain,
            "route_config": self.route_config,
            "host": told.host,
            "path": told.path,
            "virtual_host": told.virtual_host.as_ref().map(|host| chosen(host, "domain")),
            "other_virtual_hosts": told.other_hosts.iter().map(why).collect::<Value>(),
            "route": told.route.as_ref().map(|route| chosen(route, "match")),
            "routes_before": told.passed.iter().map(why).collect::<Value>(),
            "http_filters": filters.collect::<Value>(),
        });
        if let (Value::Object(value), Value::Object(outcome)) = (&mut value, outcome) {
            value.extend(outcome);
        }
        value
    }

    fn forwarding_json(&self, forwarding: &Forwarding) -> Value {
        json!({
            "cluster": forwarding.cluster,
            "cluster_exists": self.is_known(&forwarding.cluster),
            "cluster_not_found_response_code": forwarding.not_found_status,
            "chosen_by": forwarding.chosen_by,
            "method": forwarding.method,
            "host": forwarding.host,
            "auto_host_rewrite": forwarding.host_of_endpoint,
            "path": forwarding.path,
            "headers_added": headers(&forwarding.added),
            "headers_removed": headers(&forwarding.removed),
            "response_headers_added": headers(&forwarding.response_added),
            "response_headers_removed": forwarding.response_removed,
            "timeout": forwarding.timeout.map(seconds),
            "idle_timeout": forwarding.idle_timeout.map(seconds),
            "max_stream_duration": forwarding.max_stream_duration.map(seconds),
        })
    }
}

fn answered(answer: &Answer, lines: &mut Vec<String>) {
    lines.push(format!("answered with {}: {}", answer.status, answer.why));
    lines.extend(answer.headers.iter().map(|(name, value)| format!("  {name}: {value}")));
    if answer.body > 0 {
        lines.push(format!("  and {} bytes of body", answer.body));
    }
}

fn passed(list: &str, passed: &[Passed], limit: usize, lines: &mut Vec<String>) {
    for one in passed.iter().take(limit) {
        let name = if one.name.is_empty() { String::new() } else { format!(" `{}`", one.name) };
        lines.push(format!("  not {list}[{}]{name}: {}", one.index, one.why));
    }
    if passed.len() > limit {
        lines.push(format!("  nor {} more of {list}", passed.len() - limit));
    }
}

fn place(list: &str, chosen: &Chosen) -> String {
    let place = format!("{list}[{}]", chosen.index);
    if chosen.name.is_empty() { place } else { format!("{place} `{}`", chosen.name) }
}

fn chosen(chosen: &Chosen, by: &str) -> Value {
    json!({"index": chosen.index, "name": chosen.name, by: chosen.by})
}

fn why(passed: &Passed) -> Value {
    json!({"index": passed.index, "name": passed.name, "why": passed.why})
}

fn headers(lines: &[(String, String)]) -> Value {
    lines.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs_f64())
}

/// More virtual hosts that do not fit are only counted.
const MAX_HOSTS: usize = 20;
