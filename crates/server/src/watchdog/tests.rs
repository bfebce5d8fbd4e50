//! The dog over real loops: no figure of time but the timeouts it is given.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use proxy_config::settings::Multikill;
use proxy_runtime::{WorkerIndex, Workers, WorkersOptions, local_runtime};
use proxy_stats::{Store, StoreOptions};

use super::*;

struct Watched {
    store: Store,
    workers: Workers,
    killed: Receiver<Stuck>,
    _dog: GuardDog,
}

/// Two workers, whose watchdog has these settings, and a main loop that has nothing to do.
fn watched(workers: Watchdog) -> Watched {
    let store = Store::create(StoreOptions::private(1)).unwrap();
    let settings = Watchdogs { main_thread: Watchdog::default(), workers };
    let workers = Workers::start(WorkersOptions { concurrency: 2, measured: false }, |_| {});
    let main = local_runtime().unwrap().block_on(async { Pulse::of_this_loop() });
    let (kill, killed) = channel();
    let kill = move |stuck| drop(kill.send(stuck));
    let dog = GuardDog::start((&store.root(), &Events::of(&store)), &settings, main, workers.pulses(), kill)
        .unwrap();
    Watched { store, workers, killed, _dog: dog }
}

impl Watched {
    /// Holds worker `index` until the returned end is dropped.
    fn hold(&self, index: u16) -> Arc<()> {
        let hold = Arc::new(());
        let held = Arc::downgrade(&hold);
        let wait = move || {
            while held.strong_count() > 0 {
                std::thread::park_timeout(Duration::from_millis(1));
            }
        };
        assert!(self.workers.post(WorkerIndex(index), Box::new(wait)));
        hold
    }

    fn value(&self, stat: &str) -> u64 {
        self.store.value(stat).unwrap_or_else(|| panic!("no stat {stat}"))
    }

    fn rises(&self, stat: &str, from: u64) {
        eventually(stat, || self.value(stat) > from);
    }
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

fn milliseconds(miss: u64, megamiss: u64) -> Watchdog {
    Watchdog {
        miss_timeout: Duration::from_millis(miss),
        megamiss_timeout: Duration::from_millis(megamiss),
        ..Watchdog::default()
    }
}

#[test]
fn each_stall_of_a_worker_is_counted() {
    let watched = watched(milliseconds(2, 6));
    let stats = ["watchdog_miss", "watchdog_mega_miss"];
    let names = stats.map(|stat| [format!("server.worker_1.{stat}"), format!("workers.{stat}")]).concat();
    for _ in 0..2 {
        let before: Vec<_> = names.iter().map(|name| watched.value(name)).collect();
        let hold = watched.hold(1);
        names.iter().zip(before).for_each(|(name, before)| watched.rises(name, before));
        drop(hold);
        // Otherwise it would be one stall.
        let pulse = watched.workers.pulses().nth(1).unwrap();
        eventually("the worker waits", || pulse.beat() == Beat::Waiting);
    }
    for quiet in ["server.main_thread.watchdog_miss", "main_thread.watchdog_mega_miss"] {
        assert_eq!(watched.value(quiet), 0, "{quiet}");
    }
}

#[test]
fn the_thread_that_is_stuck_is_named_before_the_end() {
    let kill_timeout = Some(Duration::from_millis(300));
    let watched = watched(Watchdog { kill_timeout, ..milliseconds(100, 200) });
    let _hold = watched.hold(0);
    let stuck = watched.killed.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(stuck, Stuck::One { thread: "worker_0".to_owned() });
    assert_eq!(stuck.to_string(), "thread worker_0 is stuck for longer than the kill timeout");
    assert!(watched.value("server.worker_0.watchdog_mega_miss") > 0);
}

#[test]
fn several_threads_together_can_be_too_many() {
    let multikill = Some(Multikill { timeout: Duration::from_millis(4), threshold_percent: 100.0 });
    let watched = watched(Watchdog { multikill, ..milliseconds(1, 2) });
    let _one = watched.hold(0);
    watched.rises("server.worker_0.watchdog_mega_miss", 0);
    let _other = watched.hold(1);
    let stuck = watched.killed.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(matches!(stuck, Stuck::Many { .. }), "{stuck:?}");
}

#[test]
fn jitter_only_adds_to_a_kill_timeout_that_is_set() {
    let max_kill_timeout_jitter = Duration::from_secs(1);
    let off = with_jitter(&Watchdog { max_kill_timeout_jitter, ..Watchdog::default() });
    assert_eq!(off.kill_timeout, None);
    let base = Duration::from_secs(5);
    let settings = Watchdog { kill_timeout: Some(base), max_kill_timeout_jitter, ..Watchdog::default() };
    for _ in 0..100 {
        let timeout = with_jitter(&settings).kill_timeout.unwrap();
        assert!((base..=base + max_kill_timeout_jitter).contains(&timeout));
    }
}
