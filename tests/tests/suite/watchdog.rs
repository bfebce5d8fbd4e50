//! A thread that stands still is counted, named, and may cost the process its life.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread;

use proxy_tests::{Bootstrap, Proxy, direct_response_chain, eventually, on_envoy, proxyctl};

/// Keeps both workers busy for as long as the proxy lives; that one of them gets no connection is unlikely.
fn keep_busy(address: SocketAddr) {
    for _ in 0..16 {
        let mut wire = TcpStream::connect(address).unwrap();
        thread::spawn(move || {
            let mut answer = [0; 4 << 10];
            while wire.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").is_ok()
                && wire.read(&mut answer).is_ok_and(|length| length > 0)
            {}
        });
    }
}

fn busy(watchdog: &str) -> Proxy {
    let bootstrap = Bootstrap::empty()
        .listener("main", direct_response_chain("hello"))
        .with(&format!("stats_flush_interval: 0.05s\nwatchdogs: {{worker_watchdog: {watchdog}}}"));
    let proxy = Proxy::start(&bootstrap);
    keep_busy(proxy.listener("main"));
    proxy
}

#[test]
fn a_worker_that_stands_still_is_counted_and_goes_on() {
    let proxy = busy("{miss_timeout: 0.05s, megamiss_timeout: 0.2s}");
    let stopped = proxy.stall("wrk:worker_1", || proxy.stat("server.worker_1.watchdog_mega_miss") > 0);
    for stat in ["server.worker_1.watchdog_miss", "workers.watchdog_miss", "workers.watchdog_mega_miss"] {
        eventually(stat, || (proxy.stat(stat) > 0).then_some(()));
    }
    assert_eq!(proxy.stat("server.main_thread.watchdog_mega_miss"), 0);
    if !on_envoy() {
        let log = proxy.log();
        assert!(
            log.contains("(miss) thread=worker_1") && log.contains("(mega-miss) thread=worker_1"),
            "{log}"
        );
    }
    drop(stopped);
    for _ in 0..8 {
        assert_eq!(proxy.connect().ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").status(), 200);
    }
}

#[test]
fn a_worker_that_stands_still_for_too_long_ends_the_process() {
    let mut proxy = busy("{kill_timeout: 0.5s}");
    let last_words =
        if on_envoy() { "Caught Aborted" } else { "error   main: watchdog: thread worker_0 is stuck" };
    drop(proxy.stall("wrk:worker_0", || proxy.log().contains(last_words)));
    let status = proxy.exit();
    assert_eq!(status.signal(), Some(6), "{status}");
    if !on_envoy() {
        let run_dir = proxy.directory().join("run");
        let output = Command::new(proxyctl()).args(["events", "--run-dir"]).arg(run_dir).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let last = told.lines().last().unwrap();
        assert!(
            last.contains(" error   watchdog    thread worker_0 is stuck") && last.ends_with("is killed"),
            "{told}"
        );
    }
}
