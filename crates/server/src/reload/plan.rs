//! What a reload has to do: found on a thread of its own, since most of it is work over all that did not change.

use std::collections::BTreeSet;
use std::sync::Arc;

use proxy_config::settings::{Bootstrap, Cluster, Listener};
use proxy_config::{Changes, Compared, Configuration, Difference, KeptChain};
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
    /// Listeners with other filter chains.
    pub(super) chains: Vec<(Arc<Listener>, Vec<Option<KeptChain>>)>,
    /// What has been done when this is done.
    pub(super) applied: Applied,
}

impl Plan {
    /// `uncertain`: what may not be as `before` says.
    pub(super) fn new(
        before: &Compared,
        resources: &Resources,
        uncertain: &Uncertain,
        loaded: Configuration,
    ) -> Plan {
        let Configuration { message, settings, warnings, .. } = loaded;
        let message: Arc<[u8]> = message.into();
        let compared = Compared::new(Arc::clone(&message), &settings);
        let mut difference = before.difference(&compared);
        uncertain.apply(&settings, &mut difference);
        let Difference { clusters, listeners, routes, chains, elsewhere } = difference;
        let all = Resources::new(message, &settings);
        let Bootstrap { clusters: all_clusters, listeners: all_listeners, .. } = settings;
        let routes: Vec<_> = routes
            .into_iter()
            .map(|(index, managers)| (Arc::clone(&all_listeners[index]), managers))
            .collect();
        let chains: Vec<_> =
            chains.into_iter().map(|(index, kept)| (Arc::clone(&all_listeners[index]), kept)).collect();
        let name_of_cluster = |cluster: &Cluster| cluster.name.to_string();
        let name_of_listener = |listener: &Listener| listener.name.to_string();
        let applied = Applied {
            clusters: changed(&clusters, &all_clusters, name_of_cluster),
            listeners: changed(&listeners, &all_listeners, name_of_listener),
            routes: routes.iter().map(|(listener, _)| name_of_listener(listener)).collect(),
            chains: chains.iter().map(|(listener, _)| name_of_listener(listener)).collect(),
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
            chains,
            applied,
        }
    }
}

/// Names of clusters and listeners that a reload that failed in part may have changed: nobody knows what they are like, so
/// the next one replaces them whatever the files say.
#[derive(Clone, Default)]
pub(super) struct Uncertain {
    clusters: BTreeSet<String>,
    listeners: BTreeSet<String>,
}

impl Uncertain {
    pub(super) fn add(&mut self, applied: &Applied) {
        let Applied { clusters, listeners, chains, .. } = applied;
        self.clusters.extend(clusters.added.iter().chain(&clusters.changed).cloned());
        self.listeners.extend(listeners.added.iter().chain(&listeners.changed).chain(chains).cloned());
    }

    fn apply(&self, new: &Bootstrap, difference: &mut Difference) {
        let Difference { clusters, listeners, routes, chains, .. } = difference;
        let cluster = |name: &String| new.clusters.iter().position(|cluster| *cluster.name == **name);
        self.clusters.iter().for_each(|name| replace(name, cluster(name), clusters));
        for name in &self.listeners {
            let index = new.listeners.iter().position(|listener| *listener.name == **name);
            routes.retain(|(other, _)| Some(*other) != index);
            chains.retain(|(other, _)| Some(*other) != index);
            replace(name, index, listeners);
        }
    }
}

fn replace(name: &str, index: Option<usize>, changes: &mut Changes) {
    match index {
        Some(index) if changes.added.contains(&index) || changes.changed.contains(&index) => {}
        Some(index) => changes.changed.push(index),
        None if changes.removed.iter().any(|removed| removed == name) => {}
        None => changes.removed.push(name.to_owned()),
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

#[cfg(test)]
mod tests {
    use proxy_config::lower::LowerOptions;
    use proxy_config::{LoadInputs, load};

    use super::*;

    #[test]
    fn what_failed_in_part_is_replaced_whatever_the_files_say() {
        let yaml = "static_resources: { clusters: [{ name: a }, { name: b }] }".to_owned();
        let inputs = LoadInputs { yaml_override: Some(yaml), ..LoadInputs::default() };
        let settings = load(&inputs, &LowerOptions::default()).unwrap().settings;
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let clusters = Changed { added: names(&["gone"]), changed: names(&["a", "b"]), ..Changed::default() };
        let listeners = Changed { added: names(&["new"]), ..Changed::default() };
        let mut uncertain = Uncertain::default();
        uncertain.add(&Applied { clusters, listeners, ..Applied::default() });
        let mut difference = Difference::default();
        difference.clusters.changed.push(1);
        uncertain.apply(&settings, &mut difference);
        let clusters = Changes { added: vec![], changed: vec![1, 0], removed: names(&["gone"]) };
        assert_eq!(difference.clusters, clusters);
        assert_eq!(difference.listeners.removed, ["new"]);
    }
}
