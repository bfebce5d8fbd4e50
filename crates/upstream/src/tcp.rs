//! Connections for streams of bytes: never pooled, one per downstream connection.
//!
//! Counted as Envoy's TCP pool counts: the connection is a pending request until it is made, and a request while it
//! lives.

use std::rc::Rc;

use proxy_config::settings::Priority;
use proxy_net::{AttemptGuard, Io, StreamRecord};
use proxy_runtime::{Instant, clock};
use proxy_stats::GaugeGuard;

use crate::breaker::{BreakerGuard, Resource};
use crate::cluster::{Cluster, WorkerHost};
use crate::connect::{ConnectError, ConnectionFacts, ConnectionGuard, DestroyedBy, Purpose, connect};
use crate::host::HostStat;
use crate::pending::PendingRequest;
use crate::stats::ClusterStats;

/// Why no connection could be made. Counted.
#[derive(Debug, thiserror::Error)]
pub enum TcpConnectError {
    /// No host may be used.
    #[error("no healthy upstream")]
    NoHealthyUpstream,
    /// A circuit breaker is open.
    #[error("circuit breaker open")]
    Overflow,
    /// Every attempt failed; this is the last one's error.
    #[error(transparent)]
    Connect(ConnectError),
    /// A proxy on the way was reached every time, and made no tunnel.
    #[error("no tunnel")]
    NoTunnel,
}

/// Counts one connection while it carries a stream.
pub struct TcpGuard {
    // Before the connection's own guard: its request ends with it.
    _request: GaugeGuard,
    connection: ConnectionGuard,
}

impl TcpGuard {
    fn new(connection: ConnectionGuard) -> Self {
        let stats = &connection.host.cluster.stats;
        stats.upstream_rq_total.inc();
        connection.host.add(HostStat::RqTotal, 1);
        connection.host.add(HostStat::RqActive, 1);
        connection.set_active_request(true);
        Self { _request: GaugeGuard::new(stats.upstream_rq_active), connection }
    }

    /// Counts a connection that another process made, and has counted as made.
    /// `opened` is when.
    pub fn resumed(host: &Rc<WorkerHost>, opened: Instant) -> Self {
        let connection = ConnectionGuard::resumed(host, opened);
        connection.set_active_request(true);
        host.add(HostStat::RqActive, 1);
        Self { _request: GaugeGuard::new(host.cluster.stats.upstream_rq_active), connection }
    }

    /// Counts a connection that an HTTP exchange has opened, as one request of its own.
    pub(crate) fn tunnelled(connection: ConnectionGuard) -> Self {
        connection.set_active_request(true);
        connection.host.add(HostStat::RqActive, 1);
        let active = GaugeGuard::new(connection.host.cluster.stats.upstream_rq_active);
        Self { _request: active, connection }
    }

    /// What is told of the connection.
    pub fn facts(&self) -> &ConnectionFacts {
        &self.connection.facts
    }

    /// The host at the other end.
    pub fn host(&self) -> &Rc<WorkerHost> {
        &self.connection.host
    }

    /// The connection goes on in another process, which will count its end.
    pub fn moved(&self) {
        self.connection.set_destroyed_by(DestroyedBy::Nobody);
    }

    /// The stats of the cluster, for bytes.
    pub fn stats(&self) -> &ClusterStats {
        &self.connection.host.cluster.stats
    }

    /// Says how many bytes are on their way through this process: up, down.
    pub fn set_buffered(&self, up: usize, down: usize) {
        self.connection.set_to_send(up);
        self.connection.set_received(down);
    }

    /// The upstream host ended the connection; otherwise we did.
    pub fn ended_by_peer(&self) {
        self.connection.set_destroyed_by(DestroyedBy::Peer);
    }
}

impl Drop for TcpGuard {
    fn drop(&mut self) {
        self.connection.host.add(HostStat::RqActive, -1);
    }
}

impl Cluster {
    /// Connects to a host, each attempt to the one whose turn it is then; each within the cluster's `connect_timeout`.
    /// `record` hears of the attempts.
    ///
    /// # Errors
    /// When there is no host, a circuit breaker is open, or `max_attempts` have failed.
    pub async fn connect_tcp(
        &self,
        max_attempts: u32,
        record: Option<&StreamRecord>,
    ) -> Result<(Io, TcpGuard, AttemptGuard), TcpConnectError> {
        let stats = &self.info.stats;
        let mut left = max_attempts.max(1);
        loop {
            if let Some(record) = record {
                record.attempt_count.set(record.attempt_count.get() + 1);
            }
            let permit = self.tcp_permit()?;
            let Some(host) = self.pick() else {
                stats.upstream_cx_none_healthy.inc();
                return Err(TcpConnectError::NoHealthyUpstream);
            };
            let attempt = record.map(|record| record.begin_attempt(Rc::clone(&host) as _, clock::now()));
            let attempt = AttemptGuard::new(attempt);
            let pending =
                PendingRequest::begin(&self.info, Priority::Default).ok_or(TcpConnectError::Overflow)?;
            let error = match connect(&host, permit, Purpose::Tcp).await {
                Ok((io, guard)) => {
                    pending.served();
                    attempt.note(|attempt, now| guard.facts.describe(attempt, now));
                    return Ok((io, TcpGuard::new(guard), attempt));
                }
                Err(error) => error,
            };
            attempt.note(|attempt, now| {
                attempt.ready.set(attempt.start, now);
                *attempt.failure.borrow_mut() = error.transport_failure();
            });
            pending.ejected();
            left -= 1;
            if left == 0 {
                stats.upstream_cx_connect_attempts_exceeded.inc();
                return Err(TcpConnectError::Connect(error));
            }
        }
    }

    /// Unlike HTTP, a stream cannot wait for another's connection, so a full cluster refuses at once.
    fn tcp_permit(&self) -> Result<BreakerGuard, TcpConnectError> {
        self.info.breakers.acquire(Priority::Default, Resource::Connections).ok_or_else(|| {
            self.info.stats.upstream_cx_overflow.inc();
            TcpConnectError::Overflow
        })
    }
}
