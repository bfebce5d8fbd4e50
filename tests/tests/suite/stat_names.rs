//! Names and kinds of all stats are Envoy's, for a configuration and traffic that bring in every kind of them.
//!
//! `data/stat_names.txt` is what the real Envoy has. To record it anew:
//!
//! ```text
//! UPDATE_STAT_NAMES=1 PROXY_UNDER_TEST=/path/to/envoy cargo test -p proxy-tests --test suite stat_names
//! ```
//!
//! `data/stat_names_exceptions.txt` says what proxyd leaves out or has besides, and why.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use proxy_tests::http2::{Client, block_on};
use proxy_tests::{After, Backend, Bootstrap, Proxy, Wire, on_envoy, tcp_filter_chain, workspace_root};

const KINDS: [&str; 4] = ["Counters", "Gauges", "Histograms", "TextReadouts"];

fn data(file: &str) -> PathBuf {
    workspace_root().join("tests/tests/suite/data").join(file)
}

fn lines(file: &str) -> Vec<String> {
    let text = fs::read_to_string(data(file)).unwrap();
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// One line per stat, `KIND NAME`.
fn kinds_and_names(proxy: &Proxy) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for kind in KINDS {
        let answer = proxy.admin_get(&format!("/stats?type={kind}"));
        for line in answer.text().lines() {
            let name = line.split_once(": ").map_or(line, |(name, _)| name);
            found.insert(format!("{kind} {name}"));
        }
    }
    found
}

/// A connection manager, a TCP proxy, a cluster and the admin port, after some requests of both versions.
fn proxy_after_traffic() -> Proxy {
    let backend = Backend::new(|request, wire| {
        let status = if request.target() == "/none" { 404 } else { 200 };
        wire.send(format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n"));
        After::KeepOpen
    });
    let bootstrap = Bootstrap::http(backend.address())
        .listener("relay", tcp_filter_chain("backend"))
        .stat_prefixes()
        .with("stats_flush_interval: 1s");
    let proxy = Proxy::start(&bootstrap);
    assert_eq!(proxy.get("/").status(), 200);
    assert_eq!(proxy.get("/none").status(), 404);
    block_on(async {
        let mut client = Client::connect(proxy.listener("main")).await;
        assert_eq!(client.get("/").await.status, 200);
    });
    {
        let mut client = Wire::connect(proxy.listener("relay"));
        assert_eq!(client.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status(), 200);
    }
    proxy.stat_becomes("cluster.backend.upstream_rq_completed", 3);
    proxy.stat_becomes("listener.main.downstream_cx_active", 0);
    proxy
}

#[test]
fn stats_have_envoys_names_and_kinds() {
    let proxy = proxy_after_traffic();
    let found = kinds_and_names(&proxy);
    if on_envoy() && std::env::var_os("UPDATE_STAT_NAMES").is_some() {
        let text: Vec<_> = found.iter().map(String::as_str).collect();
        fs::write(data("stat_names.txt"), text.join("\n") + "\n").unwrap();
    }
    let mut expected: BTreeSet<String> = lines("stat_names.txt").into_iter().collect();
    if !on_envoy() {
        for line in lines("stat_names_exceptions.txt") {
            let (name, reason) = line.split_once("  ").expect("an exception has a reason");
            assert!(!reason.trim().is_empty(), "{line}");
            let (sign, name) = name.split_at(1);
            match sign {
                "-" => assert!(expected.remove(name), "Envoy does not have {name}"),
                "+" => assert!(expected.insert(name.to_owned()), "Envoy has {name}"),
                _ => panic!("neither left out nor added: {line}"),
            }
        }
    }
    let missing: Vec<_> = expected.difference(&found).collect();
    let unknown: Vec<_> = found.difference(&expected).collect();
    assert!(missing.is_empty() && unknown.is_empty(), "missing: {missing:#?}\nunknown: {unknown:#?}");
}
