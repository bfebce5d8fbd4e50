//! New paths and hosts.

use proxy_config::settings::{HostRewrite, PathMatch, PathRewrite};
use regex::bytes::Regex;
use smallvec::SmallVec;

use super::ChosenRoute;
use crate::message::Request;

/// A path or host while it is being made.
pub(super) type Text = SmallVec<[u8; 256]>;

impl ChosenRoute<'_> {
    /// The path of `request`, query included, with its matched part replaced; `None` when nothing would be left.
    pub(super) fn rewrite_prefix(self, request: &Request, replacement: &[u8]) -> Option<Text> {
        let matched = match &self.route().matches.path {
            PathMatch::Prefix(prefix) | PathMatch::SeparatedPrefix(prefix) => prefix.len(),
            PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Connect => {
                request.path_without_query().len()
            }
        };
        let rest = request.path().get(matched..)?;
        let mut path = Text::from_slice(replacement);
        path.extend_from_slice(rest);
        (!path.is_empty()).then_some(path)
    }

    pub(super) fn rewrite_path(self, request: &Request, rewrite: &PathRewrite) -> Option<Text> {
        match rewrite {
            PathRewrite::Prefix(replacement) => self.rewrite_prefix(request, replacement),
            PathRewrite::Regex { pattern, substitution } => replace_in_path(request, pattern, substitution),
        }
    }
}

/// `regex_rewrite`: every match in the path without query is replaced; the query stays. `None` when no path is left,
/// as Envoy then keeps the old one.
pub(super) fn replace_in_path(request: &Request, pattern: &Regex, substitution: &[u8]) -> Option<Text> {
    let before = request.path_without_query();
    let after = pattern.replace_all(before, substitution);
    if after.is_empty() {
        return None;
    }
    let mut path = Text::from_slice(&after);
    path.extend_from_slice(&request.path()[before.len()..]);
    Some(path)
}

/// The host that a rewrite asks for; `None` keeps the old one. `auto` is the router's, who knows the upstream.
pub(super) fn rewrite_host(request: &Request, rewrite: &HostRewrite) -> Option<Text> {
    let host = match rewrite {
        HostRewrite::Auto => return None,
        HostRewrite::Literal(host) => Text::from_slice(host),
        HostRewrite::Header(name) => Text::from_slice(&request.value_or_pseudo(name)?),
        HostRewrite::PathRegex { pattern, substitution } => {
            Text::from_slice(&pattern.replace_all(request.path_without_query(), &substitution[..]))
        }
    };
    (!host.is_empty()).then_some(host)
}
