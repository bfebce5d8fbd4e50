//! Running out of descriptors; alone in its process, whose limit it changes.

#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use proxy_net::{
    AcceptHooks, AcceptOptions, Address, ListenSocket, ListenSocketOptions, QueueAtEnd, accept_loop,
};
use proxy_runtime::{Drain, TICK, local_runtime};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;
use tokio::time::timeout;

struct Failures(UnboundedSender<std::io::Error>);

impl AcceptHooks for Failures {
    fn failed(&mut self, error: &std::io::Error) {
        let copy = error.raw_os_error().map(std::io::Error::from_raw_os_error);
        drop(self.0.send(copy.expect("the system's error")));
    }
}

async fn accept_out_of_descriptors() {
    let options =
        ListenSocketOptions::new(Address::from("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap()));
    let socket = ListenSocket::bind(&options).unwrap();
    socket.listen(&options).unwrap();
    let target = socket.local_address().ip().unwrap();
    let clients: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(target).unwrap()).collect();

    let drain = Rc::new(Drain::new());
    let (accepted_sender, mut accepted) = unbounded_channel();
    let (failed_sender, mut failed) = unbounded_channel();
    let options = AcceptOptions {
        max_connections_to_accept_per_socket_event: 16,
        descriptor_limit: i32::MAX,
        drain: drain.guard(),
        queue_at_end: Rc::new(Cell::new(QueueAtEnd::Left)),
    };
    let on_accept = move |io, _| drop(accepted_sender.send(io));
    let task = spawn_local(accept_loop(socket, options, on_accept, Failures(failed_sender)));

    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let free = nix::unistd::dup(&clients[0]).unwrap();
    let limit = std::os::fd::AsRawFd::as_raw_fd(&free) as u64;
    drop(free);
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard).unwrap();
    let begin = Instant::now();
    for _ in 0..3 {
        assert_eq!(failed.recv().await.unwrap().raw_os_error(), Some(nix::errno::Errno::EMFILE as i32));
    }
    assert!(begin.elapsed() >= TICK, "it waits between attempts");
    assert!(accepted.is_empty());

    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    for _ in &clients {
        accepted.recv().await.unwrap();
    }
    drain.close_and_wait().await;
    task.await.unwrap().unwrap();
}

/// Two connections find a descriptor below the limit, the third is the last one over it until one of them goes.
async fn accept_below_a_limit() {
    let options =
        ListenSocketOptions::new(Address::from("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap()));
    let socket = ListenSocket::bind(&options).unwrap();
    socket.listen(&options).unwrap();
    let target = socket.local_address().ip().unwrap();
    let clients: Vec<_> = (0..5).map(|_| std::net::TcpStream::connect(target).unwrap()).collect();

    let drain = Rc::new(Drain::new());
    let (accepted_sender, mut accepted) = unbounded_channel();
    let (failed_sender, mut failed) = unbounded_channel();
    let free = std::os::fd::AsRawFd::as_raw_fd(&nix::unistd::dup(&clients[0]).unwrap());
    let options = AcceptOptions {
        max_connections_to_accept_per_socket_event: 16,
        descriptor_limit: free + 2,
        drain: drain.guard(),
        queue_at_end: Rc::new(Cell::new(QueueAtEnd::Left)),
    };
    let on_accept = move |io, _| drop(accepted_sender.send(io));
    let task = spawn_local(accept_loop(socket, options, on_accept, Failures(failed_sender)));

    let mut open: Vec<proxy_net::Io> = Vec::new();
    for _ in 0..3 {
        open.push(accepted.recv().await.unwrap());
    }
    assert_eq!(failed.recv().await.unwrap().raw_os_error(), Some(nix::errno::Errno::EMFILE as i32));
    assert!(timeout(TICK * 3, accepted.recv()).await.is_err(), "it waits");
    assert!(failed.is_empty(), "and does not complain again");

    // With the last one gone all below the limit are still taken; with the first one is free.
    open.pop();
    assert!(timeout(TICK * 3, accepted.recv()).await.is_err());
    open.remove(0);
    open.push(accepted.recv().await.unwrap());
    drain.close_and_wait().await;
    task.await.unwrap().unwrap();
}

#[test]
fn accepting_survives_exhausted_descriptors_without_spinning() {
    local_runtime().unwrap().block_on(async {
        timeout(Duration::from_secs(30), accept_out_of_descriptors()).await.unwrap();
        timeout(Duration::from_secs(30), accept_below_a_limit()).await.unwrap();
    });
}
