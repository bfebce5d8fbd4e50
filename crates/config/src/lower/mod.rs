//! From v3 messages to [`settings`](mod@crate::settings): names resolved, defaults filled in, regexes
//! compiled. Whatever cannot be lowered is a finding at its path, and lowering goes on, so that one run
//! tells everything.
//!
//! Message rules and the support table are checked before this on the same message; here belongs what
//! needs more than one field, or what only building the settings can tell. A problem found by both is
//! reported once. The functions for one resource answer `None` exactly when lowering it found an error.

mod access_log;
mod address;
mod any;
mod bootstrap;
mod chain_match;
mod cluster;
mod connection_limit;
mod data_source;
mod endpoint;
mod filter_state;
pub mod format;
mod forwarding;
mod header;
mod http_filter;
mod http_manager;
mod listener;
mod local_reply;
mod log_filter;
mod log_json;
mod matcher;
mod metadata;
mod network;
mod overload;
mod protocol;
mod rate_limit;
#[cfg(test)]
mod rate_limit_tests;
mod rbac;
mod regex;
mod route;
mod route_action;
mod runtime;
mod stats;
mod value;
mod virtual_host;
mod watchdog;

use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use envoy_types::pb::envoy::config::bootstrap::v3 as bootstrap_v3;
use envoy_types::pb::envoy::config::cluster::v3 as cluster_v3;
use envoy_types::pb::envoy::config::listener::v3 as listener_v3;
use envoy_types::pb::envoy::config::route::v3 as route_v3;

use self::format::FormatFacts;
use crate::extension::ExtensionTypes;
use crate::hint;
use crate::settings;
use crate::{Code, Finding, Findings, Path, Severity};

/// What lowering depends on beside the message.
#[derive(Debug, Clone)]
pub struct LowerOptions {
    /// `--service-node`, `--service-cluster`, `--service-zone`: used over what the file's node says.
    pub service_node: Option<String>,
    pub service_cluster: Option<String>,
    pub service_zone: Option<String>,
    /// Read the files that the configuration names; bodies from files are empty otherwise.
    pub read_files: bool,
    /// A typed config of an unsupported type is left out with a warning instead of refused.
    pub allow_unsupported: bool,
    /// Types of filters that the program has besides proxyd's.
    pub extensions: Arc<ExtensionTypes>,
    /// What formats say about the process.
    pub facts: FormatFacts,
    /// For what discovery delivers; a bootstrap has its own.
    pub runtime: Arc<settings::Runtime>,
}

impl Default for LowerOptions {
    fn default() -> Self {
        Self {
            service_node: None,
            service_cluster: None,
            service_zone: None,
            read_files: true,
            allow_unsupported: false,
            extensions: Arc::default(),
            facts: FormatFacts::default(),
            runtime: Arc::default(),
        }
    }
}

/// The names of all clusters that routes may refer to, and which of them lowering has met.
#[derive(Debug, Default)]
pub struct ClusterNames(HashMap<Arc<str>, AtomicBool>);

impl ClusterNames {
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether something that was lowered refers to this cluster.
    pub(crate) fn is_used(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|used| used.load(Ordering::Relaxed))
    }

    /// The one shared copy of `name`, so that 10,000 routes to a cluster hold one string.
    fn share(&self, name: &str) -> Option<Arc<str>> {
        let (name, used) = self.0.get_key_value(name)?;
        used.store(true, Ordering::Relaxed);
        Some(Arc::clone(name))
    }
}

impl<S: Into<Arc<str>>> FromIterator<S> for ClusterNames {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        Self(names.into_iter().map(|name| (name.into(), AtomicBool::default())).collect())
    }
}

/// Lowers a whole bootstrap; `None` also when reading it left errors in `findings`.
pub fn bootstrap(
    message: &bootstrap_v3::Bootstrap,
    options: &LowerOptions,
    findings: &mut Findings,
) -> Option<settings::Bootstrap> {
    bootstrap_with(&cluster_names(message), message, options, findings)
}

/// The clusters of a bootstrap.
pub(crate) fn cluster_names(message: &bootstrap_v3::Bootstrap) -> ClusterNames {
    bootstrap::cluster_names(message)
}

/// As [`bootstrap()`]; `names` knows afterwards which clusters are used.
pub(crate) fn bootstrap_with(
    names: &ClusterNames,
    message: &bootstrap_v3::Bootstrap,
    options: &LowerOptions,
    findings: &mut Findings,
) -> Option<settings::Bootstrap> {
    let mut context = Context::new(options, Some(names), findings);
    context.node = bootstrap::node(options, message.node.as_ref());
    let lowered = bootstrap::lower(&mut context, &Path::root(), message);
    context.finish(lowered).filter(|_| !findings.has_errors())
}

/// Lowers one listener, as the file has it or as discovery delivers it. With `clusters`, static routes
/// and `tcp_proxy` may only name these.
pub fn listener(
    message: &listener_v3::Listener,
    path: &Path<'_>,
    options: &LowerOptions,
    clusters: Option<&ClusterNames>,
    findings: &mut Findings,
) -> Option<Arc<settings::Listener>> {
    let mut context = Context::new(options, clusters, findings);
    let lowered = listener::lower(&mut context, path, message).map(Arc::new);
    lowered.and_then(|lowered| context.finish(lowered))
}

/// Lowers one cluster.
pub fn cluster(
    message: &cluster_v3::Cluster,
    path: &Path<'_>,
    options: &LowerOptions,
    findings: &mut Findings,
) -> Option<Arc<settings::Cluster>> {
    let mut context = Context::new(options, None, findings);
    let lowered = Arc::new(cluster::lower(&mut context, path, message));
    context.finish(lowered)
}

/// Lowers one route configuration as discovery delivers it: clusters are checked against `clusters` only
/// if it says `validate_clusters`.
pub fn route_configuration(
    message: &route_v3::RouteConfiguration,
    path: &Path<'_>,
    options: &LowerOptions,
    clusters: Option<&ClusterNames>,
    findings: &mut Findings,
) -> Option<Arc<settings::RouteConfiguration>> {
    let mut context = Context::new(options, clusters, findings);
    let lowered = Arc::new(route::lower(&mut context, path, message, false));
    context.finish(lowered)
}

const UNSUPPORTED_FORMATTER: Code = Code::UNSUPPORTED_FORMATTER;
const FILTER_ORDER: Code = Code::FILTER_ORDER;
const DUPLICATE_ADDRESS: Code = Code::DUPLICATE_ADDRESS;
const DUPLICATE_MATCH: Code = Code::DUPLICATE_MATCH;

/// What all lowering functions share during one run.
struct Context<'a> {
    options: &'a LowerOptions,
    clusters: Option<&'a ClusterNames>,
    findings: &'a mut Findings,
    node: settings::Node,
    runtime: Arc<settings::Runtime>,
    /// Runtime keys that something goes by.
    runtime_used: HashSet<String>,
    failed: bool,
    /// Read so far.
    files: Vec<settings::NamedFile>,
}

impl<'a> Context<'a> {
    fn new(
        options: &'a LowerOptions,
        clusters: Option<&'a ClusterNames>,
        findings: &'a mut Findings,
    ) -> Context<'a> {
        let node = bootstrap::node(options, None);
        let (runtime, runtime_used) = (Arc::clone(&options.runtime), HashSet::new());
        Context { options, clusters, findings, node, runtime, runtime_used, failed: false, files: Vec::new() }
    }

    fn finish<T>(&self, lowered: T) -> Option<T> {
        (!self.failed).then_some(lowered)
    }

    /// Reports an error, unless something checked earlier has reported one at this very place.
    fn error(&mut self, path: &Path<'_>, code: Code, message: impl fmt::Display) {
        self.failed = true;
        if !self.is_known(path) {
            self.findings.error(path, code, message);
        }
    }

    /// Whether an error was reported at this very place.
    fn is_known(&self, path: &Path<'_>) -> bool {
        let here = path.to_string();
        let known = |finding: &Finding| finding.severity == Severity::Error && finding.path == here;
        !here.is_empty() && self.findings.iter().any(known)
    }

    /// A required part is missing. Silent if that only follows from an error reported already, or if a
    /// field beside it has a name that does not exist: it is likely the one, misspelt.
    fn missing(&mut self, path: &Path<'_>, message: impl fmt::Display) {
        self.failed = true;
        let here = path.to_string();
        let parent = |path: &str| path.rsplit_once('.').map(|(parent, _)| parent.to_owned());
        let misspelt = |finding: &Finding| {
            matches!(finding.code, Code::UNKNOWN_FIELD | Code::REMOVED_FIELD)
                && parent(&finding.path) == parent(&here)
        };
        if !self.findings.explains(path) && !self.findings.iter().any(misspelt) {
            self.findings.error(path, Code::REQUIRED, message);
        }
    }

    /// A field that the support table allows because it has its effect in other places of the same message
    /// type, or with other values.
    fn unsupported(&mut self, path: &Path<'_>, what: impl fmt::Display) {
        self.error(path, Code::UNSUPPORTED_FIELD, format_args!("{what} is not supported"));
    }

    /// A typed config that cannot be lowered: refused, or left out where the operator said so.
    fn unsupported_type(&mut self, path: &Path<'_>, message: impl fmt::Display) {
        let severity = if self.options.allow_unsupported { Severity::Warning } else { Severity::Error };
        self.add_type(path, severity, message);
    }

    /// A typed config that cannot be lowered, nor left out.
    fn refused_type(&mut self, path: &Path<'_>, message: impl fmt::Display) {
        self.add_type(path, Severity::Error, message);
    }

    /// The support table has usually reported it at `path` or at its `@type`.
    fn add_type(&mut self, path: &Path<'_>, severity: Severity, message: impl fmt::Display) {
        self.failed |= severity == Severity::Error;
        let here = path.to_string();
        let inside = |finding: &Finding| {
            let rest = finding.path.strip_prefix(&here);
            // Errors come first in the order of severities.
            finding.severity <= severity
                && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        if !self.findings.iter().any(inside) {
            self.findings.add(severity, path, Code::UNSUPPORTED_TYPE, message);
        }
    }

    /// The name of a cluster that must exist when `checked` and the clusters are known.
    fn cluster_name(&mut self, path: &Path<'_>, name: &str, checked: bool) -> Arc<str> {
        let Some(clusters) = self.clusters else { return Arc::from(name) };
        if let Some(shared) = clusters.share(name) {
            return shared;
        }
        if checked {
            self.failed = true;
            let hint = || {
                let mut names: Vec<&str> = clusters.0.keys().map(AsRef::as_ref).collect();
                names.sort_unstable();
                let near = hint::closest(name, names.iter().copied());
                match (near, &names[..]) {
                    (Some(near), _) => Some(format!("did you mean `{near}`?")),
                    (None, []) => {
                        Some("there are no clusters: they stand under `static_resources`".to_owned())
                    }
                    (None, [..]) if names.len() > MAX_LISTED => None,
                    (None, known) => Some(format!("the clusters are `{}`", known.join("`, `"))),
                }
            };
            let message = format_args!("no cluster is named {name:?}");
            if !self.is_known(path) {
                self.findings.hinted_error(path, Code::UNKNOWN_CLUSTER, message, hint);
            }
        }
        Arc::from(name)
    }
}

/// Clusters that are named where one is not known.
const MAX_LISTED: usize = 8;

#[cfg(test)]
mod network_tests;
#[cfg(test)]
mod runtime_tests;
#[cfg(test)]
mod stats_tests;
#[cfg(test)]
mod tests;
