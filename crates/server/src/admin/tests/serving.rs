//! How the port is served: whom it trusts, what needs POST, that long answers let others in.

use std::io::Read as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use proxy_config::settings::SocketAddress;
use proxy_stats::Scope;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::super::{Admin, Bound, bind};
use super::process::{Process, log, options};

/// A served admin port.
pub(super) struct Port {
    pub(super) process: Rc<Process>,
    pub(super) admin: Admin,
    address: SocketAddr,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: u16,
    head: String,
    pub(super) bytes: Vec<u8>,
    /// `bytes` as text.
    pub(super) body: String,
}

/// Runs `test` against an admin port on a runtime like main's.
pub(super) fn with_admin<T>(test: impl AsyncFnOnce(&Port) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let (log, _guard) = log();
        let process = Process::new();
        let admin = Admin::new(Rc::clone(&process) as _, log, Rc::new(options()));
        let bound = bind(&SocketAddress::Ip("127.0.0.1:0".parse().unwrap()), None, None).await.unwrap();
        let Bound::Tcp(listener) = &bound else { panic!("not TCP") };
        let address = listener.local_addr().unwrap();
        let _served = admin.serve(bound);
        let port = Port { process, admin, address };
        tokio::time::timeout(Duration::from_secs(60), test(&port)).await.expect("the test hangs")
    })
}

impl Port {
    pub(super) async fn get(&self, target: &str) -> Answered {
        self.request("GET", target, "host: 127.0.0.1\r\n").await
    }

    pub(super) async fn request(&self, method: &str, target: &str, headers: &str) -> Answered {
        let mut stream = self.ask(method, target, headers).await;
        Answered::read(&mut stream).await
    }

    async fn ask(&self, method: &str, target: &str, headers: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!("{method} {target} HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }
}

impl Answered {
    pub(super) fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.head))
    }

    pub(super) fn has_header(&self, name: &str) -> bool {
        self.head.lines().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')))
    }

    async fn read(stream: &mut (impl AsyncReadExt + Unpin)) -> Self {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        let end = all.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head") + 4;
        let bytes = all.split_off(end);
        let head = String::from_utf8(all).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let bytes = if head.contains("transfer-encoding: chunked") { unchunked(&bytes) } else { bytes };
        let body = String::from_utf8_lossy(&bytes).into_owned();
        Self { status, head, bytes, body }
    }
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|bytes| bytes == b"\r\n").expect("a size");
        let size = usize::from_str_radix(str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = rest[end + 2 + size..].strip_prefix(b"\r\n").unwrap();
    }
}

#[test]
fn readiness_follows_the_health_check() {
    with_admin(async |port| {
        let ready = port.get("/ready").await;
        assert_eq!((ready.status, ready.body.as_str()), (200, "LIVE\n"));
        for (name, value) in [
            ("cache-control", "no-cache, max-age=0"),
            ("x-content-type-options", "nosniff"),
            ("server", "envoy"),
        ] {
            assert_eq!(ready.header(name), value);
        }
        assert_eq!(port.request("POST", "/healthcheck/fail", "host: [::1]\r\n").await.body, "OK\n");
        let ready = port.get("/ready").await;
        assert_eq!((ready.status, ready.body.as_str()), (503, "DRAINING\n"));
        port.request("POST", "/healthcheck/ok", "host: [::1]\r\n").await;
        assert_eq!(port.get("/ready").await.status, 200);
    });
}

#[test]
fn what_changes_something_needs_post() {
    with_admin(async |port| {
        for path in [
            "/healthcheck/fail",
            "/healthcheck/ok",
            "/quitquitquit",
            "/shutdown",
            "/drain_listeners",
            "/logging",
        ] {
            let refused = port.get(path).await;
            assert_eq!(
                (refused.status, refused.body.as_str()),
                (405, "Method GET not allowed, POST required."),
                "{path}"
            );
        }
        assert!(port.process.asked.borrow().is_empty() && port.process.healthy.get());
        let host = "host: localhost\r\n";
        port.request("POST", "/drain_listeners?graceful&inboundonly", host).await;
        port.request("POST", "/shutdown", host).await;
        port.request("POST", "/quitquitquit", host).await;
        assert_eq!(
            *port.process.asked.borrow(),
            ["DrainListeners { graceful: true, skip_exit: false, inbound_only: true }", "Drained", "Now"]
        );
    });
}

#[test]
fn a_page_of_another_site_gets_nothing() {
    with_admin(async |port| {
        for headers in [
            "host: evil.example\r\n",
            "host: 127.0.0.1\r\norigin: http://evil.example\r\n",
            "host: 127.0.0.1\r\nhost: 127.0.0.1\r\n",
            "",
        ] {
            let refused = port.request("POST", "/quitquitquit", headers).await;
            assert_eq!(refused.status, 403, "{headers}");
        }
        assert!(port.process.asked.borrow().is_empty());
        assert_eq!(port.request("GET", "/ready", "host: admin.example:9901\r\n").await.status, 200);
    });
}

#[test]
fn a_control_socket_asks_for_no_host() {
    with_admin(async |port| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let address = SocketAddress::Pipe { path: path.clone(), abstract_name: false, mode: 0o600 };
        let written = directory.path().join("address");
        let bound = bind(&address, None, Some(&written)).await.unwrap();
        assert_eq!(std::fs::read_to_string(written).unwrap(), path.to_str().unwrap());
        let _served = port.admin.serve(bound);
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream
            .write_all(b"GET /ready HTTP/1.1\r\nhost: any.name\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(Answered::read(&mut stream).await.status, 200);
    });
}

#[test]
fn a_stale_admin_socket_is_replaced_and_a_living_one_is_not() {
    with_admin(async |_| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let address = SocketAddress::Pipe { path, abstract_name: false, mode: 0 };
        drop(bind(&address, None, None).await.unwrap());
        let living = bind(&address, None, None).await.unwrap();
        let error = bind(&address, None, None).await.unwrap_err();
        assert!(error.to_string().contains("socket: Address already in use"), "{error}");
        drop(living);
    });
}

/// Enough stats that an answer does not fit into the buffers of a connection; the scope keeps them.
fn many_stats(port: &Port) -> Scope {
    let scope = port.process.store.root().scope("many.");
    for index in 0..MANY {
        scope.counter(&format!("{}.{index:06}", "long_name".repeat(20)));
    }
    scope
}

const MANY: usize = 60_000;

#[test]
fn a_short_answer_does_not_wait_for_a_long_one() {
    with_admin(async |port| {
        let _scope = many_stats(port);
        // More than there are threads to render them; none is read.
        let mut long = Vec::new();
        for _ in 0..6 {
            long.push(port.ask("GET", "/stats", "host: 127.0.0.1\r\n").await);
        }
        let mut first = [0; 1024];
        long[0].read_exact(&mut first).await.unwrap();
        assert_eq!(port.get("/ready").await.body, "LIVE\n");
        // All of them come to their end when they are read.
        for mut stream in long.drain(1..) {
            let answered = Answered::read(&mut stream).await;
            assert_eq!(answered.body.lines().filter(|line| line.starts_with("many.")).count(), MANY);
            assert!(answered.body.lines().filter(|line| line.starts_with("many.")).is_sorted());
        }
    });
}

#[test]
fn a_long_answer_is_whole_when_it_is_compressed() {
    with_admin(async |port| {
        let _scope = many_stats(port);
        let target = "/stats?filter=%5Emany.*0$";
        let compressed = port.request("GET", target, "host: 127.0.0.1\r\naccept-encoding: gzip\r\n").await;
        let mut text = String::new();
        flate2::read::GzDecoder::new(&compressed.bytes[..]).read_to_string(&mut text).unwrap();
        assert!(text.len() > 1_000_000 && text == port.get(target).await.body);
    });
}

#[test]
fn readers_that_leave_make_room() {
    with_admin(async |port| {
        let _scope = many_stats(port);
        for _ in 0..20 {
            let mut stream = port.ask("GET", "/stats?format=json", "host: 127.0.0.1\r\n").await;
            stream.read_exact(&mut [0; 1]).await.unwrap();
        }
        assert!(port.get("/stats").await.body.len() > 10_000_000);
    });
}

#[test]
fn idle_connections_keep_nobody_out() {
    with_admin(async |port| {
        let mut idle = Vec::new();
        for _ in 0..300 {
            let mut stream = TcpStream::connect(port.address).await.unwrap();
            stream.write_all(b"GET /").await.unwrap();
            idle.push(stream);
        }
        assert_eq!(port.get("/ready").await.status, 200);
        let mut bytes = Vec::new();
        // Those that have been idle for longest have made room.
        let _ = idle[0].read_to_end(&mut bytes).await;
        assert!(bytes.is_empty());
    });
}

#[test]
fn connections_beyond_the_limit_are_closed_while_all_others_are_being_answered() {
    with_admin(async |port| {
        let _scope = many_stats(port);
        let mut busy = Vec::new();
        for _ in 0..128 {
            let mut stream = port.ask("GET", "/stats", "host: 127.0.0.1\r\n").await;
            // Some wait for a thread that renders, and have their head already.
            stream.read_exact(&mut [0; 1]).await.unwrap();
            busy.push(stream);
        }
        let mut last = port.ask("GET", "/ready", "host: 127.0.0.1\r\n").await;
        let mut bytes = Vec::new();
        let _ = last.read_to_end(&mut bytes).await;
        assert!(bytes.is_empty());
        drop(busy);
        loop {
            let mut again = port.ask("GET", "/ready", "host: 127.0.0.1\r\n").await;
            let mut bytes = Vec::new();
            if again.read_to_end(&mut bytes).await.is_ok() && !bytes.is_empty() {
                break;
            }
        }
    });
}

#[test]
fn finishing_answers_what_was_asked_and_closes_what_idles() {
    with_admin(async |port| {
        let _scope = many_stats(port);
        let mut idle = TcpStream::connect(port.address).await.unwrap();
        idle.write_all(b"GET /ready HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await.unwrap();
        let mut head = [0; 64];
        idle.read_exact(&mut head).await.unwrap();
        let mut long = port.ask("GET", "/stats", "host: 127.0.0.1\r\n").await;
        let mut first = [0; 1];
        long.read_exact(&mut first).await.unwrap();
        let reading = async {
            let mut rest = Vec::new();
            long.read_to_end(&mut rest).await.unwrap();
            assert!(rest.ends_with(b"\r\n0\r\n\r\n"));
            idle.read_to_end(&mut rest).await.unwrap();
        };
        tokio::join!(port.admin.finish(), reading);
    });
}
