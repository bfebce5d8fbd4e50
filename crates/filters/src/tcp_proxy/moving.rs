//! A proxied connection on its way to another process: what is told of it, and how it goes on there.

use std::rc::Rc;
use std::sync::Arc;

use prost::Message;
use proxy_net::buffer::ReadBuffer;
use proxy_net::{CloseReason, Connection, ConnectionInfo, Handover, Moved, MovedConnection, MovedKind};
use proxy_runtime::clock;
use proxy_upstream::tcp::TcpGuard;
use proxy_upstream::{ClusterMap, WorkerHost};

use crate::relay::moving::MovedRelay;
use crate::relay::{Relay, attempt};

use super::TcpProxy;
use super::session::{Session, Told};

/// What became of an offer.
pub(super) enum Handed {
    /// The other process has the connection.
    Over,
    Stays(Box<Session>),
}

/// Offers a session that is between two system calls.
pub(super) async fn hand_over(session: Box<Session>, info: &ConnectionInfo, handover: &Handover) -> Handed {
    let now = clock::now();
    let (relay, host) = (session.relay(), session.upstream().host());
    let (cluster, address) = (host.cluster.settings.name.to_string(), host.host.address.to_string());
    let state = MovedRelay::new(cluster, address, relay.flow(), session.left());
    let state = match &info.record {
        Some(record) => state.with_attempt(record),
        None => state,
    };
    let nothing = ReadBuffer::new();
    let moved = MovedConnection::new(info, &nothing, MovedKind::Relay, state.encode_to_vec(), now);
    let offered = handover.offer(moved.encode_to_vec(), &relay.descriptors()).await;
    match offered {
        Ok(Some(receipt)) => {
            session.moved();
            drop(session);
            receipt.released();
            Handed::Over
        }
        Ok(None) => Handed::Stays(session),
        Err(error) => {
            tracing::debug!(target: "restart", %error, "a connection cannot be offered");
            Handed::Stays(session)
        }
    }
}

impl TcpProxy {
    /// Whether the host that a relay of another process goes to is one that this filter would send it to.
    pub(super) fn would_resume(&self, moved: &MovedConnection) -> bool {
        moved.kind() == MovedKind::Relay
            && MovedRelay::decode(&*moved.filter).is_ok_and(|relay| self.find_host(&relay).is_some())
    }

    fn find_host(&self, relay: &MovedRelay) -> Option<Rc<WorkerHost>> {
        let clusters: &ClusterMap = &self.clusters;
        let mut targets = self.targets.iter().filter_map(|(id, _)| clusters.get(*id));
        let cluster = targets.find(|cluster| *cluster.info.settings.name == *relay.cluster)?;
        cluster.host_at(&relay.host)
    }

    /// Goes on with a relay of another process.
    pub(super) fn resume(&self, connection: Connection, moved: Moved) -> Result<Session, CloseReason> {
        let broken = || CloseReason::Local("a connection of another process cannot go on");
        let mut state = MovedRelay::decode(&*moved.state).map_err(|_| broken())?;
        let host = self.find_host(&state).ok_or_else(broken)?;
        let ends = state.left().map(|left| moved.told_at + left);
        let attempt = state.attempt.take();
        let (upstream, flow) = state.resume(moved.descriptors).ok_or_else(broken)?;
        let guard = TcpGuard::resumed(&host, connection.info.started);
        let told = connection.info.record.clone().map(|record| {
            record.set_cluster(Arc::clone(&host.cluster.settings));
            let attempt = attempt::resumed(attempt, moved.told_at, &record, Rc::clone(&host) as _, &upstream);
            attempt.note(|attempt, _| guard.facts().name(attempt));
            Box::new(Told { record, attempt })
        });
        let relay = self.limited(Relay::between(connection.io, upstream, flow), &guard);
        Ok(Session::resumed(relay, guard, Arc::clone(&self.stats), self.settings.idle_timeout, ends, told))
    }
}
