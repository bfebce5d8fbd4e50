//! What a reload has to do: found on a thread of its own, since most of it is work over all that did not change.

use std::sync::Arc;

use proxy_config::settings::{Bootstrap, Cluster, Listener};
use proxy_config::{Changes, Compared, Configuration, Difference};
use proxy_control::reload::{Applied, Changed};

use crate::resources::Resources;

/// Only what differs, and what is to be known of the whole.
pub(super) struct Plan {
    pub(super) compared: Compared,
    pub(super) resources: Resources,
    /// Added and changed ones, in the order of the file.
    pub(super) clusters: Vec<Arc<Cluster>>,
    pub(super) listeners: Vec<Arc<Listener>>,
    /// Listeners with other routes, in these of their connection managers.
    pub(super) routes: Vec<(Arc<Listener>, Vec<usize>)>,
    /// What has been done when this is done.
    pub(super) applied: Applied,
}

impl Plan {
    pub(super) fn new(before: &Compared, resources: &Resources, loaded: Configuration) -> Plan {
        let Configuration { message, settings, warnings, .. } = loaded;
        let message: Arc<[u8]> = message.into();
        let compared = Compared::new(Arc::clone(&message), &settings);
        let Difference { clusters, listeners, routes, elsewhere } = before.difference(&compared);
        let all = Resources::new(message, &settings);
        let Bootstrap { clusters: all_clusters, listeners: all_listeners, .. } = settings;
        let routes: Vec<_> = routes
            .into_iter()
            .map(|(index, managers)| (Arc::clone(&all_listeners[index]), managers))
            .collect();
        let name_of_cluster = |cluster: &Cluster| cluster.name.to_string();
        let name_of_listener = |listener: &Listener| listener.name.to_string();
        let applied = Applied {
            clusters: changed(&clusters, &all_clusters, name_of_cluster),
            listeners: changed(&listeners, &all_listeners, name_of_listener),
            routes: routes.iter().map(|(listener, _)| name_of_listener(listener)).collect(),
            needs_restart: elsewhere.into_iter().map(str::to_owned).collect(),
            warnings: warnings.iter().map(ToString::to_string).collect(),
            took_ms: 0,
        };
        Plan {
            compared,
            resources: all.after(resources, &applied),
            clusters: picked(&clusters, &all_clusters),
            listeners: picked(&listeners, &all_listeners),
            routes,
            applied,
        }
    }
}

fn changed<T>(changes: &Changes, all: &[Arc<T>], name: impl Fn(&T) -> String) -> Changed {
    let names = |indexes: &[usize]| indexes.iter().map(|index| name(&all[*index])).collect();
    Changed {
        added: names(&changes.added),
        changed: names(&changes.changed),
        removed: changes.removed.clone(),
    }
}

fn picked<T>(changes: &Changes, all: &[Arc<T>]) -> Vec<Arc<T>> {
    let mut indexes: Vec<_> = changes.added.iter().chain(&changes.changed).copied().collect();
    indexes.sort_unstable();
    indexes.into_iter().map(|index| Arc::clone(&all[index])).collect()
}
