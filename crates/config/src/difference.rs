//! What differs between two bootstraps, resource by resource: what a reload has to touch, and what it leaves alone.
//!
//! Messages are compared as they were decoded: the order in which a map was written makes no difference. A file that the
//! configuration names counts as part of the resource that names it.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener};
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as manager_v3;
use manager_v3::HttpConnectionManager;
use manager_v3::http_connection_manager::RouteSpecifier;
use prost::Message as _;
use prost::Name as _;

use crate::settings::{self, NamedFile};

/// A bootstrap as it is to be compared with another one.
#[derive(Debug, Clone)]
pub struct Compared {
    /// `envoy.config.bootstrap.v3.Bootstrap`, encoded.
    pub message: Arc<[u8]>,
    /// Names of the listeners in the order of the message: one without is named by its address.
    pub listeners: Vec<Arc<str>>,
    /// Files that it names, with what they held.
    pub files: Vec<NamedFile>,
}

/// What has to be done to get from one bootstrap to another. Resources are named by their index in the new one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    pub clusters: Changes,
    pub listeners: Changes,
    /// Listeners of which nothing but routes is another, with the connection managers that have other ones: counted over
    /// all filter chains in order, the default one last.
    pub routes: Vec<(usize, Vec<usize>)>,
    /// Listeners of which nothing but filter chains is another, with what becomes of each chain: one that is kept, or a new one. The
    /// default one comes last.
    pub chains: Vec<(usize, Vec<Option<KeptChain>>)>,
    /// Fields of the bootstrap that differ and cannot be changed while the process runs.
    pub elsewhere: Vec<&'static str>,
}

/// A filter chain that is as it was before, but for routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptChain {
    /// Its index among the chains that the listener had, where the default one came last.
    pub before: usize,
    /// Its connection managers that have other routes.
    pub routes: Vec<usize>,
}

/// Of resources of one kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub added: Vec<usize>,
    /// There is one of that name, and it is another.
    pub changed: Vec<usize>,
    pub removed: Vec<String>,
}

impl Difference {
    /// Nothing differs, or nothing that can be changed.
    pub fn is_empty(&self) -> bool {
        self.clusters.is_empty()
            && self.listeners.is_empty()
            && self.routes.is_empty()
            && self.chains.is_empty()
    }
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

impl Compared {
    /// A bootstrap that was loaded.
    pub fn new(message: Arc<[u8]>, settings: &settings::Bootstrap) -> Compared {
        let listeners = settings.listeners.iter().map(|listener| Arc::clone(&listener.name)).collect();
        Compared { message, listeners, files: settings.files.clone() }
    }

    /// What `self` is to become `new`. May take long where there is much; both messages have been loaded.
    pub fn difference(&self, new: &Compared) -> Difference {
        let touched = Touched::of(&self.files, &new.files);
        if self.message == new.message && touched.is_empty() {
            return Difference::default();
        }
        // What was loaded decodes.
        let decode = |message: &[u8]| Bootstrap::decode(message).unwrap_or_default();
        let (mut old_message, mut new_message) = (decode(&self.message), decode(&new.message));
        let old_resources = old_message.static_resources.take().unwrap_or_default();
        let new_resources = new_message.static_resources.take().unwrap_or_default();
        let mut difference = Difference {
            clusters: changes(
                old_resources.clusters.iter().map(|cluster| (&*cluster.name, cluster)),
                new_resources.clusters.iter().map(|cluster| (&*cluster.name, cluster)),
                &touched.clusters,
            ),
            elsewhere: elsewhere(&old_message, &new_message),
            ..Difference::default()
        };
        let old_listeners = self.listeners.iter().map(|name| &**name).zip(&old_resources.listeners);
        let new_listeners = new.listeners.iter().map(|name| &**name).zip(&new_resources.listeners);
        let by_name: HashMap<&str, &Listener> = old_listeners.clone().collect();
        let mut listeners = changes(old_listeners, new_listeners, &touched.listeners);
        let routes_too = touched.routes.iter().copied();
        let candidates = listeners.changed.iter().copied().chain(routes_too).collect::<HashSet<_>>();
        for index in candidates.into_iter().filter(|index| !touched.listeners.contains(index)) {
            let (name, listener) = (&*new.listeners[index], &new_resources.listeners[index]);
            let Some(old) = by_name.get(name) else { continue };
            let all_routes = touched.routes.contains(&index);
            let Some(chains) = kept_chains(&Split::of(old), &Split::of(listener), all_routes) else {
                continue;
            };
            listeners.changed.retain(|changed| *changed != index);
            match only_routes(old, &chains, listener) {
                Some(managers) => difference.routes.push((index, managers)),
                None => difference.chains.push((index, chains)),
            }
        }
        difference.chains.sort_unstable_by_key(|(index, _)| *index);
        difference.routes.sort_unstable();
        difference.listeners = listeners;
        difference
    }
}

/// Resources that name files whose content is another.
#[derive(Debug, Default)]
struct Touched {
    clusters: HashSet<usize>,
    listeners: HashSet<usize>,
    /// In a route configuration of these listeners.
    routes: HashSet<usize>,
}

impl Touched {
    fn of(old: &[NamedFile], new: &[NamedFile]) -> Touched {
        let known: HashMap<&PathBuf, u64> = old.iter().map(|file| (&file.path, file.digest)).collect();
        let mut touched = Touched::default();
        for file in new.iter().filter(|file| known.get(&file.path).is_some_and(|old| *old != file.digest)) {
            let index = |kind: &str| {
                let rest = file.named_at.strip_prefix("static_resources.")?.strip_prefix(kind)?;
                rest.strip_prefix('[')?.split_once(']')?.0.parse::<usize>().ok()
            };
            if let Some(index) = index("clusters") {
                touched.clusters.insert(index);
            } else if let Some(index) = index("listeners") {
                let of_routes = file.named_at.contains(".route_config.");
                if of_routes { &mut touched.routes } else { &mut touched.listeners }.insert(index);
            }
        }
        touched
    }

    fn is_empty(&self) -> bool {
        self.clusters.is_empty() && self.listeners.is_empty() && self.routes.is_empty()
    }
}

fn changes<'a, T: PartialEq + 'a>(
    old: impl Iterator<Item = (&'a str, &'a T)>,
    new: impl Iterator<Item = (&'a str, &'a T)>,
    touched: &HashSet<usize>,
) -> Changes {
    let mut before: HashMap<&str, &T> = old.collect();
    let mut changes = Changes::default();
    for (index, (name, resource)) in new.enumerate() {
        match before.remove(name) {
            None => changes.added.push(index),
            Some(old) if *old != *resource || touched.contains(&index) => changes.changed.push(index),
            Some(_) => {}
        }
    }
    changes.removed = before.into_keys().map(str::to_owned).collect();
    changes.removed.sort_unstable();
    changes
}

/// A listener taken apart.
struct Split {
    frame: Listener,
    chains: Vec<SplitChain>,
    /// The last of the chains is the default one.
    has_default: bool,
}

/// A filter chain taken apart.
struct SplitChain {
    /// Without what its connection managers hold.
    frame: FilterChain,
    managers: Vec<HttpConnectionManager>,
    routes: Vec<RouteConfiguration>,
}

impl Split {
    fn of(listener: &Listener) -> Split {
        let mut frame = listener.clone();
        let default = frame.default_filter_chain.take();
        let has_default = default.is_some();
        let chains = std::mem::take(&mut frame.filter_chains).into_iter().chain(default);
        Split { frame, chains: chains.map(SplitChain::of).collect(), has_default }
    }

    fn is_default(&self, index: usize) -> bool {
        self.has_default && index + 1 == self.chains.len()
    }
}

impl SplitChain {
    fn of(mut frame: FilterChain) -> SplitChain {
        let (mut managers, mut routes) = (Vec::new(), Vec::new());
        for filter in &mut frame.filters {
            let Some(ConfigType::TypedConfig(any)) = &mut filter.config_type else { continue };
            if any.type_url.rsplit('/').next() != Some(&*HttpConnectionManager::full_name()) {
                continue;
            }
            let Ok(mut manager) = HttpConnectionManager::decode(&*any.value) else { continue };
            // The others are not supported.
            if let Some(RouteSpecifier::RouteConfig(config)) = manager.route_specifier.take() {
                routes.push(config);
            }
            any.value.clear();
            managers.push(manager);
        }
        SplitChain { frame, managers, routes }
    }

    /// Whether nothing but routes is another.
    fn is_like(&self, other: &SplitChain) -> bool {
        self.frame == other.frame
            && self.managers == other.managers
            && self.routes.len() == other.routes.len()
    }
}

/// Which chains of `old` are in `new`, if the listener is the same otherwise. `all_routes`: what a route configuration stands in
/// files has changed, so that all are taken for others.
fn kept_chains(old: &Split, new: &Split, all_routes: bool) -> Option<Vec<Option<KeptChain>>> {
    if old.frame != new.frame {
        return None;
    }
    let mut used = HashSet::new();
    let kept = new.chains.iter().enumerate().map(|(index, chain)| {
        // Most often it stands where it stood.
        let places = (index..old.chains.len()).chain(0..index.min(old.chains.len()));
        let alike = |before: &usize| {
            !used.contains(before)
                && old.is_default(*before) == new.is_default(index)
                && old.chains[*before].is_like(chain)
        };
        let before = places.into_iter().find(alike)?;
        used.insert(before);
        let pairs = old.chains[before].routes.iter().zip(&chain.routes).enumerate();
        let others = pairs.filter(|(_, (old, new))| all_routes || old != new);
        Some(KeptChain { before, routes: others.map(|(at, _)| at).collect() })
    });
    Some(kept.collect())
}

/// Connection managers with other routes, counted over all chains, if all chains are kept where they stood.
fn only_routes(old: &Listener, chains: &[Option<KeptChain>], new: &Listener) -> Option<Vec<usize>> {
    let count = |listener: &Listener| {
        listener.filter_chains.len() + usize::from(listener.default_filter_chain.is_some())
    };
    if count(old) != count(new) {
        return None;
    }
    let (mut managers, mut first) = (Vec::new(), 0);
    let routes = Split::of(new).chains;
    for (index, (kept, chain)) in chains.iter().zip(&routes).enumerate() {
        let kept = kept.as_ref().filter(|kept| kept.before == index)?;
        managers.extend(kept.routes.iter().map(|at| first + at));
        first += chain.routes.len();
    }
    Some(managers)
}

/// Fields besides the static resources. What has no name here is told as the bootstrap.
fn elsewhere(old: &Bootstrap, new: &Bootstrap) -> Vec<&'static str> {
    if old == new {
        return Vec::new();
    }
    let fields = [
        ("node", old.node != new.node),
        ("admin", old.admin != new.admin),
        ("cluster_manager", old.cluster_manager != new.cluster_manager),
        ("stats_config", old.stats_config != new.stats_config),
        ("stats_sinks", old.stats_sinks != new.stats_sinks),
        (
            "stats_flush",
            old.stats_flush != new.stats_flush || old.stats_flush_interval != new.stats_flush_interval,
        ),
        ("watchdogs", old.watchdogs != new.watchdogs),
        ("layered_runtime", old.layered_runtime != new.layered_runtime),
        ("overload_manager", old.overload_manager != new.overload_manager),
    ];
    let mut found: Vec<_> = fields.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
    if found.is_empty() {
        found.push("bootstrap");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::LowerOptions;
    use crate::{LoadInputs, load};

    fn compared(yaml: &str) -> Compared {
        let inputs = LoadInputs { yaml_override: Some(yaml.to_owned()), ..LoadInputs::default() };
        let loaded =
            load(&inputs, &LowerOptions::default()).unwrap_or_else(|findings| panic!("{findings:?}"));
        Compared::new(loaded.message.into(), &loaded.settings)
    }

    fn bootstrap(listeners: &str, clusters: &str) -> String {
        format!("static_resources: {{ listeners: [{listeners}], clusters: [{clusters}] }}")
    }

    fn cluster(name: &str, timeout: &str) -> String {
        format!("{{ name: {name}, connect_timeout: {timeout} }}")
    }

    fn listener(name: &str, prefix: &str, routes: &[&str]) -> String {
        let chain = |(index, body): (usize, &&str)| {
            let any = "type.googleapis.com/envoy.extensions.filters";
            format!(
                "{{ filter_chain_match: {{ destination_port: {} }}, filters: [{{ name: h, typed_config: {{ '@type': \
                 {any}.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: {prefix}, http_filters: \
                 [{{ name: r, typed_config: {{ '@type': {any}.http.router.v3.Router }} }}], route_config: {{ virtual_hosts: \
                 [{{ name: all, domains: ['*'], routes: [{{ match: {{ prefix: / }}, direct_response: {{ status: 200, body: \
                 {body} }} }}] }}] }} }} }}] }}",
                index + 1
            )
        };
        let chains: Vec<_> = routes.iter().enumerate().map(chain).collect();
        let port = 1000 + name.bytes().map(u32::from).sum::<u32>();
        format!(
            "{{ name: {name}, address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}, filter_chains: [{}] }}",
            chains.join(", ")
        )
    }

    fn text(body: &str) -> String {
        format!("{{ inline_string: {body} }}")
    }

    #[test]
    fn the_same_text_makes_no_difference() {
        let one = bootstrap(&listener("a", "x", &[&text("hi")]), &cluster("c", "1s"));
        assert_eq!(compared(&one).difference(&compared(&one)), Difference::default());
    }

    #[test]
    fn resources_come_and_go_and_change_one_by_one() {
        let listeners =
            |b: &str| [listener("a", "x", &[&text("hi")]), listener(b, "x", &[&text("hi")])].join(", ");
        let old = bootstrap(
            &listeners("b"),
            &[cluster("gone", "1s"), cluster("c", "1s"), cluster("d", "1s")].join(","),
        );
        let new = bootstrap(
            &listeners("m"),
            &[cluster("d", "1s"), cluster("c", "2s"), cluster("e", "1s")].join(","),
        );
        let difference = compared(&old).difference(&compared(&new));
        let clusters = Changes { added: vec![2], changed: vec![1], removed: vec!["gone".into()] };
        let listeners = Changes { added: vec![1], changed: vec![], removed: vec!["b".into()] };
        assert_eq!(difference, Difference { clusters, listeners, ..Difference::default() });
    }

    #[test]
    fn routes_are_told_from_the_rest_of_their_listener() {
        let of = |prefix: &str, second: &str| {
            compared(&bootstrap(&listener("a", prefix, &[&text("hi"), &text(second)]), ""))
        };
        let difference = of("x", "hi").difference(&of("x", "ho"));
        assert_eq!(difference, Difference { routes: vec![(0, vec![1])], ..Difference::default() });
        let difference = of("x", "hi").difference(&of("z", "ho"));
        assert_eq!((difference.listeners.changed, difference.routes), (vec![], vec![]));
        assert_eq!(difference.chains, [(0, vec![None, None])]);
    }

    #[test]
    fn filter_chains_are_told_from_the_rest_of_their_listener() {
        let chains = |chains: &str, buffer: u32| {
            let address = "socket_address: { address: 127.0.0.1, port_value: 1 }";
            let fields =
                format!("name: a, address: {{ {address} }}, per_connection_buffer_limit_bytes: {buffer}");
            compared(&bootstrap(&format!("{{ {fields}, {chains} }}"), ""))
        };
        let http = |port: u16, prefix: &str, body: &str| {
            let listener = listener("a", prefix, &[&text(body)]);
            let chain = listener.split_once("filter_chains: [").unwrap().1.strip_suffix("] }").unwrap();
            chain.replace("destination_port: 1", &format!("destination_port: {port}"))
        };
        let kept = |before, routes: &[usize]| Some(KeptChain { before, routes: routes.to_vec() });
        let listed = |list: &[String]| format!("filter_chains: [{}]", list.join(", "));
        let old = chains(&listed(&[http(1, "x", "hi"), http(2, "x", "hi"), http(3, "x", "hi")]), 1000);
        // One has gone, one has other routes and another place, one is new.
        let new = listed(&[http(3, "x", "ho"), http(1, "x", "hi"), http(4, "x", "hi")]);
        let difference = old.difference(&chains(&new, 1000));
        assert_eq!(difference.chains, [(0, vec![kept(2, &[0]), kept(0, &[]), None])]);
        assert!(difference.listeners.is_empty() && difference.routes.is_empty() && !difference.is_empty());
        let difference = old.difference(&chains(&new, 2000));
        assert_eq!((difference.listeners.changed, difference.chains), (vec![0], vec![]));
        // The default one is no other's.
        let echo = "filters: [{ name: e, typed_config: { '@type': \
                    type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo } }]";
        let with_default = chains(&format!("default_filter_chain: {{ {echo} }}"), 1000);
        let with_any = chains(&format!("filter_chains: [{{ {echo} }}]"), 1000);
        assert_eq!(with_default.difference(&with_any).chains, [(0, vec![None])]);
    }

    #[test]
    fn a_file_is_part_of_what_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("body");
        let with = |body: &str| {
            std::fs::write(&path, body).unwrap();
            compared(&bootstrap(&listener("a", "x", &[&format!("{{ filename: '{}' }}", path.display())]), ""))
        };
        let (one, other) = (with("one"), with("other"));
        assert_eq!(one.difference(&other).routes, [(0, vec![0])]);
        assert!(one.difference(&with("one")).is_empty());
    }

    #[test]
    fn what_cannot_change_is_named() {
        let old = bootstrap("", "") + "\nstats_flush_interval: 1s";
        let new = bootstrap("", "") + "\nstats_flush_interval: 2s\nnode: { id: me }";
        let difference = compared(&old).difference(&compared(&new));
        assert!(difference.is_empty());
        assert_eq!(difference.elsewhere, ["node", "stats_flush"]);
    }
}
