#![doc = include_str!("../DESIGN.md")]

mod absent;
mod accept;
pub mod admin;
mod clusters;
mod connection_log;
pub mod control_socket;
pub mod default_config;
mod discovery;
mod flush;
mod life;
mod listener_stats;
mod listeners;
pub mod logging;
pub mod managers;
mod memory;
pub mod options;
mod reclaim;
mod resources;
pub mod restart;
pub mod run;
mod segment;
mod server_stats;
pub mod signals;
mod state;
mod stats_config;
mod watchdog;
