//! What was counted outlives the process that counted it, if that was killed.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use proxy_tests::http2::{Client, block_on};
use proxy_tests::{Backend, Bootstrap, Proxy, Signal, Wire, only_proxyd};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// Requests of clients that a proxy dies under.
#[derive(Default)]
struct Load {
    sent: AtomicU64,
    answered: AtomicU64,
}

impl Load {
    /// Keeps asking until the connection breaks.
    fn ask(&self, mut wire: Wire) {
        loop {
            self.sent.fetch_add(1, Ordering::Relaxed);
            if wire.try_send(GET).is_err() || wire.try_response().is_err() {
                break;
            }
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_killed_proxy_goes_on_counting_where_it_was() {
    only_proxyd!("counters of a killed Envoy are gone");
    let backend = Backend::saying("ok");
    let mut proxy = Proxy::start(&Bootstrap::http(backend.address()));
    let load = Load::default();
    for round in 1..=3 {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let wire = proxy.connect();
                scope.spawn(|| load.ask(wire));
            }
            while load.answered.load(Ordering::Relaxed) < round * 300 {
                std::thread::yield_now();
            }
            proxy.kill_and_start_again();
        });
        let (sent, answered) = (load.sent.load(Ordering::Relaxed), load.answered.load(Ordering::Relaxed));
        assert!(sent <= answered + 4 * round, "four connections, one request each under way");
        for name in [
            "http.ingress.downstream_rq_total",
            "http.ingress.downstream_rq_2xx",
            "cluster.backend.upstream_rq_total",
            "cluster.backend.upstream_rq_200",
        ] {
            let counted = proxy.stat(name);
            assert!((answered..=sent).contains(&counted), "{name} is {counted}, of {answered} to {sent}");
        }
        assert_eq!(proxy.stat("http.ingress.downstream_cx_total"), 4 * round);
        assert_eq!(proxy.stat("http.ingress.downstream_cx_active"), 0, "a dead process holds nothing");
    }
    let before = proxy.stat("http.ingress.downstream_rq_total");
    let mut client = proxy.connect();
    for _ in 0..10 {
        assert_eq!(client.ask(GET).status(), 200);
    }
    proxy.stat_becomes("http.ingress.downstream_rq_total", before + 10);
}

#[test]
fn counters_of_what_is_still_configured_show_and_others_do_not() {
    only_proxyd!("counters of a killed Envoy are gone");
    let (backend, other) = (Backend::saying("ok"), Backend::saying("ok"));
    let mut proxy = Proxy::start(&Bootstrap::http(backend.address()).cluster("gone", other.address()));
    assert_eq!(proxy.get("/").status(), 200);
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        assert_eq!(client.get("/").await.status, 200);
    });
    proxy.stat_becomes("cluster.backend.upstream_rq_200", 2);
    proxy.stat_becomes("cluster.gone.membership_change", 1);
    fs::write(proxy.directory().join("envoy.yaml"), Bootstrap::http(backend.address()).to_yaml()).unwrap();
    proxy.kill_and_start_again();
    // No request has been answered since, so nobody here has made this stat but the process before.
    assert_eq!(proxy.stat("cluster.backend.upstream_rq_200"), 2);
    assert_eq!(proxy.stat("http.ingress.downstream_cx_http2_total"), 1);
    assert!(!proxy.admin_get("/stats").text().contains("cluster.gone."));
}

#[test]
fn an_orderly_end_leaves_nothing_behind() {
    only_proxyd!("Envoy leaves its shared memory to the next one");
    let backend = Backend::saying("ok");
    let mut proxy = Proxy::start(&Bootstrap::http(backend.address()));
    assert_eq!(proxy.get("/").status(), 200);
    assert_eq!(proxy.shared_files().len(), 2, "a segment and the list: {:?}", proxy.shared_files());
    proxy.kill_and_start_again();
    assert_eq!(proxy.shared_files().len(), 3, "and a base: {:?}", proxy.shared_files());
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.exit().success());
    assert_eq!(proxy.shared_files(), [""; 0]);
}
