//! Workers and managers in this process, without the rest of a proxy.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proxy_config::lower::LowerOptions;
use proxy_config::settings::{self, NetworkFilterConfig};
use proxy_config::{LoadInputs, load};
use proxy_filters::Extensions;
use proxy_runtime::Workers;
use proxy_runtime::log_file::{FlushOptions, LogFiles};
use proxy_server::managers::{ClusterManager, ListenerManager, start_workers};
use proxy_stats::{Store, StoreOptions, ThreadIndex};
use proxy_upstream::ClusterNames;

pub(crate) struct Proxy {
    pub(crate) clusters: Rc<ClusterManager>,
    pub(crate) listeners: Rc<ListenerManager>,
    pub(crate) store: Store,
    workers: Rc<Workers>,
    segment: PathBuf,
}

/// Runs `test` on main, beside two workers.
pub(crate) fn run(test: impl AsyncFnOnce(&Proxy)) {
    let directory = tempfile::tempdir().unwrap();
    let runtime = proxy_runtime::local_runtime().unwrap();
    runtime.block_on(async {
        let segment = directory.path().join("segment");
        let options = StoreOptions { path: Some(segment.clone()), ..StoreOptions::private(3) };
        let store = Store::create(options).unwrap();
        assert!(store.bind_thread(ThreadIndex(0)));
        let workers = start_workers(2, &store, false).unwrap();
        let names = ClusterNames::default();
        let proxy = Proxy {
            clusters: ClusterManager::new(Rc::clone(&workers), store.clone(), names.clone(), None),
            listeners: ListenerManager::new(
                Rc::clone(&workers),
                store.clone(),
                names,
                LogFiles::new(&store.root(), FlushOptions::default()),
                Extensions::default(),
                "",
            ),
            store,
            workers,
            segment,
        };
        test(&proxy).await;
    });
}

impl Proxy {
    /// Resolves when the workers have done all that was asked of them so far.
    pub(crate) async fn settled(&self) {
        self.workers.post_all_then(|| {}).await;
    }

    /// Bytes of the stats segment that have memory behind them.
    pub(crate) fn segment_bytes(&self) -> u64 {
        std::fs::metadata(&self.segment).unwrap().blocks() * 512
    }

    pub(crate) fn stat(&self, name: &str) -> u64 {
        self.store.value(name).unwrap_or_else(|| panic!("no stat {name}"))
    }

    /// Resolves when the stat has the value. Bounded by [`DEADLINE`].
    pub(crate) async fn until(&self, name: &str, value: u64) {
        let reached = async {
            while self.stat(name) != value {
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, reached).await.is_ok();
        assert!(in_time, "{name} is {}, not {value}", self.stat(name));
    }
}

/// A cluster of one host that is reached by an address.
pub(crate) fn cluster(name: &str, port: u16) -> Arc<settings::Cluster> {
    of_bootstrap(&cluster_yaml(name, "STATIC", "127.0.0.1", port)).clusters.remove(0)
}

/// A cluster of one host that is reached by a name.
pub(crate) fn named_cluster(name: &str, host: &str) -> Arc<settings::Cluster> {
    of_bootstrap(&cluster_yaml(name, "STRICT_DNS", host, 80)).clusters.remove(0)
}

/// An HTTP listener on some port of the loopback.
pub(crate) fn listener(cluster: &str) -> Arc<settings::Listener> {
    let yaml = format!(
        "static_resources: {{clusters: [{{name: {cluster}}}], listeners: [{{name: web, address: {}, filter_chains: [{{filters: [{{
            name: http, typed_config: {{
                '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
                stat_prefix: web, http_filters: [{{name: router, typed_config: {{
                    '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}],
                route_config: {{name: routes,
                    response_headers_to_add: [{{header: {{key: x-route, value: {cluster}}}}}],
                    virtual_hosts: [{{name: all, domains: ['*'], routes: [
                        {{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}]}}]}}}}}}]}}]}}]}}",
        address("127.0.0.1", 0)
    );
    of_bootstrap(&yaml).listeners.remove(0)
}

/// What [`listener`] routes by.
pub(crate) fn routes(cluster: &str) -> Arc<settings::RouteConfiguration> {
    match &listener(cluster).chains[0].filters[0].config {
        NetworkFilterConfig::HttpConnectionManager(manager) => Arc::clone(&manager.routes),
        _ => unreachable!(),
    }
}

fn cluster_yaml(name: &str, kind: &str, host: &str, port: u16) -> String {
    format!(
        "static_resources: {{clusters: [{{name: {name}, type: {kind}, load_assignment: {{cluster_name: {name},
            endpoints: [{{lb_endpoints: [{{endpoint: {{address: {}}}}}]}}]}}}}]}}",
        address(host, port)
    )
}

fn address(host: &str, port: u16) -> String {
    format!("{{socket_address: {{address: {host}, port_value: {port}}}}}")
}

fn of_bootstrap(yaml: &str) -> settings::Bootstrap {
    let options = proxy_config::LoadOptions { allow_unsupported: true, ..Default::default() };
    let inputs = LoadInputs { file: None, yaml_override: Some(yaml.to_owned()), options };
    load(&inputs, &LowerOptions::default()).unwrap().settings
}

const DEADLINE: Duration = Duration::from_secs(20);
