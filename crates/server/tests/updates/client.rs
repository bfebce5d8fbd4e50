//! Clients that send requests over connections kept alive until they are told to stop, and note what goes wrong.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Which backends may answer by which route.
pub(crate) type Allowed = &'static [(&'static str, &'static [&'static str])];

pub(crate) struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    address: SocketAddr,
    allowed: Allowed,
    /// Requests answered, by client.
    answered: Vec<AtomicU64>,
    failures: Mutex<Vec<String>>,
    failed: AtomicBool,
    stop: AtomicBool,
}

impl Clients {
    pub(crate) fn start(count: usize, address: SocketAddr, allowed: Allowed) -> Clients {
        let shared = Arc::new(Shared {
            address,
            allowed,
            answered: (0..count).map(|_| AtomicU64::new(0)).collect(),
            failures: Mutex::default(),
            failed: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let thread = |index| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.run(index))
        };
        let threads = (0..count).map(thread).collect();
        Clients { shared, threads }
    }

    /// Resolves when each client has got one more answer, or one has failed.
    pub(crate) async fn each_gets_one_more(&self) {
        let answered = &self.shared.answered;
        let before: Vec<u64> = answered.iter().map(|count| count.load(Relaxed)).collect();
        let more = || answered.iter().zip(&before).all(|(count, before)| count.load(Relaxed) > *before);
        while !more() && !self.shared.failed.load(Relaxed) {
            tokio::task::yield_now().await;
        }
    }

    /// Stops them; what went wrong, and how many requests were answered.
    pub(crate) fn stop(self) -> (Vec<String>, u64) {
        self.shared.stop.store(true, Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        let failures = std::mem::take(&mut *self.shared.failures.lock().unwrap());
        (failures, self.shared.answered.iter().map(|count| count.load(Relaxed)).sum())
    }
}

impl Shared {
    fn run(&self, index: usize) {
        let mut client = Client::new(self.address);
        while !self.stop.load(Relaxed) && !self.failed.load(Relaxed) {
            match client.get().map(|answer| self.judge(&answer)) {
                Ok(true) => drop(self.answered[index].fetch_add(1, Relaxed)),
                wrong => {
                    self.failures.lock().unwrap().push(format!("{wrong:?}"));
                    self.failed.store(true, Relaxed);
                }
            }
        }
    }

    fn judge(&self, answer: &Answer) -> bool {
        let allowed = self.allowed.iter().find(|(route, _)| *route == answer.route);
        answer.status == "HTTP/1.1 200 OK"
            && allowed.is_some_and(|(_, backends)| backends.contains(&&*answer.backend))
    }
}

/// Sends one request after the other, over one connection until that is told to close.
pub(crate) struct Client {
    address: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
}

/// What a request was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The whole line.
    pub(crate) status: String,
    /// The cluster that was routed to.
    pub(crate) route: String,
    pub(crate) backend: String,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Client {
        Client { address, connection: None }
    }

    /// Fails also when a connection goes away between two requests without having been announced to.
    pub(crate) fn get(&mut self) -> Result<Answer> {
        let mut reader = match self.connection.take() {
            Some(reader) => reader,
            None => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(DEADLINE))?;
                BufReader::new(stream)
            }
        };
        reader.get_mut().write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")?;
        let mut status = String::new();
        reader.read_line(&mut status)?;
        let mut headers = read_headers(&mut reader)?;
        let mut header = |name: &str| headers.remove(name).unwrap_or_default();
        let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
        reader.read_exact(&mut body)?;
        if header("connection") != "close" {
            self.connection = Some(reader);
        }
        Ok(Answer {
            status: status.trim_end().to_owned(),
            route: header("x-route"),
            backend: header("x-backend"),
        })
    }

    /// Whether the next request goes over the connection of the last one.
    pub(crate) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }
}

fn read_headers(reader: &mut impl BufRead) -> Result<HashMap<String, String>> {
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else { return Ok(headers) };
        headers.insert(name.to_owned(), value.to_owned());
    }
}

/// A hanging request is a failed one.
const DEADLINE: Duration = Duration::from_secs(20);
