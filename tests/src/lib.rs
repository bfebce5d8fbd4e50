//! The harness of the end-to-end suite: a real proxy process between clients and backends that say exactly
//! the bytes a test wants on the wire.
//!
//! The suite is written against Envoy's behaviour and runs on either program, so that every expectation can
//! be proven on the real Envoy first:
//!
//! ```text
//! cargo test -p proxy-tests                                  # proxyd, built on the way
//! PROXY_UNDER_TEST=/path/to/envoy cargo test -p proxy-tests  # the reference
//! ```
//!
//! Where proxyd differs on purpose, a test says [`only_proxyd!`] and `tests/DIFFERENCES.md` says why.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test harness: a panic is a failed test, output is its report"
)]

mod backend;
mod config;
pub mod frames;
mod generations;
pub mod http2;
mod lineage;
mod message;
mod program;
mod proxy;
mod service;
mod stats_receiver;
mod stopped_thread;
mod traffic;
mod wait;
mod wire;

pub use backend::{After, Backend, EchoBackend, refusing_address, unused_address};
pub use config::{
    Bootstrap, direct_response_chain, http_filter_chain, http_protocol_options, network_filter,
    tcp_filter_chain, yaml,
};
pub use generations::{Generations, Living};
pub use lineage::{Lineage, Member, Start};
pub use message::{Headers, Message};
pub use program::{BaseId, Program, on_envoy, proxyctl, proxyd, proxytop, workspace_root};
pub use proxy::{Proxy, Signal};
pub use service::{Generation, Service};
pub use stats_receiver::{StatLine, StatsReceiver};
pub use stopped_thread::StoppedThread;
pub use traffic::{Tally, Traffic};
pub use wait::{PATIENCE, eventually};
pub use wire::{Cut, Wire};

/// Leaves the test when the reference is under test: what follows holds for proxyd alone, for the reason given
/// here and in `tests/DIFFERENCES.md`.
#[macro_export]
macro_rules! only_proxyd {
    ($reason:literal) => {
        if $crate::on_envoy() {
            println!("skipped on Envoy: {}", $reason);
            return;
        }
    };
}
