//! The routes of one virtual host, so that 10,000 of them need not be scanned.
//!
//! Whatever the index does, the answer is that of a scan: the lowest route that matches in full. Exact paths are found
//! by hash. Prefixes are sorted: every prefix of a path is the path's predecessor in that order or one of its
//! ancestors. What cannot be indexed (regexes, matches in any case) is scanned, as far as it stands before
//! the best route found so far.

use std::sync::Arc;

use hashbrown::HashMap;
use proxy_config::settings::{PathMatch, Route};

use super::LookupContext;
use super::matching::matches;
use crate::message::Request;

/// So few routes are scanned at once.
const SCANNED: usize = 4;

/// Indices of routes, in ascending order.
type Routes = Box<[u32]>;

pub(super) enum RouteIndex {
    Scan,
    Indexed { exact: HashMap<Box<[u8]>, Routes>, prefixes: Prefixes, others: Routes },
}

/// Distinct prefixes in byte order.
pub(super) struct Prefixes {
    /// Texts of all nodes, one after another, for the cache's sake.
    text: Vec<u8>,
    nodes: Vec<Node>,
}

struct Node {
    start: u32,
    length: u32,
    /// The longest other node whose text begins this one's; [`NONE`] at the root.
    parent: u32,
    /// Lowest route of this node and its ancestors.
    lowest: u32,
    routes: Routes,
}

const NONE: u32 = u32::MAX;

impl RouteIndex {
    pub(super) fn new(routes: &[Arc<Route>]) -> RouteIndex {
        if routes.len() <= SCANNED { RouteIndex::Scan } else { RouteIndex::build(routes) }
    }

    fn build(routes: &[Arc<Route>]) -> RouteIndex {
        let mut exact: HashMap<Box<[u8]>, Vec<u32>> = HashMap::new();
        let mut prefixes: HashMap<&[u8], Vec<u32>> = HashMap::new();
        let mut others = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            let index = index as u32;
            match &route.matches.path {
                PathMatch::Exact(path) if route.matches.case_sensitive => {
                    exact.entry(path.clone()).or_default().push(index);
                }
                PathMatch::Prefix(prefix) | PathMatch::SeparatedPrefix(prefix)
                    if route.matches.case_sensitive =>
                {
                    prefixes.entry(prefix).or_default().push(index);
                }
                _ => others.push(index),
            }
        }
        RouteIndex::Indexed {
            exact: exact.into_iter().map(|(path, routes)| (path, routes.into())).collect(),
            prefixes: Prefixes::new(prefixes.into_iter().collect()),
            others: others.into(),
        }
    }

    /// The lowest route that matches.
    pub(super) fn find(
        &self,
        routes: &[Arc<Route>],
        request: &Request,
        context: &LookupContext,
    ) -> Option<u32> {
        let path = request.path_without_query();
        let matched = |index: u32| matches(&routes[index as usize].matches, path, request, context);
        let (exact, prefixes, others) = match self {
            RouteIndex::Scan => return (0..routes.len() as u32).find(|&index| matched(index)),
            RouteIndex::Indexed { exact, prefixes, others } => (exact, prefixes, others),
        };
        let mut best = NONE;
        let improve = |candidates: &[u32], best: &mut u32| {
            if let Some(&index) = candidates.iter().take_while(|&&i| i < *best).find(|&&i| matched(i)) {
                *best = index;
            }
        };
        if !exact.is_empty()
            && let Some(candidates) = exact.get(path)
        {
            improve(candidates, &mut best);
        }
        let mut node = prefixes.longest(path);
        while let Some(at) = node.filter(|at| at.lowest < best) {
            improve(&at.routes, &mut best);
            node = prefixes.nodes.get(at.parent as usize);
        }
        improve(others, &mut best);
        (best != NONE).then_some(best)
    }
}

impl Prefixes {
    fn new(mut prefixes: Vec<(&[u8], Vec<u32>)>) -> Prefixes {
        prefixes.sort_unstable();
        let mut built = Prefixes { text: Vec::new(), nodes: Vec::with_capacity(prefixes.len()) };
        for (prefix, routes) in prefixes {
            let mut parent = built.nodes.len().checked_sub(1);
            while let Some(at) = parent.filter(|&at| !prefix.starts_with(built.text_of(&built.nodes[at]))) {
                parent =
                    built.nodes.get(built.nodes[at].parent as usize).map(|_| built.nodes[at].parent as usize);
            }
            let lowest = routes[0].min(parent.map_or(NONE, |at| built.nodes[at].lowest));
            let start = built.text.len() as u32;
            built.text.extend_from_slice(prefix);
            built.nodes.push(Node {
                start,
                length: prefix.len() as u32,
                parent: parent.map_or(NONE, |at| at as u32),
                lowest,
                routes: routes.into(),
            });
        }
        built
    }

    /// The longest node that begins `path`; its ancestors are all the others.
    fn longest(&self, path: &[u8]) -> Option<&Node> {
        let after = self.nodes.partition_point(|node| self.text_of(node) <= path);
        let mut node = &self.nodes[after.checked_sub(1)?];
        let common = self.text_of(node).iter().zip(path).take_while(|(a, b)| a == b).count();
        while node.length as usize > common {
            node = self.nodes.get(node.parent as usize)?;
        }
        Some(node)
    }

    fn text_of(&self, node: &Node) -> &[u8] {
        &self.text[node.start as usize..(node.start + node.length) as usize]
    }
}
