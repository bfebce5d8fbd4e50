//! Both ways of a relay on their way to another process.

use std::os::fd::OwnedFd;
use std::time::Duration;

use proxy_net::Io;
use proxy_net::StreamRecord;
use proxy_net::buffer::ReadBuffer;
use proxy_net::pipe::Pipe;

use super::attempt::MovedAttempt;
use super::{Counts, Direction, Flow, Stage};

/// A relay between two processes. Its descriptors are the upstream stream, then the two ends of the pipe of each direction
/// that has one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct MovedRelay {
    /// The cluster's name.
    #[prost(string, tag = "1")]
    pub(crate) cluster: String,
    /// The host's address.
    #[prost(string, tag = "2")]
    pub(crate) host: String,
    #[prost(message, optional, tag = "3")]
    up: Option<MovedDirection>,
    #[prost(message, optional, tag = "4")]
    down: Option<MovedDirection>,
    /// Until the time limit on the whole connection, in milliseconds.
    #[prost(uint64, optional, tag = "5")]
    left_ms: Option<u64>,
    /// What access logs tell of the attempt at the host; missing if there was no log.
    #[prost(message, optional, tag = "6")]
    pub(crate) attempt: Option<MovedAttempt>,
}

/// One way of it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct MovedDirection {
    /// Read and not yet written.
    #[prost(bytes = "vec", tag = "1")]
    held: Vec<u8>,
    /// Behind them, in a pipe.
    #[prost(uint32, tag = "2")]
    piped: u32,
    /// 0 open, 1 the source has ended, 2 the sink knows.
    #[prost(uint32, tag = "3")]
    stage: u32,
    /// Bytes read so far, and written.
    #[prost(uint64, tag = "4")]
    read: u64,
    #[prost(uint64, tag = "5")]
    written: u64,
}

impl MovedRelay {
    /// `left` is the time until the limit on the whole connection.
    pub(crate) fn new(cluster: String, host: String, flow: &Flow, left: Option<Duration>) -> MovedRelay {
        let left_ms = left.map(|left| left.as_millis() as u64);
        let (up, down) = (Some(flow.up.told()), Some(flow.down.told()));
        MovedRelay { cluster, host, up, down, left_ms, attempt: None }
    }

    /// Tells of the attempt that made the relay as well.
    pub(crate) fn with_attempt(self, record: &StreamRecord) -> MovedRelay {
        MovedRelay { attempt: MovedAttempt::of(record), ..self }
    }

    /// Until the limit on the whole connection.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.left_ms.map(Duration::from_millis)
    }

    /// The upstream stream, and both ways as they were in another process. `None` when they make no sense, or descriptors
    /// are missing.
    pub(crate) fn resume(self, descriptors: Vec<OwnedFd>) -> Option<(Io, Flow)> {
        let mut descriptors = descriptors.into_iter();
        let upstream = Io::from_descriptor(descriptors.next()?).ok()?;
        let up = Direction::resumed(self.up?, &mut descriptors)?;
        let down = Direction::resumed(self.down?, &mut descriptors)?;
        Some((upstream, Flow::between(up, down)))
    }
}

/// More has never gone over a connection (an exbibyte), so that what comes can be added without a look.
pub(crate) const MOST_BYTES: u64 = 1 << 60;

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
        if told.read.max(told.written) > MOST_BYTES {
            return None;
        }
        let counts = Counts { read: told.read, written: told.written, ..Counts::default() };
        Some(Direction::between(ReadBuffer::from_slice(&told.held), pipe, stage, counts))
    }
}
