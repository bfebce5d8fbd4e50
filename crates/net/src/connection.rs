//! A connection as it travels through a filter chain.

use std::any::Any;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::time::SystemTime;

use proxy_config::settings::{FilterStateKind, Metadata};
use proxy_runtime::{Instant, WorkerIndex};

use crate::address::Address;
use crate::buffer::ReadBuffer;
use crate::io::Io;
use crate::moved::Moved;
use crate::record::StreamRecord;

/// A stream with the bytes already read from it and what is known about it. Moves from filter to filter by value;
/// whoever holds it last closes it.
#[derive(Debug)]
pub struct Connection {
    /// The stream.
    pub io: Io,
    /// Bytes read ahead; they come before anything read from `io`.
    pub prefix: ReadBuffer,
    /// What is known about it.
    pub info: Rc<ConnectionInfo>,
    /// It began in another process, whose terminal filter tells this of it.
    pub moved: Option<Box<Moved>>,
}

/// A connection's number, unique in this process (Envoy's `%CONNECTION_ID%`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// One worker's share of the numbers, which needs no counter that workers contend for.
#[derive(Debug)]
pub struct ConnectionIds {
    next: Cell<u64>,
    step: u64,
}

/// Plain data about a downstream connection. Listener filters may replace it until the chain is chosen.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// Its number.
    pub id: ConnectionId,
    /// The address that the client connected to; rewritten when the original destination is known.
    pub local: Address,
    /// The client; rewritten by PROXY protocol.
    pub remote: Address,
    /// Who is really at the other end of the socket.
    pub direct_remote: Address,
    /// The listener's name.
    pub listener: Rc<str>,
    /// When it was accepted.
    pub started: Instant,
    /// The same on the wall clock.
    pub started_at: SystemTime,
    /// The server name that the client asked for (TLS SNI).
    pub server_name: Option<Rc<str>>,
    /// The protocol agreed on (TLS ALPN).
    pub application_protocol: Option<Rc<str>>,
    /// Kept for access logs of the listener and of `tcp_proxy`, where there are any.
    pub record: Option<Rc<StreamRecord>>,
    /// Of its listener and its filter chain, once that is chosen, if they have any.
    pub metadata: Option<Rc<ListenerMetadata>>,
    /// What its network filters have left for others. Not moved to another process, whose filters set it anew.
    pub filter_state: FilterState,
}

/// `metadata` of a listener and of one of its filter chains.
#[derive(Debug)]
pub struct ListenerMetadata {
    pub listener: Metadata,
    pub filter_chain: Metadata,
}

/// Objects by name, for whoever knows their type. There is nothing until one is set.
#[derive(Debug, Clone, Default)]
pub struct FilterState(OnceCell<Box<Objects>>);

type Objects = RefCell<HashMap<Box<str>, Rc<dyn Any>>>;

/// An object of the filter state that was set by the configuration.
#[derive(Debug)]
pub struct FilterStateText {
    pub kind: FilterStateKind,
    pub text: Box<[u8]>,
}

impl FilterState {
    /// The object of this name.
    pub fn find(&self, key: &str) -> Option<Rc<dyn Any>> {
        self.0.get()?.borrow().get(key).cloned()
    }

    /// Sets an object in place of one of the same name.
    pub fn set(&self, key: &str, object: Rc<dyn Any>) {
        self.0.get_or_init(Box::default).borrow_mut().insert(key.into(), object);
    }

    /// The objects that the configuration has set, by name.
    pub fn texts(&self) -> Vec<(Box<str>, Rc<FilterStateText>)> {
        let Some(objects) = self.0.get() else { return Vec::new() };
        let objects = objects.borrow();
        let texts = objects.iter().filter_map(|(key, object)| {
            Some((key.clone(), Rc::clone(object).downcast::<FilterStateText>().ok()?))
        });
        texts.collect()
    }
}

impl Connection {
    /// A connection from which nothing has been read.
    pub fn new(io: Io, info: Rc<ConnectionInfo>) -> Self {
        Self { io, prefix: ReadBuffer::new(), info, moved: None }
    }
}

impl ConnectionIds {
    /// The numbers of `worker` out of `workers`.
    pub fn new(worker: WorkerIndex, workers: u16) -> Self {
        Self { next: Cell::new(u64::from(worker.0)), step: u64::from(workers.max(1)) }
    }

    /// The next number.
    pub fn next(&self) -> ConnectionId {
        let id = self.next.get();
        self.next.set(id.wrapping_add(self.step));
        ConnectionId(id)
    }
}

impl ConnectionInfo {
    /// What is known when a connection is accepted.
    pub fn accepted(
        id: ConnectionId,
        listener: Rc<str>,
        local: Address,
        remote: Address,
        started: Instant,
        started_at: SystemTime,
    ) -> Self {
        let direct_remote = remote.clone();
        let (server_name, application_protocol) = (None, None);
        Self {
            id,
            local,
            remote,
            direct_remote,
            listener,
            started,
            started_at,
            server_name,
            application_protocol,
            record: None,
            metadata: None,
            filter_state: FilterState::default(),
        }
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_never_share_a_number() {
        let workers: Vec<_> = (0..3).map(|worker| ConnectionIds::new(WorkerIndex(worker), 3)).collect();
        let mut ids: Vec<_> = (0..30).map(|turn| workers[turn % 3].next()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 30);
    }

    #[test]
    fn is_small() {
        assert!(size_of::<Connection>() <= 96, "{}", size_of::<Connection>());
        assert!(size_of::<ConnectionInfo>() <= 200, "{}", size_of::<ConnectionInfo>());
    }
}
