//! What is told of a connection that goes on in another process, as protobuf. Times are told as how far they were from one
//! moment, that of the telling, or on the wall clock.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::address::{Address, PipePath};
use crate::buffer::ReadBuffer;
use crate::connection::{ConnectionId, ConnectionInfo};
use proxy_runtime::Instant;

/// A connection between two processes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MovedConnection {
    /// The listener's name.
    #[prost(string, tag = "1")]
    pub listener: String,
    #[prost(message, optional, tag = "2")]
    local: Option<MovedAddress>,
    #[prost(message, optional, tag = "3")]
    remote: Option<MovedAddress>,
    #[prost(message, optional, tag = "4")]
    direct_remote: Option<MovedAddress>,
    /// Since it was accepted, in microseconds.
    #[prost(uint64, tag = "5")]
    age_us: u64,
    /// When that was, in microseconds since 1970.
    #[prost(uint64, tag = "6")]
    started_at_us: u64,
    /// Bytes read and not yet used.
    #[prost(bytes = "vec", tag = "7")]
    prefix: Vec<u8>,
    /// Which kind of filter has it.
    #[prost(enumeration = "MovedKind", tag = "8")]
    pub kind: i32,
    /// What that filter needs to go on.
    #[prost(bytes = "vec", tag = "9")]
    pub filter: Vec<u8>,
    /// When all this was told, as [`Instant::shared`]; older processes do not say.
    #[prost(fixed64, optional, tag = "10")]
    told_at: Option<u64>,
}

/// What kind of terminal filter a connection belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum MovedKind {
    Unspecified = 0,
    /// A connection manager, between two requests of HTTP/1 or before the first byte.
    Http = 1,
    /// A TCP proxy.
    Relay = 2,
    /// A connection manager, whose connection has become a stream of bytes.
    Upgraded = 3,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct MovedAddress {
    #[prost(oneof = "AddressKind", tags = "1, 2, 3, 4")]
    kind: Option<AddressKind>,
}

#[derive(Clone, PartialEq, Eq, prost::Oneof)]
enum AddressKind {
    #[prost(string, tag = "1")]
    Ip(String),
    #[prost(bytes = "vec", tag = "2")]
    File(Vec<u8>),
    #[prost(bytes = "vec", tag = "3")]
    Abstract(Vec<u8>),
    #[prost(bool, tag = "4")]
    Unnamed(bool),
}

/// What a filter finds in a [`Connection`](crate::Connection) that began in another process.
#[derive(Debug)]
pub struct Moved {
    /// What the filter of that process told.
    pub state: Vec<u8>,
    /// What it sent beside the stream.
    pub descriptors: Vec<OwnedFd>,
    /// When it told: what its times are relative to.
    pub told_at: Instant,
}

impl MovedConnection {
    /// `filter` is what the terminal filter needs.
    pub fn new(
        info: &ConnectionInfo,
        prefix: &ReadBuffer,
        kind: MovedKind,
        filter: Vec<u8>,
        now: Instant,
    ) -> Self {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        MovedConnection {
            listener: info.listener.to_string(),
            local: Some(MovedAddress::of(&info.local)),
            remote: Some(MovedAddress::of(&info.remote)),
            direct_remote: Some(MovedAddress::of(&info.direct_remote)),
            age_us: micros(now.saturating_duration_since(info.started)),
            started_at_us: info.started_at.duration_since(UNIX_EPOCH).map_or(0, micros),
            prefix: prefix.data().to_vec(),
            kind: kind.into(),
            filter,
            told_at: Some(now.shared()),
        }
    }

    /// When this was told; `now`, where that is not known or cannot be.
    fn moment_of_telling(&self, now: Instant) -> Instant {
        let told_at = self.told_at.map(Instant::from_shared);
        // Containers can have a monotonic clock of their own (time namespaces).
        let plausible =
            |at: &Instant| now.checked_duration_since(*at).is_some_and(|transit| transit <= LONGEST_TRANSIT);
        told_at.filter(plausible).unwrap_or(now)
    }

    /// What is known of the connection, under a number of this process. `None` when the message makes no sense.
    pub fn info(&self, id: ConnectionId, listener: Rc<str>, now: Instant) -> Option<ConnectionInfo> {
        let address = |address: &Option<MovedAddress>| address.as_ref()?.address();
        let age = Duration::from_micros(self.age_us);
        let started_at: SystemTime = UNIX_EPOCH.checked_add(Duration::from_micros(self.started_at_us))?;
        let started = self.moment_of_telling(now) - age;
        let (local, remote) = (address(&self.local)?, address(&self.remote)?);
        let mut info = ConnectionInfo::accepted(id, listener, local, remote, started, started_at);
        info.direct_remote = address(&self.direct_remote)?;
        Some(info)
    }

    /// The bytes that come before anything read from the stream, and what is for the filter.
    pub fn into_parts(self, descriptors: Vec<OwnedFd>, now: Instant) -> (ReadBuffer, Moved) {
        let told_at = self.moment_of_telling(now);
        (ReadBuffer::from_slice(&self.prefix), Moved { state: self.filter, descriptors, told_at })
    }
}

/// Longer than a connection waits for its turn and for the answers of the other process.
const LONGEST_TRANSIT: Duration = Duration::from_secs(60);

impl MovedAddress {
    fn of(address: &Address) -> MovedAddress {
        let kind = match address {
            Address::Ip(ip) => AddressKind::Ip(ip.to_string()),
            Address::Pipe(pipe) => match &**pipe {
                PipePath::File(path) => AddressKind::File(path.as_os_str().as_bytes().to_vec()),
                PipePath::Abstract(name) => AddressKind::Abstract(name.clone()),
                PipePath::Unnamed => AddressKind::Unnamed(true),
            },
        };
        MovedAddress { kind: Some(kind) }
    }

    fn address(&self) -> Option<Address> {
        let pipe = match self.kind.as_ref()? {
            AddressKind::Ip(text) => return Some(Address::Ip(text.parse().ok()?)),
            AddressKind::File(path) => PipePath::File(std::ffi::OsString::from_vec(path.clone()).into()),
            AddressKind::Abstract(name) => PipePath::Abstract(name.clone()),
            AddressKind::Unnamed(_) => PipePath::Unnamed,
        };
        Some(Address::Pipe(Arc::new(pipe)))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn a_connection_is_the_same_in_another_process() {
        let now = Instant::now();
        let started = now - Duration::from_secs(5);
        let started_at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let local: std::net::SocketAddr = "[::1]:80".parse().unwrap();
        for remote in [
            Address::from("10.0.0.1:5".parse::<std::net::SocketAddr>().unwrap()),
            Address::Pipe(Arc::new(PipePath::Unnamed)),
            Address::Pipe(Arc::new(PipePath::Abstract(vec![1, 0, 255]))),
            Address::pipe("/run/x").unwrap(),
        ] {
            let info = ConnectionInfo::accepted(
                ConnectionId(1),
                Rc::from("web"),
                Address::from(local),
                remote.clone(),
                started,
                started_at,
            );
            let prefix = ReadBuffer::from_slice(b"GET / HT");
            let sent = MovedConnection::new(&info, &prefix, MovedKind::Http, b"state".to_vec(), now);
            let received = MovedConnection::decode(&*sent.encode_to_vec()).unwrap();
            let later = now + Duration::from_secs(1);
            let told = received.info(ConnectionId(9), Rc::from("web"), later).unwrap();
            assert_eq!((&told.local, &told.remote, &told.direct_remote), (&info.local, &remote, &remote));
            assert_eq!((told.id, told.started_at), (ConnectionId(9), started_at));
            assert_eq!(told.started, started);
            assert_eq!(received.kind(), MovedKind::Http);
            let (prefix, moved) = received.into_parts(Vec::new(), later);
            assert_eq!((prefix.data(), &*moved.state), (&b"GET / HT"[..], &b"state"[..]));
            assert_eq!(moved.told_at, now);
        }
    }

    #[test]
    fn where_the_moment_of_the_telling_cannot_be_right_it_is_now() {
        let now = Instant::now();
        let moved = |told_at| MovedConnection { told_at, ..MovedConnection::default() };
        let minute = Duration::from_secs(60);
        assert_eq!(moved(Some((now - minute).shared())).moment_of_telling(now), now - minute);
        let too_long_ago = now - minute - Duration::from_nanos(1);
        for wrong in
            [None, Some(0), Some(u64::MAX), Some((now + minute).shared()), Some(too_long_ago.shared())]
        {
            assert_eq!(moved(wrong).moment_of_telling(now), now, "{wrong:?}");
        }
    }

    #[test]
    fn nonsense_is_no_connection() {
        let empty = MovedConnection::default();
        assert!(empty.info(ConnectionId(1), Rc::from("web"), Instant::now()).is_none());
    }
}
