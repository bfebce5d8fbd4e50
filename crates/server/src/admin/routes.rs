//! All paths: what they are for, how they are called, and who answers.

use std::fmt::Write as _;
use std::rc::Rc;

use http::{Method, StatusCode};

use super::answer::Answer;
use super::query::Query;
use super::rendering::Renderers;
use super::state::AdminState;
use super::{actions, clusters, config_dump, levels, listeners, page, restart, server_info, stats};
use crate::logging::Log;
use crate::options::Options;

/// What handlers work with.
pub(super) struct Context {
    pub(super) state: Rc<dyn AdminState>,
    pub(super) log: Log,
    pub(super) options: Rc<Options>,
    pub(super) renderers: Renderers,
}

pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) help: &'static str,
    pub(super) changes: bool,
    pub(super) parameters: &'static [Parameter],
    handler: fn(&Context, &Query) -> Answer,
}

pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    /// Empty: any text.
    pub(super) choices: &'static [&'static str],
    /// Only from whoever may open the control socket.
    trusted: bool,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// Somebody who may open a socket that its file's mode protects.
    Trusted,
    /// Somebody on the network.
    Network,
}

impl Context {
    pub(super) fn new(state: Rc<dyn AdminState>, log: Log, options: Rc<Options>) -> Self {
        Self { state, log, options, renderers: Renderers::new() }
    }

    /// Answers as Envoy does: any method reads, only POST changes.
    pub(super) fn answer(&self, peer: Peer, method: &Method, path: &str, query: &Query) -> Answer {
        let Some(route) = ROUTES.iter().find(|route| route.path == path) else {
            return Answer::error(StatusCode::NOT_FOUND, format!("invalid path. {}", help_text()));
        };
        if route.changes && method != Method::POST {
            let message = format!("Method {method} not allowed, POST required.");
            return Answer::error(StatusCode::METHOD_NOT_ALLOWED, message);
        }
        let mut not_from_here = route.parameters.iter().filter(|parameter| parameter.trusted);
        if peer == Peer::Network
            && let Some(parameter) = not_from_here.find(|parameter| query.has(parameter.name))
        {
            let message = format!("{} is only taken over the control socket.\n", parameter.name);
            return Answer::error(StatusCode::FORBIDDEN, message);
        }
        (route.handler)(self, query)
    }
}

fn home(_: &Context, _: &Query) -> Answer {
    Answer::html(page::home(ROUTES))
}

fn help(_: &Context, _: &Query) -> Answer {
    Answer::text(help_text())
}

fn help_text() -> String {
    let mut text = "admin commands are:\n".to_owned();
    for route in ROUTES {
        let post = if route.changes { " (POST)" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {}{post}: {}", route.path, route.help);
        for parameter in route.parameters {
            let choices = match parameter.choices {
                [] => String::new(),
                choices => format!("; One of ({})", choices.join(", ")),
            };
            let _ = writeln!(text, "      {}: {}{choices}", parameter.name, parameter.help);
        }
    }
    text
}

const fn reads(
    path: &'static str,
    help: &'static str,
    parameters: &'static [Parameter],
    handler: fn(&Context, &Query) -> Answer,
) -> Route {
    Route { path, help, changes: false, parameters, handler }
}

const fn changes(
    path: &'static str,
    help: &'static str,
    parameters: &'static [Parameter],
    handler: fn(&Context, &Query) -> Answer,
) -> Route {
    Route { path, help, changes: true, parameters, handler }
}

const fn parameter(name: &'static str, help: &'static str) -> Parameter {
    Parameter { name, help, choices: &[], trusted: false }
}

/// What an admin port must not offer: it has no passwords.
const fn trusted_parameter(name: &'static str, help: &'static str) -> Parameter {
    Parameter { trusted: true, ..parameter(name, help) }
}

const fn choice(name: &'static str, help: &'static str, choices: &'static [&'static str]) -> Parameter {
    Parameter { name, help, choices, trusted: false }
}

/// By path. The texts are Envoy's, but for `/generation`, `/reload`, `/restart`, `/rollback` and `/shutdown`, which Envoy does not have.
const ROUTES: &[Route] = &[
    reads("/", "Admin home page", &[], home),
    reads("/clusters", "upstream cluster status", CLUSTERS, clusters::clusters),
    reads("/config_dump", "dump current Envoy configs", CONFIG_DUMP, config_dump::config_dump),
    changes("/drain_listeners", "drain listeners", DRAIN_LISTENERS, actions::drain_listeners),
    reads("/generation", "print whether this process leads, for proxyctl epochs", &[], restart::generation),
    changes("/healthcheck/fail", "cause the server to fail health checks", &[], actions::healthcheck_fail),
    changes("/healthcheck/ok", "cause the server to pass health checks", &[], actions::healthcheck_ok),
    reads("/help", "print out list of admin commands", &[], help),
    reads(
        "/hot_restart_version",
        "print the hot restart compatibility version",
        &[],
        restart::hot_restart_version,
    ),
    reads("/listeners", "print listener info", LISTENERS, listeners::listeners),
    changes("/logging", "query/change logging levels", LOGGING, levels::logging),
    reads("/memory", "print current allocation/heap usage", &[], actions::memory),
    changes("/quitquitquit", "exit the server", &[], actions::quitquitquit),
    reads("/ready", "print server state, return 200 if LIVE, otherwise return 503", &[], actions::ready),
    changes(
        "/reload",
        "read the configuration again and apply what differs, as SIGHUP does",
        RELOAD,
        restart::reload,
    ),
    changes("/reopen_logs", "reopen access logs", &[], actions::reopen_logs),
    changes("/reset_counters", "reset all counters to zero", &[], stats::reset_counters),
    changes(
        "/restart",
        "start a process that takes over from this one, as SIGUSR2 does",
        RESTART,
        restart::restart,
    ),
    changes("/rollback", "give up taking over, or take over again", &[], restart::rollback),
    reads("/server_info", "print server version/status information", &[], server_info::server_info),
    changes("/shutdown", "drain and exit the server, as SIGTERM does", &[], actions::shutdown),
    STATS,
    reads("/stats/prometheus", "print server stats in prometheus format", PROMETHEUS, stats::prometheus),
];

/// Its parameters are a form above the stats as well.
pub(super) const STATS: Route = reads("/stats", "print server stats", STATS_PARAMETERS, stats::stats);

const RELOAD: &[Parameter] =
    &[parameter("wait", "The answer ends when connections of what was replaced have ended")];

const CLUSTERS: &[Parameter] = &[
    parameter("filter", "Regular expression for filtering clusters by name"),
    choice("format", "File format to use", &["text", "json"]),
];

const CONFIG_DUMP: &[Parameter] = &[
    parameter("resource", "The resource to dump"),
    parameter(
        "mask",
        "The mask to apply. When both resource and mask are specified, the mask is applied to every element in the desired \
         repeated field so that only a subset of fields are returned. The mask is parsed as a Protobuf::FieldMask",
    ),
    parameter(
        "name_regex",
        "Dump only the currently loaded configurations whose names match the specified regex. Can be used with both \
         resource and mask query parameters.",
    ),
];

const DRAIN_LISTENERS: &[Parameter] = &[
    parameter(
        "graceful",
        "When draining listeners, enter a graceful drain period prior to closing listeners. This behaviour and duration is \
         configurable via server options or CLI",
    ),
    parameter(
        "skip_exit",
        "When draining listeners, drain the connections but never stop the listeners. The graceful parameter has no effect \
         when this is set, since the drain period only delays stopping the listeners",
    ),
    parameter(
        "inboundonly",
        "Drains all inbound listeners. traffic_direction field in envoy_v3_api_msg_config.listener.v3.Listener is used to \
         determine whether a listener is inbound or outbound.",
    ),
];

const LISTENERS: &[Parameter] = &[choice("format", "File format to use", &["text", "json"])];

const LOGGING: &[Parameter] = &[
    parameter(
        "paths",
        "Change multiple logging levels by setting to \
         <logger_name1>:<desired_level1>,<logger_name2>:<desired_level2>.",
    ),
    choice(
        "level",
        "desired logging level, this will change all loggers's level",
        &["", "trace", "debug", "info", "warning", "error", "critical", "off"],
    ),
];

const RESTART: &[Parameter] = &[
    trusted_parameter("binary", "The program of the new process; only over the control socket"),
    trusted_parameter("config", "Its configuration file; only over the control socket"),
    parameter("dry_run", "Only see whether the program can run the configuration"),
    parameter("within_ms", "Milliseconds until the new process has to ask to take over; 60000 at most"),
];

const STATS_PARAMETERS: &[Parameter] = &[
    USED_ONLY,
    FILTER,
    INVERT_FILTER,
    choice("format", "Format to use", &["html", "active-html", "text", "json"]),
    choice("type", "Stat types to include.", &["All", "Counters", "Histograms", "Gauges", "TextReadouts"]),
    choice(
        "histogram_buckets",
        "Histogram bucket display mode",
        &["cumulative", "disjoint", "detailed", "summary"],
    ),
];

const PROMETHEUS: &[Parameter] = &[
    USED_ONLY,
    parameter(
        "text_readouts",
        "Render text_readouts as new gaugues with value 0 (increases Prometheus data size)",
    ),
    FILTER,
    INVERT_FILTER,
    choice("histogram_buckets", "Histogram bucket display mode", &["cumulative", "summary"]),
];

const USED_ONLY: Parameter =
    parameter("usedonly", "Only include stats that have been written by system since restart");
const FILTER: Parameter = parameter("filter", "Regular expression for filtering stats");
const INVERT_FILTER: Parameter = parameter("invert_filter", "Invert the filter regex");
