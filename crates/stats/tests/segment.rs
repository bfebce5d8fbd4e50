//! The store as its users see it: threads that count, readers in other processes, writers that die.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Barrier;

use proxy_stats::{
    Backing, ImportMode, MetricKind, Reader, StatsError, Store, StoreOptions, ThreadIndex, Value,
};

fn at(path: &Path, threads: usize) -> StoreOptions {
    StoreOptions { path: Some(path.to_owned()), threads, generation: 42, base_id: 5 }
}

fn read(path: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let visit = |metric: &proxy_stats::Metric<'_>| {
        let twice = found.insert(metric.name.to_owned(), metric.value.number().unwrap_or(0));
        assert_eq!(twice, None);
    };
    let read = Reader::open(path).and_then(|reader| reader.for_each(visit));
    assert!(read.is_ok(), "{read:?}");
    found
}

#[test]
fn every_increment_of_every_thread_is_in_the_sum() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let store = Store::create(at(&path, 4)).unwrap();
    let scope = store.root().scope("cluster.b.");
    let total = scope.counter("upstream_rq_total");
    let active = scope.gauge("upstream_rq_active", ImportMode::Accumulate);
    let barrier = Barrier::new(6);
    std::thread::scope(|threads| {
        for index in 0..6 {
            let (store, barrier) = (&store, &barrier);
            threads.spawn(move || {
                // Columns 0 to 3 exist; the other two threads stay unbound.
                assert_eq!(store.bind_thread(ThreadIndex(index)), index < 4);
                barrier.wait();
                for _ in 0..50_000 {
                    let guard = active.guard();
                    total.inc();
                    drop(guard);
                }
                if index % 2 == 0 { active.add(10) } else { active.sub(10) }
            });
        }
    });
    assert_eq!(total.value(), 300_000);
    assert_eq!(active.value(), 0);
    let seen = read(&path);
    assert_eq!(seen["cluster.b.upstream_rq_total"], 300_000);
    assert_eq!(seen["cluster.b.upstream_rq_active"], 0);
}

#[test]
fn a_guard_may_fall_on_another_thread() {
    let store = Store::create(StoreOptions::private(2)).unwrap();
    let gauge = store.root().gauge("active", ImportMode::Accumulate);
    assert!(store.bind_thread(ThreadIndex(0)));
    let guard = gauge.guard();
    assert_eq!(gauge.value(), 1);
    let other = store.clone();
    let moved = std::thread::spawn(move || {
        assert!(other.bind_thread(ThreadIndex(1)));
        drop(guard);
    });
    moved.join().unwrap();
    assert_eq!(gauge.value(), 0);
    gauge.set(7);
    assert_eq!(gauge.value(), 7);
}

#[test]
fn a_column_has_one_thread_and_is_free_again_after_it() {
    let store = Store::create(StoreOptions::private(1)).unwrap();
    let bind =
        || std::thread::scope(|threads| threads.spawn(|| store.bind_thread(ThreadIndex(0))).join().unwrap());
    assert!(bind());
    assert!(bind());
    assert!(store.bind_thread(ThreadIndex(0)));
    assert!(store.bind_thread(ThreadIndex(0)));
    assert!(!bind());
}

#[test]
fn handles_of_a_store_that_is_gone_do_nothing() {
    let (gone, kept) =
        (Store::create(StoreOptions::private(1)).unwrap(), Store::create(StoreOptions::private(1)).unwrap());
    assert!(gone.bind_thread(ThreadIndex(0)));
    let (lost, found) = (gone.root().counter("x"), kept.root().counter("x"));
    assert!(kept.bind_thread(ThreadIndex(0)));
    drop(gone);
    lost.inc();
    found.inc();
    assert_eq!((lost.value(), found.value()), (0, 1));
}

#[test]
fn one_name_is_one_stat_whatever_the_split() {
    let store = Store::create(StoreOptions::private(1)).unwrap();
    let outer = store.root().scope("a");
    let inner = outer.scope("b");
    let counter = outer.counter("b.c");
    assert_eq!(inner.counter("c"), counter);
    assert_eq!(store.root().counter("a.b.c"), counter);
    assert_eq!(store.root().scope("a.b.").counter("c"), counter);
    assert_ne!(inner.counter("d"), counter);
    // A gauge of the same name is another stat; its first import mode stays.
    let gauge = inner.gauge("c", ImportMode::Accumulate);
    assert_eq!(outer.gauge("b.c", ImportMode::NeverImport), gauge);
    counter.inc();
    assert_eq!(store.value("a.b.c"), Some(1));
    let mut kinds = Vec::new();
    store.for_each(|metric| kinds.push((metric.name.to_owned(), metric.kind)));
    assert!(kinds.contains(&("a.b.c".into(), MetricKind::Gauge(ImportMode::Accumulate))));
    assert_eq!(kinds.len(), 3);
}

#[test]
fn a_stat_lives_while_any_scope_that_asked_for_it_does() {
    let store = Store::create(StoreOptions::private(1)).unwrap();
    let (one, other) = (store.root().scope("x"), store.root().scope("x.y"));
    let lent = one.counter("y.z");
    assert_eq!(other.counter("z"), lent);
    // And the other way round, so that the two hold each other.
    assert_eq!(other.counter("w"), one.counter("y.w"));
    lent.inc();
    drop(one);
    assert_eq!(store.value("x.y.z"), Some(1));
    drop(other);
    assert_eq!(store.value("x.y.z"), None);
    assert_eq!(store.value("x.y.w"), None);
    let again = store.root().scope("x").counter("y.z");
    assert_eq!(again.value(), 0);
}

#[test]
fn a_visitor_may_use_the_store() {
    let store = Store::create(StoreOptions::private(1)).unwrap();
    let scopes: Vec<_> = (0..300).map(|index| store.root().scope(&format!("s{index}"))).collect();
    scopes.iter().for_each(|scope| scope.counter("x").inc());
    let mut seen = 0;
    store.for_each(|metric| {
        seen += 1;
        assert_eq!(metric.value, Value::Number(1));
        drop(store.root().scope("made_meanwhile"));
    });
    assert_eq!(seen, 300);
}

/// Of every histogram: values in the last interval, and since ever.
fn histograms(store: &Store) -> BTreeMap<String, (u64, u64)> {
    let mut found = BTreeMap::new();
    store.for_each(|metric| {
        if let Value::Histogram(value) = metric.value {
            found.insert(metric.name.to_owned(), (value.interval.count(), value.cumulative.count()));
        }
    });
    found
}

fn merge(store: &Store) {
    store.hand_over();
    let mut merge = store.merge_histograms();
    while merge.advance() {}
}

#[test]
fn histograms_of_all_threads_become_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let store = Store::create(at(&path, 3)).unwrap();
    assert!(store.bind_thread(ThreadIndex(0)));
    let scope = store.root().scope("cluster.b");
    let (time, idle) = (scope.histogram("upstream_rq_time"), scope.histogram("idle"));
    std::thread::scope(|threads| {
        let recorders = [1, 2, 3, 4].map(|index| {
            let store = &store;
            // Columns 1 and 2 exist; the other two threads stay unbound.
            threads.spawn(move || {
                assert_eq!(store.bind_thread(ThreadIndex(index)), index < 3);
                (0..1000).for_each(|value| time.record(value));
            })
        });
        // The end of the scope would not wait for what a thread hands over when it ends.
        recorders.into_iter().for_each(|recorder| recorder.join().unwrap());
    });
    time.record(5000);
    assert_eq!(histograms(&store)["cluster.b.upstream_rq_time"], (0, 0), "not before a flush");
    merge(&store);
    assert_eq!(histograms(&store)["cluster.b.upstream_rq_time"], (4001, 4001));
    time.record(7);
    merge(&store);
    assert_eq!(histograms(&store)["cluster.b.upstream_rq_time"], (1, 4002));
    merge(&store);
    assert_eq!(
        histograms(&store),
        [("cluster.b.idle".into(), (0, 0)), ("cluster.b.upstream_rq_time".into(), (0, 4002))].into()
    );
    assert_eq!(idle, scope.histogram("idle"));
    let mut seen = Vec::new();
    let visit = |metric: &proxy_stats::Metric<'_>| {
        let Value::Histogram(value) = metric.value else { return };
        assert!(value.interval.is_empty());
        seen.push((metric.name.to_owned(), value.cumulative.count(), value.cumulative.quantile(1.0)));
    };
    Reader::open(&path).unwrap().for_each(visit).unwrap();
    seen.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(seen[1], ("cluster.b.upstream_rq_time".into(), 4002, 5050.0));
    assert_eq!((&*seen[0].0, seen[0].1), ("cluster.b.idle", 0));
}

#[test]
fn what_was_recorded_for_a_scope_that_is_gone_goes_nowhere() {
    let store = Store::create(StoreOptions::private(1)).unwrap();
    assert!(store.bind_thread(ThreadIndex(0)));
    let gone = store.root().scope("gone");
    gone.histogram("x").record(1);
    merge(&store);
    gone.histogram("x").record(1);
    drop(gone);
    let epoch = store.retire();
    store.hand_over();
    store.reclaim(epoch);
    let new = store.root().scope("new");
    new.histogram("x").record(2);
    merge(&store);
    assert_eq!(histograms(&store), [("new.x".into(), (1, 1))].into());
}

#[test]
fn counters_can_be_reset_thread_by_thread() {
    let store = Store::create(StoreOptions::private(2)).unwrap();
    let (counter, gauge) = (store.root().counter("c"), store.root().gauge("g", ImportMode::Accumulate));
    let count = || {
        counter.add(5);
        gauge.add(5);
    };
    count();
    assert!(store.bind_thread(ThreadIndex(0)));
    count();
    std::thread::scope(|threads| {
        let worker = || {
            assert!(store.bind_thread(ThreadIndex(1)));
            count();
            store.reset_counters();
            counter.inc();
        };
        threads.spawn(worker).join().unwrap();
    });
    assert_eq!((counter.value(), gauge.value()), (11, 15));
    store.reset_counters();
    assert_eq!((counter.value(), gauge.value()), (1, 15));
}

/// What sinks would be told now; told if `sent`.
fn flush(store: &Store, sent: bool) -> BTreeMap<String, u64> {
    let (mut found, mut marks, mut deltas) = (BTreeMap::new(), Vec::new(), store.deltas());
    let mut visit = |delta: &proxy_stats::Delta<'_>| {
        marks.push(delta.mark());
        assert_eq!(found.insert(delta.name.to_owned(), delta.amount), None);
    };
    while deltas.advance(&mut visit) {}
    if sent {
        store.mark_flushed(marks);
    }
    found
}

#[test]
fn every_count_is_flushed_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(at(&dir.path().join("segment"), 2)).unwrap();
    assert!(store.bind_thread(ThreadIndex(0)));
    let scope = store.root().scope("a");
    let (counter, other) = (scope.counter("x"), scope.counter("y"));
    scope.gauge("g", ImportMode::Accumulate).inc();
    counter.add(5);
    assert_eq!(flush(&store, false), [("a.x".into(), 5)].into());
    counter.add(2);
    other.inc();
    assert_eq!(flush(&store, true), [("a.x".into(), 7), ("a.y".into(), 1)].into());
    assert_eq!(flush(&store, true), [].into());
    // What a reset takes away was still counted.
    counter.add(3);
    store.reset_counters();
    counter.add(4);
    assert_eq!(counter.value(), 4);
    assert_eq!(flush(&store, true), [("a.x".into(), 7)].into());
    assert_eq!(flush(&store, true), [].into());
}

#[test]
fn a_mark_of_a_scope_that_is_gone_does_not_reach_its_successor() {
    let store = Store::create(StoreOptions::private(1)).unwrap();
    let gone = store.root().scope("gone");
    gone.counter("x").add(5);
    let (mut marks, mut deltas) = (Vec::new(), store.deltas());
    while deltas.advance(|delta| marks.push(delta.mark())) {}
    drop(gone);
    let _ = store.reclaim(store.retire());
    let new = store.root().scope("new");
    new.counter("x").add(9);
    store.mark_flushed(marks);
    assert_eq!(flush(&store, true), [("new.x".into(), 9)].into());
}

#[test]
fn text_readouts_reach_readers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let store = Store::create(at(&path, 1)).unwrap();
    let text = store.root().text_readout("control_plane.identifier");
    assert_eq!(text.value(), "");
    for value in ["first", "a longer second one", ""] {
        text.set(value);
        assert_eq!(text.value(), value);
        let mut seen = None;
        Reader::open(&path).unwrap().for_each(|metric| seen = Some(metric.value.to_string())).unwrap();
        assert_eq!(seen.as_deref(), Some(value));
    }
}

#[test]
fn a_generation_is_never_reused_and_a_missing_folder_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let store = Store::create(at(&path, 1)).unwrap();
    assert_eq!(store.backing(), Backing::File);
    assert!(matches!(Store::create(at(&path, 1)), Err(StatsError::CreateFile { .. })));
    assert!(matches!(
        Store::create(at(&dir.path().join("no/segment"), 1)),
        Err(StatsError::CreateFile { .. })
    ));
    assert!(matches!(Store::create(StoreOptions::private(0)), Err(StatsError::Threads { .. })));
}

#[test]
fn readers_keep_up_with_scopes_that_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let store = Store::create(at(&path, 1)).unwrap();
    let kept = store.root().scope("kept");
    let counter = kept.counter("x");
    counter.add(1);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for round in 0..2000 {
                let scope = store.root().scope(&format!("cluster.{round}"));
                scope.counter(&format!("own_{round}")).inc();
                drop(scope);
                store.reclaim(store.retire());
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let reader = Reader::open(&path).unwrap();
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let mut value = None;
            let result = reader.for_each(|metric| {
                assert!(metric.name == "kept.x" || metric.name.starts_with("cluster."), "{}", metric.name);
                if metric.name == "kept.x" {
                    value = metric.value.number();
                }
            });
            match result {
                Ok(()) => assert_eq!(value, Some(1)),
                Err(error) => assert!(matches!(error, proxy_stats::ReadError::Busy), "{error}"),
            }
        }
    });
}

/// Not a test of its own: the process that `a_killed_writer_leaves_every_increment` kills.
#[test]
fn writer_to_be_killed() {
    let Some(path) = std::env::var_os("STATS_TEST_SEGMENT") else { return };
    let store = Store::create(at(Path::new(&path), 2)).unwrap();
    assert!(store.bind_thread(ThreadIndex(0)));
    let scope = store.root().scope("cluster.b");
    let counter = scope.counter("upstream_rq_total");
    (0..123_456).for_each(|_| counter.inc());
    println!("\ncounted");
    std::io::stdin().lines().for_each(drop);
}

#[test]
fn a_killed_writer_leaves_every_increment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer_to_be_killed", "--nocapture"])
        .env("STATS_TEST_SEGMENT", &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "counted"));
    let reader = Reader::open(&path).unwrap();
    assert_eq!((reader.generation(), reader.base_id()), (42, 5));
    assert!(reader.writer_lives().unwrap());
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert!(!reader.writer_lives().unwrap());
    assert_eq!(read(&path)["cluster.b.upstream_rq_total"], 123_456);
}
