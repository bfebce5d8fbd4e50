//! Configurations for a proxy with no file: a page that says what to try next, or `--from` and `--to`. They are Envoy YAML like any
//! other, so that `--print-config` shows where to go on from.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde_json::{Value, json};

/// The configuration when none is given.
pub const DEFAULT: &str = include_str!("default.yaml");

/// `--to`: where everything goes, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub protocol: Protocol,
    /// Never empty.
    pub hosts: Vec<TargetHost>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Tcp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetHost {
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
}

/// What is wrong with a `--to`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("expected http://HOST[:PORT] or tcp://HOST:PORT, got {0:?}")]
    Form(String),
    #[error("{0:?}: TLS to the target is not supported")]
    Tls(String),
    #[error("{0:?}: a target has no path")]
    Path(String),
    #[error("http and tcp targets cannot be mixed")]
    Mixed,
}

impl FromStr for Target {
    type Err = TargetError;

    /// `http://a:1,http://b:2`; the scheme may be left out after the first.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut protocol = None;
        let mut hosts = Vec::new();
        for item in text.split(',') {
            let (scheme, authority) = match item.split_once("://") {
                Some(("http", authority)) => (Some(Protocol::Http), authority),
                Some(("tcp", authority)) => (Some(Protocol::Tcp), authority),
                Some(("https" | "tls", _)) => return Err(TargetError::Tls(item.to_owned())),
                Some(_) => return Err(TargetError::Form(item.to_owned())),
                None => (protocol, item),
            };
            let scheme = scheme.ok_or_else(|| TargetError::Form(item.to_owned()))?;
            if protocol.is_some_and(|first| first != scheme) {
                return Err(TargetError::Mixed);
            }
            protocol = Some(scheme);
            let authority = authority.strip_suffix('/').unwrap_or(authority);
            if authority.contains('/') {
                return Err(TargetError::Path(item.to_owned()));
            }
            hosts.push(target_host(authority, scheme).ok_or_else(|| TargetError::Form(item.to_owned()))?);
        }
        let protocol = protocol.ok_or_else(|| TargetError::Form(text.to_owned()))?;
        Ok(Self { protocol, hosts })
    }
}

fn target_host(authority: &str, protocol: Protocol) -> Option<TargetHost> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if host.is_empty() || !(host.parse::<IpAddr>().is_ok() || host.bytes().all(name)) {
        return None;
    }
    let port = match (port, protocol) {
        (Some(port), _) => port.parse().ok().filter(|port| *port != 0)?,
        (None, Protocol::Http) => 80,
        (None, Protocol::Tcp) => return None,
    };
    Some(TargetHost { host: host.to_owned(), port })
}

impl fmt::Display for TargetHost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

/// The Envoy YAML of a proxy from one address to some hosts, which take turns.
#[must_use]
pub fn from_to(from: SocketAddr, to: &Target) -> String {
    let filter = match to.protocol {
        Protocol::Http => http_filter(),
        Protocol::Tcp => tcp_filter(),
    };
    let by_name = to.hosts.iter().any(|target| target.host.parse::<IpAddr>().is_err());
    let endpoints: Vec<_> = to
        .hosts
        .iter()
        .map(|target| json!({ "endpoint": { "address": address(&target.host, target.port) } }))
        .collect();
    let config = json!({
        "static_resources": {
            "listeners": [{
                "name": "from",
                "address": address(&from.ip().to_string(), from.port()),
                "filter_chains": [{ "filters": [filter] }],
            }],
            "clusters": [{
                "name": "to",
                "type": if by_name { "STRICT_DNS" } else { "STATIC" },
                "connect_timeout": "5s",
                "load_assignment": { "cluster_name": "to", "endpoints": [{ "lb_endpoints": endpoints }] },
            }],
        },
    });
    serde_yaml::to_string(&config).expect("objects with text as keys are YAML")
}

fn address(host: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": host, "port_value": port } })
}

fn http_filter() -> Value {
    let manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": manager,
            "stat_prefix": "from",
            "route_config": {
                "name": "from",
                "virtual_hosts": [{
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "to" } }],
                }],
            },
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
            }],
        },
    })
}

fn tcp_filter() -> Value {
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "from",
            "cluster": "to",
        },
    })
}

#[cfg(test)]
mod tests {
    use proxy_config::settings::{Bootstrap, Discovery};
    use proxy_config::{LoadInputs, lower::LowerOptions};

    use super::*;

    fn loaded(yaml: &str) -> Bootstrap {
        let inputs = LoadInputs { yaml_override: Some(yaml.to_owned()), ..LoadInputs::default() };
        proxy_config::load(&inputs, &LowerOptions::default())
            .unwrap_or_else(|findings| panic!("{findings:?}\n{yaml}"))
            .settings
    }

    fn printed(to: &str) -> Bootstrap {
        loaded(&from_to("127.0.0.1:8080".parse().unwrap(), &to.parse().unwrap()))
    }

    #[test]
    fn every_built_configuration_loads() {
        let default = loaded(DEFAULT);
        assert_eq!((default.listeners.len(), default.clusters.len()), (1, 0));
        assert!(default.admin.is_some());
        let http = printed("http://127.0.0.1:3000,[::1]:3001");
        assert!(matches!(http.clusters[0].discovery, Discovery::Static));
        assert_eq!(http.clusters[0].localities[0].endpoints.len(), 2);
        assert!(matches!(printed("tcp://db.internal:5432").clusters[0].discovery, Discovery::StrictDns(_)));
    }

    #[test]
    fn targets_are_lists_with_one_scheme() {
        let target = |text: &str| text.parse::<Target>();
        let hosts =
            |text: &str| target(text).unwrap().hosts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(hosts("http://a,http://b:81,c:82/"), ["a:80", "b:81", "c:82"]);
        assert_eq!(hosts("tcp://[::1]:5"), ["[::1]:5"]);
        assert_eq!(target("http://a,tcp://b:1"), Err(TargetError::Mixed));
        assert!(matches!(target("https://a"), Err(TargetError::Tls(_))));
        assert!(matches!(target("http://a/b"), Err(TargetError::Path(_))));
        for bad in [
            "",
            "a",
            "tcp://a",
            "http://",
            "http://a:0",
            "http://a:x",
            "ftp://a",
            "http://[::1",
            "http://[a]",
            "http://a b",
            "http://a,",
        ] {
            assert!(matches!(target(bad), Err(TargetError::Form(_))), "{bad:?}");
        }
    }
}
