//! Whether one route matches a request.

use proxy_config::settings::{
    HeaderMatcher, HeaderPredicate, PathMatch, QueryMatcher, QueryPredicate, RouteMatch,
};

use super::LookupContext;
use crate::joined::{self, Direction};
use crate::message::Request;
use crate::query;
use crate::reply::is_grpc_call;

/// The first of what a route asks for that a request does not have.
#[derive(Clone, Copy, Debug)]
pub enum Mismatch<'r> {
    Path,
    /// `runtime_fraction` takes this many of a million requests, and this is none of them.
    Fraction(u32),
    Grpc,
    Header(&'r HeaderMatcher),
    Query(&'r QueryMatcher),
}

/// Whether everything that `matches` asks for holds. `path` is the request's, without its query.
pub(super) fn matches(matches: &RouteMatch, path: &[u8], request: &Request, context: &LookupContext) -> bool {
    mismatch(matches, path, request, context).is_none()
}

/// What of `matches` does not hold.
#[inline]
pub(super) fn mismatch<'r>(
    matches: &'r RouteMatch,
    path: &[u8],
    request: &Request,
    context: &LookupContext,
) -> Option<Mismatch<'r>> {
    if !path_matches(matches, path) {
        return Some(Mismatch::Path);
    }
    if let Some(ppm) = matches.fraction_ppm
        && context.random % 1_000_000 >= u64::from(ppm)
    {
        return Some(Mismatch::Fraction(ppm));
    }
    if matches.grpc && !is_grpc_call(&request.headers) {
        return Some(Mismatch::Grpc);
    }
    let header = matches.headers.iter().find(|matcher| !header_matches(matcher, Some(request)));
    if let Some(matcher) = header {
        return Some(Mismatch::Header(matcher));
    }
    matches.query.iter().find(|matcher| !query_matches(matcher, request)).map(Mismatch::Query)
}

/// CONNECT requests, and no others, have no path; only `connect_matcher` is for them, as in Envoy.
fn path_matches(matches: &RouteMatch, path: &[u8]) -> bool {
    let starts_with = |prefix: &[u8]| {
        path.len() >= prefix.len() && {
            let start = &path[..prefix.len()];
            if matches.case_sensitive { start == prefix } else { start.eq_ignore_ascii_case(prefix) }
        }
    };
    if path.is_empty() {
        return matches!(matches.path, PathMatch::Connect);
    }
    match &matches.path {
        PathMatch::Prefix(prefix) => starts_with(prefix),
        PathMatch::Exact(exact) => path.len() == exact.len() && starts_with(exact),
        PathMatch::Regex(regex) => regex.is_match(path),
        PathMatch::SeparatedPrefix(prefix) => {
            starts_with(prefix) && path.get(prefix.len()).is_none_or(|&next| next == b'/')
        }
        PathMatch::Connect => false,
    }
}

/// A header that is absent matches nothing but `present_match`, unless `treat_missing_header_as_empty`; of several
/// lines one has to match, before the result is inverted. Without a request every header is absent.
pub fn header_matches(matcher: &HeaderMatcher, request: Option<&Request>) -> bool {
    let name = &*matcher.name;
    let found = request.and_then(|request| Some((request, request.value_or_pseudo(name)?)));
    if let HeaderPredicate::Present(wanted) = matcher.predicate {
        let present = matcher.missing_as_empty || found.is_some();
        return (present == wanted) != matcher.invert;
    }
    let Some((request, value)) = found else {
        return matcher.missing_as_empty && value_matches(&matcher.predicate, b"") != matcher.invert;
    };
    // Pseudo headers have one value, and none of the lines are theirs.
    let mut more = request.headers.values(name).skip(1);
    let found = value_matches(&matcher.predicate, &value)
        || !joined::is_joined(name.as_bytes(), Direction::Request)
            && more.any(|value| value_matches(&matcher.predicate, value));
    found != matcher.invert
}

fn value_matches(predicate: &HeaderPredicate, value: &[u8]) -> bool {
    match predicate {
        HeaderPredicate::Present(wanted) => *wanted,
        HeaderPredicate::Range { start, end } => std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.trim().parse::<i64>().ok())
            .is_some_and(|number| (*start..*end).contains(&number)),
        HeaderPredicate::String(string) => string.matches(value),
    }
}

/// Names and values are compared as they were sent, without decoding; the first occurrence of a name counts.
fn query_matches(matcher: &QueryMatcher, request: &Request) -> bool {
    parameter_matches(matcher, query::sent_parameter(request.path(), &matcher.name))
}

/// The same of a value that was found already.
pub fn parameter_matches(matcher: &QueryMatcher, value: Option<&[u8]>) -> bool {
    match &matcher.predicate {
        QueryPredicate::Present(wanted) => value.is_some() == *wanted,
        QueryPredicate::String(string) => value.is_some_and(|value| string.matches(value)),
    }
}
