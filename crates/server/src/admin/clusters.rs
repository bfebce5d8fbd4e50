//! `/clusters`: hosts, their stats and health, circuit breakers.

use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use proxy_config::settings::{CircuitBreaker, EndpointHealth};
use regex::Regex;
use serde_json::{Map, Value, json};

use super::address;
use super::answer::{Answer, JsonList, PIECE_BYTES, Pieces};
use super::query::Query;
use super::routes::Context;
use super::state::{AdminState, ClusterStatus, HostStatus};
use super::stats::pattern;

pub(super) fn clusters(context: &Context, query: &Query) -> Answer {
    let filter = match query.value("filter").map(pattern).transpose() {
        Ok(filter) => filter,
        Err(_) => return Answer::error(StatusCode::BAD_REQUEST, "Invalid re2 regex"),
    };
    let left = Left { state: Rc::clone(&context.state), names: context.state.clusters().into_iter(), filter };
    if query.value("format") == Some("json") {
        Answer::json_pieces(Json { left, list: JsonList { field: "cluster_statuses", written: 0 } })
    } else {
        Answer::text_pieces(Text { left })
    }
}

/// Clusters still to be shown; each is looked up when its turn comes.
struct Left {
    state: Rc<dyn AdminState>,
    names: std::vec::IntoIter<Arc<str>>,
    filter: Option<Regex>,
}

impl Iterator for Left {
    type Item = ClusterStatus;

    fn next(&mut self) -> Option<ClusterStatus> {
        let wanted = |name: &Arc<str>| self.filter.as_ref().is_none_or(|filter| filter.is_match(name));
        self.names.by_ref().filter(wanted).find_map(|name| self.state.cluster(&name))
    }
}

struct Text {
    left: Left,
}

impl Pieces for Text {
    fn next_piece(&mut self, piece: &mut Vec<u8>) -> bool {
        while piece.len() < PIECE_BYTES {
            let Some(cluster) = self.left.next() else { return false };
            let mut lines = String::new();
            // Writing to a string cannot fail.
            let _ = cluster_lines(&mut lines, &cluster);
            piece.extend_from_slice(lines.as_bytes());
        }
        true
    }
}

fn cluster_lines(lines: &mut String, cluster: &ClusterStatus) -> std::fmt::Result {
    let name = &*cluster.name;
    writeln!(lines, "{name}::observability_name::{}", observability_name(cluster))?;
    for (priority, limits) in ["default", "high"].into_iter().zip(&cluster.circuit_breakers) {
        for (what, limit) in thresholds(limits) {
            writeln!(lines, "{name}::{priority}_priority::{what}::{limit}")?;
        }
    }
    writeln!(lines, "{name}::added_via_api::{}", cluster.added_via_api)?;
    for host in &cluster.hosts {
        host_lines(lines, &format!("{name}::{}", address::text(&host.address)), host)?;
    }
    Ok(())
}

fn host_lines(lines: &mut String, prefix: &str, host: &HostStatus) -> std::fmt::Result {
    let counters = &host.counters;
    for (what, value) in [
        ("cx_active", counters.cx_active),
        ("cx_connect_fail", counters.cx_connect_fail),
        ("cx_total", counters.cx_total),
        ("rq_active", counters.rq_active),
        ("rq_error", counters.rq_error),
        ("rq_pending_active", counters.rq_pending_active),
        ("rq_success", counters.rq_success),
        ("rq_timeout", counters.rq_timeout),
        ("rq_total", counters.rq_total),
    ] {
        writeln!(lines, "{prefix}::{what}::{value}")?;
    }
    writeln!(lines, "{prefix}::hostname::{}", host.hostname)?;
    writeln!(lines, "{prefix}::health_flags::{}", health_flags(host.health))?;
    writeln!(lines, "{prefix}::weight::{}", host.weight)?;
    writeln!(lines, "{prefix}::region::{}", host.region)?;
    writeln!(lines, "{prefix}::zone::{}", host.zone)?;
    writeln!(lines, "{prefix}::sub_zone::{}", host.sub_zone)?;
    writeln!(lines, "{prefix}::canary::false")?;
    writeln!(lines, "{prefix}::priority::{}", host.priority)?;
    writeln!(lines, "{prefix}::success_rate::-1")?;
    writeln!(lines, "{prefix}::local_origin_success_rate::-1")
}

/// `envoy.admin.v3.Clusters`.
struct Json {
    left: Left,
    list: JsonList<'static>,
}

impl Pieces for Json {
    fn next_piece(&mut self, piece: &mut Vec<u8>) -> bool {
        while piece.len() < PIECE_BYTES {
            let Some(cluster) = self.left.next() else {
                self.list.end(piece);
                return false;
            };
            self.list.item(piece, &cluster_message(&cluster));
        }
        true
    }
}

fn cluster_message(cluster: &ClusterStatus) -> Value {
    let mut message = Map::new();
    message.insert("name".into(), (&*cluster.name).into());
    if cluster.added_via_api {
        message.insert("added_via_api".into(), true.into());
    }
    if !cluster.hosts.is_empty() {
        message.insert("host_statuses".into(), cluster.hosts.iter().map(host_message).collect());
    }
    let breakers = ["DEFAULT", "HIGH"].into_iter().zip(&cluster.circuit_breakers);
    let limits: Vec<_> = breakers.map(|(priority, limits)| thresholds_message(priority, limits)).collect();
    message.insert("circuit_breakers".into(), json!({ "thresholds": limits }));
    message.insert("observability_name".into(), observability_name(cluster).into());
    message.into()
}

/// Fields with proto3's default are left out, as Envoy does.
fn host_message(host: &HostStatus) -> Value {
    let mut message = Map::new();
    message.insert("address".into(), address::message(&host.address));
    message.insert("stats".into(), host_stats(host));
    message.insert("health_status".into(), json!({ "eds_health_status": health_status(host.health) }));
    message.insert("weight".into(), host.weight.into());
    if !host.hostname.is_empty() {
        message.insert("hostname".into(), (&*host.hostname).into());
    }
    if host.priority != 0 {
        message.insert("priority".into(), host.priority.into());
    }
    let parts = [("region", &host.region), ("zone", &host.zone), ("sub_zone", &host.sub_zone)];
    let named = parts.into_iter().filter(|(_, name)| !name.is_empty());
    let locality: Map<_, _> = named.map(|(part, name)| (part.to_owned(), name.as_str().into())).collect();
    message.insert("locality".into(), locality.into());
    message.into()
}

fn host_stats(host: &HostStatus) -> Value {
    let counters = &host.counters;
    let simple = |gauge: bool, name: &str, value: u64| {
        let mut stat = Map::new();
        if gauge {
            stat.insert("type".into(), "GAUGE".into());
        }
        if value != 0 {
            stat.insert("value".into(), value.to_string().into());
        }
        stat.insert("name".into(), name.into());
        Value::Object(stat)
    };
    Value::Array(vec![
        simple(false, "cx_connect_fail", counters.cx_connect_fail),
        simple(false, "cx_total", counters.cx_total),
        simple(false, "rq_error", counters.rq_error),
        simple(false, "rq_success", counters.rq_success),
        simple(false, "rq_timeout", counters.rq_timeout),
        simple(false, "rq_total", counters.rq_total),
        simple(true, "cx_active", counters.cx_active),
        simple(true, "rq_active", counters.rq_active),
        simple(true, "rq_pending_active", counters.rq_pending_active),
    ])
}

fn thresholds(limits: &CircuitBreaker) -> [(&'static str, u32); 4] {
    [
        ("max_connections", limits.max_connections),
        ("max_pending_requests", limits.max_pending_requests),
        ("max_requests", limits.max_requests),
        ("max_retries", limits.max_retries),
    ]
}

fn thresholds_message(priority: &str, limits: &CircuitBreaker) -> Value {
    let mut message = Map::new();
    if priority != "DEFAULT" {
        message.insert("priority".into(), priority.into());
    }
    message.extend(thresholds(limits).map(|(what, limit)| (what.to_owned(), limit.into())));
    message.into()
}

fn observability_name(cluster: &ClusterStatus) -> &str {
    cluster.alt_stat_name.as_deref().unwrap_or(&cluster.name)
}

fn health_flags(health: EndpointHealth) -> &'static str {
    match health {
        EndpointHealth::Healthy => "healthy",
        EndpointHealth::Degraded => "/degraded_eds_health",
        EndpointHealth::Unhealthy => "/failed_eds_health",
        EndpointHealth::Draining => "/eds_status_draining",
    }
}

/// `envoy.config.core.v3.HealthStatus`.
fn health_status(health: EndpointHealth) -> &'static str {
    match health {
        EndpointHealth::Healthy => "HEALTHY",
        EndpointHealth::Degraded => "DEGRADED",
        EndpointHealth::Unhealthy => "UNHEALTHY",
        EndpointHealth::Draining => "DRAINING",
    }
}
