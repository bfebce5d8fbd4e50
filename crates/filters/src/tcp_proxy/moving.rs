//! A proxied connection on its way to another process: what is told of it, and how it goes on there.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use proxy_net::buffer::ReadBuffer;
use proxy_net::pipe::Pipe;
use proxy_net::{
    AttemptGuard, CloseReason, Connection, ConnectionInfo, Handover, Io, Moved, MovedConnection, MovedKind,
};
use proxy_runtime::clock;
use proxy_upstream::tcp::TcpGuard;
use proxy_upstream::{ClusterMap, WorkerHost};

use super::TcpProxy;
use super::direction::{Counts, Direction, Stage};
use super::relay::Relay;
use super::session::{Session, Told};

/// A relay between two processes. Its descriptors are the upstream stream, then the two ends of the pipe of each direction
/// that has one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct MovedRelay {
    /// The cluster's name.
    #[prost(string, tag = "1")]
    cluster: String,
    /// The host's address.
    #[prost(string, tag = "2")]
    host: String,
    #[prost(message, optional, tag = "3")]
    up: Option<MovedDirection>,
    #[prost(message, optional, tag = "4")]
    down: Option<MovedDirection>,
    /// Until the time limit on the whole connection, in milliseconds.
    #[prost(uint64, optional, tag = "5")]
    left_ms: Option<u64>,
}

/// One way of it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct MovedDirection {
    /// Read and not yet written.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) held: Vec<u8>,
    /// Behind them, in a pipe.
    #[prost(uint32, tag = "2")]
    pub(super) piped: u32,
    /// 0 open, 1 the source has ended, 2 the sink knows.
    #[prost(uint32, tag = "3")]
    pub(super) stage: u32,
    /// Bytes read so far, and written.
    #[prost(uint64, tag = "4")]
    pub(super) read: u64,
    #[prost(uint64, tag = "5")]
    pub(super) written: u64,
}

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
    let state = MovedRelay {
        cluster: host.cluster.settings.name.to_string(),
        host: host.host.address.to_string(),
        up: Some(relay.up().told()),
        down: Some(relay.down().told()),
        left_ms: session.left().map(|left| left.as_millis() as u64),
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
        let state = MovedRelay::decode(&*moved.state).map_err(|_| broken())?;
        let host = self.find_host(&state).ok_or_else(broken)?;
        let mut descriptors = moved.descriptors.into_iter();
        let upstream =
            descriptors.next().and_then(|stream| Io::from_descriptor(stream).ok()).ok_or_else(broken)?;
        let mut direction = |told: Option<MovedDirection>| Direction::resumed(told?, &mut descriptors);
        let (up, down) = (direction(state.up), direction(state.down));
        let (Some(up), Some(down)) = (up, down) else { return Err(broken()) };
        let relay = Relay::resumed(connection.io, upstream, up, down);
        let ends: Option<Instant> = state.left_ms.map(|left| clock::now() + Duration::from_millis(left));
        let guard = TcpGuard::resumed(&host, connection.info.started);
        let record = connection.info.record.clone();
        let told = record.map(|record| Box::new(Told { record, attempt: AttemptGuard::default() }));
        Ok(Session::resumed(relay, guard, Arc::clone(&self.stats), self.settings.idle_timeout, ends, told))
    }
}

impl Direction {
    /// What another process needs to know of it.
    fn told(&self) -> MovedDirection {
        let stage = match self.stage() {
            Stage::Open => 0,
            Stage::Ended => 1,
            Stage::Done => 2,
        };
        let piped = self.pipe().map_or(0, |pipe| pipe.len() as u32);
        let Counts { read, written, .. } = self.counts;
        MovedDirection { held: self.held().to_vec(), piped, stage, read, written }
    }

    /// As it was in another process. `None` when it makes no sense, or descriptors are missing.
    fn resumed(told: MovedDirection, descriptors: &mut impl Iterator<Item = OwnedFd>) -> Option<Direction> {
        let stage = match told.stage {
            0 => Stage::Open,
            1 => Stage::Ended,
            2 => Stage::Done,
            _ => return None,
        };
        let pipe = match told.piped {
            0 => None,
            filled => Some(Pipe::from_ends(descriptors.next()?, descriptors.next()?, filled)),
        };
        let counts = Counts { read: told.read, written: told.written, ..Counts::default() };
        Some(Direction::between(ReadBuffer::from_slice(&told.held), pipe, stage, counts))
    }
}
