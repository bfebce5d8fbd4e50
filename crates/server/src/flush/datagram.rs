//! Sending lines as datagrams, over UDP or a UNIX socket.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use proxy_net::Address;
use proxy_stats::FlushMark;
use socket2::{Socket, Type};

use super::lines::Lines;
use super::sink::{SinkError, Transport, Upstream};

/// A connected socket, so that the system tells when nobody listens.
pub(super) struct Datagrams {
    address: Address,
    max_bytes: usize,
    socket: Option<Socket>,
    /// Of the datagram sent last: that nobody listens is told only afterwards.
    unproven: Vec<FlushMark>,
}

impl Datagrams {
    /// One line in each datagram, or as many as fit into `max_bytes`.
    pub(super) fn new(address: Address, max_bytes: Option<usize>) -> Datagrams {
        let max_bytes = max_bytes.unwrap_or(0).min(MAX_DATAGRAM);
        Datagrams { address, max_bytes, socket: None, unproven: Vec::new() }
    }

    fn connect(&self) -> io::Result<Socket> {
        let address = self.address.to_socket_address()?;
        let socket = Socket::new(address.domain(), Type::DGRAM, None)?;
        socket.connect(&address)?;
        // A full send buffer drains with the speed of the network card.
        socket.set_write_timeout(Some(SEND_LIMIT))?;
        Ok(socket)
    }

    fn failed(&mut self, error: io::Error) -> SinkError {
        self.unproven.clear();
        self.socket = None;
        error.into()
    }
}

impl Transport for Datagrams {
    fn open(&mut self, _: Option<&Upstream>, _: &mut Vec<FlushMark>) -> Result<(), SinkError> {
        match &self.socket {
            // Takes what came back since the last flush, so that it does not count against this one.
            Some(socket) => drop(socket.take_error()),
            None => self.socket = Some(self.connect()?),
        }
        Ok(())
    }

    fn send(&mut self, lines: &mut Lines, told: &mut Vec<FlushMark>) -> Result<(), SinkError> {
        for packet in lines.packets(self.max_bytes) {
            let Some(socket) = &self.socket else { break };
            match socket.send(packet.bytes) {
                Ok(_) => {
                    told.append(&mut self.unproven);
                    self.unproven.extend(packet.told());
                }
                Err(error) if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) => {
                    tracing::debug!(target: "stats", bytes = packet.bytes.len(), "no datagram is large enough for a stat");
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
        lines.clear();
        Ok(())
    }

    fn finish(&mut self, told: &mut Vec<FlushMark>) -> Result<(), SinkError> {
        let refused = self.socket.as_ref().and_then(|socket| socket.take_error().transpose());
        if let Some(error) = refused {
            return Err(self.failed(error.unwrap_or_else(|error| error)));
        }
        told.append(&mut self.unproven);
        Ok(())
    }
}

/// What UDP can carry.
const MAX_DATAGRAM: usize = 65_507;
const SEND_LIMIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use proxy_stats::{MetricId, Store, StoreOptions};

    use super::*;

    fn marks(store: &Store) -> Vec<FlushMark> {
        let (mut marks, mut deltas) = (Vec::new(), store.deltas());
        while deltas.advance(|delta| marks.push(delta.mark())) {}
        marks
    }

    #[test]
    fn a_datagram_that_nobody_took_has_told_nothing() {
        let store = Store::create(StoreOptions::private(1)).unwrap();
        let scope = store.root().scope("s");
        (0..3).for_each(|index| scope.counter(&format!("c{index}")).inc());
        let marks = marks(&store);
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = receiver.local_addr().unwrap();
        let mut datagrams = Datagrams::new(Address::Ip(address), None);
        let mut flush = || {
            let (mut lines, mut told) = (Lines::default(), Vec::new());
            marks.iter().for_each(|mark| lines.push(Some(*mark), |bytes| bytes.push(b'x')));
            let flushed = datagrams
                .open(None, &mut told)
                .and_then(|()| datagrams.send(&mut lines, &mut told))
                .and_then(|()| datagrams.finish(&mut told));
            let told: Vec<MetricId> = told.iter().map(|mark| mark.id).collect();
            (flushed.is_ok(), told)
        };
        let all: Vec<_> = marks.iter().map(|mark| mark.id).collect();
        assert_eq!(flush(), (true, all.clone()));
        drop(receiver);
        // The first datagram is refused, which the second one is told.
        assert_eq!(flush(), (false, vec![]));
        let _receiver = UdpSocket::bind(address).unwrap();
        assert_eq!(flush(), (true, all));
    }
}
