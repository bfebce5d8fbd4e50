//! What each pane's columns are called, hold and mean: the one place that the screen, `?`, `--json` and the manual page take it
//! from. Knows nothing else, so that the manual can be made from it.

use std::fmt::Write;

/// A column of a pane.
#[derive(Debug)]
pub(crate) struct Column {
    /// Its head on the screen.
    pub(crate) head: &'static str,
    /// Its name in JSON.
    pub(crate) key: &'static str,
    /// In cells, without the space before it.
    pub(crate) width: u16,
    /// Columns of lower numbers stay when there is no room for all.
    pub(crate) rank: u8,
    /// Numbers stand at the right of their column.
    pub(crate) right: bool,
    pub(crate) about: &'static str,
}

/// Something that fills the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Pane {
    #[default]
    Overview,
    Clusters,
    Listeners,
    Workers,
    Generations,
    Stats,
    Routes,
    AccessLog,
    Events,
    /// Of the cluster that was gone into.
    Hosts,
}

impl Pane {
    /// Those with a key of their own, `1` to `9`.
    pub(crate) const ALL: [Pane; 9] = [
        Pane::Overview,
        Pane::Clusters,
        Pane::Listeners,
        Pane::Workers,
        Pane::Generations,
        Pane::Stats,
        Pane::Routes,
        Pane::AccessLog,
        Pane::Events,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Pane::Overview => "overview",
            Pane::Clusters => "clusters",
            Pane::Listeners => "listeners",
            Pane::Workers => "workers",
            Pane::Generations => "generations",
            Pane::Stats => "stats",
            Pane::Routes => "routes",
            Pane::AccessLog => "log",
            Pane::Events => "events",
            Pane::Hosts => "hosts",
        }
    }

    /// By key or by name.
    pub(crate) fn find(text: &str) -> Option<Pane> {
        let by_key = text.parse().ok().and_then(|key: usize| Pane::ALL.get(key.checked_sub(1)?)).copied();
        by_key.or_else(|| Pane::ALL.into_iter().find(|pane| pane.name() == text))
    }

    pub(crate) fn columns(self) -> &'static [Column] {
        match self {
            Pane::Overview => OVERVIEW,
            Pane::Clusters => CLUSTERS,
            Pane::Listeners => LISTENERS,
            Pane::Workers => WORKERS,
            Pane::Generations => GENERATIONS,
            Pane::Stats => STATS,
            Pane::Routes => ROUTES,
            Pane::AccessLog => ACCESS_LOG,
            Pane::Events => EVENTS,
            Pane::Hosts => HOSTS,
        }
    }

    pub(crate) fn about(self) -> &'static str {
        match self {
            Pane::Overview => {
                "What goes through the proxy, added up over all HTTP connection managers but that of the admin port; \
                 lines of the last minutes; what went wrong, by the response flag of Envoy's access logs; and a row for \
                 each connection manager."
            }
            Pane::Clusters => "A row for each cluster. Enter shows its hosts.",
            Pane::Listeners => "A row for each listener, by the name that its stats have.",
            Pane::Workers => "A row for each thread that serves, of the process that leads.",
            Pane::Generations => {
                "The processes of this instance, side by side: during a hot restart connections move from one to the other. \
                 Not of an admin port, which knows of itself only."
            }
            Pane::Stats => {
                "All stats. / filters as you type, p pins a row to the top. Rates are of counters and of the number of \
                 values of histograms."
            }
            Pane::Routes => {
                "What the running configuration routes where, in the order in which it is matched."
            }
            Pane::AccessLog => "The last lines of an access log file, as they are written.",
            Pane::Events => {
                "What has happened, newest first. Each process of proxyd writes down its last 240 events in shared memory: starts, reloads, \
                 listeners, steps of hot restarts, drains, health checks failed by hand, log levels, panics. They are still \
                 there when it was killed; who takes over its counters keeps the last 120. Rows without a number in GEN were found by comparing \
                 looks: health of hosts, breakers, a process that hangs or was killed; of an admin port, everything. Of these \
                 times are those of looks, and what came and went between two of them is missing."
            }
            Pane::Hosts => {
                "The hosts of a cluster, from the admin port or control socket; asked only while they are shown."
            }
        }
    }
}

/// The part of the manual about panes and columns.
pub(crate) fn manual() -> String {
    let mut text = String::from("Panes and their columns. Keys: ? on the screen lists them.\n");
    for pane in Pane::ALL.into_iter().chain([Pane::Hosts]) {
        let key = Pane::ALL.iter().position(|other| *other == pane).map(|at| format!(" (key {})", at + 1));
        let _ = writeln!(text, "\n{}{}", pane.name(), key.unwrap_or_default());
        let _ = writeln!(text, "  {}", pane.about());
        for column in pane.columns() {
            let _ = writeln!(text, "  {} ({}): {}", column.head, column.key, column.about);
        }
        if pane == Pane::Overview {
            let _ = writeln!(
                text,
                "  Errors are counted by these stats, which may count a request more than once:"
            );
            for (flag, meaning, counter) in FLAGS {
                let _ = writeln!(text, "  {flag}: {meaning} ({counter})");
            }
        }
    }
    text
}

/// What goes wrong, by the response flag that access logs have for it: flag, meaning, and the counter that is shown.
pub(crate) const FLAGS: &[(&str, &str, &str)] = &[
    ("NR", "no route", "http.*.no_route"),
    ("NC", "no cluster", "http.*.no_cluster"),
    ("UH", "no healthy host", "cluster.*.upstream_cx_none_healthy"),
    ("UF", "connect failed", "cluster.*.upstream_cx_connect_fail"),
    ("UO", "breaker open", "cluster.*.upstream_rq_pending_overflow"),
    ("UT", "timed out", "cluster.*.upstream_rq_timeout"),
    ("UC", "host closed", "cluster.*.upstream_cx_destroy_remote_with_active_rq"),
    ("UR", "host reset", "cluster.*.upstream_rq_rx_reset"),
    ("UPE", "host protocol error", "cluster.*.upstream_cx_protocol_error"),
    ("URX", "retries used up", "cluster.*.upstream_rq_retry_limit_exceeded"),
    ("DC", "client closed", "http.*.downstream_cx_destroy_remote_active_rq"),
    ("DR", "client reset", "http.*.downstream_rq_rx_reset"),
    ("DPE", "client protocol error", "http.*.downstream_cx_protocol_error"),
    ("SI", "stream idle", "http.*.downstream_rq_idle_timeout"),
    ("OM", "overload", "http.*.downstream_rq_overload_close"),
];

macro_rules! columns {
    ($($head:literal $key:literal $width:literal $rank:literal $side:ident $about:literal;)*) => {
        &[$(Column {
            head: $head, key: $key, width: $width, rank: $rank, right: columns!(@ $side), about: $about,
        },)*]
    };
    (@ right) => { true };
    (@ left) => { false };
}

const OVERVIEW: &[Column] = columns! {
    "HTTP" "name" 18 0 left "stat_prefix of the connection manager, or of a TCP proxy";
    "RQ/s" "requests_per_second" 6 0 right "requests a second";
    "ACTIVE" "requests_active" 6 1 right "requests under way";
    "CX" "connections" 6 1 right "connections that are open";
    "2xx/s" "status_2xx_per_second" 6 2 right "answers with a status of 200 to 299, a second";
    "3xx/s" "status_3xx_per_second" 6 4 right "answers with a status of 300 to 399, a second";
    "4xx/s" "status_4xx_per_second" 6 2 right "answers with a status of 400 to 499, a second";
    "5xx/s" "status_5xx_per_second" 6 0 right "answers with a status of 500 to 599, a second";
    "P50" "p50_us" 6 0 right "half of the requests of the last flush took no longer";
    "P90" "p90_us" 6 3 right "nine in ten took no longer";
    "P99" "p99_us" 6 0 right "99 in 100 took no longer; - when the last flush had none";
    "IN/s" "received_bytes_per_second" 6 3 right "bytes received from clients, a second";
    "OUT/s" "sent_bytes_per_second" 6 3 right "bytes sent to clients, a second";
    "TOTAL" "requests_total" 6 5 right "requests since the start, or since the baseline";
};

const CLUSTERS: &[Column] = columns! {
    "CLUSTER" "name" 24 0 left "name of the cluster";
    "HEALTHY" "healthy_hosts" 9 0 right "hosts that are healthy, of all hosts";
    "RQ/s" "requests_per_second" 6 0 right "requests a second";
    "ACTIVE" "requests_active" 6 2 right "requests under way";
    "OK%" "success" 6 0 right "share of answers that were no 5xx, since the last look";
    "5xx/s" "status_5xx_per_second" 6 1 right "answers with a status of 500 to 599, a second";
    "RETRY/s" "retries_per_second" 7 3 right "requests sent once more, a second";
    "P50" "p50_us" 6 1 right "half of the requests of the last flush took no longer";
    "P99" "p99_us" 6 0 right "99 in 100 took no longer; - when the last flush had none";
    "BREAKERS" "breakers" 8 1 left "circuit breakers that are open: cx connections, pend pending, rq requests, retry; h: of high priority";
    "CX" "connections" 6 3 right "connections to hosts that are open";
    "PEND" "requests_pending" 6 4 right "requests that wait for a connection";
    "FAIL/s" "connect_failures_per_second" 6 3 right "connections that failed, a second";
    "TMO/s" "timeouts_per_second" 6 5 right "requests that took longer than allowed, a second";
    "IN/s" "received_bytes_per_second" 6 5 right "bytes received from hosts, a second";
    "OUT/s" "sent_bytes_per_second" 6 5 right "bytes sent to hosts, a second";
    "EJECT" "ejected_hosts" 5 6 right "hosts that outlier detection has put aside";
    "TOTAL" "requests_total" 6 6 right "requests since the start, or since the baseline";
};

const LISTENERS: &[Column] = columns! {
    "LISTENER" "name" 18 0 left "address or stat_prefix, as in the names of its stats";
    "CX" "connections" 6 0 right "connections that are open";
    "CX/s" "connections_per_second" 6 0 right "connections accepted, a second";
    "RQ/s" "requests_per_second" 6 0 right "requests answered, a second";
    "5xx/s" "status_5xx_per_second" 6 0 right "answers with a status of 500 to 599, a second";
    "PRE" "connections_inspected" 6 4 right "connections that listener filters still look at";
    "OVER/s" "overflow_per_second" 6 2 right "connections closed because of a limit, a second";
    "REJECT/s" "rejected_per_second" 8 4 right "connections closed because of overload, a second";
    "NOCHAIN/s" "no_chain_per_second" 9 3 right "connections closed because no filter chain matched, a second";
    "ERR/s" "accept_errors_per_second" 6 5 right "errors of accept, a second";
    "TOTAL" "connections_total" 6 1 right "connections since the start, or since the baseline";
};

const WORKERS: &[Column] = columns! {
    "THREAD" "name" 10 0 left "main or a worker";
    "CPU%" "cpu" 6 0 right "share of one CPU, from /proc; - where that does not tell";
    "CX" "connections" 6 0 right "connections that are open";
    "CX%" "connections_share" 6 0 right "share of all open connections";
    "CX/s" "connections_per_second" 6 1 right "connections accepted, a second";
    "RQ/s" "requests_per_second" 6 0 right "requests a second; not known of an admin port";
    "RQ%" "requests_share" 6 0 right "share of all requests since the last look";
    "ACTIVE" "requests_active" 6 2 right "requests under way";
    "LOOP P50" "loop_p50_us" 8 2 right "half of the turns of its loop took no longer; needs enable_dispatcher_stats";
    "LOOP P99" "loop_p99_us" 8 0 right "99 in 100 turns took no longer";
    "LATE P99" "late_p99_us" 8 1 right "99 in 100 times it woke no later than this after it should have";
    "MISSES" "watchdog_misses" 6 3 right "times the watchdog found it stuck";
};

const GENERATIONS: &[Column] = columns! {
    "GEN" "name" 5 0 left "number of the process, never used again";
    "STATE" "state" 8 0 left "starts, leads, drains; ended or killed: its counters still count";
    "PID" "pid" 8 1 right "process id, as this machine has it";
    "AGE" "age_seconds" 7 0 right "time since its start, from /proc";
    "CX" "connections" 6 0 right "connections that it holds";
    "CX +-/s" "connections_change_per_second" 8 0 right "by how much that changes a second: moved, closed or opened";
    "CX/s" "connections_per_second" 6 1 right "connections accepted or taken over, a second";
    "ACTIVE" "requests_active" 6 2 right "requests under way";
    "RQ/s" "requests_per_second" 6 0 right "requests a second";
    "REQUESTS" "requests_total" 8 2 right "requests that it has counted itself";
    "CPU%" "cpu" 6 1 right "share of one CPU, from /proc";
    "MEM" "resident_bytes" 6 2 right "resident memory in bytes, from /proc";
};

const STATS: &[Column] = columns! {
    "STAT" "name" 56 0 left "full name";
    "KIND" "kind" 7 2 left "counter, gauge, histo(gram) or text";
    "VALUE" "value" 12 0 right "in full; of a histogram the number of its values, with a + since the baseline";
    "RATE/s" "rate" 7 0 right "change a second";
    "P50" "p50" 8 3 right "median of the last flush, or of all values";
    "P99" "p99" 8 1 right "99th percentile of the same";
};

const ROUTES: &[Column] = columns! {
    "ROUTE" "name" 14 2 left "route configuration and virtual host";
    "DOMAINS" "domains" 18 1 left "hosts that it is for";
    "MATCH" "match" 24 0 left "what of a request is matched";
    "ACTION" "action" 26 0 left "cluster, weights, redirect or answer";
    "TIMEOUT" "timeout" 8 3 right "limit of the request, if it is not the default";
};

const ACCESS_LOG: &[Column] = columns! {
    "LINE" "line" 60 0 left "as it was written; < and > go along it";
};

const EVENTS: &[Column] = columns! {
    "TIME" "time" 14 0 left "day and time in UTC";
    "GEN" "generation" 4 0 left "number of the process that tells it; - if it was found by comparing looks";
    "WHAT" "what" 11 0 left "what it is about: start, serve, restart, reload, listener, drain, shutdown, end, killed, log level, healthcheck, panic, stats or watchdog; of looks generation, state, drain, reload, health, breaker, cluster, listener, reset or source";
    "LEVEL" "severity" 7 1 left "info, success, warning or error; WHAT has its colour";
    "EVENT" "event" 44 0 left "what has happened";
};

const HOSTS: &[Column] = columns! {
    "HOST" "name" 18 0 left "address";
    "HEALTH" "health" 12 0 left "healthy, or why not";
    "CX" "connections" 5 1 right "connections that are open";
    "ACTIVE" "requests_active" 6 1 right "requests under way";
    "RQ/s" "requests_per_second" 6 0 right "requests a second";
    "ERR/s" "errors_per_second" 6 0 right "requests that failed or were answered with a 5xx, a second";
    "TMO/s" "timeouts_per_second" 6 3 right "requests that took longer than allowed, a second";
    "FAIL/s" "connect_failures_per_second" 6 2 right "connections that failed, a second";
    "TOTAL" "requests_total" 6 2 right "requests since the host was added";
    "WEIGHT" "weight" 6 3 right "its weight in load balancing";
    "ZONE" "zone" 10 4 left "its locality";
};
