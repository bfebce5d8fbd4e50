//! `envoy.filters.network.tcp_proxy`: a downstream connection's bytes to a cluster and back.
//!
//! [`TcpProxy`] chooses the cluster and connects; a [`session::Session`] then watches a [`Relay`] to its end. A
//! draining worker leaves streams of bytes alone: nothing in them says where they may be cut.

mod log;
mod moving;
mod session;
mod stats;
mod tunnel;

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use proxy_config::settings::{self, FilterStateKind, ResponseFlags};
use proxy_http::route::ClusterId;
use proxy_net::{
    CloseReason, Connection, ConnectionInfo, FilterStateText, Handover, Limit, LocalBoxFuture,
    MovedConnection, NetworkFilter, NextNetwork,
};
use proxy_runtime::{Instant, Timer};
use proxy_upstream::tcp::{TcpConnectError, TcpGuard};
use proxy_upstream::{Cluster, ClusterMap};

use crate::relay::Relay;

use log::LoggedConnection;
pub use log::TcpLogs;
use moving::Handed;
use session::{Session, Told};
pub use stats::{TcpCounters, TcpStats};
use tunnel::TunnelSession;

/// One worker's instance for a filter chain.
pub struct TcpProxy {
    settings: Arc<settings::TcpProxy>,
    targets: Vec<(ClusterId, u32)>,
    /// Sum of the weights.
    total: u64,
    clusters: Rc<ClusterMap>,
    stats: Arc<TcpStats>,
    logs: TcpLogs,
    handover: Rc<Handover>,
    /// The listener's `per_connection_buffer_limit_bytes`.
    buffer_limit: u32,
}

/// A connection that has its upstream.
enum Opened {
    Session(Box<Session>),
    /// Through HTTP that stays HTTP.
    Tunnel(Box<TunnelSession>),
}

impl TcpProxy {
    /// `targets` are the numbers and weights of `settings.clusters`.
    pub fn new(
        settings: Arc<settings::TcpProxy>,
        targets: Vec<(ClusterId, u32)>,
        clusters: Rc<ClusterMap>,
        stats: Arc<TcpStats>,
        logs: TcpLogs,
        handover: Rc<Handover>,
    ) -> TcpProxy {
        let total = targets.iter().map(|(_, weight)| u64::from(*weight)).sum();
        TcpProxy { settings, targets, total, clusters, stats, logs, handover, buffer_limit: 0 }
    }

    /// Reads no more than so many bytes ahead of a client; 0 is no limit. The clusters have limits for hosts.
    #[must_use]
    pub fn with_buffer_limit(self, buffer_limit: u32) -> TcpProxy {
        TcpProxy { buffer_limit, ..self }
    }

    async fn open(
        &self,
        connection: Connection,
        logged: &LoggedConnection<'_>,
    ) -> Result<Opened, CloseReason> {
        self.stats.counters.downstream_cx_total.inc();
        let ends = self.settings.max_duration.map(|limit| connection.info.started + limit);
        let Some(cluster) = self.choose(&connection.info, fastrand::u64(..)) else {
            self.stats.counters.downstream_cx_no_route.inc();
            logged.set_flag(ResponseFlags::NO_CLUSTER_FOUND);
            return Err(CloseReason::NoRoute("cluster not found"));
        };
        let record = connection.info.record.as_deref();
        if let Some(record) = record {
            record.set_cluster(Arc::clone(&cluster.info.settings));
        }
        if let Some(tunneling) = &self.settings.tunneling {
            return self.open_tunnel(connection, &cluster, tunneling, ends, logged).await;
        }
        let connecting = cluster.connect_tcp(self.settings.max_connect_attempts, record);
        let (io, guard, attempt) = self.within(ends, connecting, logged).await?;
        logged.connected();
        let told = connection.info.record.clone().map(|record| Box::new(Told { record, attempt }));
        let relay = self.limited(Relay::new(connection.io, connection.prefix, io), &guard);
        let stats = Arc::clone(&self.stats);
        let session = Session::new(relay, guard, stats, self.settings.idle_timeout, ends, told);
        Ok(Opened::Session(Box::new(session)))
    }

    /// Waits for `connecting`, but not past `ends`.
    async fn within<T>(
        &self,
        ends: Option<Instant>,
        connecting: impl Future<Output = Result<T, TcpConnectError>>,
        logged: &LoggedConnection<'_>,
    ) -> Result<T, CloseReason> {
        let timer = Timer::new();
        if let Some(ends) = ends {
            timer.set(ends);
        }
        tokio::select! {
            biased;
            connected = connecting => {
                connected.inspect_err(|error| logged.refused(error)).map_err(refusal)
            }
            () = timer.expired() => {
                self.stats.counters.max_downstream_connection_duration.inc();
                logged.set_flag(ResponseFlags::DURATION_TIMEOUT);
                Err(CloseReason::Timeout(Limit::Duration))
            }
        }
    }

    fn limited(&self, relay: Relay, upstream: &TcpGuard) -> Relay {
        relay.limited(upstream.host().cluster.settings.buffer_limit, self.buffer_limit)
    }

    /// The cluster that a filter before this one has named, or one of the settings'.
    fn choose(&self, info: &ConnectionInfo, random: u64) -> Option<Rc<Cluster>> {
        let named =
            info.filter_state.find(CLUSTER).and_then(|named| named.downcast::<FilterStateText>().ok());
        if let Some(named) = named.filter(|named| named.kind == FilterStateKind::TcpCluster) {
            return self.clusters.find(std::str::from_utf8(&named.text).ok()?);
        }
        let index = weighted(self.targets.iter().map(|(_, weight)| *weight), random % self.total.max(1))?;
        self.clusters.get(self.targets.get(index)?.0)
    }
}

impl NetworkFilter for TcpProxy {
    fn serve<'a>(
        &'a self,
        connection: Connection,
        _next: NextNetwork<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CloseReason>> {
        Box::pin(async move {
            let info = Rc::clone(&connection.info);
            let mut connection = connection;
            let logged = LoggedConnection::new(&self.logs, Rc::clone(&info));
            let opened = match connection.moved.take() {
                Some(moved) => Opened::Session(Box::new(self.resume(connection, *moved)?)),
                // Boxed apart, so that a connection does not keep the memory that connecting took.
                None => Box::pin(self.open(connection, &logged)).await?,
            };
            let mut session = match opened {
                Opened::Session(session) => session,
                Opened::Tunnel(mut tunnel) => {
                    let result = poll_fn(|context| tunnel.poll(context)).await;
                    if let Err(CloseReason::Timeout(Limit::Duration)) = result {
                        logged.set_flag(ResponseFlags::DURATION_TIMEOUT);
                    }
                    return result;
                }
            };
            let mobility = self.handover.mobility();
            loop {
                let ended = poll_fn(|context| {
                    if let Poll::Ready(result) = session.poll(context) {
                        return Poll::Ready(Some(result));
                    }
                    if !session.relay().flow().is_movable() {
                        return Poll::Pending;
                    }
                    mobility.poll_wanted(context).map(|()| None)
                });
                if let Some(result) = ended.await {
                    if let Err(CloseReason::Timeout(Limit::Duration)) = result {
                        logged.set_flag(ResponseFlags::DURATION_TIMEOUT);
                    }
                    return result;
                }
                match Box::pin(moving::hand_over(session, &info, &self.handover)).await {
                    Handed::Over => {
                        logged.moved();
                        return Err(CloseReason::Moved);
                    }
                    Handed::Stays(back) => session = back,
                }
                mobility.stay();
            }
        })
    }

    fn takes(&self, moved: &MovedConnection, _info: &ConnectionInfo) -> bool {
        self.would_resume(moved)
    }

    fn turned_away(&self, info: &Rc<ConnectionInfo>) {
        self.stats.counters.downstream_cx_total.inc();
        drop(LoggedConnection::new(&self.logs, Rc::clone(info)));
    }
}

/// The first index at which the weights up to and including it exceed `point`.
fn weighted(weights: impl Iterator<Item = u32>, mut point: u64) -> Option<usize> {
    for (index, weight) in weights.enumerate() {
        match point.checked_sub(u64::from(weight)) {
            Some(rest) => point = rest,
            None => return Some(index),
        }
    }
    None
}

fn refusal(error: TcpConnectError) -> CloseReason {
    CloseReason::NoUpstream(match error {
        TcpConnectError::NoHealthyUpstream => "no healthy upstream",
        TcpConnectError::Overflow => "circuit breaker open",
        TcpConnectError::Connect(_) => "connecting failed",
        TcpConnectError::NoTunnel => "no tunnel",
    })
}

/// The name of the object of the filter state.
const CLUSTER: &str = "envoy.tcp_proxy.cluster";

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
