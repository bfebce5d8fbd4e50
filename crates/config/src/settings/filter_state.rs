//! Filter state: objects under names that one filter leaves for others.

use super::LineFormat;

/// `set_filter_state`, of connections or of requests.
#[derive(Debug)]
pub struct SetFilterState {
    /// Set in order, so that a later one may tell of an earlier one.
    pub values: Vec<FilterStateValue>,
    /// `clear_route_cache`: the route of a request is found anew.
    pub clears_route: bool,
}

/// `envoy.extensions.filters.common.set_filter_state.v3.FilterStateValue`.
#[derive(Debug)]
pub struct FilterStateValue {
    pub key: Box<str>,
    pub kind: FilterStateKind,
    pub format: LineFormat,
    /// `skip_if_empty`: nothing is set where the format yields nothing.
    pub skip_if_empty: bool,
}

/// What an object is, by the name of its factory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterStateKind {
    /// `envoy.string`: a text.
    Text,
    /// `envoy.tcp_proxy.cluster`: the cluster that a `tcp_proxy` connects to.
    TcpCluster,
}
