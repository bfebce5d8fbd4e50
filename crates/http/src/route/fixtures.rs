//! Route configurations for tests, without the noise.

use std::sync::Arc;

use bytes::Bytes;
use proxy_config::settings::*;
use regex::bytes::Regex;

use super::{ClusterId, RouteTable};
use crate::headers::Headers;
use crate::message::{Method, Request, Version};

pub(crate) fn configuration(virtual_hosts: Vec<VirtualHost>) -> RouteConfiguration {
    RouteConfiguration { virtual_hosts, ..RouteConfiguration::default() }
}

pub(crate) fn host(routes: Vec<Route>) -> VirtualHost {
    VirtualHost {
        name: "host".into(),
        domains: vec![Domain::Any],
        routes: routes.into_iter().map(Arc::new).collect(),
        request_headers: HeaderMutations::default(),
        response_headers: HeaderMutations::default(),
        rate_limits: Vec::new(),
        require_tls: RequireTls::None,
        metadata: Metadata::default(),
        filters: Vec::new(),
    }
}

pub(crate) fn table(routes: Vec<Route>) -> RouteTable {
    build(configuration(vec![host(routes)]))
}

/// Clusters get the number that their name ends with, or 0.
pub(crate) fn build(configuration: RouteConfiguration) -> RouteTable {
    RouteTable::new(Arc::new(configuration), &mut |name| {
        ClusterId(name.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0))
    })
}

pub(crate) fn route(path: PathMatch, action: RouteAction) -> Route {
    Route {
        name: String::new(),
        matches: RouteMatch {
            path,
            case_sensitive: true,
            headers: Vec::new(),
            query: Vec::new(),
            fraction_ppm: None,
            grpc: false,
        },
        action,
        request_headers: HeaderMutations::default(),
        response_headers: HeaderMutations::default(),
        metadata: Metadata::default(),
        filters: Vec::new(),
    }
}

pub(crate) fn prefix(text: &str) -> PathMatch {
    PathMatch::Prefix(text.as_bytes().into())
}

pub(crate) fn exact(text: &str) -> PathMatch {
    PathMatch::Exact(text.as_bytes().into())
}

pub(crate) fn separated(text: &str) -> PathMatch {
    PathMatch::SeparatedPrefix(text.as_bytes().into())
}

/// Anchored, as lowering leaves it.
pub(crate) fn regex(pattern: &str) -> PathMatch {
    PathMatch::Regex(Regex::new(&format!("^(?:{pattern})$")).unwrap())
}

pub(crate) fn direct(status: u16) -> RouteAction {
    RouteAction::Direct(DirectResponse { status, body: Bytes::new() })
}

pub(crate) fn forward(target: ClusterTarget) -> Forward {
    Forward {
        target,
        cluster_not_found_status: 503,
        path_rewrite: None,
        host_rewrite: None,
        append_x_forwarded_host: false,
        timeout: None,
        idle_timeout: None,
        flush_timeout: None,
        max_stream_duration: None,
        priority: Priority::Default,
        rate_limits: Vec::new(),
        include_virtual_host_limits: false,
        upgrades: Vec::new(),
        terminated: Terminated::None,
    }
}

pub(crate) fn cluster() -> ClusterTarget {
    ClusterTarget::Cluster("c1".into())
}

pub(crate) fn to(forward: Forward) -> RouteAction {
    RouteAction::Forward(Box::new(forward))
}

pub(crate) fn get(path: &str, lines: &[(&str, &str)]) -> Request {
    request("h", path, lines)
}

pub(crate) fn request(authority: &str, path: &str, lines: &[(&str, &str)]) -> Request {
    let headers: Headers = lines.iter().copied().collect();
    Request::new(Method::Get, Version::Http11, authority.as_bytes(), path.as_bytes(), headers)
}

pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

pub(crate) fn lines(headers: &Headers) -> Vec<(&str, &str)> {
    headers.iter().map(|(name, value)| (text(name), text(value))).collect()
}
