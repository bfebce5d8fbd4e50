//! Scopes that come and go while threads count. `STRESS_ROUNDS` makes it long.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use proxy_stats::{ImportMode, Scope, Store, StoreOptions, ThreadIndex};

const THREADS: u16 = 4;

/// One thread that counts, as main sees it: how often it has let go of everything that is not kept.
#[derive(Default)]
struct Progress {
    rounds: AtomicU64,
    done: AtomicBool,
}

/// Says so also when an assertion fails, or main would wait for ever.
struct Done<'a>(&'a Progress);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.done.store(true, Ordering::SeqCst);
    }
}

impl Progress {
    /// Whether it has let go since `rounds`.
    fn passed(&self, rounds: u64) -> bool {
        self.done.load(Ordering::SeqCst) || self.rounds.load(Ordering::SeqCst) > rounds
    }
}

/// One round of a worker: scopes of its own and shared ones, nested, used by name, and dropped in several orders.
fn round(root: &Scope, kept: &Scope, worker: u16, number: u64) {
    kept.counter("total").inc();
    kept.scope("nested").counter(&format!("of_{}", number % 7)).inc();
    let own = root.scope(&format!("own.{worker}.{}", number % 5));
    let inner = own.scope("inner");
    for turn in 1..=3 {
        own.counter("fresh").inc();
        inner.counter("deeper.fresh").inc();
        // The slot is zero when a scope gets it, and nobody else's while the scope lives.
        assert_eq!(own.counter("fresh").value(), turn, "worker {worker}, round {number}");
        assert_eq!(inner.counter("deeper.fresh").value(), turn);
        // The same stat by another split of its name.
        assert_eq!(own.counter("inner.deeper.fresh"), inner.counter("deeper.fresh"));
    }
    let gauge = own.gauge("open", ImportMode::Accumulate);
    let guard = gauge.guard();
    if number.is_multiple_of(2) {
        // A child keeps its parent.
        drop(own);
    }
    assert_eq!(gauge.value(), 1);
    drop(guard);
    let shared = root.scope(&format!("shared.{}", number % 3));
    let before = shared.counter("rq").value();
    shared.counter("rq").inc();
    assert!(shared.counter("rq").value() > before);
    shared.histogram("time").record(number);
}

#[test]
fn scopes_come_and_go_while_threads_count() {
    let rounds = std::env::var("STRESS_ROUNDS").map_or(2_000, |rounds| rounds.parse().unwrap());
    let store = Store::create(StoreOptions::private(usize::from(THREADS) + 1)).unwrap();
    assert!(store.bind_thread(ThreadIndex(THREADS)));
    let root = store.root();
    let kept: Vec<_> = (0..THREADS).map(|worker| root.scope(&format!("kept.{worker}"))).collect();
    // A name that is asked for by nobody else from now on has to keep its slot, too.
    let nested: Vec<_> = kept.iter().map(|kept| kept.scope("nested")).collect();
    let progress: Vec<_> = (0..THREADS).map(|_| Progress::default()).collect();
    let mut reclaimed = 0;
    thread::scope(|threads| {
        for ((worker, kept), progress) in (0..).zip(&kept).zip(&progress) {
            let (store, root) = (&store, &root);
            threads.spawn(move || {
                let _done = Done(progress);
                assert!(store.bind_thread(ThreadIndex(worker)));
                for number in 0..rounds {
                    round(root, kept, worker, number);
                    progress.rounds.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        while !progress.iter().all(|progress| progress.done.load(Ordering::SeqCst)) {
            let epoch = store.retire();
            let at: Vec<_> = progress.iter().map(|progress| progress.rounds.load(Ordering::SeqCst)).collect();
            while !progress.iter().zip(&at).all(|(progress, at)| progress.passed(*at)) {
                thread::yield_now();
            }
            reclaimed += store.reclaim(epoch);
        }
    });
    reclaimed += {
        let epoch = store.retire();
        store.reclaim(epoch)
    };
    assert!(reclaimed > 0);
    for (kept, nested) in kept.iter().zip(&nested) {
        assert_eq!(kept.counter("total").value(), rounds);
        let by_name: u64 = (0..7).map(|number| nested.counter(&format!("of_{number}")).value()).sum();
        assert_eq!(by_name, rounds);
    }
    let mut left = Vec::new();
    store.for_each(|metric| left.push(metric.name.to_owned()));
    assert!(left.iter().all(|name| name.starts_with("kept.")), "{left:?}");
}

#[test]
fn a_thread_that_remembers_takes_no_lock() {
    let store = Store::create(StoreOptions::private(1)).unwrap();
    let scope = store.root().scope("cluster.b");
    let first = scope.counter("rq");
    let asked = store.lookups();
    assert_eq!(scope.counter("rq"), first);
    assert_eq!(scope.clone().counter("rq"), first);
    assert_eq!(store.root().scope("cluster.b").counter("rq"), first);
    assert_eq!(store.lookups(), asked);
    scope.gauge("rq", ImportMode::Accumulate);
    assert_eq!(store.lookups(), asked + 1, "another kind is another stat");
}

#[test]
fn a_scope_that_comes_back_is_looked_up_anew() {
    let store = Store::create(StoreOptions::private(1)).unwrap();
    let scope = store.root().scope("cluster.b");
    scope.counter("rq").add(5);
    drop(scope);
    let epoch = store.retire();
    assert!(store.reclaim(epoch) > 0);
    // Takes the slot that was given back.
    let other = store.root().scope("cluster.c");
    other.counter("rq").add(7);
    let again = store.root().scope("cluster.b");
    assert_eq!(again.counter("rq").value(), 0);
    assert_ne!(again.counter("rq"), other.counter("rq"));
}
