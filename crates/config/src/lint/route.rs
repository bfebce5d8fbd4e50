//! Virtual hosts and routes: what never matches, and what does something else than it seems to.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::route::v3 as route_v3;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as manager_v3;
use envoy_types::pb::google::protobuf::Any;
use manager_v3::HttpConnectionManager;
use prost::Message;
use route_v3::route::Action;
use route_v3::route_action::ClusterSpecifier;
use route_v3::route_match::PathSpecifier;
use route_v3::{RedirectAction, RouteAction, RouteConfiguration, RouteMatch, VirtualHost};

use super::{File, timeout};
use crate::codes::Code;
use crate::finding::Path;
use crate::hint;

pub(super) fn configuration(
    file: &mut File<'_>,
    path: &Path<'_>,
    manager: &HttpConnectionManager,
    message: &RouteConfiguration,
) {
    per_filter(file, path, manager, &message.typed_per_filter_config);
    let hosts = path.field("virtual_hosts");
    let names = message.virtual_hosts.iter().map(|host| host.name.as_str());
    super::repeated_names(file, &hosts, "virtual_hosts", names);
    for (index, host) in message.virtual_hosts.iter().enumerate() {
        virtual_host(file, &hosts.index(index), manager, host);
    }
}

/// Settings for filters that are not in the chain.
fn per_filter(
    file: &mut File<'_>,
    path: &Path<'_>,
    manager: &HttpConnectionManager,
    configs: &HashMap<String, Any>,
) {
    let mut names: Vec<&String> = configs.keys().collect();
    names.sort_unstable();
    let path = path.field("typed_per_filter_config");
    for name in names {
        let of_upgrades = manager.upgrade_configs.iter().flat_map(|upgrade| &upgrade.filters);
        let known =
            || manager.http_filters.iter().chain(of_upgrades.clone()).map(|filter| filter.name.as_str());
        if !known().any(|known| known == name) {
            let near = hint::closest(name, known());
            let near = near.map_or(String::new(), |near| format!(", did you mean `{near}`?"));
            file.warn(
                &path.key(name),
                Code::UNKNOWN_FILTER,
                format_args!("no HTTP filter is named {name:?}{near}"),
            );
        }
    }
}

fn virtual_host(
    file: &mut File<'_>,
    path: &Path<'_>,
    manager: &HttpConnectionManager,
    message: &VirtualHost,
) {
    per_filter(file, path, manager, &message.typed_per_filter_config);
    let domains = path.field("domains");
    for (index, domain) in message.domains.iter().enumerate() {
        let why = match domain {
            domain if domain.contains("://") => "a scheme",
            domain if domain.contains('/') => "a path",
            domain if domain.contains(char::is_whitespace) => "blanks",
            _ => continue,
        };
        let text = format_args!("no Host header has {why}, so that {domain:?} never matches");
        file.warn(&domains.index(index), Code::DOMAIN_NEVER_MATCHES, text);
    }
    if message.routes.is_empty() && message.require_tls == 0 && message.matcher.is_none() {
        let text =
            format_args!("virtual host {:?} has no routes: its requests are answered with 404", message.name);
        file.warn(path, Code::EMPTY_VIRTUAL_HOST, text);
    }
    let routes = path.field("routes");
    let mut earlier = Earlier::default();
    for (index, route) in message.routes.iter().enumerate() {
        let here = routes.index(index);
        per_filter(file, &here, manager, &route.typed_per_filter_config);
        if let Some(matches) = &route.r#match {
            let at = here.field("match");
            match earlier.takes(matches) {
                Some(other) => {
                    let text = format_args!("never reached: routes[{other}] takes all of its requests");
                    file.warn(&at, Code::UNREACHABLE_ROUTE, text);
                }
                None => earlier.insert(index, matches),
            }
            path_specifier(file, &at, matches);
        }
        if let Some(action) = &route.action {
            timeout::route(file, &here, manager, action);
            self::action(file, &here, route.r#match.as_ref(), action);
        }
    }
}

fn path_specifier(file: &mut File<'_>, path: &Path<'_>, message: &RouteMatch) {
    let (name, text) = match &message.path_specifier {
        Some(PathSpecifier::Prefix(text)) => ("prefix", text),
        Some(PathSpecifier::Path(text)) => ("path", text),
        Some(PathSpecifier::PathSeparatedPrefix(text)) => ("path_separated_prefix", text),
        Some(PathSpecifier::SafeRegex(regex)) => {
            let special = |letter: char| "\\.+*?()|[]{}^$".contains(letter);
            if !regex.regex.is_empty() && !regex.regex.contains(special) {
                let path = path.field("safe_regex");
                let text = "a regular expression without special characters; `path` says the same";
                file.warn(&path.field("regex"), Code::PLAIN_REGEX, text);
            }
            return;
        }
        _ => return,
    };
    if text.contains(['?', '#']) {
        let text = format_args!("paths are matched without their query, so that {text:?} never matches");
        file.warn(&path.field(name), Code::PATH_NEVER_MATCHES, text);
    } else if !text.is_empty() && !text.starts_with('/') && text != "*" {
        let text = format_args!("paths start with a slash, so that {text:?} never matches");
        file.warn(&path.field(name), Code::PATH_NEVER_MATCHES, text);
    }
}

fn action(file: &mut File<'_>, path: &Path<'_>, matches: Option<&RouteMatch>, action: &Action) {
    match action {
        Action::Route(action) => forward(file, &path.field("route"), matches, action),
        Action::Redirect(redirect) => {
            if changes_nothing(redirect) && !file.findings.explains(&path.field("redirect")) {
                let text = "the redirect leads to where the request came from";
                file.warn(&path.field("redirect"), Code::REDIRECT_LOOP, text);
            }
            if let Some(route_v3::redirect_action::PathRewriteSpecifier::PrefixRewrite(to)) =
                &redirect.path_rewrite_specifier
            {
                let path = path.field("redirect");
                slashes(file, &path.field("prefix_rewrite"), matches, to);
            }
        }
        _ => {}
    }
}

fn changes_nothing(redirect: &RedirectAction) -> bool {
    *redirect == RedirectAction { response_code: redirect.response_code, ..RedirectAction::default() }
}

/// `/api` replaced by `/` leaves the slash that follows it.
fn slashes(file: &mut File<'_>, path: &Path<'_>, matches: Option<&RouteMatch>, to: &str) {
    let prefix = match matches.and_then(|matches| matches.path_specifier.as_ref()) {
        Some(PathSpecifier::Prefix(prefix) | PathSpecifier::PathSeparatedPrefix(prefix)) => prefix,
        _ => return,
    };
    if !prefix.ends_with('/') && !prefix.is_empty() && to.ends_with('/') {
        let text = format_args!("{prefix}/x becomes {to}/x, with a double slash");
        file.warn(path, Code::DOUBLE_SLASH, text);
    }
}

fn forward(file: &mut File<'_>, path: &Path<'_>, matches: Option<&RouteMatch>, action: &RouteAction) {
    if !action.prefix_rewrite.is_empty() {
        slashes(file, &path.field("prefix_rewrite"), matches, &action.prefix_rewrite);
    }
    match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => {
            let grpc = matches.is_some_and(|matches| matches.grpc.is_some());
            if grpc && file.clusters.get(name.as_str()).is_some_and(|cluster| speaks_http1(cluster)) {
                let text = format_args!("gRPC requests to cluster {name:?}, which speaks HTTP/1");
                file.warn(&path.field("cluster"), Code::GRPC_OVER_HTTP1, text);
            }
        }
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            let path = path.field("weighted_clusters");
            let path = path.field("clusters");
            let total: u64 = weighted
                .clusters
                .iter()
                .filter_map(|cluster| cluster.weight.as_ref())
                .map(|w| u64::from(w.value))
                .sum();
            for (index, cluster) in weighted.clusters.iter().enumerate() {
                file.any_cluster |= !cluster.cluster_header.is_empty();
                if total > 0 && cluster.weight.as_ref().is_some_and(|weight| weight.value == 0) {
                    let text = format_args!("cluster {:?} gets no requests", cluster.name);
                    file.warn(&path.index(index).field("weight"), Code::ZERO_WEIGHT, text);
                }
            }
        }
        Some(_) => file.any_cluster = true,
        None => {}
    }
}

/// Without any word on HTTP/2.
#[expect(deprecated, reason = "the older spellings are part of the v3 API")]
fn speaks_http1(cluster: &Cluster) -> bool {
    cluster.typed_extension_protocol_options.is_empty() && cluster.http2_protocol_options.is_none()
}

/// The routes before one, as far as they take all requests to some paths.
#[derive(Default)]
struct Earlier {
    prefixes: HashMap<(bool, String), usize>,
    paths: HashMap<(bool, String), usize>,
    separated: HashMap<(bool, String), usize>,
    /// Takes everything.
    all: Option<usize>,
    /// Whole matches, with all of their conditions.
    same: HashMap<Vec<u8>, usize>,
}

impl Earlier {
    fn insert(&mut self, index: usize, matches: &RouteMatch) {
        if matches.runtime_fraction.is_some() {
            return;
        }
        // Maps have no order of their own on the wire, and a match has none.
        self.same.entry(matches.encode_to_vec()).or_insert(index);
        let conditions = RouteMatch { path_specifier: None, case_sensitive: None, ..matches.clone() };
        if conditions != RouteMatch::default() {
            return;
        }
        let sensitive = is_case_sensitive(matches);
        let key =
            |text: &String| (sensitive, if sensitive { text.clone() } else { text.to_ascii_lowercase() });
        match &matches.path_specifier {
            Some(PathSpecifier::Prefix(text)) if text.is_empty() || text == "/" => {
                self.all.get_or_insert(index);
            }
            Some(PathSpecifier::Prefix(text)) => _ = self.prefixes.entry(key(text)).or_insert(index),
            Some(PathSpecifier::Path(text)) => _ = self.paths.entry(key(text)).or_insert(index),
            Some(PathSpecifier::PathSeparatedPrefix(text)) => {
                _ = self.separated.entry(key(text)).or_insert(index);
            }
            Some(PathSpecifier::SafeRegex(regex)) if matches!(regex.regex.as_str(), ".*" | "/.*") => {
                self.all.get_or_insert(index);
            }
            _ => {}
        }
    }

    /// The route that takes all requests which `matches` could take.
    fn takes(&self, matches: &RouteMatch) -> Option<usize> {
        let connect = matches!(matches.path_specifier, Some(PathSpecifier::ConnectMatcher(_)));
        if let Some(index) = self.all.filter(|_| !connect && matches.path_specifier.is_some()) {
            return Some(index);
        }
        if let Some(index) = self.same.get(&matches.encode_to_vec()) {
            return Some(*index);
        }
        let (text, is_path) = match &matches.path_specifier {
            Some(PathSpecifier::Path(text)) => (text, true),
            Some(PathSpecifier::Prefix(text) | PathSpecifier::PathSeparatedPrefix(text)) => (text, false),
            _ => return None,
        };
        let is_separated = matches!(matches.path_specifier, Some(PathSpecifier::PathSeparatedPrefix(_)));
        // What is matched in any case is only taken by what is, too.
        let cases = if is_case_sensitive(matches) { &[true, false][..] } else { &[false] };
        for sensitive in cases {
            let text = if *sensitive { text.clone() } else { text.to_ascii_lowercase() };
            let found = |map: &HashMap<(bool, String), usize>, text: &str| {
                map.get(&(*sensitive, text.to_owned())).copied()
            };
            if is_path && let Some(index) = found(&self.paths, &text) {
                return Some(index);
            }
            for end in text.char_indices().map(|(at, letter)| at + letter.len_utf8()) {
                let start = &text[..end];
                let whole = end == text.len();
                let cut = if whole { is_path || is_separated } else { text[end..].starts_with('/') };
                let separated = if cut { found(&self.separated, start) } else { None };
                if let Some(index) = found(&self.prefixes, start).or(separated) {
                    return Some(index);
                }
            }
        }
        None
    }
}

fn is_case_sensitive(matches: &RouteMatch) -> bool {
    matches.case_sensitive.as_ref().is_none_or(|flag| flag.value)
}
