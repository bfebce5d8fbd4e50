//! Leaving: signals, draining, and what clients see of it.

use proxy_tests::{Backend, Bootstrap, Proxy, Signal, Wire, eventually, only_proxyd, refusing_address};
use std::net::TcpStream;

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// A backend that answers `/slow` only when it is told to.
fn on_demand() -> (Backend, std::sync::mpsc::Sender<()>) {
    let (tell, told) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let backend = Backend::new(move |request, wire| {
        if request.target() == "/slow" {
            told.lock().unwrap().recv().unwrap();
        }
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        proxy_tests::After::KeepOpen
    });
    (backend, tell)
}

#[test]
fn sigterm_ends_an_idle_proxy_with_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut proxy = Proxy::start(&Bootstrap::http(refusing_address()));
        proxy.signal(signal);
        assert_eq!(proxy.exit().code(), Some(0), "{signal}");
    }
}

#[test]
fn sigterm_lets_requests_finish() {
    only_proxyd!("Envoy exits within 10 ms of SIGTERM and cuts what is in flight");
    let (backend, tell) = on_demand();
    let mut proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let main = proxy.listener("main");
    let mut busy = proxy.connect();
    busy.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("the request to arrive", || (backend.requests().len() == 1).then_some(()));
    let mut idle = proxy.connect();
    assert_eq!(idle.ask(GET).text(), "ok");
    proxy.signal(Signal::SIGTERM);
    eventually("the listener to close", || TcpStream::connect(main).is_err().then_some(()));
    assert!(idle.is_closed(), "an idle connection is closed when it was quiet for a while");
    proxy.assert_running();
    tell.send(()).unwrap();
    let last = busy.response();
    assert_eq!((last.text(), last.header("connection")), ("ok", Some("close")));
    assert_eq!(proxy.exit().code(), Some(0));
}

#[test]
fn a_connection_that_was_just_used_takes_one_more_request_after_sigterm() {
    only_proxyd!("Envoy exits within 10 ms of SIGTERM and cuts what is in flight");
    let backend = Backend::saying("ok");
    let mut proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let main = proxy.listener("main");
    let mut new = proxy.connect();
    let mut used = proxy.connect();
    assert_eq!(used.ask(GET).header("connection"), None);
    proxy.signal(Signal::SIGTERM);
    eventually("the listener to close", || TcpStream::connect(main).is_err().then_some(()));
    for client in [&mut new, &mut used] {
        let last = client.ask(GET);
        assert_eq!((last.text(), last.header("connection")), ("ok", Some("close")));
    }
    assert_eq!(proxy.exit().code(), Some(0));
}

#[test]
fn a_second_sigterm_does_not_wait() {
    only_proxyd!("Envoy does not wait at the first one either");
    let (backend, tell) = on_demand();
    let mut proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let main = proxy.listener("main");
    let mut busy = proxy.connect();
    busy.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("the request to arrive", || (backend.requests().len() == 1).then_some(()));
    proxy.signal(Signal::SIGTERM);
    eventually("the listener to close", || TcpStream::connect(main).is_err().then_some(()));
    proxy.signal(Signal::SIGTERM);
    let _ = proxy.exit();
    assert!(busy.is_closed());
    drop(tell);
}

#[test]
fn draining_for_shutdown_has_an_end() {
    only_proxyd!("--shutdown-time-s is proxyd's");
    let (backend, tell) = on_demand();
    let mut proxy = Proxy::start_with(&Bootstrap::http(backend.address()), &["--shutdown-time-s", "1"]);
    let mut busy = proxy.connect();
    busy.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("the request to arrive", || (backend.requests().len() == 1).then_some(()));
    proxy.signal(Signal::SIGTERM);
    let _ = proxy.exit();
    assert!(busy.is_closed());
    drop(tell);
}

#[test]
fn quitquitquit_ends_the_process() {
    let mut proxy = Proxy::start(&Bootstrap::http(refusing_address()));
    assert_eq!(proxy.admin_post("/quitquitquit").text(), "OK\n");
    assert_eq!(proxy.exit().code(), Some(0));
}

#[test]
fn drained_listeners_take_no_connection_and_keep_the_open_ones() {
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let main = proxy.listener("main");
    let mut open = proxy.connect();
    assert_eq!(open.ask(GET).text(), "ok");
    assert_eq!(proxy.admin_post("/drain_listeners").text(), "OK\n");
    eventually("the listener to close", || TcpStream::connect(main).is_err().then_some(()));
    assert_eq!(open.ask(GET).text(), "ok");
    assert_eq!(proxy.admin_get("/ready").status(), 200);
    proxy.stat_becomes("listener_manager.listener_stopped", 1);
}

#[test]
fn only_inbound_listeners_drain_on_request() {
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(
        &Bootstrap::http(backend.address())
            .listener_with("traffic_direction: INBOUND")
            .listener("other", proxy_tests::direct_response_chain("other")),
    );
    let main = proxy.listener("main");
    assert_eq!(proxy.admin_post("/drain_listeners?inboundonly").text(), "OK\n");
    eventually("the inbound listener to close", || TcpStream::connect(main).is_err().then_some(()));
    assert_eq!(Wire::connect(proxy.listener("other")).ask(GET).text(), "other");
}

#[test]
fn a_failed_health_check_closes_connections_after_their_response() {
    let backend = Backend::saying("ok");
    let proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let mut open = proxy.connect();
    assert_eq!(open.ask(GET).header("connection"), None);
    assert_eq!(proxy.admin_post("/healthcheck/fail").text(), "OK\n");
    assert_eq!(open.ask(GET).header("connection"), Some("close"));
    assert!(open.is_closed());
    assert_eq!(
        proxy.get("/").header("connection"),
        Some("close"),
        "new connections are served and closed as well"
    );
    proxy.stat_becomes("http.ingress.downstream_cx_drain_close", 2);
    assert_eq!(proxy.admin_post("/healthcheck/ok").text(), "OK\n");
    assert_eq!(proxy.get("/").header("connection"), None);
}

#[test]
fn a_graceful_drain_is_gradual_or_immediate() {
    let backend = Backend::saying("ok");
    let draining = |arguments: &[&str]| {
        let proxy = Proxy::start_with(&Bootstrap::http(backend.address()), arguments);
        assert_eq!(proxy.admin_post("/drain_listeners?graceful").text(), "OK\n");
        proxy
    };
    // Of 100 connections some would be asked at once, if all were.
    let gradual = draining(&["--drain-time-s", "86400"]);
    assert!((0..100).all(|_| gradual.get("/").header("connection").is_none()));
    let immediate = draining(&["--drain-time-s", "86400", "--drain-strategy", "immediate"]);
    eventually("a connection to be asked to close", || {
        (immediate.get("/").header("connection") == Some("close")).then_some(())
    });
}

#[test]
fn a_gradual_drain_reaches_every_connection() {
    let backend = Backend::saying("ok");
    let proxy = Proxy::start_with(&Bootstrap::http(backend.address()), &["--drain-time-s", "2"]);
    let mut clients = [(); 8].map(|()| proxy.connect());
    assert_eq!(proxy.admin_post("/drain_listeners?graceful").text(), "OK\n");
    for client in &mut clients {
        eventually("the connection to be asked to close", || {
            (client.ask(GET).header("connection") == Some("close")).then_some(())
        });
    }
}
