//! Backends on plain threads that do what a test tells them, byte by byte, and remember what they were asked.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::IntoRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use tokio::net::TcpSocket;

use crate::{Message, Wire, eventually};

/// What a backend does with its connection after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    KeepOpen,
    Close,
}

#[derive(Default)]
struct Record {
    requests: Mutex<Vec<Message>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    stopped: AtomicBool,
}

/// An HTTP/1 backend.
pub struct Backend {
    address: SocketAddr,
    record: Arc<Record>,
}

impl Backend {
    /// Reads whole requests and answers each as `answer` does on the wire.
    pub fn new(answer: impl Fn(&Message, &mut Wire) -> After + Send + Sync + 'static) -> Self {
        Self::serve(move |mut wire, record| {
            while let Ok(request) = wire.try_request() {
                record.requests.lock().unwrap().push(request.clone());
                if answer(&request, &mut wire) == After::Close {
                    return;
                }
            }
        })
    }

    /// Answers every request with the same bytes and keeps the connection open.
    pub fn answering(response: impl Into<Vec<u8>>) -> Self {
        let response = response.into();
        Self::new(move |_, wire| match wire.try_send(&response) {
            Ok(()) => After::KeepOpen,
            Err(_) => After::Close,
        })
    }

    /// Answers every request with 200 and `body`.
    pub fn saying(body: &str) -> Self {
        Self::answering(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
    }

    /// Hands each connection to `script` as it is, with its number from 0; nothing is recorded but the count.
    pub fn raw(script: impl Fn(&mut Wire, usize) + Send + Sync + 'static) -> Self {
        Self::serve(move |mut wire, record| {
            let number = record.connections.load(Ordering::SeqCst) - 1;
            script(&mut wire, number);
        })
    }

    fn serve(connection: impl Fn(Wire, &Record) + Send + Sync + 'static) -> Self {
        let record = Arc::new(Record::default());
        let address = accept_each(Arc::clone(&record), move |socket, record| {
            record.open.fetch_add(1, Ordering::SeqCst);
            connection(Wire::over_tcp(socket), record);
            record.open.fetch_sub(1, Ordering::SeqCst);
        });
        Self { address, record }
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whole requests received so far, over all connections in order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Message> {
        self.record.requests.lock().unwrap().clone()
    }

    /// The only request received so far.
    #[must_use]
    pub fn request(&self) -> Message {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "one request expected: {requests:?}");
        requests.remove(0)
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.record.connections.load(Ordering::SeqCst)
    }

    /// Waits until the proxy has closed all connections to this backend.
    pub fn all_closed(&self) {
        eventually("the backend's connections to close", || {
            (self.record.open.load(Ordering::SeqCst) == 0).then_some(())
        });
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        stop(&self.record, self.address);
    }
}

/// A TCP backend that sends back what it reads, and end-of-stream for end-of-stream.
pub struct EchoBackend {
    address: SocketAddr,
    record: Arc<Record>,
}

impl EchoBackend {
    /// Echoes every byte.
    #[must_use]
    pub fn new() -> Self {
        let record = Arc::new(Record::default());
        let address = accept_each(Arc::clone(&record), |mut socket, _| {
            let mut buffer = [0; 65536];
            while let Ok(count @ 1..) = socket.read(&mut buffer) {
                if socket.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
            let _ = socket.shutdown(Shutdown::Write);
        });
        Self { address, record }
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.record.connections.load(Ordering::SeqCst)
    }
}

impl Default for EchoBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for EchoBackend {
    fn drop(&mut self) {
        stop(&self.record, self.address);
    }
}

/// An address of this host that refuses connections, to the end of the process: nobody else can take it.
#[must_use]
pub fn refusing_address() -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let address = socket.local_addr().unwrap();
    // Bound, and never to listen.
    let _ = socket.into_raw_fd();
    address
}

/// An address of this host where nothing listens yet.
#[must_use]
pub fn unused_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn accept_each(
    record: Arc<Record>,
    connection: impl Fn(TcpStream, &Record) + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let connection = Arc::new(connection);
    thread::spawn(move || {
        for socket in listener.incoming() {
            if record.stopped.load(Ordering::SeqCst) {
                return;
            }
            let (Ok(socket), record, connection) = (socket, Arc::clone(&record), Arc::clone(&connection))
            else {
                continue;
            };
            record.connections.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || connection(socket, &record));
        }
    });
    address
}

fn stop(record: &Record, address: SocketAddr) {
    record.stopped.store(true, Ordering::SeqCst);
    let _ = TcpStream::connect(address); // wakes the accepting thread, which then sees the mark
}
