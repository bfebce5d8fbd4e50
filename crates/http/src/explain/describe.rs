//! Matchers and why they do not match, in words.

use proxy_config::settings::{
    ClusterTarget, Domain, HeaderMatcher, HeaderPredicate, PathMatch, QueryMatcher, QueryPredicate,
    RouteMatch, StringMatcher, StringPattern,
};

use super::{Chosen, Explanation, Passed, text};
use crate::message::{Method, Request};
use crate::query::sent_parameter;
use crate::route::{Mismatch, RouteTable, Trace};

/// Which virtual host takes a host, and why the others do not.
pub(super) fn virtual_hosts(table: &RouteTable, request: &Request, told: &mut Explanation) {
    let host = text(request.authority());
    let chosen = table.find_virtual_host(request.authority());
    let fitting = |index: usize| table.fitting_domain(index as u32, request.authority());
    let best = chosen.and_then(|index| fitting(index as usize)).map(domain);
    for (index, virtual_host) in table.configuration.virtual_hosts.iter().enumerate() {
        let name = virtual_host.name.clone();
        let fits = fitting(index).map(domain);
        if chosen == Some(index as u32) {
            told.virtual_host = Some(Chosen { index, name, by: fits.unwrap_or_default() });
            continue;
        }
        let why = match (fits, &best) {
            (Some(fits), Some(best)) if fits == *best => format!("`{fits}` is the same domain once more"),
            (Some(fits), Some(best)) => format!("`{fits}` also fits, `{best}` is more exact"),
            _ => {
                let domains: Vec<_> = virtual_host.domains.iter().map(domain).collect();
                let port = port_matters(&host, &virtual_host.domains, table.configuration.ignore_port);
                format!("`{host}` is not {}{port}", list(&domains))
            }
        };
        told.other_hosts.push(Passed { index, name, why });
    }
}

/// Which route takes a request, and why those before it do not.
pub(super) fn routes(table: &RouteTable, trace: &Trace<'_>, request: &Request, told: &mut Explanation) {
    let Some(host) = trace.virtual_host else { return };
    let routes = &table.configuration.virtual_hosts[host as usize].routes;
    for (index, (route, mismatch)) in routes.iter().zip(&trace.passed).enumerate() {
        let why = self::mismatch(&route.matches, *mismatch, request);
        told.passed.push(Passed { index, name: route.name.clone(), why });
    }
    told.route = trace.route.map(|index| {
        let route = &routes[index as usize];
        Chosen { index: index as usize, name: route.name.clone(), by: matches(&route.matches) }
    });
}

/// How one of several clusters was chosen.
pub(super) fn cluster_choice(target: &ClusterTarget, weighted: Option<u32>) -> Option<String> {
    match target {
        ClusterTarget::Cluster(_) => None,
        ClusterTarget::Header(name) => Some(format!("cluster_header `{name}`")),
        ClusterTarget::Weighted(clusters) => {
            let share = |weight: u32| f64::from(weight) * 100.0 / f64::from(clusters.total.max(1));
            let each = clusters.clusters.iter().enumerate().map(|(index, cluster)| {
                let mark = if weighted == Some(index as u32) { ", this one" } else { "" };
                format!("`{}` {}%{mark}", cluster.name, decimals(share(cluster.weight)))
            });
            let each: Vec<_> = each.collect();
            Some(format!("weighted_clusters: {}", each.join("; ")))
        }
    }
}

fn domain(domain: &Domain) -> String {
    match domain {
        Domain::Exact(text) => text.to_string(),
        Domain::Suffix(text) => format!("*{text}"),
        Domain::Prefix(text) => format!("{text}*"),
        Domain::Any => "*".to_owned(),
    }
}

/// What to do about a host that would fit but for its port.
fn port_matters(host: &str, domains: &[Domain], ignored: bool) -> &'static str {
    let lower = host.to_ascii_lowercase();
    let without = lower.rsplit_once(':').map(|(name, _)| name).filter(|_| !ignored);
    let fits = |domain: &Domain| match (domain, without) {
        (Domain::Exact(text), Some(without)) => **text == *without,
        (Domain::Suffix(text), Some(without)) => without.ends_with(&**text),
        _ => false,
    };
    if domains.iter().any(fits) { "; it would be with ignore_port_in_host_matching" } else { "" }
}

/// All that a route asks for.
fn matches(matches: &RouteMatch) -> String {
    let mut parts = vec![path(matches)];
    parts.extend(matches.fraction_ppm.map(|ppm| format!("{}% of requests", percent(ppm))));
    parts.extend(matches.grpc.then(|| "gRPC".to_owned()));
    parts.extend(
        matches.headers.iter().map(|matcher| format!("header `{}` {}", matcher.name, header(matcher))),
    );
    parts.extend(
        matches.query.iter().map(|matcher| format!("query parameter `{}` {}", matcher.name, query(matcher))),
    );
    parts.join(", ")
}

fn path(matches: &RouteMatch) -> String {
    let case = if matches.case_sensitive { "" } else { " in any case" };
    match &matches.path {
        PathMatch::Prefix(prefix) => format!("prefix `{}`{case}", text(prefix)),
        PathMatch::Exact(exact) => format!("path `{}`{case}", text(exact)),
        PathMatch::Regex(regex) => format!("safe_regex `{}`", pattern(regex.as_str())),
        PathMatch::SeparatedPrefix(prefix) => format!("path_separated_prefix `{}`{case}", text(prefix)),
        PathMatch::Connect => "connect_matcher".to_owned(),
    }
}

fn mismatch(matches: &RouteMatch, mismatch: Mismatch<'_>, request: &Request) -> String {
    match mismatch {
        Mismatch::Path => path_mismatch(matches, request),
        Mismatch::Fraction(ppm) => {
            format!("takes {}% of requests, and this is none of them (--random decides)", percent(ppm))
        }
        Mismatch::Grpc => "takes gRPC alone, by its content-type".to_owned(),
        Mismatch::Header(matcher) => {
            let mut values = request.headers.values(&*matcher.name).map(text);
            let value = request.value_or_pseudo(&matcher.name);
            let is = match (value, values.nth(1)) {
                (None, _) => "is absent".to_owned(),
                (Some(value), None) => format!("is `{}`", text(&value)),
                (Some(_), Some(_)) => "has several values".to_owned(),
            };
            format!("header `{}` {is}: must be {}", matcher.name, header(matcher))
        }
        Mismatch::Query(matcher) => {
            let is = match sent_parameter(request.path(), &matcher.name).map(text) {
                None => "is absent".to_owned(),
                Some(value) => format!("is `{value}`"),
            };
            format!("query parameter `{}` {is}: must be {}", matcher.name, query(matcher))
        }
    }
}

fn path_mismatch(matches: &RouteMatch, request: &Request) -> String {
    if request.method == Method::Connect {
        return "CONNECT has no path: only connect_matcher takes it".to_owned();
    }
    let asked = text(request.path_without_query());
    let folds = |wanted: &[u8], whole: bool| {
        let (asked, wanted) = (asked.to_lowercase(), text(wanted).to_lowercase());
        if whole { asked == wanted } else { asked.starts_with(&wanted) }
    };
    match &matches.path {
        PathMatch::Prefix(prefix) => {
            let case = if folds(prefix, false) { "; but for its case (case_sensitive)" } else { "" };
            format!("path `{asked}` does not begin with `{}`{case}", text(prefix))
        }
        PathMatch::Exact(exact) => {
            let slash = asked.trim_end_matches('/') == text(exact).trim_end_matches('/');
            let hint = match (folds(exact, true), slash) {
                (true, _) => "; but for its case (case_sensitive)",
                (false, true) => "; the slash at the end counts",
                (false, false) => "",
            };
            format!("path `{asked}` is not `{}`{hint}", text(exact))
        }
        PathMatch::Regex(regex) => {
            format!("path `{asked}` as a whole does not match `{}`", pattern(regex.as_str()))
        }
        PathMatch::SeparatedPrefix(prefix) => {
            format!("path `{asked}` is not `{0}` and not below `{0}/`", text(prefix))
        }
        PathMatch::Connect => "connect_matcher takes CONNECT alone".to_owned(),
    }
}

fn header(matcher: &HeaderMatcher) -> String {
    let not = if matcher.invert { "not " } else { "" };
    match &matcher.predicate {
        HeaderPredicate::Present(wanted) => {
            if *wanted == matcher.invert {
                "absent".to_owned()
            } else {
                "present".to_owned()
            }
        }
        HeaderPredicate::Range { start, end } => format!("{not}from {start} to below {end}"),
        HeaderPredicate::String(matcher) => format!("{not}{}", string(matcher)),
    }
}

fn query(matcher: &QueryMatcher) -> String {
    match &matcher.predicate {
        QueryPredicate::Present(true) => "present".to_owned(),
        QueryPredicate::Present(false) => "absent".to_owned(),
        QueryPredicate::String(matcher) => string(matcher),
    }
}

fn string(matcher: &StringMatcher) -> String {
    let case = if matcher.ignore_case { " in any case" } else { "" };
    match &matcher.pattern {
        StringPattern::Exact(exact) => format!("exact `{}`{case}", text(exact)),
        StringPattern::Prefix(prefix) => format!("prefix `{}`{case}", text(prefix)),
        StringPattern::Suffix(suffix) => format!("suffix `{}`{case}", text(suffix)),
        StringPattern::Contains(part) => format!("contains `{}`{case}", text(part)),
        StringPattern::Regex(regex) => format!("safe_regex `{}`", pattern(regex.as_str())),
    }
}

/// A pattern as it was written: lowering has anchored it.
fn pattern(anchored: &str) -> &str {
    let bare = ANCHORS.iter().find_map(|(start, end)| anchored.strip_prefix(start)?.strip_suffix(end));
    bare.unwrap_or(anchored)
}

const ANCHORS: [(&str, &str); 2] = [(r"\A(?:", r")\z"), ("^(?:", ")$")];

fn percent(ppm: u32) -> String {
    decimals(f64::from(ppm) / 10_000.0)
}

/// At most two, and none that says nothing.
fn decimals(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn list(domains: &[String]) -> String {
    let shown: Vec<_> = domains.iter().take(MAX_DOMAINS).map(|domain| format!("`{domain}`")).collect();
    let more = domains.len() - shown.len();
    let more = if more > 0 { format!(" or one of {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

/// More of them are only counted.
const MAX_DOMAINS: usize = 5;
