//! Lowered configuration: what the rest of proxyd sees of a file or a discovery answer.
//!
//! Names are resolved, defaults filled in, regular expressions compiled; no type here can hold a
//! configuration that the data path would have to reject. Durations that Envoy lets one disable are
//! `Option<Duration>`, `None` meaning "no limit". The v3 field each item comes from is named where the
//! names differ. Nothing here knows sockets or threads.

mod access_log;
mod bootstrap;
mod cluster;
mod filter_state;
mod format;
mod forwarding;
mod http;
mod http_filter;
mod listener;
mod local_reply;
mod matcher;
pub mod metadata;
mod network;
mod response_flags;
mod route;
mod runtime;
mod stats;
mod watchdog;

pub use access_log::*;
pub use bootstrap::*;
pub use cluster::*;
pub use filter_state::*;
pub use format::*;
pub use forwarding::*;
pub use http::*;
pub use http_filter::*;
pub use listener::*;
pub use local_reply::*;
pub use matcher::*;
pub use metadata::Metadata;
pub use network::*;
pub use response_flags::*;
pub use route::*;
pub use runtime::*;
pub use stats::*;
pub use watchdog::*;
