//! Running out of descriptors; alone in its process, whose limit it changes.

#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use proxy_net::{
    AcceptHooks, AcceptOptions, Address, ListenSocket, ListenSocketOptions, QueueAtEnd, accept_loop,
};
use proxy_runtime::{Drain, TICK, local_runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::timeout;

struct Failures(UnboundedSender<std::io::Error>);

impl AcceptHooks for Failures {
    fn failed(&mut self, error: &std::io::Error) {
        let copy = error.raw_os_error().map(std::io::Error::from_raw_os_error);
        drop(self.0.send(copy.expect("the system's error")));
    }
}

/// A loop that accepts, and clients that wait for it.
struct Loop {
    clients: Vec<std::net::TcpStream>,
    accepted: UnboundedReceiver<proxy_net::Io>,
    failed: UnboundedReceiver<std::io::Error>,
    drain: Rc<Drain>,
    task: JoinHandle<std::io::Result<ListenSocket>>,
}

impl Loop {
    /// `spare`: descriptors that it may use.
    fn begin(clients: usize, spare: Option<i32>) -> Loop {
        let options =
            ListenSocketOptions::new(Address::from("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap()));
        let socket = ListenSocket::bind(&options).unwrap();
        socket.listen(&options).unwrap();
        let target = socket.local_address().ip().unwrap();
        let clients: Vec<_> = (0..clients).map(|_| std::net::TcpStream::connect(target).unwrap()).collect();
        let drain = Rc::new(Drain::new());
        let (accepted_sender, accepted) = unbounded_channel();
        let (failed_sender, failed) = unbounded_channel();
        let options = AcceptOptions {
            max_connections_to_accept_per_socket_event: 16,
            descriptor_limit: spare.map_or(i32::MAX, |spare| next_descriptor(&clients[0]) + spare),
            drain: drain.guard(),
            queue_at_end: Rc::new(Cell::new(QueueAtEnd::Left)),
        };
        let on_accept = move |io, _| drop(accepted_sender.send(io));
        let task = spawn_local(accept_loop(socket, options, on_accept, Failures(failed_sender)));
        Loop { clients, accepted, failed, drain, task }
    }

    async fn out_of_descriptors(&mut self) {
        assert_eq!(self.failed.recv().await.unwrap().raw_os_error(), Some(Errno::EMFILE as i32));
    }

    async fn end(self) {
        self.drain.close_and_wait().await;
        self.task.await.unwrap().unwrap();
    }
}

fn next_descriptor(any: &std::net::TcpStream) -> i32 {
    nix::unistd::dup(any).unwrap().as_raw_fd()
}

async fn accept_out_of_descriptors() {
    let mut accepting = Loop::begin(3, None);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let limit = next_descriptor(&accepting.clients[0]) as u64;
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard).unwrap();
    let begin = Instant::now();
    for _ in 0..3 {
        accepting.out_of_descriptors().await;
    }
    assert!(begin.elapsed() >= TICK, "it waits between attempts");
    assert!(accepting.accepted.is_empty());

    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    for _ in 0..accepting.clients.len() {
        accepting.accepted.recv().await.unwrap();
    }
    accepting.end().await;
}

/// Two connections find a descriptor below the limit, the third is the last one over it until one of them goes.
async fn accept_below_a_limit() {
    let mut accepting = Loop::begin(5, Some(2));
    let mut open: Vec<proxy_net::Io> = Vec::new();
    for _ in 0..3 {
        open.push(accepting.accepted.recv().await.unwrap());
    }
    accepting.out_of_descriptors().await;
    assert!(timeout(TICK * 3, accepting.accepted.recv()).await.is_err(), "it waits");
    assert!(accepting.failed.is_empty(), "and does not complain again");

    // With the last one gone all below the limit are still taken; with the first one is free.
    open.pop();
    assert!(timeout(TICK * 3, accepting.accepted.recv()).await.is_err());
    open.remove(0);
    open.push(accepting.accepted.recv().await.unwrap());
    accepting.end().await;
}

#[test]
fn accepting_survives_exhausted_descriptors_without_spinning() {
    local_runtime().unwrap().block_on(async {
        timeout(Duration::from_secs(30), accept_out_of_descriptors()).await.unwrap();
        timeout(Duration::from_secs(30), accept_below_a_limit()).await.unwrap();
    });
}
