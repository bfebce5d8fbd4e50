//! Which clusters, listeners and connection managers the stats are of. Found once for each catalog: afterwards a stat of a subject
//! is a number.

use std::collections::HashMap;

use proxy_stats::{Catalog, StatId};

use crate::snapshot::Snapshot;

/// Everything that stats are about.
#[derive(Debug, Default)]
pub(crate) struct Subjects {
    pub(crate) clusters: Vec<Subject>,
    pub(crate) managers: Vec<Subject>,
    /// TCP proxies.
    pub(crate) relays: Vec<Subject>,
    pub(crate) listeners: Vec<Subject>,
    /// `worker_0`, ...: connections, by listener.
    pub(crate) workers: Vec<Worker>,
}

/// A cluster, a connection manager or a listener.
#[derive(Debug)]
pub(crate) struct Subject {
    /// As in the names of its stats.
    pub(crate) name: String,
    /// By place in the table of its kind.
    stats: Box<[u32]>,
    /// Of a listener: requests and 5xx of its connection managers.
    pub(crate) requests: Vec<StatId>,
    pub(crate) errors: Vec<StatId>,
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) active: Vec<StatId>,
    pub(crate) total: Vec<StatId>,
}

macro_rules! stats {
    ($(#[$doc:meta])* $name:ident { $($stat:ident = $suffix:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name { $($stat,)* }

        impl Stat for $name {
            const ALL: &[(Self, &str)] = &[$(($name::$stat, $suffix),)*];

            fn place(self) -> usize {
                self as usize
            }
        }
    };
}

stats!(
    /// Of a cluster.
    Cluster {
        Members = "membership_total",
        Healthy = "membership_healthy",
        Connections = "upstream_cx_active",
        ConnectFail = "upstream_cx_connect_fail",
        Received = "upstream_cx_rx_bytes_total",
        Sent = "upstream_cx_tx_bytes_total",
        Requests = "upstream_rq_total",
        Active = "upstream_rq_active",
        Pending = "upstream_rq_pending_active",
        Completed = "upstream_rq_completed",
        Status5xx = "upstream_rq_5xx",
        Retries = "upstream_rq_retry",
        Timeout = "upstream_rq_timeout",
        PendingOverflow = "upstream_rq_pending_overflow",
        NoneHealthy = "upstream_cx_none_healthy",
        RemoteWithActive = "upstream_cx_destroy_remote_with_active_rq",
        RetryLimit = "upstream_rq_retry_limit_exceeded",
        ReceivedReset = "upstream_rq_rx_reset",
        ProtocolError = "upstream_cx_protocol_error",
        Time = "upstream_rq_time",
        BreakerCx = "circuit_breakers.default.cx_open",
        BreakerPending = "circuit_breakers.default.rq_pending_open",
        BreakerRq = "circuit_breakers.default.rq_open",
        BreakerRetry = "circuit_breakers.default.rq_retry_open",
        HighCx = "circuit_breakers.high.cx_open",
        HighPending = "circuit_breakers.high.rq_pending_open",
        HighRq = "circuit_breakers.high.rq_open",
        HighRetry = "circuit_breakers.high.rq_retry_open",
        Ejected = "outlier_detection.ejections_active",
    }
);

stats!(
    /// Of an HTTP connection manager.
    Manager {
        ConnectionsTotal = "downstream_cx_total",
        Connections = "downstream_cx_active",
        Received = "downstream_cx_rx_bytes_total",
        Sent = "downstream_cx_tx_bytes_total",
        Requests = "downstream_rq_total",
        Active = "downstream_rq_active",
        Status1xx = "downstream_rq_1xx",
        Status2xx = "downstream_rq_2xx",
        Status3xx = "downstream_rq_3xx",
        Status4xx = "downstream_rq_4xx",
        Status5xx = "downstream_rq_5xx",
        Time = "downstream_rq_time",
        NoRoute = "no_route",
        NoCluster = "no_cluster",
        ReceivedReset = "downstream_rq_rx_reset",
        GoneWithActive = "downstream_cx_destroy_remote_active_rq",
        IdleTimeout = "downstream_rq_idle_timeout",
        ProtocolError = "downstream_cx_protocol_error",
        Overload = "downstream_rq_overload_close",
    }
);

stats!(
    /// Of a TCP proxy.
    Tcp {
        ConnectionsTotal = "downstream_cx_total",
        Received = "downstream_cx_rx_bytes_total",
        Sent = "downstream_cx_tx_bytes_total",
    }
);

stats!(
    /// Of a listener.
    Listener {
        ConnectionsTotal = "downstream_cx_total",
        Connections = "downstream_cx_active",
        Pending = "downstream_pre_cx_active",
        Overflow = "downstream_cx_overflow",
        Rejected = "downstream_cx_overload_reject",
        NoChain = "no_filter_chain_match",
        AcceptError = "downstream_accept_error",
    }
);

/// A stat that all subjects of a kind have.
pub(crate) trait Stat: Copy + 'static {
    /// Each with what its names end with.
    const ALL: &[(Self, &str)];

    /// In the table of its kind.
    fn place(self) -> usize;

    /// The one whose names end so.
    fn of_suffix(suffix: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == suffix).map(|(stat, _)| *stat)
    }
}

impl Cluster {
    /// Circuit breakers: a short name of each, and what it limits.
    pub(crate) const BREAKERS: [(Cluster, &str, &str); 8] = [
        (Cluster::BreakerCx, "cx", "connections"),
        (Cluster::BreakerPending, "pend", "pending requests"),
        (Cluster::BreakerRq, "rq", "requests"),
        (Cluster::BreakerRetry, "retry", "retries"),
        (Cluster::HighCx, "h:cx", "connections of high priority"),
        (Cluster::HighPending, "h:pend", "pending requests of high priority"),
        (Cluster::HighRq, "h:rq", "requests of high priority"),
        (Cluster::HighRetry, "h:retry", "retries of high priority"),
    ];
}

impl Subject {
    /// The number of one of its stats.
    pub(crate) fn id(&self, stat: impl Stat) -> Option<StatId> {
        self.stats.get(stat.place()).copied().filter(|id| *id != NONE).map(StatId)
    }

    /// The value of one of its stats; 0 if it has none.
    pub(crate) fn value(&self, snapshot: &Snapshot, stat: impl Stat) -> u64 {
        self.id(stat).and_then(|id| snapshot.value(id)).unwrap_or(0)
    }
}

impl Subjects {
    /// Sorts the names of a catalog.
    pub(crate) fn of(catalog: &Catalog) -> Subjects {
        let mut subjects = Subjects {
            clusters: kind::<Cluster>(catalog, "cluster."),
            managers: kind::<Manager>(catalog, "http."),
            relays: kind::<Tcp>(catalog, "tcp."),
            listeners: kind::<Listener>(catalog, "listener."),
            workers: Vec::new(),
        };
        subjects.managers.retain(|manager| manager.name != "admin");
        subjects.listeners.retain(|listener| listener.name != "admin" && thread_of(&listener.name).is_none());
        subjects.add_listener_details(catalog);
        subjects
    }

    /// What of a listener is counted by thread, or by connection manager.
    fn add_listener_details(&mut self, catalog: &Catalog) {
        let listeners: HashMap<String, usize> =
            self.listeners.iter().enumerate().map(|(at, listener)| (listener.name.clone(), at)).collect();
        for id in catalog.ids() {
            let Some((rest, stat)) =
                catalog.name(id).strip_prefix("listener.").and_then(|rest| rest.rsplit_once('.'))
            else {
                continue;
            };
            if let Some((listener, thread)) = thread_of(rest)
                && listeners.contains_key(listener)
            {
                let worker = match self.workers.iter_mut().find(|worker| worker.name == thread) {
                    Some(worker) => worker,
                    None => {
                        let worker = Worker { name: thread.to_owned(), active: vec![], total: vec![] };
                        self.workers.push(worker);
                        self.workers.last_mut().expect("it was just pushed")
                    }
                };
                match stat {
                    "downstream_cx_active" => worker.active.push(id),
                    "downstream_cx_total" => worker.total.push(id),
                    _ => {}
                }
            }
            if let Some((listener, _)) = rest.split_once(".http.")
                && let Some(at) = listeners.get(listener)
            {
                match stat {
                    "downstream_rq_completed" => self.listeners[*at].requests.push(id),
                    "downstream_rq_5xx" => self.listeners[*at].errors.push(id),
                    _ => {}
                }
            }
        }
        let number = |name: &str| name.trim_start_matches("worker_").parse::<u32>().unwrap_or(0);
        self.workers.sort_by_key(|worker| number(&worker.name));
    }
}

/// `address.worker_0` as listener and thread.
fn thread_of(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('.').filter(|(_, thread)| thread.starts_with("worker_") || *thread == "main_thread")
}

/// All subjects of one kind. Names of subjects may hold dots: one is a subject if it has the first stat of the table.
fn kind<S: Stat>(catalog: &Catalog, prefix: &str) -> Vec<Subject> {
    let mut found: HashMap<&str, usize> = HashMap::new();
    let mut subjects = Vec::new();
    let first = format!(".{}", S::ALL[0].1);
    for id in catalog.ids() {
        let name = catalog.name(id).strip_prefix(prefix).and_then(|rest| rest.strip_suffix(&first));
        if let Some(name) = name {
            found.entry(name).or_insert_with(|| {
                let stats = vec![NONE; S::ALL.len()].into();
                subjects.push(Subject { name: name.to_owned(), stats, requests: vec![], errors: vec![] });
                subjects.len() - 1
            });
        }
    }
    let places: HashMap<&str, usize> = S::ALL.iter().map(|(stat, suffix)| (*suffix, stat.place())).collect();
    for id in catalog.ids() {
        let Some(rest) = catalog.name(id).strip_prefix(prefix) else { continue };
        let dots = rest.rmatch_indices('.').take(3);
        let matched =
            dots.filter_map(|(dot, _)| Some((found.get(&rest[..dot])?, places.get(&rest[dot + 1..])?)));
        for (subject, place) in matched {
            subjects[*subject].stats[*place] = id.0;
        }
    }
    subjects
}

const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use proxy_stats::MetricKind;

    use super::*;

    #[test]
    fn names_with_dots_are_kept_whole() {
        let mut catalog = Catalog::default();
        for name in [
            "cluster.a.b.membership_total",
            "cluster.a.b.upstream_rq_total",
            "cluster.a.b.external.upstream_rq_total",
            "cluster.a.b.circuit_breakers.default.cx_open",
            "cluster.a.membership_total",
            "cluster.loose.upstream_rq_total",
            "http.admin.downstream_cx_total",
            "http.edge.downstream_cx_total",
            "listener.127.0.0.1_80.downstream_cx_total",
            "listener.127.0.0.1_80.worker_10.downstream_cx_total",
            "listener.127.0.0.1_80.worker_2.downstream_cx_total",
            "listener.127.0.0.1_80.worker_2.downstream_cx_active",
            "listener.127.0.0.1_80.http.edge.downstream_rq_completed",
            "listener.admin.main_thread.downstream_cx_total",
            "listener.admin.downstream_cx_total",
        ] {
            catalog.intern(name, MetricKind::Counter).unwrap();
        }
        let subjects = Subjects::of(&catalog);
        let names = |subjects: &[Subject]| -> Vec<String> {
            subjects.iter().map(|subject| subject.name.clone()).collect()
        };
        assert_eq!(names(&subjects.clusters), ["a.b", "a"]);
        let name = |id: Option<StatId>| catalog.name(id.unwrap());
        assert_eq!(name(subjects.clusters[0].id(Cluster::Requests)), "cluster.a.b.upstream_rq_total");
        assert!(subjects.clusters[0].id(Cluster::BreakerCx).is_some());
        assert!(subjects.clusters[1].id(Cluster::Requests).is_none());
        assert_eq!(names(&subjects.managers), ["edge"]);
        assert_eq!(names(&subjects.listeners), ["127.0.0.1_80"]);
        assert_eq!(subjects.listeners[0].requests.len(), 1);
        let workers: Vec<_> = subjects
            .workers
            .iter()
            .map(|worker| (&*worker.name, worker.total.len(), worker.active.len()))
            .collect();
        assert_eq!(workers, [("worker_2", 1, 1), ("worker_10", 1, 0)]);
    }
}
