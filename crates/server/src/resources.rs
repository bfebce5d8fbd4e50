//! The resources of the loaded configuration for `/config_dump`: kept as one encoded message, rendered when asked for.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use proxy_config::redacted;
use proxy_config::settings::{Bootstrap, NetworkFilterConfig};
use proxy_control::reload::{Applied, Changed};
use serde_json::Value;

use crate::admin::{ConfigDump, ConfigKind, ConfigResource};

/// The static configuration, in the order of the file.
pub(crate) struct Resources {
    message: Arc<[u8]>,
    /// With when they came to be as they are.
    names: Vec<(ConfigKind, String, SystemTime)>,
}

impl Resources {
    /// `message` is the encoded bootstrap from which `settings` were made.
    pub(crate) fn new(message: Arc<[u8]>, settings: &Bootstrap) -> Resources {
        let mut names = vec![(ConfigKind::Bootstrap, String::new())];
        names.extend(settings.clusters.iter().map(|c| (ConfigKind::StaticCluster, c.name.to_string())));
        names.extend(settings.listeners.iter().map(|l| (ConfigKind::StaticListener, l.name.to_string())));
        let chains = settings.listeners.iter().flat_map(|l| l.chains.iter().chain(&l.default_chain));
        for filter in chains.flat_map(|chain| &chain.filters) {
            if let NetworkFilterConfig::HttpConnectionManager(manager) = &filter.config {
                names.push((ConfigKind::StaticRoute, manager.routes.name.clone()));
            }
        }
        let now = SystemTime::now();
        let names = names.into_iter().map(|(kind, name)| (kind, name, now)).collect();
        Resources { message, names }
    }

    /// These after `before`, of which all stays but what was `applied`.
    pub(crate) fn after(mut self, before: &Resources, applied: &Applied) -> Resources {
        let since: HashMap<_, _> =
            before.names.iter().map(|(kind, name, at)| ((*kind, &**name), *at)).collect();
        let of = |changed: &Changed| changed.added.iter().chain(&changed.changed).cloned().collect();
        let (clusters, listeners): (HashSet<String>, HashSet<String>) =
            (of(&applied.clusters), of(&applied.listeners));
        let Applied { routes, listeners: changed, chains, .. } = applied;
        let routes_differ = !routes.is_empty() || !changed.is_empty() || !chains.is_empty();
        for (kind, name, updated) in &mut self.names {
            let differs = match kind {
                ConfigKind::Bootstrap => !applied.is_empty(),
                ConfigKind::StaticCluster => clusters.contains(name),
                ConfigKind::StaticListener => {
                    listeners.contains(name) || applied.routes.contains(name) || applied.chains.contains(name)
                }
                // Their names are not unique.
                ConfigKind::StaticRoute => routes_differ,
            };
            if let Some(since) = since.get(&(*kind, &**name)).filter(|_| !differs) {
                *updated = *since;
            }
        }
        self
    }

    pub(crate) fn dump(&self) -> ConfigDump {
        // Rendered once, by the thread that first asks for a part of it.
        let rendered = Arc::new(OnceLock::new());
        let mut counts = [0usize; 4];
        let resources = self.names.iter().map(|(kind, name, updated)| {
            let (kind, message, rendered) = (*kind, Arc::clone(&self.message), Arc::clone(&rendered));
            let index = counts[kind as usize];
            counts[kind as usize] += 1;
            ConfigResource {
                kind,
                name: name.clone(),
                last_updated: *updated,
                json: Box::new(move || {
                    let bootstrap = rendered.get_or_init(|| redacted(BOOTSTRAP, &message));
                    part(bootstrap, kind, index)
                }),
            }
        });
        ConfigDump { resources: resources.collect() }
    }
}

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// The part of a rendered bootstrap that is the `index`th resource of `kind`, as an `Any`.
fn part(bootstrap: &Value, kind: ConfigKind, index: usize) -> Value {
    let resources = &bootstrap["static_resources"];
    let (type_name, found) = match kind {
        ConfigKind::Bootstrap => return bootstrap.clone(),
        ConfigKind::StaticCluster => ("envoy.config.cluster.v3.Cluster", resources["clusters"].get(index)),
        ConfigKind::StaticListener => {
            ("envoy.config.listener.v3.Listener", resources["listeners"].get(index))
        }
        ConfigKind::StaticRoute => {
            ("envoy.config.route.v3.RouteConfiguration", routes(&resources["listeners"]).nth(index))
        }
    };
    let mut part = found.cloned().unwrap_or_default();
    if let Some(fields) = part.as_object_mut() {
        fields.shift_insert(0, "@type".to_owned(), format!("type.googleapis.com/{type_name}").into());
    }
    part
}

/// The route configurations of all connection managers.
fn routes(listeners: &Value) -> impl Iterator<Item = &Value> {
    let listeners = listeners.as_array().map(Vec::as_slice).unwrap_or_default();
    listeners
        .iter()
        .flat_map(|listener| {
            let listed = listener["filter_chains"].as_array().map(Vec::as_slice).unwrap_or_default();
            listed.iter().chain(listener.get("default_filter_chain"))
        })
        .flat_map(|chain| chain["filters"].as_array().map(Vec::as_slice).unwrap_or_default())
        .filter_map(|filter| filter["typed_config"].get("route_config"))
}
