//! The end-to-end suite, one binary: each module holds one topic.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests: a panic is a failure, output says what was skipped"
)]

mod access_logs;
mod admin;
mod architecture;
mod cli;
mod commands;
mod drain;
mod events;
mod examples;
mod filter_state;
mod forwarding;
mod framing;
mod header_values;
mod headers;
mod hostile;
mod http1;
mod http1_options;
mod http2;
mod http2_framing;
mod http2_metadata;
mod http_filters;
mod interim;
mod leniency;
mod limits;
mod listeners;
mod local_replies;
mod local_reply_config;
mod network_filters;
mod proxy_status;
mod proxytop;
mod readme;
mod reload;
mod restart;
mod restart_failures;
mod routes_explain;
mod routing;
mod server_stats;
mod sockets;
mod stat_names;
mod stats;
mod stats_lineage;
mod stats_meaning;
mod stats_pull;
mod stats_sinks;
mod supervise;
mod tcp;
mod third_party;
mod timeouts;
mod tunneling;
mod upgrade_filters;
mod upgrades;
mod upstream;
mod watchdog;
