//! Listening, accepting and connecting over real sockets.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use proxy_config::settings::{SocketOption, SocketOptionState, SocketOptionValue, TcpKeepalive};
use proxy_net::buffer::ReadBuffer;
use proxy_net::{
    AcceptHooks, AcceptOptions, Address, BindError, ConnectOptions, Io, ListenSocket, ListenSocketOptions,
    QueueAtEnd, accept_loop, connect,
};
use proxy_runtime::{Drain, local_runtime};
use socket2::SockRef;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{JoinHandle, spawn_local};

const DEADLINE: Duration = Duration::from_secs(30);

type Accepted = UnboundedReceiver<(Io, Address)>;

fn run<F: Future>(future: F) -> F::Output {
    let runtime = local_runtime().expect("descriptors are left");
    runtime.block_on(async { tokio::time::timeout(DEADLINE, future).await.expect("no answer in time") })
}

fn loopback() -> ListenSocketOptions {
    ListenSocketOptions::new(ip("127.0.0.1:0"))
}

fn ip(text: &str) -> Address {
    Address::from(text.parse::<SocketAddr>().expect("an address"))
}

fn listening(options: &ListenSocketOptions) -> ListenSocket {
    let socket = ListenSocket::bind(options).expect("the address is free");
    socket.listen(options).expect("nobody else listens");
    socket
}

fn accepting(
    socket: ListenSocket,
    drain: &Drain,
    hooks: impl AcceptHooks + 'static,
) -> (Accepted, JoinHandle<std::io::Result<ListenSocket>>) {
    let (sender, receiver) = unbounded_channel();
    let options = AcceptOptions {
        max_connections_to_accept_per_socket_event: 1,
        descriptor_limit: i32::MAX,
        drain: drain.guard(),
        queue_at_end: Rc::new(Cell::new(QueueAtEnd::Accepted)),
    };
    let on_accept = move |io, peer| drop(sender.send((io, peer)));
    (receiver, spawn_local(accept_loop(socket, options, on_accept, hooks)))
}

async fn write(io: &mut Io, bytes: &[u8]) {
    let mut written = 0;
    while written < bytes.len() {
        let (head, tail) = bytes[written..].split_at((bytes.len() - written) / 2);
        let parts = [IoSlice::new(head), IoSlice::new(tail)];
        written += poll_fn(|context| io.poll_write_vectored(context, &parts)).await.expect("the peer reads");
    }
}

async fn read(io: &mut Io, count: usize) -> Vec<u8> {
    let mut buffer = ReadBuffer::new();
    let mut bytes = Vec::new();
    while bytes.len() < count {
        let more = poll_fn(|context| buffer.poll_fill(io, context, true)).await.expect("the peer writes");
        assert_ne!(more, 0, "end of file after {} bytes", bytes.len());
        bytes.extend_from_slice(buffer.take_chunk(buffer.len()).as_slice());
    }
    bytes
}

async fn echo_through(mut client: Io, mut server: Io) {
    let sent: Vec<u8> = (0..300_000_u32).map(|index| (index % 253) as u8).collect();
    let expected = sent.clone();
    let writer = spawn_local(async move {
        write(&mut client, &sent).await;
        poll_fn(|context| client.poll_shutdown(context)).await.expect("the peer is there");
        client
    });
    assert_eq!(read(&mut server, expected.len()).await, expected);
    let mut buffer = ReadBuffer::new();
    assert_eq!(poll_fn(|context| buffer.poll_fill(&mut server, context, false)).await.expect("no error"), 0);
    write(&mut server, b"answer").await;
    let mut client = writer.await.expect("no panic");
    assert_eq!(read(&mut client, 6).await, b"answer");
}

#[test]
fn tcp_both_families_with_addresses_and_nodelay() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        run(async {
            let drain = Drain::new();
            let socket = listening(&ListenSocketOptions::new(ip(address)));
            let bound = socket.local_address().clone();
            let (mut accepted, _task) = accepting(socket, &drain, ());
            let client = connect(&bound, &ConnectOptions::default()).await.expect("it listens");
            let (server, peer) = accepted.recv().await.expect("the loop runs");
            assert_eq!(client.local_address().expect("connected"), peer);
            assert_eq!(server.peer_address().expect("connected"), peer);
            assert_eq!(server.local_address().expect("connected"), bound);
            for io in [&client, &server] {
                assert!(SockRef::from(io).tcp_nodelay().expect("a TCP socket"), "{io:?}");
            }
            echo_through(client, server).await;
        });
    }
}

#[test]
fn an_ipv4_client_of_a_dual_stack_listener_keeps_its_address() {
    run(async {
        let drain = Drain::new();
        let options = ListenSocketOptions { ipv4_compat: true, ..ListenSocketOptions::new(ip("[::]:0")) };
        let socket = listening(&options);
        let port = socket.local_address().ip().expect("bound to IP").port();
        let (mut accepted, _task) = accepting(socket, &drain, ());
        let target = ip("127.0.0.1:0").with_port(port);
        let _client = connect(&target, &ConnectOptions::default()).await.expect("it listens");
        let (server, peer) = accepted.recv().await.expect("the loop runs");
        assert!(peer.ip().is_some_and(|peer| peer.is_ipv4()), "{peer}");
        assert_eq!(server.local_address().expect("connected"), target);

        let only_six = listening(&ListenSocketOptions::new(ip("[::]:0")));
        let port = only_six.local_address().ip().expect("bound to IP").port();
        let refused = connect(&ip("127.0.0.1:0").with_port(port), &ConnectOptions::default()).await;
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn unix_sockets_named_and_abstract_replace_stale_files_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("proxy.sock");
    let path = path.to_str().expect("UTF-8");
    let abstract_name = format!("@proxy-net-test-{}", std::process::id());
    for name in [path, path, &abstract_name] {
        run(async {
            let drain = Drain::new();
            let options = ListenSocketOptions {
                mode: 0o640,
                ..ListenSocketOptions::new(Address::pipe(name).expect("fits"))
            };
            let socket = listening(&options);
            assert_eq!(socket.local_address().to_string(), name);
            let (mut accepted, _task) = accepting(socket, &drain, ());
            let client = connect(&options.address, &ConnectOptions::default()).await.expect("it listens");
            let (server, peer) = accepted.recv().await.expect("the loop runs");
            assert_eq!(peer.to_string(), "");
            assert_eq!(server.local_address().expect("connected"), options.address);
            echo_through(client, server).await;
        });
    }
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(path).expect("it stays").permissions().mode() & 0o777, 0o640);
    let file = folder.path().join("precious");
    std::fs::write(&file, "data").expect("a file");
    let address = Address::pipe(file.to_str().expect("UTF-8")).expect("fits");
    let error = ListenSocket::bind(&ListenSocketOptions::new(address)).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot bind '{}': Address already in use", file.display()));
    assert_eq!(std::fs::read_to_string(file).expect("still there"), "data");
}

#[test]
fn one_port_for_every_worker_and_a_clear_error_for_a_taken_one() {
    run(async {
        let options = loopback();
        let sockets = ListenSocket::bind_all(&options, 3).expect("free");
        assert!(sockets.iter().all(|socket| socket.local_address() == sockets[0].local_address()));
        let taken = sockets[0].local_address().clone();
        let refused = connect(&taken, &ConnectOptions::default()).await;
        assert!(refused.is_err(), "a socket that does not listen takes no connection");
        sockets.iter().for_each(|socket| socket.listen(&options).expect("a group"));

        let alone = ListenSocketOptions { reuse_port: false, ..ListenSocketOptions::new(taken.clone()) };
        let error = ListenSocket::bind(&alone).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot bind '{taken}': Address already in use"));
        assert!(matches!(error, BindError::Bind { .. }));

        let shared = ListenSocket::bind_all(&ListenSocketOptions { reuse_port: false, ..loopback() }, 2)
            .expect("free");
        assert_eq!(shared[0].local_address(), shared[1].local_address());
    });
}

#[test]
fn foreign_addresses_need_freebind_and_bad_options_are_named() {
    let foreign = ListenSocketOptions::new(ip("203.0.113.7:0"));
    let error = ListenSocket::bind(&foreign).unwrap_err();
    assert_eq!(error.to_string(), "cannot bind '203.0.113.7:0': Cannot assign requested address");
    ListenSocket::bind(&ListenSocketOptions { freebind: Some(true), ..foreign }).expect("freebind allows it");
    let option = SocketOption {
        level: 1,
        name: 0x7fff,
        value: SocketOptionValue::Int(1),
        state: SocketOptionState::Listening,
    };
    let options = ListenSocketOptions { socket_options: vec![option], ..loopback() };
    let error = ListenSocket::bind(&options).expect("set only after listen").listen(&options).unwrap_err();
    assert!(error.to_string().starts_with("cannot set socket_options on '127.0.0.1:"), "{error}");
    assert!(error.to_string().contains("socket option 1/32767: "), "{error}");
}

#[test]
fn draining_ends_the_loop_empties_the_queue_and_gives_the_socket_back() {
    #[derive(Clone, Default)]
    struct Counts(Rc<RefCell<Vec<u32>>>);
    impl AcceptHooks for Counts {
        fn accepted(&mut self, count: u32) {
            self.0.borrow_mut().push(count);
        }
    }
    run(async {
        let drain = Drain::new();
        let socket = listening(&loopback());
        let bound = socket.local_address().clone();
        let counts = Counts::default();
        let (mut accepted, task) = accepting(socket, &drain, counts.clone());
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(connect(&bound, &ConnectOptions::default()).await.expect("it listens"));
            accepted.recv().await.expect("the loop runs");
        }
        assert_eq!(*counts.0.borrow(), [1, 1, 1]);
        // Queued while this thread does not turn: more than one poll's budget of them.
        let target = bound.ip().expect("bound to IP");
        let queued: Vec<_> = (0..300).map(|_| std::net::TcpStream::connect(target).expect("room")).collect();
        let gone = drain.close_and_wait();
        let socket = task.await.expect("no panic").expect("no error");
        gone.await;
        for _ in &queued {
            accepted.recv().await.expect("what was queued is accepted");
        }
        assert!(accepted.recv().await.is_none());
        let waiting = std::net::TcpStream::connect(target).expect("the socket still listens");
        let again = Drain::new();
        let (mut accepted, _task) = accepting(socket, &again, ());
        let (_server, peer) = accepted.recv().await.expect("the loop runs");
        assert_eq!(peer, Address::from(waiting.local_addr().expect("connected")));
    });
}

#[test]
fn connects_from_a_source_with_keepalive_and_tells_refusals() {
    run(async {
        let socket = listening(&loopback());
        let bound = socket.local_address().clone();
        let keepalive = TcpKeepalive {
            probes: Some(3),
            time: Some(Duration::from_secs(7)),
            interval: Some(Duration::from_secs(2)),
        };
        let options = ConnectOptions {
            source: Some(ip("127.0.0.9:0")),
            keepalive: Some(keepalive),
            ..ConnectOptions::default()
        };
        let io = connect(&bound, &options).await.expect("it listens");
        assert_eq!(io.local_address().expect("connected").ip().expect("IP").ip().to_string(), "127.0.0.9");
        let socket_reference = SockRef::from(&io);
        assert_eq!(socket_reference.tcp_keepalive_retries().expect("set"), 3);
        assert_eq!(socket_reference.tcp_keepalive_time().expect("set"), Duration::from_secs(7));
        assert_eq!(socket_reference.tcp_keepalive_interval().expect("set"), Duration::from_secs(2));
        drop(socket);
        let error = connect(&bound, &ConnectOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        let missing = Address::pipe("/nonexistent/proxy.sock").expect("fits");
        let error = connect(&missing, &ConnectOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    });
}

#[test]
fn a_reset_is_an_error_and_costs_no_memory() {
    run(async {
        let drain = Drain::new();
        let socket = listening(&loopback());
        let bound = socket.local_address().clone();
        let (mut accepted, _task) = accepting(socket, &drain, ());
        let client = connect(&bound, &ConnectOptions::default()).await.expect("it listens");
        let (mut server, _) = accepted.recv().await.expect("the loop runs");
        client.reset_on_close().expect("a TCP socket");
        drop(client);
        let mut buffer = ReadBuffer::new();
        let error = poll_fn(|context| buffer.poll_fill(&mut server, context, false)).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert!(buffer.is_empty());
    });
}

#[test]
fn futures_stay_small() {
    let (socket, drain) = (listening(&loopback()), Drain::new());
    let options = AcceptOptions {
        max_connections_to_accept_per_socket_event: 1,
        descriptor_limit: i32::MAX,
        drain: drain.guard(),
        queue_at_end: Rc::new(Cell::new(QueueAtEnd::Left)),
    };
    let accepting = accept_loop(socket, options, |_, _| {}, ());
    assert!(size_of_val(&accepting) <= 512, "{}", size_of_val(&accepting));
    let (address, options) = (ip("127.0.0.1:1"), ConnectOptions::default());
    let connecting = connect(&address, &options);
    assert!(size_of_val(&connecting) <= 256, "{}", size_of_val(&connecting));
}
