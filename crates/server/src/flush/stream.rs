//! Sending lines over a connection to a host of a cluster.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::MsgFlags;
use proxy_stats::FlushMark;
use proxy_upstream::{ClusterInfo, Host};
use socket2::{Socket, Type};

use super::lines::Lines;
use super::sink::{SinkError, Transport, Upstream};

/// One connection at a time. A line counts as sent when the system has all of it.
#[derive(Default)]
pub(super) struct Stream {
    connection: Option<Connection>,
    /// What the peer has been too slow for: goes first as long as the connection lives, as half a line of it may be out.
    left: Lines,
    written: usize,
    /// Hosts take turns.
    turn: usize,
    back_off: BackOff,
}

impl Stream {
    fn connect(&mut self, upstream: Option<&Upstream>) -> Result<Connection, SinkError> {
        self.back_off.check()?;
        let upstream = upstream.ok_or(SinkError::NoHost)?;
        let usable: Vec<_> = upstream.hosts.hosts.iter().filter(|host| host.is_usable()).collect();
        let host = usable.get(self.turn % usable.len().max(1)).ok_or(SinkError::NoHost)?;
        match Connection::open(&upstream.info, host) {
            Ok(connection) => {
                self.back_off = BackOff::default();
                Ok(connection)
            }
            Err(error) => {
                self.turn = self.turn.wrapping_add(1);
                self.back_off.failed();
                Err(error.into())
            }
        }
    }

    fn close(&mut self) {
        self.connection = None;
        self.left.clear();
        self.written = 0;
    }

    /// Writes what is left, as far as the peer takes it.
    fn write(&mut self, told: &mut Vec<FlushMark>) -> Result<(), SinkError> {
        while let Some(connection) = &mut self.connection
            && let rest @ [_, ..] = &self.left.bytes()[self.written..]
        {
            match connection.write(rest) {
                Ok(written) => {
                    let end = self.written + written;
                    told.extend(self.left.told_within(self.written..end));
                    self.written = end;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(SinkError::Slow),
                Err(error) => {
                    self.close();
                    return Err(error.into());
                }
            }
        }
        self.left.clear();
        self.written = 0;
        Ok(())
    }
}

impl Transport for Stream {
    fn open(&mut self, upstream: Option<&Upstream>, told: &mut Vec<FlushMark>) -> Result<(), SinkError> {
        if self.connection.as_ref().is_some_and(Connection::has_ended) {
            self.close();
        }
        if self.connection.is_none() {
            self.connection = Some(self.connect(upstream)?);
        }
        self.write(told)
    }

    fn send(&mut self, lines: &mut Lines, told: &mut Vec<FlushMark>) -> Result<(), SinkError> {
        std::mem::swap(&mut self.left, lines);
        lines.clear();
        self.write(told)
    }

    fn finish(&mut self, _: &mut Vec<FlushMark>) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Of what its cluster counts for other connections, this one counts bytes only, as in Envoy.
struct Connection {
    socket: Socket,
    cluster: Arc<ClusterInfo>,
}

impl Connection {
    fn open(cluster: &Arc<ClusterInfo>, host: &Host) -> io::Result<Connection> {
        let address = host.address.to_socket_address()?;
        let socket = Socket::new(address.domain(), Type::STREAM, None)?;
        socket.connect_timeout(&address, cluster.settings.connect_timeout)?;
        socket.set_write_timeout(Some(STALL_LIMIT))?;
        Ok(Connection { socket, cluster: Arc::clone(cluster) })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.socket.write(bytes)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.cluster.stats.upstream_cx_tx_bytes_total.add(written as u64);
        Ok(written)
    }

    /// Whether the peer has closed: what would be written now would be lost. What it says is of no interest.
    fn has_ended(&self) -> bool {
        let mut said = [std::mem::MaybeUninit::uninit(); 4096];
        loop {
            match self.socket.recv_with_flags(&mut said, MsgFlags::MSG_DONTWAIT.bits()) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }
}

/// How long not to connect after failures in a row.
#[derive(Default)]
struct BackOff {
    failures: u32,
    until: Option<Instant>,
}

impl BackOff {
    fn check(&self) -> Result<(), SinkError> {
        let waiting = self.until.is_some_and(|until| Instant::now() < until);
        if waiting { Err(SinkError::BackingOff) } else { Ok(()) }
    }

    /// Longer each time, and not the same for all who lost the same receiver.
    fn failed(&mut self) {
        let longest = FIRST_WAIT.saturating_mul(1 << self.failures.min(16)).min(LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        self.until = Some(Instant::now() + longest.mul_f64(0.5 + fastrand::f64() / 2.0));
    }
}

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A peer that takes nothing for this long is slow; the thread goes back to wait for orders.
const STALL_LIMIT: Duration = Duration::from_secs(1);

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
