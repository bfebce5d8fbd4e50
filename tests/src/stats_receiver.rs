//! A receiver of statsd lines, over UDP or TCP, that can go away and come back at the same address.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::eventually;

/// Keeps what arrives; gone when dropped.
pub struct StatsReceiver {
    address: SocketAddr,
    record: Arc<Record>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Record {
    lines: Mutex<Vec<StatLine>>,
    /// Bytes of each datagram.
    datagrams: Mutex<Vec<usize>>,
    stopped: AtomicBool,
}

/// `name:value|type|@rate|#tags`; Graphite's tags stay in the name.
#[derive(Debug, Clone, PartialEq)]
pub struct StatLine {
    pub name: String,
    pub value: u64,
    /// `c`, `g` or `ms`.
    pub kind: String,
    pub rate: f64,
    /// `name:value`, sorted.
    pub tags: Vec<String>,
}

impl StatLine {
    fn parse(line: &str) -> Self {
        let parsed = || {
            let mut parts = line.split('|');
            let (name, value) = parts.next()?.split_once(':')?;
            let kind = parts.next()?.to_owned();
            let mut parsed =
                Self { name: name.to_owned(), value: value.parse().ok()?, kind, rate: 1.0, tags: Vec::new() };
            for part in parts {
                match part.split_at_checked(1)? {
                    ("@", rate) => parsed.rate = rate.parse().ok()?,
                    ("#", tags) => parsed.tags = tags.split(',').map(str::to_owned).collect(),
                    _ => return None,
                }
            }
            parsed.tags.sort();
            Some(parsed)
        };
        parsed().unwrap_or_else(|| panic!("no statsd line: {line:?}"))
    }
}

impl StatsReceiver {
    /// On a free UDP port.
    #[must_use]
    pub fn udp() -> Self {
        Self::udp_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Takes UDP at this address.
    #[must_use]
    pub fn udp_at(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(GLANCE)).unwrap();
        Self::receive(socket.local_addr().unwrap(), move |record| {
            let mut buffer = vec![0; 65536];
            while !record.stopped.load(Ordering::SeqCst) {
                let Ok(length) = socket.recv(&mut buffer) else { continue };
                record.datagrams.lock().unwrap().push(length);
                let text = std::str::from_utf8(&buffer[..length]).unwrap();
                record.lines.lock().unwrap().extend(text.lines().map(StatLine::parse));
            }
        })
    }

    /// On a free TCP port.
    #[must_use]
    pub fn tcp() -> Self {
        Self::tcp_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Takes connections at this address.
    #[must_use]
    pub fn tcp_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        Self::receive(listener.local_addr().unwrap(), move |record| {
            thread::scope(|connections| {
                for connection in listener.incoming() {
                    if record.stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    let connection = connection.unwrap();
                    connection.set_read_timeout(Some(GLANCE)).unwrap();
                    connections.spawn(|| read_lines(connection, record));
                }
            });
        })
    }

    fn receive(address: SocketAddr, receive: impl FnOnce(&Record) + Send + 'static) -> Self {
        let record = Arc::new(Record::default());
        let of_thread = Arc::clone(&record);
        let thread = thread::spawn(move || receive(&of_thread));
        Self { address, record, thread: Some(thread) }
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has arrived so far.
    #[must_use]
    pub fn lines(&self) -> Vec<StatLine> {
        self.record.lines.lock().unwrap().clone()
    }

    /// Bytes of each datagram that has arrived so far.
    #[must_use]
    pub fn datagrams(&self) -> Vec<usize> {
        self.record.datagrams.lock().unwrap().clone()
    }

    /// All that was counted under a name, as a server adds it up.
    #[must_use]
    pub fn sum(&self, name: &str) -> u64 {
        let lines = self.lines();
        lines.iter().filter(|line| line.name == name && line.kind == "c").map(|line| line.value).sum()
    }

    /// How many values were recorded under a name, as a server counts them.
    #[must_use]
    pub fn recorded(&self, name: &str) -> u64 {
        let lines = self.lines();
        let values = lines.iter().filter(|line| line.name == name && line.kind == "ms");
        values.map(|line| 1.0 / line.rate).sum::<f64>().round() as u64
    }

    /// Waits until a counter adds up to `sum`, and fails if it gets past it.
    pub fn sum_becomes(&self, name: &str, sum: u64) {
        eventually(&format!("{name} to add up to {sum}"), || {
            let found = self.sum(name);
            assert!(found <= sum, "{name} adds up to {found}, not {sum}");
            (found == sum).then_some(())
        });
    }

    /// Waits for a line that is `wanted`.
    pub fn line_where(&self, what: &str, wanted: impl Fn(&StatLine) -> bool) -> StatLine {
        eventually(what, || self.lines().into_iter().find(|line| wanted(line)))
    }
}

impl Drop for StatsReceiver {
    fn drop(&mut self) {
        self.record.stopped.store(true, Ordering::SeqCst);
        // Wakes a thread that accepts, which then sees the mark.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the receiver failed");
        }
    }
}

fn read_lines(connection: TcpStream, record: &Record) {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    while !record.stopped.load(Ordering::SeqCst) {
        // What a timeout cuts a line into is put together again.
        match reader.read_line(&mut line) {
            Ok(0) => return,
            Ok(_) if line.ends_with('\n') => {
                record.lines.lock().unwrap().push(StatLine::parse(line.trim_end()));
                line.clear();
            }
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return,
            _ => {}
        }
    }
}

/// How often a thread looks whether it is to stop.
const GLANCE: Duration = Duration::from_millis(20);
