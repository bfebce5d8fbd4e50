//! `tcp_proxy`: bytes in, the same bytes out, and each end learns when the other is done.

use std::thread;

use proxy_tests::{Backend, Bootstrap, EchoBackend, Proxy, eventually, refusing_address};

fn noise(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let byte = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 11) as u8
    };
    (0..length).map(byte).collect()
}

#[test]
fn bytes_are_echoed() {
    let backend = EchoBackend::new();
    let proxy = Proxy::start(&Bootstrap::tcp(backend.address()));
    let mut client = proxy.connect();
    for word in ["one", "two", "three"] {
        assert_eq!(client.send(word).bytes(word.len()), word.as_bytes());
    }
    assert!(client.finish().is_closed(), "the echo's end of stream follows the client's");
    proxy.stat_becomes("tcp.tcp.downstream_cx_total", 1);
    proxy.stat_becomes("tcp.tcp.downstream_cx_rx_bytes_total", 11);
    proxy.stat_becomes("tcp.tcp.downstream_cx_tx_bytes_total", 11);
    proxy.stat_becomes("cluster.backend.upstream_cx_active", 0);
}

#[test]
fn a_server_may_speak_first() {
    let backend = Backend::raw(|wire, _| {
        wire.send("220 hello\r\n");
        wire.rest();
    });
    let proxy = Proxy::start(&Bootstrap::tcp(backend.address()));
    assert_eq!(proxy.connect().bytes(11), b"220 hello\r\n");
}

#[test]
fn a_client_that_is_done_sending_still_receives() {
    let backend = Backend::raw(|wire, _| {
        let asked = wire.rest();
        wire.send("all of ").send(asked);
    });
    let proxy = Proxy::start(&Bootstrap::tcp(backend.address()));
    assert_eq!(proxy.connect().send("it").finish().rest(), b"all of it");
}

#[test]
fn a_server_that_is_done_sending_still_receives() {
    let backend = Backend::raw(|wire, number| {
        if number == 0 {
            wire.send("bye").finish();
            let late = wire.rest();
            assert_eq!(late, b"not so fast");
        }
    });
    let proxy = Proxy::start(&Bootstrap::tcp(backend.address()));
    let mut client = proxy.connect();
    assert_eq!(client.rest(), b"bye");
    client.send("not so fast").finish();
    backend.all_closed();
    proxy.stat_becomes("cluster.backend.upstream_cx_rx_bytes_total", 3);
    proxy.stat_becomes("cluster.backend.upstream_cx_tx_bytes_total", 11);
}

#[test]
fn ten_megabytes_pass_both_ways_unchanged() {
    let backend = EchoBackend::new();
    let proxy = Proxy::start(&Bootstrap::tcp(backend.address()));
    let bytes = noise(10_000_000, 7);
    let mut client = proxy.connect();
    let mut upload = client.duplicate();
    let sent = bytes.clone();
    let sender = thread::spawn(move || {
        upload.send(sent).finish();
    });
    assert!(client.rest() == bytes);
    sender.join().unwrap();
}

#[test]
fn many_relays_at_once_do_not_mix() {
    let backend = EchoBackend::new();
    let proxy = Proxy::start(&Bootstrap::tcp(backend.address()));
    let mut clients: Vec<_> = (0..50).map(|_| proxy.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(noise(5000, 100 + u32::try_from(number).unwrap()));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert!(client.bytes(5000) == noise(5000, 100 + u32::try_from(number).unwrap()), "relay {number}");
    }
    proxy.stat_becomes("tcp.tcp.downstream_cx_total", 50);
    assert_eq!(proxy.stat("cluster.backend.upstream_cx_active"), 50);
    drop(clients);
    proxy.stat_becomes("cluster.backend.upstream_cx_active", 0);
}

#[test]
fn a_reader_that_stops_holds_the_sender_back() {
    const LENGTH: usize = 60_000_000;
    let backend = Backend::raw(|wire, _| {
        let block = vec![7; 100_000];
        for _ in 0..LENGTH / block.len() {
            if wire.try_send(&block).is_err() {
                return;
            }
        }
    });
    let proxy = Proxy::start(&Bootstrap::tcp(backend.address()));
    let before = proxy.resident_bytes();
    let mut client = proxy.connect();
    let mut last = 0;
    eventually("the proxy to stop reading", || {
        let now = proxy.stat("cluster.backend.upstream_cx_rx_bytes_total");
        let stands = now > 0 && now == last;
        last = now;
        stands.then_some(())
    });
    let grown = proxy.resident_bytes().saturating_sub(before);
    assert!(grown < 15_000_000, "resident memory grew by {grown} bytes");
    assert_eq!(client.rest().len(), LENGTH);
}

fn says(word: &'static str) -> Backend {
    Backend::raw(move |wire, _| {
        wire.send(word);
    })
}

#[test]
fn weighted_clusters_share_connections() {
    let backends = [says("a"), says("b")];
    let weighted =
        "{cluster: null, weighted_clusters: {clusters: [{name: a, weight: 3}, {name: b, weight: 1}]}}";
    let proxy = Proxy::start(
        &Bootstrap::tcp(refusing_address())
            .filter_with(weighted)
            .cluster("a", backends[0].address())
            .cluster("b", backends[1].address()),
    );
    let answers: Vec<Vec<u8>> = (0..200).map(|_| proxy.connect().rest()).collect();
    let to_a = answers.iter().filter(|answer| *answer == b"a").count();
    let to_b = answers.iter().filter(|answer| *answer == b"b").count();
    assert_eq!(to_a + to_b, 200);
    // 200 draws at 0.75: a fair one stays within these bounds but for one run in 10^14.
    assert!((100..=195).contains(&to_a), "{to_a} of 200 went to a");
}

#[test]
fn a_failed_connect_closes_the_client() {
    let proxy = Proxy::start(&Bootstrap::tcp(refusing_address()));
    assert!(proxy.connect().is_closed());
    proxy.stat_becomes("cluster.backend.upstream_cx_connect_fail", 1);
    proxy.stat_becomes("cluster.backend.upstream_cx_connect_attempts_exceeded", 1);
    proxy.stat_becomes("tcp.tcp.downstream_cx_total", 1);
}

#[test]
fn connecting_is_tried_as_often_as_asked() {
    let proxy = Proxy::start(&Bootstrap::tcp(refusing_address()).filter_with("max_connect_attempts: 3"));
    assert!(proxy.connect().is_closed());
    proxy.stat_becomes("cluster.backend.upstream_cx_connect_fail", 3);
    proxy.stat_becomes("cluster.backend.upstream_cx_connect_attempts_exceeded", 1);
}

#[test]
fn another_attempt_finds_another_host() {
    let backend = EchoBackend::new();
    let proxy = Proxy::start(
        &Bootstrap::empty()
            .listener("main", proxy_tests::tcp_filter_chain("both"))
            .cluster_of("both", &[refusing_address(), backend.address()])
            .filter_with("max_connect_attempts: 2"),
    );
    for _ in 0..4 {
        assert_eq!(proxy.connect().send("ping").bytes(4), b"ping");
    }
}

#[test]
fn an_empty_cluster_closes_the_client() {
    let proxy = Proxy::start(
        &Bootstrap::empty().listener("main", proxy_tests::tcp_filter_chain("empty")).cluster_of("empty", &[]),
    );
    assert!(proxy.connect().is_closed());
    proxy.stat_becomes("cluster.empty.upstream_cx_none_healthy", 1);
}

#[test]
fn a_full_cluster_closes_the_client() {
    let backend = EchoBackend::new();
    let limits = "circuit_breakers: {thresholds: [{max_connections: 1}]}";
    let proxy = Proxy::start(&Bootstrap::tcp(backend.address()).cluster_with("backend", limits));
    let mut first = proxy.connect();
    assert_eq!(first.send("ping").bytes(4), b"ping");
    assert!(proxy.connect().is_closed());
    proxy.stat_becomes("cluster.backend.upstream_cx_overflow", 1);
    assert_eq!(first.send("pong").bytes(4), b"pong");
}

#[test]
fn a_client_that_leaves_closes_the_upstream() {
    let backend = Backend::raw(|wire, _| drop(wire.rest()));
    let proxy = Proxy::start(&Bootstrap::tcp(backend.address()));
    let client = proxy.connect();
    proxy.stat_becomes("cluster.backend.upstream_cx_active", 1);
    drop(client);
    backend.all_closed();
    proxy.stat_becomes("cluster.backend.upstream_cx_active", 0);
}
