//! Opening a connection to a host, and what is counted while it lives.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use proxy_config::settings::Priority;
use proxy_net::{Address, ConnectionId, ConnectionIds, Io, UpstreamAttempt};
use proxy_runtime::{Instant, Timer, clock, worker_local};

use crate::breaker::{BreakerGuard, Resource};
use crate::cluster::WorkerHost;
use crate::host::HostStat;

/// Why a host could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("connecting timed out")]
    TimedOut,
    #[error("connecting failed: {0}")]
    Failed(#[from] io::Error),
}

impl ConnectionFacts {
    fn now() -> ConnectionFacts {
        let now = clock::now();
        let id = worker_local::get::<ConnectionIds>().map_or(ConnectionId(0), |ids| ids.next());
        ConnectionFacts { id, opened: now, connected: now, local: None }
    }

    /// Tells `attempt` that it goes over this connection.
    pub fn describe(&self, attempt: &UpstreamAttempt, now: Instant) {
        attempt.ready.set(attempt.start, now);
        self.name(attempt);
        attempt.connect.set(Some((self.opened, self.connected)));
        attempt.local.borrow_mut().clone_from(&self.local);
    }

    /// Tells `attempt` the connection's number only, if another process has opened it.
    pub fn name(&self, attempt: &UpstreamAttempt) {
        attempt.connection.set(Some(self.id));
    }
}

impl ConnectError {
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`, in Envoy's words; `None` for a time limit, which is no failure of the transport.
    pub fn transport_failure(&self) -> Option<Box<str>> {
        let ConnectError::Failed(error) = self else { return None };
        let text = error.to_string();
        let reason = text.split(" (os error").next().unwrap_or_default().replace(' ', "_");
        Some(format!("delayed_connect_error:_{reason}").into())
    }
}

/// Which side ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestroyedBy {
    Us,
    Peer,
    /// It goes on in another process.
    Nobody,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Http1,
    Http2,
    Tcp,
}

/// What is told of a connection to a host.
#[derive(Clone)]
pub struct ConnectionFacts {
    /// From the same numbers as downstream connections.
    pub id: ConnectionId,
    pub opened: Instant,
    pub connected: Instant,
    pub local: Option<Address>,
}

/// Counts one connection to a host for as long as it lives.
pub struct ConnectionGuard {
    pub host: Rc<WorkerHost>,
    /// Apart, so that what relays bytes stays small.
    pub facts: Box<ConnectionFacts>,
    requests: Cell<u32>,
    destroyed_by: Cell<DestroyedBy>,
    active_request: Cell<bool>,
    /// Bytes that came and are not taken yet, and those that wait for the socket.
    buffered: [Cell<u32>; 2],
    _breaker: BreakerGuard,
}

impl ConnectionGuard {
    fn new(host: &Rc<WorkerHost>, breaker: BreakerGuard) -> ConnectionGuard {
        host.cluster.stats.upstream_cx_active.inc();
        host.cluster.stats.upstream_cx_total.inc();
        host.add(HostStat::CxActive, 1);
        host.add(HostStat::CxTotal, 1);
        host.pool.open.set(host.pool.open.get() + 1);
        ConnectionGuard {
            host: Rc::clone(host),
            facts: Box::new(ConnectionFacts::now()),
            requests: Cell::new(0),
            destroyed_by: Cell::new(DestroyedBy::Us),
            active_request: Cell::new(false),
            buffered: Default::default(),
            _breaker: breaker,
        }
    }

    /// A connection that another process has opened and counted; it does not ask breakers.
    pub(crate) fn resumed(host: &Rc<WorkerHost>, opened: Instant) -> ConnectionGuard {
        let permit = host.cluster.breakers.acquire_anyway(Priority::Default, Resource::Connections);
        host.cluster.stats.upstream_cx_active.inc();
        host.add(HostStat::CxActive, 1);
        host.pool.open.set(host.pool.open.get() + 1);
        ConnectionGuard {
            host: Rc::clone(host),
            facts: Box::new(ConnectionFacts { opened, connected: opened, ..ConnectionFacts::now() }),
            requests: Cell::new(0),
            destroyed_by: Cell::new(DestroyedBy::Us),
            active_request: Cell::new(false),
            buffered: Default::default(),
            _breaker: permit,
        }
    }

    /// Says who ends the connection; told before it is dropped.
    pub fn set_destroyed_by(&self, by: DestroyedBy) {
        self.destroyed_by.set(by);
    }

    /// `count` more requests are sent on it.
    pub fn count_requests(&self, count: u32) {
        self.requests.set(self.requests.get().saturating_add(count));
    }

    /// Requests sent on it so far.
    pub fn requests(&self) -> u32 {
        self.requests.get()
    }

    /// Says how many bytes have come and are not taken yet.
    pub fn set_received(&self, bytes: usize) {
        self.set_buffered(0, bytes);
    }

    /// Says how many bytes wait for the socket.
    pub fn set_to_send(&self, bytes: usize) {
        self.set_buffered(1, bytes);
    }

    fn set_buffered(&self, way: usize, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let before = self.buffered[way].replace(bytes);
        if before != bytes {
            let stats = &self.host.cluster.stats;
            let gauge = [stats.upstream_cx_rx_bytes_buffered, stats.upstream_cx_tx_bytes_buffered][way];
            gauge.add(i64::from(bytes) - i64::from(before));
        }
    }

    /// Says whether a request is under way.
    pub fn set_active_request(&self, active: bool) {
        self.active_request.set(active);
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let stats = &self.host.cluster.stats;
        self.set_received(0);
        self.set_to_send(0);
        stats.upstream_cx_active.dec();
        self.host.add(HostStat::CxActive, -1);
        self.host.pool.connection_closed();
        let (all, with_request) = match self.destroyed_by.get() {
            DestroyedBy::Us => {
                (stats.upstream_cx_destroy_local, stats.upstream_cx_destroy_local_with_active_rq)
            }
            DestroyedBy::Peer => {
                (stats.upstream_cx_destroy_remote, stats.upstream_cx_destroy_remote_with_active_rq)
            }
            DestroyedBy::Nobody => return,
        };
        stats.upstream_cx_destroy.inc();
        stats
            .upstream_cx_length_ms
            .record_milliseconds(clock::now().saturating_duration_since(self.facts.opened));
        if self.requests.get() > 0 {
            stats.upstream_rq_per_cx.record(self.requests.get().into());
        }
        all.inc();
        if self.active_request.get() {
            stats.upstream_cx_destroy_with_active_rq.inc();
            with_request.inc();
        }
    }
}

/// Opens a connection within the cluster's `connect_timeout`.
///
/// # Errors
/// When the host refuses, is out of reach or too slow; counted.
pub async fn connect(
    host: &Rc<WorkerHost>,
    permit: BreakerGuard,
    purpose: Purpose,
) -> Result<(Io, ConnectionGuard), ConnectError> {
    let settings = &host.cluster.settings;
    let mut guard = ConnectionGuard::new(host, permit);
    match purpose {
        Purpose::Http1 => {
            host.cluster.stats.upstream_cx_http1_total.inc();
            host.cluster.declare_http1_stats();
        }
        Purpose::Http2 => host.cluster.stats.upstream_cx_http2_total.inc(),
        Purpose::Tcp => {}
    }
    let timer = Timer::new();
    timer.set(guard.facts.opened + settings.connect_timeout);
    let failed = |error: ConnectError| {
        host.cluster.stats.upstream_cx_connect_fail.inc();
        host.add(HostStat::CxConnectFail, 1);
        tracing::debug!(target: "upstream", cluster = %settings.name, host = %host.host.address, %error, "connect failed");
        Err(error)
    };
    tokio::select! {
        biased;
        connected = proxy_net::connect(&host.host.address, &host.cluster.connect) => match connected {
            Ok(io) => {
                guard.facts.connected = clock::refresh();
                guard.facts.local = io.local_address().ok();
                let time = guard.facts.connected.saturating_duration_since(guard.facts.opened);
                host.cluster.stats.upstream_cx_connect_ms.record_milliseconds(time);
                Ok((io, guard))
            }
            Err(error) => {
                guard.set_destroyed_by(DestroyedBy::Peer);
                failed(error.into())
            }
        },
        () = timer.expired() => {
            host.cluster.stats.upstream_cx_connect_timeout.inc();
            failed(ConnectError::TimedOut)
        }
    }
}
