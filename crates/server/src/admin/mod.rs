//! The admin port and the control socket: Envoy 1.40's paths and formats, over hyper, on main.
//!
//! No handler works for long: what may be large is written in pieces with other work of main in between, or
//! rendered by a thread of its own. Handlers know the managers only through [`AdminState`].

mod accept;
mod actions;
mod address;
mod answer;
mod bind;
mod clusters;
mod config_dump;
mod counting;
mod crowd;
mod gzip;
mod levels;
mod listeners;
mod page;
mod port;
mod query;
mod rendering;
mod restart;
mod routes;
mod serve;
mod server_info;
mod state;
mod stats;
mod trust;

pub use bind::{BindError, Bound, bind};
pub use port::AdminPort;
pub use serve::{Admin, Served};
pub use state::{
    AdminState, ClusterStatus, ConfigDump, ConfigKind, ConfigResource, DrainListeners, HostCounters,
    HostStatus, ListenerStatus, Memory, Refusal, RestartRequest, ServerState, ServerStatus, ShutDown, Stats,
};

#[cfg(test)]
mod tests;
