//! What can go wrong in a hot restart, with real processes: whoever fails, requests are answered and the next restart works.

mod surroundings;

use std::net::SocketAddr;
use std::time::Instant;

use proxy_tests::{
    After, Backend, Bootstrap, EchoBackend, Lineage, Member, PATIENCE, Signal, Start, Tally, Traffic, Wire,
    direct_response_chain, eventually, http_filter_chain, only_proxyd, tcp_filter_chain, unused_address,
};

/// Where clients that try again and again while nobody listens do not end up connected to themselves: their own address is
/// another one.
fn unused_main() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 2], unused_address().port()))
}

/// A lineage whose listener answers by itself.
fn answering() -> Lineage {
    let main = unused_main();
    Lineage::of(&bootstrap(main), main)
}

fn bootstrap(main: SocketAddr) -> Bootstrap {
    Bootstrap::empty().listener_at("main", main, direct_response_chain("hello"))
}

/// A lineage that relays to `echo`.
fn relaying(echo: &EchoBackend) -> Lineage {
    let main = unused_main();
    let bootstrap = Bootstrap::empty().listener_at("main", main, tcp_filter_chain("echo"));
    Lineage::of(&bootstrap.cluster("echo", echo.address()), main)
}

/// The next restart works, `last` ends in good order, and all that was answered has been counted.
fn ends_well(generations: &Lineage, traffic: Traffic, last: Member) -> Tally {
    ends_well_after(generations, traffic, last, 0)
}

/// As [`ends_well`]; so many requests may have been lost, counted or not.
fn ends_well_after(generations: &Lineage, traffic: Traffic, mut last: Member, lost: u64) -> Tally {
    traffic.goes_on();
    let mut next = generations.next();
    assert!(last.exit().success(), "{}", last.log());
    traffic.goes_on();
    let tally = traffic.end();
    assert!(tally.lost <= lost, "{tally:?}");
    // What is killed may have answered and not counted yet.
    let counted = tally.answered.saturating_sub(lost.min(CLIENTS))..=tally.answered + tally.lost;
    let mut count = 0;
    let right = within_patience(|| {
        count = next.stat("http.ingress.downstream_rq_2xx");
        counted.contains(&count)
    });
    assert!(right, "{count} of {tally:?}");
    next.says("handed over all it could");
    next.end();
    generations.assert_nothing_left();
    tally
}

/// Whether it comes true.
fn within_patience(mut comes_true: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !comes_true() {
        if Instant::now() > deadline {
            return false;
        }
    }
    true
}

/// As many as [`Traffic::http`] has.
const CLIENTS: u64 = 4;
/// All that a process that is killed may take with it: what clients had sent to it. They may do so again while its sockets are
/// closed one after the other.
const OF_THE_KILLED: u64 = 3 * CLIENTS;

#[test]
fn nothing_fails() {
    only_proxyd!("Envoy's hot restart is another one");
    let generations = answering();
    let first = generations.first(&Start::default());
    let traffic = Traffic::http(generations.main);
    let tally = ends_well(&generations, traffic, first);
    assert_eq!(tally.refused, 0);
}

#[test]
fn what_an_old_process_counts_shows_at_once() {
    only_proxyd!("Envoy's hot restart is another one");
    let main = unused_main();
    let (answer, asked) = std::sync::mpsc::channel::<()>();
    let asked = std::sync::Mutex::new(asked);
    let backend = Backend::new(move |_, wire| {
        asked.lock().unwrap().recv().unwrap();
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        After::KeepOpen
    });
    let bootstrap = Bootstrap::empty().listener_at("main", main, http_filter_chain());
    let generations = Lineage::of(&bootstrap.cluster("backend", backend.address()), main);
    let mut first = generations.first(&Start::default());
    let mut clients = [(); 2].map(|()| {
        let mut client = Wire::connect(main);
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        client
    });
    eventually("both to be asked", || (backend.requests().len() == 2).then_some(()));
    let second = generations.next();
    let counted = |count| {
        eventually("it to count", || (second.stat("http.ingress.downstream_rq_2xx") == count).then_some(()));
    };
    counted(0);
    answer.send(()).unwrap();
    counted(1);
    assert!(!first.has_ended(), "it has a request left");
    answer.send(()).unwrap();
    clients.iter_mut().for_each(|client| assert_eq!(client.response().text(), "ok"));
    counted(2);
    drop(clients);
    assert!(first.exit().success());
    counted(2);
    second.end();
    generations.assert_nothing_left();
}

#[test]
fn http2_connections_drain_and_lose_nothing() {
    only_proxyd!("Envoy's hot restart is another one");
    let generations = answering();
    let first = generations.first(&Start::default());
    let traffic = Traffic::http2(generations.main);
    let tally = ends_well(&generations, traffic, first);
    assert_eq!(tally.refused, 0);
}

/// The new process crashes; the old one goes on.
fn child_crashes(place: &str, lost: u64) {
    only_proxyd!("Envoy's hot restart is another one");
    let generations = answering();
    let mut first = generations.first(&Start::default());
    let traffic = Traffic::http(generations.main);
    let mut failing = generations.start(&Start::next().fault(&format!("{place}:crash")));
    assert_eq!(failing.exit().code(), None, "{}", failing.log());
    if place != "ChildBeforeHello" {
        first.says("the new process did not take over, this one goes on");
    }
    let tally = ends_well_after(&generations, traffic, first, lost);
    assert_eq!(tally.refused, 0);
}

#[test]
fn the_new_process_crashes_before_it_says_hello() {
    child_crashes("ChildBeforeHello", 0);
}

#[test]
fn the_new_process_crashes_when_it_is_welcome() {
    child_crashes("ChildAfterWelcome", 0);
}

#[test]
fn the_new_process_crashes_before_it_says_that_it_serves() {
    child_crashes("ChildBeforeServing", OF_THE_KILLED);
}

#[test]
fn the_new_process_crashes_before_it_leads() {
    child_crashes("ChildBeforeConfirm", OF_THE_KILLED);
}

#[test]
fn the_new_process_crashes_when_it_leads_and_nobody_knows() {
    child_crashes("ChildLeadsUntold", OF_THE_KILLED);
}

#[test]
fn the_new_process_crashes_when_it_leads() {
    only_proxyd!("Envoy's hot restart is another one");
    for place in ["ChildAfterConfirm", "ChildAccepted"] {
        let generations = answering();
        let mut first = generations.first(&Start::default());
        let traffic = Traffic::http(generations.main);
        let mut failing = generations.start(&Start::next().fault(&format!("{place}:crash")));
        assert_eq!(failing.exit().code(), None, "{}", failing.log());
        // Nobody listens, and the old one is on its way out.
        let third = generations.first(&Start::next());
        assert!(first.exit().success());
        ends_well_after(&generations, traffic, third, u64::MAX / 2);
    }
}

/// The new process hangs, and wakes up when all is over.
fn child_hangs(place: &str) {
    only_proxyd!("Envoy's hot restart is another one");
    let generations = answering();
    let mut first = generations.first(&Start::default());
    let traffic = Traffic::http(generations.main);
    let mut failing = generations.start(&Start::next().fault(&format!("{place}:stop")));
    failing.is_stopped();
    if place != "ChildBeforeHello" {
        first.says("the new process did not take over, this one goes on");
    }
    let second = generations.next();
    assert!(first.exit().success());
    failing.signal(Signal::SIGCONT);
    if place == "ChildBeforeHello" {
        // It finds a process that is gone.
        assert!(!failing.exit().success() || failing.log().contains("ended just now"), "{}", failing.log());
    } else {
        assert_eq!(failing.exit().code(), Some(1), "{}", failing.log());
    }
    let tally = ends_well(&generations, traffic, second);
    assert_eq!(tally.refused, 0);
}

#[test]
fn the_new_process_hangs_when_it_is_welcome() {
    child_hangs("ChildAfterWelcome");
}

#[test]
fn the_new_process_hangs_before_it_says_that_it_serves() {
    child_hangs("ChildBeforeServing");
}

#[test]
fn the_new_process_hangs_before_it_leads() {
    child_hangs("ChildBeforeConfirm");
}

/// The new process hangs when it leads already, and goes on when it wakes up.
fn leader_hangs(place: &str) {
    only_proxyd!("Envoy's hot restart is another one");
    let generations = answering();
    let mut first = generations.first(&Start::default());
    let traffic = Traffic::http(generations.main);
    let mut second = generations.start(&Start::next().fault(&format!("{place}:stop")));
    second.is_stopped();
    match place {
        "ChildLeadsUntold" => first.says("the new process leads"),
        "ChildAfterConfirm" => first.says("a connection is taken back"),
        _ => {}
    }
    second.signal(Signal::SIGCONT);
    second.leads();
    assert!(first.exit().success());
    let tally = ends_well(&generations, traffic, second);
    assert_eq!(tally.refused, 0);
}

#[test]
fn the_new_process_hangs_when_it_leads_and_nobody_knows() {
    leader_hangs("ChildLeadsUntold");
}

#[test]
fn the_new_process_hangs_while_connections_are_offered() {
    leader_hangs("ChildAfterConfirm");
}

#[test]
fn the_new_process_hangs_when_it_has_accepted_a_connection() {
    leader_hangs("ChildAccepted");
}

/// The old process crashes; the new one goes on alone.
fn parent_crashes(place: &str) {
    only_proxyd!("Envoy's hot restart is another one");
    let generations = answering();
    let mut first = generations.first(&Start::default().fault(&format!("{place}:crash")));
    let traffic = Traffic::http(generations.main);
    let mut second = generations.start(&Start::next());
    assert_eq!(first.exit().code(), None, "{}", first.log());
    second.says(if place == "ParentAfterHello" { " serving" } else { "this process leads" });
    let tally = ends_well_after(&generations, traffic, second, OF_THE_KILLED);
    // Before it had its sockets, there was a moment without.
    assert!(tally.refused == 0 || place == "ParentAfterHello", "{tally:?}");
}

#[test]
fn the_old_process_crashes_when_it_is_asked() {
    parent_crashes("ParentAfterHello");
}

#[test]
fn the_old_process_crashes_when_it_has_passed_its_sockets() {
    parent_crashes("ParentAfterSockets");
}

#[test]
fn the_old_process_crashes_before_it_has_stopped_accepting() {
    parent_crashes("ParentBeforeStopped");
}

#[test]
fn the_old_process_crashes_when_it_leads_no_more() {
    parent_crashes("ParentAfterConfirm");
}

#[test]
fn the_old_process_crashes_while_it_offers_connections() {
    parent_crashes("ParentOffered");
}

#[test]
fn the_old_process_crashes_before_it_releases_a_connection() {
    parent_crashes("ParentBeforeRelease");
}

/// The old process hangs, and wakes up when the new one leads.
fn parent_hangs(place: &str) {
    only_proxyd!("Envoy's hot restart is another one");
    let generations = answering();
    let mut first = generations.first(&Start::default().fault(&format!("{place}:stop")));
    let traffic = Traffic::http(generations.main);
    let mut second = generations.start(&Start::next());
    first.is_stopped();
    second.leads();
    first.signal(Signal::SIGCONT);
    assert!(first.exit().success(), "{}", first.log());
    let tally = ends_well(&generations, traffic, second);
    assert_eq!(tally.refused, 0);
}

#[test]
fn the_old_process_hangs_when_it_has_passed_its_sockets() {
    parent_hangs("ParentAfterSockets");
}

#[test]
fn the_old_process_hangs_before_it_has_stopped_accepting() {
    parent_hangs("ParentBeforeStopped");
}

#[test]
fn the_old_process_hangs_when_it_leads_no_more() {
    parent_hangs("ParentAfterConfirm");
}

#[test]
fn the_old_process_hangs_while_it_offers_connections() {
    parent_hangs("ParentOffered");
}

#[test]
fn the_old_process_hangs_before_it_releases_a_connection() {
    parent_hangs("ParentBeforeRelease");
}

#[test]
fn the_old_process_hangs_when_it_is_asked() {
    only_proxyd!("Envoy's hot restart is another one");
    let generations = answering();
    let mut first = generations.first(&Start::default().fault("ParentAfterHello:stop"));
    let traffic = Traffic::http(generations.main);
    let mut failing = generations.start(&Start::next());
    first.is_stopped();
    // Nobody gives it sockets.
    assert_eq!(failing.exit().code(), Some(1), "{}", failing.log());
    first.signal(Signal::SIGCONT);
    first.says("the new process did not take over, this one goes on");
    // It would stop again.
    let tally = traffic.end();
    assert_eq!((tally.lost, tally.refused), (0, 0));
    first.end();
    generations.assert_nothing_left();
}

#[test]
fn a_process_that_is_ending_hands_over_to_nobody() {
    only_proxyd!("Envoy's hot restart is another one");
    let echo = EchoBackend::new();
    let generations = relaying(&echo);
    let mut first = generations.first(&Start::default());
    let mut client = Wire::connect(generations.main);
    assert_eq!(client.send("x").bytes(1), b"x");
    first.signal(Signal::SIGTERM);
    first.says("shutting down");
    let mut failing = generations.start(&Start::next());
    assert_eq!(failing.exit().code(), Some(1));
    assert!(failing.log().contains("this process is about to end"), "{}", failing.log());
    assert_eq!(client.send("y").bytes(1), b"y");
    drop(client);
    assert!(first.exit().success());
    generations.next_after_the_end().end();
    generations.assert_nothing_left();
}
