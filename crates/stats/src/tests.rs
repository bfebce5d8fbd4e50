//! Tests that need a small segment, a full file system or a damaged file.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use proptest::prelude::*;

use crate::layout::Geometry;
use crate::{Backing, ImportMode, ReadError, Reader, Scope, Store, StoreOptions, ThreadIndex, Value};

const SMALL: Geometry = Geometry { threads: 2, slots: 1 << 16, scopes: 64, suffixes: 256, arena: 1 << 16 };

fn at(path: &Path) -> StoreOptions {
    StoreOptions { path: Some(path.to_owned()), threads: 2, generation: 7, base_id: 3 }
}

fn small(path: &Path) -> Store {
    Store::with_geometry(at(path), SMALL).unwrap()
}

fn read(path: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let reader = Reader::open(path).unwrap();
    reader.for_each(|metric| drop(found.insert(metric.name.to_owned(), metric.value.to_string()))).unwrap();
    found
}

fn own(store: &Store) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    store.for_each(|metric| {
        let twice = found.insert(metric.name.to_owned(), metric.value.to_string());
        assert_eq!(twice, None);
    });
    found
}

#[test]
fn stats_made_after_the_file_is_full_count_in_private_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let store = small(&path);
    assert!(store.bind_thread(ThreadIndex(0)));
    let scope = store.root().scope("cluster.a");
    let early = scope.counter("early");
    store.shared_segment().fill_up();
    let made: Vec<_> = (0..6000).map(|index| scope.counter(&format!("late_{index}"))).collect();
    early.inc();
    made.iter().for_each(|counter| counter.inc());
    assert_eq!(store.backing(), Backing::FileFull(Errno::ENOSPC));
    assert_eq!(own(&store).len(), 6001);
    assert!(made.iter().all(|counter| counter.value() == 1));
    let seen = read(&path);
    assert_eq!(seen["cluster.a.early"], "1");
    assert!(seen.len() < 6001);
    assert_eq!(store.refused(), 0);
}

#[test]
fn when_all_slots_are_taken_increments_go_nowhere() {
    let store = Store::with_geometry(StoreOptions::private(2), SMALL).unwrap();
    let scope = store.root().scope("a");
    let counters: Vec<_> = (0..140_000).map(|index| scope.counter(&index.to_string())).collect();
    assert!(store.refused() > 0);
    counters.iter().for_each(|counter| counter.inc());
    assert_eq!(store.value("a.0"), Some(1));
    assert_eq!(store.value("a.139999"), None);
}

#[test]
fn slots_come_back_only_after_reclaim_and_zeroed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let store = small(&path);
    assert!(store.bind_thread(ThreadIndex(1)));
    for round in 0..20_000_u32 {
        let scope = store.root().scope(&format!("cluster.c{round}"));
        let counters: Vec<_> = ["a", "b", "c", "d", "e"].iter().map(|name| scope.counter(name)).collect();
        assert!(counters.iter().all(|counter| counter.value() == 0));
        counters.iter().for_each(|counter| counter.add(9));
        scope.text_readout("version").set(&format!("v{round}"));
        drop(scope);
        assert!(own(&store).is_empty());
        let epoch = store.retire();
        assert_eq!(store.reclaim(epoch), 8);
    }
    assert_eq!(store.refused(), 0);
    assert_eq!(store.backing(), Backing::File);
    assert!(read(&path).is_empty());
}

#[test]
fn what_is_released_after_retire_waits_for_the_next() {
    let store = Store::with_geometry(StoreOptions::private(1), SMALL).unwrap();
    let (first, second) = (store.root().scope("a"), store.root().scope("b"));
    for scope in [&first, &second] {
        scope.counter("x");
    }
    drop(first);
    let epoch = store.retire();
    drop(second);
    assert_eq!(store.reclaim(epoch), 4);
    assert_eq!(store.reclaim(store.retire()), 4);
}

#[test]
fn a_writer_killed_within_a_change_leaves_a_readable_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("segment");
    let store = small(&path);
    // As a writer killed within a change leaves it.
    store.shared_segment().header()[crate::layout::word::SEQUENCE]
        .store(5, std::sync::atomic::Ordering::Relaxed);
    let scope = store.root().scope("b");
    scope.counter("x").add(3);
    assert_eq!(read(&path)["b.x"], "3");
}

/// A segment with all kinds of stats, as bytes at their offsets (the file is mostly holes).
fn sample(path: &Path) -> (Store, Vec<Scope>) {
    let store = small(path);
    let mut kept = Vec::new();
    for scope in 0..40 {
        let scope = store.root().scope(&format!("cluster.c{scope}"));
        for name in 0..30 {
            scope.counter(&format!("counter_{name}")).add(name);
        }
        scope.gauge("gauge", ImportMode::Accumulate).set(5);
        scope.text_readout("text").set("some text");
        (0..200).for_each(|value| scope.histogram("time").record(value));
        kept.push(scope);
    }
    let mut merge = store.merge_histograms();
    while merge.advance() {}
    (store, kept)
}

#[derive(Clone, Debug)]
enum Damage {
    Byte(u64, u8),
    Word(u64, u64),
    Cut(u64),
}

fn damage() -> impl Strategy<Value = Damage> {
    let columns = SMALL.offset(crate::layout::Area::Columns);
    let areas: Vec<u64> = crate::layout::Area::ALL.iter().map(|area| SMALL.offset(*area)).collect();
    let place = prop_oneof![
        0..512_u64,
        (prop::sample::select(areas), 0..4096_u64).prop_map(|(at, by)| at + by),
        0..columns
    ];
    prop_oneof![
        4 => (place.clone(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        4 => (place, prop_oneof![any::<u64>(), 0..100_000_u64, Just(u64::MAX)]).prop_map(|(at, word)| Damage::Word(at & !7, word)),
        1 => (0..SMALL.file_bytes()).prop_map(Damage::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_is_an_error_or_wrong_numbers_but_no_panic(damages in prop::collection::vec(damage(), 1..6)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("segment");
        // Of a living store, so that nothing has been released; a copy, so that it is not pulled from under it.
        let _alive = sample(&dir.path().join("whole"));
        std::fs::copy(dir.path().join("whole"), &path).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let mut cut = false;
        for damage in damages {
            match damage {
                Damage::Byte(at, byte) if !cut => file.write_all_at(&[byte], at).unwrap(),
                Damage::Word(at, word) if !cut => file.write_all_at(&word.to_ne_bytes(), at).unwrap(),
                Damage::Cut(length) => { cut = true; file.set_len(length).unwrap(); }
                _ => {}
            }
        }
        let mut seen = 0_u32;
        let result = Reader::open(&path).and_then(|reader| reader.for_each(|_| seen += 1));
        prop_assert!(seen <= SMALL.slots);
        if cut {
            prop_assert!(result.is_err());
        }
    }
}

#[test]
fn other_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other");
    std::fs::write(&path, b"PRXSTATS").unwrap();
    assert!(matches!(Reader::open(&path), Err(ReadError::NotASegment)));
    std::fs::write(&path, [0; 4096]).unwrap();
    assert!(matches!(Reader::open(&path), Err(ReadError::NotASegment)));
    assert!(matches!(Reader::open(dir.path()), Err(ReadError::NotASegment)));
    assert!(matches!(Reader::open(&dir.path().join("none")), Err(ReadError::Io(_))));
}

#[test]
fn what_the_matcher_rejects_counts_nowhere_and_takes_no_slot() {
    let store = Store::create(StoreOptions::private(1)).unwrap();
    store.restrict(|name| !name.starts_with("cluster."));
    assert!(store.bind_thread(ThreadIndex(0)));
    let cluster = store.root().scope("cluster.a");
    let server = store.root().scope("server");
    cluster.counter("rq_total").add(5);
    cluster.gauge("active", ImportMode::Accumulate).set(7);
    cluster.histogram("rq_time").record(3);
    cluster.text_readout("version").set("1");
    server.counter("cluster.rq_total").inc();
    let mut merge = store.merge_histograms();
    while merge.advance() {}
    let mut found = Vec::new();
    store.for_each(|metric| found.push((metric.name.to_owned(), metric.value.number())));
    assert_eq!(found, [("server.cluster.rq_total".to_owned(), Some(1))]);
    assert_eq!((store.value("cluster.a.rq_total"), store.refused()), (None, 0));
}

#[test]
fn a_walk_may_skip_what_is_unused_and_keep_to_an_interval() {
    let store = Store::create(StoreOptions::private(1)).unwrap();
    assert!(store.bind_thread(ThreadIndex(0)));
    let scope = store.root().scope("s");
    let (counter, histogram) = (scope.counter("used"), scope.histogram("time"));
    let _unused = (scope.counter("unused"), scope.histogram("idle"), scope.text_readout("version"));
    counter.add(3);
    let flush = |values: &[u64]| {
        values.iter().for_each(|value| histogram.record(*value));
        store.hand_over();
        let mut merge = store.merge_histograms();
        while merge.advance() {}
        merge.interval()
    };
    let first = flush(&[1, 1]);
    let counts = |interval| {
        let mut found = BTreeMap::new();
        let mut walk = store.walk().of_interval(interval);
        while walk.advance_where(
            |_, _, number| number != 0,
            |_, metric| {
                let count = match metric.value {
                    Value::Histogram(histogram) => histogram.interval.count(),
                    other => other.number().unwrap(),
                };
                found.insert(metric.name.to_owned(), count);
            },
        ) {}
        found
    };
    let expected = |time| BTreeMap::from([("s.used".to_owned(), 3), ("s.time".to_owned(), time)]);
    assert_eq!(counts(first), expected(2));
    let second = flush(&[]);
    assert_eq!((counts(first), counts(second)), (expected(2), expected(0)));
    let third = flush(&[7]);
    assert_eq!((counts(first), counts(third)), (expected(0), expected(1)));
}

#[test]
fn a_scope_may_have_a_matcher_of_its_own() {
    let store = Store::create(StoreOptions::private(1)).unwrap();
    store.restrict(|name| !name.ends_with("_total"));
    let root = store.root().restricted(|name| name.ends_with("_total") || name.starts_with("b."));
    let (own, others) = (root.scope("a"), store.root().scope("a"));
    own.counter("rq_total").inc();
    own.counter("rq_active").inc();
    let (deeper, b) = (own.scope("deeper"), root.scope("b"));
    deeper.counter("cx_total").inc();
    b.counter("c").inc();
    others.counter("cx_total").inc();
    others.counter("other").inc();
    let mut names = Vec::new();
    store.for_each(|metric| names.push(metric.name.to_owned()));
    names.sort();
    assert_eq!(names, ["a.deeper.cx_total", "a.other", "a.rq_total", "b.c"]);
}
