//! Bootstraps in Envoy's v3 configuration, put together from YAML fragments that hold only what a test is about.
//!
//! Everything listens on port 0; [`crate::Proxy`] asks the admin port where it came out.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

/// A bootstrap in the making.
#[derive(Debug, Clone)]
pub struct Bootstrap(Value);

/// Reads a YAML fragment.
#[must_use]
pub fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap_or_else(|error| panic!("{error} in\n{text}"))
}

impl Bootstrap {
    /// An admin port and nothing else.
    #[must_use]
    pub fn empty() -> Self {
        Self(json!({
            "admin": {"address": address(SocketAddr::from(([127, 0, 0, 1], 0)))},
            "static_resources": {"listeners": [], "clusters": []},
        }))
    }

    /// A listener `main` with an HTTP connection manager (`stat_prefix: ingress`) that routes everything to the
    /// cluster `backend` at `backend`.
    #[must_use]
    pub fn http(backend: SocketAddr) -> Self {
        Self::http_without_clusters().cluster("backend", backend)
    }

    /// As [`Bootstrap::http`], with the cluster still to be added.
    #[must_use]
    pub fn http_without_clusters() -> Self {
        Self::empty().listener("main", http_filter_chain())
    }

    /// A listener `main` that relays TCP (`stat_prefix: tcp`) to the cluster `backend` at `backend`.
    #[must_use]
    pub fn tcp(backend: SocketAddr) -> Self {
        Self::empty().listener("main", tcp_filter_chain("backend")).cluster("backend", backend)
    }

    /// Adds a listener on 127.0.0.1 port 0 with one filter chain.
    #[must_use]
    pub fn listener(self, name: &str, filter_chain: Value) -> Self {
        self.listener_at(name, SocketAddr::from(([127, 0, 0, 1], 0)), filter_chain)
    }

    /// Adds a listener with one filter chain.
    #[must_use]
    pub fn listener_at(mut self, name: &str, at: SocketAddr, filter_chain: Value) -> Self {
        let local = address(at);
        self.list("listeners").push(json!({"name": name, "address": local, "filter_chains": [filter_chain]}));
        self
    }

    /// Adds a STATIC cluster with one endpoint and a connect timeout of 5 s.
    #[must_use]
    pub fn cluster(self, name: &str, endpoint: SocketAddr) -> Self {
        self.cluster_of(name, &[endpoint])
    }

    /// Adds a STATIC cluster of several endpoints.
    #[must_use]
    pub fn cluster_of(mut self, name: &str, endpoints: &[SocketAddr]) -> Self {
        let endpoints: Vec<Value> =
            endpoints.iter().map(|endpoint| json!({"endpoint": {"address": address(*endpoint)}})).collect();
        self.list("clusters").push(json!({
            "name": name,
            "type": "STATIC",
            "connect_timeout": "5s",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        }));
        self
    }

    /// Merges `fragment` into the cluster called `name`.
    #[must_use]
    pub fn cluster_with(mut self, name: &str, fragment: &str) -> Self {
        let clusters = self.list("clusters");
        let cluster = clusters.iter_mut().find(|cluster| cluster["name"] == name);
        merge(cluster.unwrap_or_else(|| panic!("no cluster {name} yet")), yaml(fragment));
        self
    }

    /// Merges `fragment` into the first listener.
    #[must_use]
    pub fn listener_with(mut self, fragment: &str) -> Self {
        merge(&mut self.list("listeners")[0], yaml(fragment));
        self
    }

    /// Calls each listener in stats as in the configuration, instead of by its address.
    #[must_use]
    pub fn stat_prefixes(mut self) -> Self {
        for listener in self.list("listeners") {
            listener["stat_prefix"] = listener["name"].clone();
        }
        self
    }

    /// Merges `fragment` into the first listener's connection manager or TCP proxy.
    #[must_use]
    pub fn filter_with(mut self, fragment: &str) -> Self {
        merge(self.filter(), yaml(fragment));
        self
    }

    /// Puts a network filter before those of the first listener: its type under `envoy.extensions.filters.network` and its
    /// fields.
    #[must_use]
    pub fn network_filter(mut self, kind: &str, fields: &str) -> Self {
        let filters = &mut self.list("listeners")[0]["filter_chains"][0]["filters"];
        filters.as_array_mut().expect("a chain has filters").insert(0, network_filter(kind, fields));
        self
    }

    /// Merges `fragment` into the first filter chain of the first listener.
    #[must_use]
    pub fn filter_chain_with(mut self, fragment: &str) -> Self {
        merge(&mut self.list("listeners")[0]["filter_chains"][0], yaml(fragment));
        self
    }

    /// Merges `fragment` into the route configuration.
    #[must_use]
    pub fn route_config_with(mut self, fragment: &str) -> Self {
        merge(&mut self.filter()["route_config"], yaml(fragment));
        self
    }

    /// Merges `fragment` into the only virtual host.
    #[must_use]
    pub fn virtual_host_with(mut self, fragment: &str) -> Self {
        merge(&mut self.filter()["route_config"]["virtual_hosts"][0], yaml(fragment));
        self
    }

    /// Puts an HTTP filter before the router: `fields` are what its `typed_config` of the type
    /// `envoy.extensions.filters.http.<type_name>` holds.
    #[must_use]
    pub fn http_filter(self, name: &str, type_name: &str, fields: &str) -> Self {
        let mut config =
            json!({"@type": format!("type.googleapis.com/envoy.extensions.filters.http.{type_name}")});
        merge(&mut config, yaml(fields));
        self.http_filter_entry(json!({"name": name, "typed_config": config}))
    }

    /// Puts this entry of a filter chain's `filters` before the others.
    #[must_use]
    pub fn network_filter_first(mut self, entry: Value) -> Self {
        let filters = &mut self.list("listeners")[0]["filter_chains"][0]["filters"];
        filters.as_array_mut().unwrap().insert(0, entry);
        self
    }

    /// Puts this entry of `http_filters` before the router.
    #[must_use]
    pub fn http_filter_entry(mut self, entry: Value) -> Self {
        let filters = self.filter()["http_filters"].as_array_mut().unwrap();
        filters.insert(filters.len() - 1, entry);
        self
    }

    /// Replaces the routes of the only virtual host.
    #[must_use]
    pub fn routes(mut self, routes: &str) -> Self {
        self.filter()["route_config"]["virtual_hosts"][0]["routes"] = yaml(routes);
        self
    }

    /// Gives the first listener these filter chains, and a default one, in place of what it has.
    #[must_use]
    pub fn filter_chains(mut self, chains: Vec<Value>, default: Value) -> Self {
        let listener = &mut self.list("listeners")[0];
        listener["filter_chains"] = chains.into();
        listener["default_filter_chain"] = default;
        self
    }

    /// Merges `fragment` into the bootstrap itself.
    #[must_use]
    pub fn with(mut self, fragment: &str) -> Self {
        merge(&mut self.0, yaml(fragment));
        self
    }

    /// HTTP/2 without TLS to the cluster called `name`.
    #[must_use]
    pub fn http2_upstream(self, name: &str) -> Self {
        self.cluster_with(name, &http_protocol_options("explicit_http_config: {http2_protocol_options: {}}"))
    }

    /// The whole file as YAML, in its JSON subset: so that no string is taken for a YAML 1.1 boolean.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        format!("{:#}\n", self.0)
    }

    fn list(&mut self, kind: &str) -> &mut Vec<Value> {
        self.0["static_resources"][kind].as_array_mut().expect("empty() has made it a list")
    }

    fn filter(&mut self) -> &mut Value {
        &mut self.list("listeners")[0]["filter_chains"][0]["filters"][0]["typed_config"]
    }
}

/// A cluster fragment holding `HttpProtocolOptions` of `fragment`.
#[must_use]
pub fn http_protocol_options(fragment: &str) -> String {
    let mut options = yaml(fragment);
    options["@type"] = json!("type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions");
    json!({"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}})
        .to_string()
}

/// A filter chain with a connection manager that routes everything to the cluster `backend`.
#[must_use]
pub fn http_filter_chain() -> Value {
    json!({"filters": [{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "ingress",
            "route_config": {"name": "local_route", "virtual_hosts": [{
                "name": "all", "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "backend"}}],
            }]},
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }],
        },
    }]})
}

/// A filter chain that answers every request with 200 and `body`.
#[must_use]
pub fn direct_response_chain(body: &str) -> Value {
    let mut chain = http_filter_chain();
    chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0]["routes"] = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": body}}}]);
    chain
}

/// A network filter by its type under `envoy.extensions.filters.network`, and its fields.
#[must_use]
pub fn network_filter(kind: &str, fields: &str) -> Value {
    let mut config = yaml(fields);
    config["@type"] = json!(format!("type.googleapis.com/envoy.extensions.filters.network.{kind}"));
    json!({"name": kind, "typed_config": config})
}

/// A filter chain that relays TCP to `cluster`.
#[must_use]
pub fn tcp_filter_chain(cluster: &str) -> Value {
    json!({"filters": [{
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "tcp",
            "cluster": cluster,
        },
    }]})
}

fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// Objects merge key by key, null removes a key, anything else replaces.
fn merge(into: &mut Value, fragment: Value) {
    match (into, fragment) {
        (Value::Object(into), Value::Object(fragment)) => {
            for (key, value) in fragment {
                match value {
                    Value::Null => drop(into.remove(&key)),
                    value => merge(into.entry(key).or_insert_with(|| Value::Object(Map::new())), value),
                }
            }
        }
        (into, fragment) => *into = fragment,
    }
}
