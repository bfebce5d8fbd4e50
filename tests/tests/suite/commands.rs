//! Commands to a running process: what becomes of those that come when it cannot carry them out.

use std::path::PathBuf;

use proxy_tests::{Bootstrap, Generations, Signal, Wire, direct_response_chain, eventually, only_proxyd};

fn start(arguments: &[&str]) -> Generations {
    let bootstrap = Bootstrap::empty().listener("main", direct_response_chain("hello"));
    Generations::start(&bootstrap, arguments)
}

/// The control socket of the first process.
fn control_socket(proxy: &Generations) -> PathBuf {
    let entries = std::fs::read_dir(proxy.directory().join("run")).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    paths.find(|path| path.to_string_lossy().ends_with(".1.sock")).unwrap()
}

fn post(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")
}

#[test]
fn a_command_whose_sender_gave_up_is_not_carried_out() {
    only_proxyd!("Envoy has no control socket");
    let proxy = start(&[]);
    proxy.signal(Signal::SIGSTOP);
    Wire::connect_unix(&control_socket(&proxy)).send(post("/healthcheck/fail"));
    // One that has ended what it sends still listens.
    let mut other = Wire::connect_unix(&control_socket(&proxy));
    other.send(post("/logging?level=debug")).finish();
    proxy.signal(Signal::SIGCONT);
    assert_eq!(other.response().status(), 200);
    eventually("the command to be dropped", || {
        proxy.log().contains("not done: whoever asked for it has gone path=/healthcheck/fail").then_some(())
    });
    assert_eq!(proxy.admin_get("/ready").text(), "LIVE\n");
}

#[test]
fn reloads_asked_for_during_another_are_one_that_follows() {
    only_proxyd!("Envoy does not read its file again");
    let configured = |body: &str| {
        let bootstrap = Bootstrap::empty().listener("main", direct_response_chain(body));
        // Enough that reading it takes a while.
        (0..500).fold(bootstrap, |bootstrap, number| {
            bootstrap.cluster(&format!("cluster_{number}"), "127.0.0.1:9".parse().unwrap())
        })
    };
    let proxy = Generations::start(&configured("before"), &[]);
    let ask = || {
        let mut wire = Wire::connect_unix(&control_socket(&proxy));
        wire.send(post("/reload"));
        wire
    };
    let mut first = ask();
    assert_eq!(first.head().status(), 200);
    proxy.signal(Signal::SIGSTOP);
    std::fs::write(proxy.config(), configured("after").to_yaml()).unwrap();
    let others = [ask(), ask(), ask()];
    drop(ask());
    proxy.signal(Signal::SIGCONT);
    for mut wire in others {
        let answer = wire.response();
        assert_eq!(answer.status(), 200);
        assert!(answer.text().contains("\"outcome\":\"applied\""), "{}", answer.text());
    }
    assert_eq!(proxy.get("/").text(), "after");
    assert_eq!(proxy.stat("config_reload.success"), 2);
}

/// A hot restart that has come as far as that both processes accept, and a SIGHUP to the old one.
fn hung_up_in_a_restart(confirm_after: &str) -> (Generations, std::process::Child) {
    let proxy = start(&["--confirm-after", confirm_after]);
    let restart = proxy.control_meanwhile(&["restart", "--hot"]);
    proxy.becomes(2, "serving-not-confirmed");
    let other = Bootstrap::empty().listener("main", direct_response_chain("other"));
    std::fs::write(proxy.config(), other.to_yaml()).unwrap();
    proxy.signal(Signal::SIGHUP);
    eventually("SIGHUP to be told", || {
        proxy.log().contains("SIGHUP: the configuration is read again later").then_some(())
    });
    (proxy, restart)
}

#[test]
fn sighup_in_a_hot_restart_that_fails_reloads_afterwards() {
    only_proxyd!("Envoy does not read its file again");
    let (proxy, restart) = hung_up_in_a_restart("60");
    assert!(proxy.control(&["rollback"]).status.success());
    assert_eq!(restart.wait_with_output().unwrap().status.code(), Some(1));
    let _ = proxy.only(1);
    proxy.stat_becomes("config_reload.success", 1);
    assert_eq!(proxy.get("/").text(), "other");
}

#[test]
fn sighup_in_a_hot_restart_that_works_is_told_to_be_nobodys() {
    only_proxyd!("Envoy does not read its file again");
    let (proxy, restart) = hung_up_in_a_restart("4");
    let restarted = restart.wait_with_output().unwrap();
    assert!(restarted.status.success(), "{restarted:?}");
    assert!(proxy.log().contains("SIGHUP: no reload, the new process leads"), "{}", proxy.log());
    let _ = proxy.only(2);
    assert_eq!(proxy.get("/").text(), "hello");
}
