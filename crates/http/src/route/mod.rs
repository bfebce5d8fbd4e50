//! Which route a request takes, and what the route does to it.

use std::rc::Rc;
use std::sync::Arc;

use proxy_config::settings;

/// A cluster's number in this process: names are resolved to it when a table is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClusterId(pub u32);

/// A route of a table that is kept alive by the stream that took it.
#[derive(Clone)]
pub struct RouteEntry {
    pub table: Rc<Arc<RouteTable>>,
    pub virtual_host: u32,
    pub route: u32,
}

/// A route configuration made ready for look-ups.
pub struct RouteTable {
    pub configuration: Arc<settings::RouteConfiguration>,
}
