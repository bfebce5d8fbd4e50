//! Clients that go on while processes come and go, and count what becomes of every request.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::{PATIENCE, eventually, http2};

/// Clients at work.
pub struct Traffic {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

/// What they have seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub answered: u64,
    /// Sent and not answered, or not in full.
    pub lost: u64,
    /// Nobody accepted.
    pub refused: u64,
    /// TCP connections through the proxy that broke.
    pub broken: u64,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    answered: AtomicU64,
    lost: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
}

impl Traffic {
    /// To an HTTP listener: clients that keep their connection, and one that makes a new one for every request.
    #[must_use]
    pub fn http(address: SocketAddr) -> Self {
        let keeping = (0..KEEPING).map(|_| true);
        Self::begin(keeping.chain([false]), move |keep, shared| ask(address, keep, shared))
    }

    /// Over HTTP/2: clients that open another connection when one takes no more streams.
    #[must_use]
    pub fn http2(address: SocketAddr) -> Self {
        Self::begin((0..KEEPING).map(|_| true), move |_, shared| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(ask_over_http2(address, shared));
        })
    }

    /// To a listener that echoes.
    #[must_use]
    pub fn tcp(address: SocketAddr) -> Self {
        Self::begin((0..KEEPING).map(|_| true), move |_, shared| echo(address, shared))
    }

    fn begin(
        kinds: impl Iterator<Item = bool>,
        client: impl Fn(bool, &Shared) + Clone + Send + 'static,
    ) -> Self {
        let shared = Arc::<Shared>::default();
        let spawn = |kind| {
            let (shared, client) = (Arc::clone(&shared), client.clone());
            thread::spawn(move || client(kind, &shared))
        };
        let clients = kinds.map(spawn).collect();
        Self { shared, clients }
    }

    /// What has been counted so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let Shared { answered, lost, refused, broken, .. } = &*self.shared;
        let [answered, lost, refused, broken] =
            [answered, lost, refused, broken].map(|count| count.load(Ordering::SeqCst));
        Tally { answered, lost, refused, broken }
    }

    /// Waits until requests are answered that are sent from now on.
    pub fn goes_on(&self) {
        // Each client may have one answer on the way.
        let enough = self.tally().answered + 10 * self.clients.len() as u64;
        eventually("requests to be answered", || (self.tally().answered >= enough).then_some(()));
    }

    /// Ends it.
    #[must_use]
    pub fn end(mut self) -> Tally {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.clients.drain(..).for_each(|client| client.join().unwrap());
        self.tally()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

/// Requests one after the other.
fn ask(address: SocketAddr, keep: bool, shared: &Shared) {
    let mut kept = None;
    while !shared.stop.load(Ordering::SeqCst) {
        let connection = kept.take().map_or_else(|| connect(address), Ok);
        let Ok(mut connection) = connection else {
            shared.refused.fetch_add(1, Ordering::SeqCst);
            continue;
        };
        match exchange(&mut connection) {
            Ok(may_go_on) => {
                shared.answered.fetch_add(1, Ordering::SeqCst);
                kept = (keep && may_go_on).then_some(connection);
            }
            Err(error) => {
                // For who looks at a failed test.
                eprintln!("lost by {:?}: {error}", connection.local_addr());
                shared.lost.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

/// One request and its answer. False: the connection ends with it.
fn exchange(connection: &mut TcpStream) -> io::Result<bool> {
    connection.write_all(b"GET / HTTP/1.1\r\nhost: example.com\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(head) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&answer[..head]).to_ascii_lowercase();
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
            if answer.len() >= head + 4 + length {
                return match text.starts_with("http/1.1 200") && answer.len() == head + 4 + length {
                    true => Ok(!text.contains("connection: close")),
                    false => Err(io::Error::other(text)),
                };
            }
        }
        match connection.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
}

async fn ask_over_http2(address: SocketAddr, shared: &Shared) {
    while !shared.stop.load(Ordering::SeqCst) {
        let mut client = http2::Client::connect(address).await;
        while !shared.stop.load(Ordering::SeqCst) {
            match client.try_get("/").await {
                Some(Ok(answer)) if answer.status == 200 => {
                    shared.answered.fetch_add(1, Ordering::SeqCst);
                }
                Some(_) => drop(shared.lost.fetch_add(1, Ordering::SeqCst)),
                None => break,
            }
        }
    }
}

/// One connection, whose bytes come back in order, and another one if it breaks.
fn echo(address: SocketAddr, shared: &Shared) {
    let mut sent = 0_u64;
    while !shared.stop.load(Ordering::SeqCst) {
        let Ok(mut connection) = connect(address) else {
            shared.refused.fetch_add(1, Ordering::SeqCst);
            continue;
        };
        while !shared.stop.load(Ordering::SeqCst) {
            sent += 1;
            let mut back = [0; 8];
            let echoed = connection
                .write_all(&sent.to_be_bytes())
                .and_then(|()| connection.read_exact(&mut back))
                .is_ok_and(|()| u64::from_be_bytes(back) == sent);
            if !echoed {
                shared.broken.fetch_add(1, Ordering::SeqCst);
                break;
            }
            shared.answered.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let connection = TcpStream::connect_timeout(&address, PATIENCE)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(HELD_UP))?;
    Ok(connection)
}

/// A process that hangs keeps what it has accepted until it goes on, and tests let it hang for as long as others take to notice.
const HELD_UP: Duration = PATIENCE.saturating_mul(6);

const KEEPING: usize = 3;
