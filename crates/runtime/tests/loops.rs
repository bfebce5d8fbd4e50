//! What can be seen of a loop from outside: whether it turns, and how long its turns take.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, atomic::AtomicBool, atomic::Ordering};
use std::time::{Duration, Instant};

use proxy_runtime::{Beat, LoopStats, Pulse, WorkerIndex, Workers, WorkersOptions, local_runtime};
use proxy_stats::{Store, StoreOptions, Value};

const DEADLINE: Duration = Duration::from_secs(30);

fn start(measured: bool) -> (Workers, Pulse) {
    let workers = Workers::start(WorkersOptions { concurrency: 1, measured }, |_| {});
    let pulse = workers.pulses().next().expect("there is a worker");
    (workers, pulse)
}

fn becomes(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Keeps the worker from turning until the sender is dropped; returns when it stands.
fn hold(workers: &Workers) -> Sender<()> {
    let (release, released) = channel::<()>();
    let (tell, stands) = channel();
    workers.post(
        WorkerIndex(0),
        Box::new(move || {
            tell.send(()).expect("the test waits");
            let _ = released.recv();
        }),
    );
    stands.recv().expect("the worker lives");
    release
}

#[test]
fn a_loop_that_stands_still_is_told_from_one_that_waits() {
    let (workers, pulse) = start(false);
    becomes("the idle loop waits", || pulse.beat() == Beat::Waiting);
    let release = hold(&workers);
    let stands = pulse.beat();
    assert!(matches!(stands, Beat::Awake(_)), "{stands:?}");
    pulse.ask();
    assert_eq!(pulse.beat(), stands);
    drop(release);
    becomes("the loop goes on", || pulse.beat() == Beat::Waiting);
}

#[test]
fn a_loop_that_never_waits_answers() {
    let (workers, pulse) = start(false);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    workers.post_all(move || {
        let stopped = Arc::clone(&stopped);
        tokio::task::spawn_local(std::future::poll_fn(move |context| {
            context.waker().wake_by_ref();
            if stopped.load(Ordering::Relaxed) { ().into() } else { std::task::Poll::Pending }
        }));
    });
    becomes("the loop is busy", || matches!(pulse.beat(), Beat::Awake(_)));
    for _ in 0..3 {
        let before = pulse.beat();
        pulse.ask();
        becomes("the question is answered", || pulse.beat() != before);
    }
    stop.store(true, Ordering::Relaxed);
    becomes("the loop waits again", || pulse.beat() == Beat::Waiting);
}

#[test]
fn a_loop_that_has_ended_does_not_stand_still() {
    let (workers, pulse) = start(false);
    local_runtime().unwrap().block_on(workers.stop(DEADLINE)).unwrap();
    assert_eq!(pulse.beat(), Beat::Ended);
    pulse.ask();
}

#[test]
fn main_has_a_pulse_too() {
    let runtime = local_runtime().unwrap();
    let pulse = runtime.block_on(async { Pulse::of_this_loop() });
    assert!(matches!(pulse.beat(), Beat::Awake(_)));
    drop(runtime);
    assert_eq!(pulse.beat(), Beat::Ended);
}

#[test]
fn turns_of_a_measured_loop_are_recorded() {
    let store = Store::create(StoreOptions::private(1)).unwrap();
    let (workers, _) = start(true);
    let scope = store.root().scope("listener_manager.worker_0");
    workers.post_all(move || LoopStats::keep(&scope));
    let count = |name: &str| {
        let handed_over = {
            let store = store.clone();
            workers.post_all_then(move || store.hand_over())
        };
        local_runtime().unwrap().block_on(handed_over);
        let mut merge = store.merge_histograms();
        while merge.advance() {}
        let mut count = 0;
        store.for_each(|metric| {
            if let (true, Value::Histogram(value)) = (metric.name == name, metric.value) {
                count = value.cumulative.count();
            }
        });
        count
    };
    becomes("turns are recorded", || count("listener_manager.worker_0.dispatcher.loop_duration_us") > 0);
    becomes("delays are recorded", || count("listener_manager.worker_0.dispatcher.poll_delay_us") > 0);
}
