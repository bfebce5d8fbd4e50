//! Lineages whose processes die at chosen moments.

mod events;
mod living;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{ImportMode, Metric, Scope, ThreadIndex, Value};

fn place(directory: &TempDir) -> LineagePath {
    LineagePath { directory: directory.path().to_owned(), prefix: "proxyd_7_".into() }
}

fn options(path: &LineagePath, generation: u64) -> LineageOptions {
    LineageOptions { path: path.clone(), base_id: 7, generation, threads: 2 }
}

/// A process. When dropped, it is as good as killed: its segment stays as it is, without the lock.
struct Process {
    lineage: Lineage,
    scopes: RefCell<Vec<Scope>>,
}

impl Process {
    fn new(lineage: Lineage) -> Process {
        assert!(lineage.store().bind_thread(ThreadIndex(0)));
        Process { lineage, scopes: RefCell::default() }
    }

    /// A scope that lives as long as the process.
    fn scope(&self, name: &str) -> Scope {
        let scope = self.store().root().scope(name);
        self.scopes.borrow_mut().push(scope.clone());
        scope
    }
}

impl Deref for Process {
    type Target = Lineage;

    fn deref(&self) -> &Lineage {
        &self.lineage
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.store().end();
    }
}

fn join(path: &LineagePath, generation: u64) -> Process {
    let (process, warnings) = join_anyhow(path, generation);
    assert!(warnings.is_empty(), "{warnings:?}");
    process
}

fn join_anyhow(path: &LineagePath, generation: u64) -> (Process, Vec<LineageWarning>) {
    let (lineage, warnings) = Lineage::join(options(path, generation)).unwrap();
    (Process::new(lineage), warnings)
}

/// A process that counts `by` in `cluster.a.x`, records as many values, and dies.
fn live_and_die(path: &LineagePath, generation: u64, by: u64) {
    count(&join(path, generation), by);
}

fn count(process: &Process, by: u64) {
    let scope = process.scope("cluster.a");
    process.settle();
    scope.counter("x").add(by);
    scope.gauge("g", ImportMode::Accumulate).add(by as i64);
    (0..by).for_each(|value| scope.histogram("h").record(value));
    process.store().hand_over();
    let mut merge = process.store().merge_histograms();
    while merge.advance() {}
}

fn note(found: &mut BTreeMap<String, u64>, metric: &Metric<'_>) {
    let value = match metric.value {
        Value::Histogram(histogram) => histogram.cumulative.count(),
        other => other.number().unwrap_or(0),
    };
    assert_eq!(found.insert(metric.name.to_owned(), value), None, "{}", metric.name);
}

/// What a reader sees.
fn read(path: &LineagePath) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    LineageReader::open(path).unwrap().for_each(|metric| note(&mut found, metric)).unwrap();
    found
}

/// What the process itself shows.
fn shown(lineage: &Lineage) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    lineage.store().for_each(|metric| note(&mut found, metric));
    found
}

fn unsent(lineage: &Lineage) -> BTreeMap<String, u64> {
    let (mut found, mut deltas) = (BTreeMap::new(), lineage.store().deltas());
    while deltas.advance(|delta| assert_eq!(found.insert(delta.name.to_owned(), delta.amount), None)) {}
    found
}

fn send(lineage: &Lineage) {
    let (mut marks, mut deltas) = (Vec::new(), lineage.store().deltas());
    while deltas.advance(|delta| marks.push(delta.mark())) {}
    lineage.store().mark_flushed(marks);
}

fn of<const N: usize>(expected: [(&str, u64); N]) -> BTreeMap<String, u64> {
    expected.map(|(name, value)| (name.to_owned(), value)).into()
}

fn files(path: &LineagePath) -> Vec<String> {
    let entries = fs::read_dir(&path.directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_fold_that_is_cut_short_anywhere_counts_nothing_twice_and_loses_nothing() {
    for steps in 0..=4 {
        let directory = TempDir::new().unwrap();
        let path = place(&directory);
        live_and_die(&path, 1, 5);
        live_and_die(&path, 2, 7);
        {
            let control = Control::open(&path, 7, &mut Vec::new()).unwrap();
            let changing = control.change().unwrap();
            let mut fold = Fold::begin(&path, &changing, &mut Vec::new()).unwrap().unwrap();
            if steps > 0 {
                fold.write().unwrap();
            }
            if steps > 1 {
                fold.publish();
            }
            if steps > 2 {
                fold.clear();
            }
            if steps > 3 {
                fold.clean_up().unwrap();
            }
        }
        let sums = [("cluster.a.x", 12), ("cluster.a.h", 12)];
        let seen = read(&path);
        sums.iter().for_each(|(name, sum)| assert_eq!(seen.get(*name), Some(sum), "after {steps} steps"));
        let next = join(&path, 3);
        count(&next, 1);
        for seen in [read(&path), shown(&next)] {
            assert_eq!(seen, of([("cluster.a.x", 13), ("cluster.a.g", 1), ("cluster.a.h", 13)]), "{steps}");
        }
        assert_eq!(unsent(&next), of([("cluster.a.x", 13)]), "{steps}");
        let left = files(&path);
        assert_eq!(left.len(), 3, "{left:?} after {steps} steps");
    }
}

#[test]
fn what_was_inherited_shows_with_its_scope_and_ends_with_it() {
    let directory = TempDir::new().unwrap();
    let path = place(&directory);
    {
        let first = join(&path, 1);
        let scopes = ["cluster.a", "cluster.b", "http.in"].map(|name| first.scope(name));
        first.settle();
        scopes.iter().for_each(|scope| scope.counter("upstream_rq_503").add(3));
        scopes[0].counter("external.rq").add(4);
        first.store().root().counter("plain").inc();
    }
    let second = join(&path, 2);
    let root = second.store().root();
    second.scope("cluster.a");
    second.scope("http.in");
    assert!(shown(&second).is_empty());
    second.settle();
    assert!(second.tend().is_empty());
    let expected =
        [("cluster.a.upstream_rq_503", 3), ("cluster.a.external.rq", 4), ("http.in.upstream_rq_503", 3)];
    assert_eq!(shown(&second), of(expected));
    assert_eq!(read(&path), of(expected));
    // Another split of the name is the same stat.
    second.scope("cluster.a.external").counter("rq").inc();
    assert_eq!(second.store().value("cluster.a.external.rq"), Some(5));
    // What comes later gets its own too.
    let b = root.scope("cluster.b");
    assert!(second.tend().is_empty());
    assert_eq!(second.store().value("cluster.b.upstream_rq_503"), Some(3));
    assert_eq!(root.counter("plain").value(), 0);
    assert_eq!(second.store().value("plain"), Some(1));
    // A cluster that is removed and added again begins at zero, for everybody and for good.
    drop(b);
    second.scope("cluster.b").counter("upstream_rq_503").inc();
    assert_eq!(shown(&second)["cluster.b.upstream_rq_503"], 1);
    assert_eq!(read(&path)["cluster.b.upstream_rq_503"], 1);
    drop(second);
    let third = join(&path, 3);
    third.scope("cluster.b");
    third.settle();
    assert!(third.tend().is_empty());
    assert_eq!(shown(&third), of([("cluster.b.upstream_rq_503", 1)]));
    drop(third);
    // Now the others have been without a scope in a whole life.
    let fourth = join(&path, 4);
    fourth.scope("cluster.a");
    fourth.scope("cluster.b");
    fourth.settle();
    assert!(fourth.look().is_empty());
    assert_eq!(shown(&fourth), of([("cluster.b.upstream_rq_503", 1)]));
}

#[test]
fn a_start_that_dies_before_its_scopes_are_there_loses_nothing() {
    let directory = TempDir::new().unwrap();
    let path = place(&directory);
    live_and_die(&path, 1, 5);
    for generation in 2..5 {
        drop(join(&path, generation));
        assert_eq!(read(&path)["cluster.a.x"], 5);
    }
    // And one that fails in good order.
    join(&path, 5).leave().unwrap();
    assert_eq!(read(&path)["cluster.a.x"], 5);
    let last = join(&path, 6);
    count(&last, 1);
    assert_eq!(shown(&last)["cluster.a.x"], 6);
}

#[test]
fn what_the_dead_had_not_sent_is_sent_by_the_living() {
    let directory = TempDir::new().unwrap();
    let path = place(&directory);
    {
        let first = join(&path, 1);
        count(&first, 5);
        send(&first);
        count(&first, 2);
    }
    let second = join(&path, 2);
    count(&second, 1);
    assert_eq!(unsent(&second), of([("cluster.a.x", 3)]));
    send(&second);
    assert_eq!(unsent(&second), of([]));
    count(&second, 4);
    drop(second);
    let third = join(&path, 3);
    count(&third, 0);
    assert_eq!(shown(&third)["cluster.a.x"], 12);
    assert_eq!(unsent(&third), of([("cluster.a.x", 4)]));
}

#[test]
fn a_reset_holds_for_those_who_come_later() {
    let directory = TempDir::new().unwrap();
    let path = place(&directory);
    live_and_die(&path, 1, 5);
    let second = join(&path, 2);
    count(&second, 1);
    second.store().reset_counters();
    for seen in [shown(&second), read(&path)] {
        assert_eq!((seen["cluster.a.x"], seen["cluster.a.h"]), (0, 6));
    }
    count(&second, 2);
    assert_eq!(unsent(&second), of([("cluster.a.x", 8)]));
    drop(second);
    let third = join(&path, 3);
    count(&third, 1);
    assert_eq!(shown(&third)["cluster.a.x"], 3);
    assert_eq!(unsent(&third), of([("cluster.a.x", 9)]));
}

#[test]
fn what_others_count_shows_at_a_look() {
    let directory = TempDir::new().unwrap();
    let path = place(&directory);
    let parent = join(&path, 1);
    count(&parent, 5);
    send(&parent);
    let child = join(&path, 2);
    for (of_parent, of_child) in [(1, 7), (2, 0), (0, 3)] {
        count(&parent, of_parent);
        count(&child, of_child);
        for one in [&parent, &child] {
            assert!(one.look().is_empty());
            let (mut shown, mut read) = (shown(one), read(&path));
            // A gauge shows what this process holds.
            assert!(shown.remove("cluster.a.g") <= read.remove("cluster.a.g"));
            assert_eq!(shown, read);
        }
    }
    assert_eq!(unsent(&parent)["cluster.a.x"], 3, "what it only looks at is not its to send");
    assert_eq!(unsent(&child)["cluster.a.x"], 10);
    assert!(child.take_over(1, parent.turn()));
    count(&parent, 4);
    parent.leave().unwrap();
    drop(parent);
    for _ in 0..2 {
        assert!(child.look().is_empty());
        assert_eq!(shown(&child)["cluster.a.x"], 22);
        assert_eq!(unsent(&child)["cluster.a.x"], 17, "what the parent has left to send is");
    }
    child.leave().unwrap();
    assert_eq!(files(&path), [""; 0]);
}

#[test]
fn three_generations_and_their_hand_overs() {
    let directory = TempDir::new().unwrap();
    let path = place(&directory);
    let parent = join(&path, 1);
    count(&parent, 5);
    let child = join(&path, 2);
    count(&child, 7);
    assert!(parent.leads() && !child.leads());
    assert_eq!(read(&path)["cluster.a.x"], 12);
    assert_eq!(read(&path)["cluster.a.g"], 12);
    assert_eq!(shown(&child)["cluster.a.x"], 12, "the child shows what its parent had counted");
    assert_eq!(unsent(&child)["cluster.a.x"], 7, "and leaves it to the parent to send that");
    // The child dies before it leads: its counts stay, through the parent.
    drop(child);
    assert_eq!(read(&path)["cluster.a.x"], 12);
    assert_eq!(read(&path)["cluster.a.g"], 5);
    assert!(parent.tend().is_empty());
    assert_eq!(shown(&parent)["cluster.a.x"], 12);
    assert_eq!(unsent(&parent)["cluster.a.x"], 12);
    send(&parent);
    // Another child takes over, and the parent ends while a third is there.
    let second = join(&path, 3);
    count(&second, 1);
    let turn = parent.turn();
    assert!(!second.take_over(7, turn));
    assert!(parent.go_on() && !second.go_on());
    assert!(!second.take_over(1, turn), "it was told of that turn before the parent went on");
    assert!(second.take_over(1, parent.turn()));
    assert!(!second.take_over(1, second.turn()) && !parent.go_on());
    assert!(second.leads() && !parent.leads());
    count(&parent, 2);
    let third = join(&path, 4);
    count(&third, 4);
    assert_eq!(read(&path)["cluster.a.x"], 19);
    assert_eq!(LineageReader::open(&path).unwrap().living().collect::<Vec<_>>(), [1, 3, 4]);
    parent.leave().unwrap();
    drop(parent);
    assert!(third.tend().is_empty());
    assert_eq!(read(&path)["cluster.a.x"], 19);
    assert!(second.tend().is_empty());
    for seen in [read(&path), shown(&second)] {
        assert_eq!(seen["cluster.a.x"], 19);
    }
    assert_eq!(unsent(&second)["cluster.a.x"], 3, "two of the parent's, and its own");
    // Whoever is last takes all with it, if the leader ended in good order.
    second.leave().unwrap();
    drop(second);
    assert_eq!(read(&path)["cluster.a.x"], 19);
    third.leave().unwrap();
    assert_eq!(files(&path), [""; 0]);
}

#[test]
fn the_last_one_leaves_everything_if_its_leader_was_killed() {
    let directory = TempDir::new().unwrap();
    let path = place(&directory);
    let parent = join(&path, 1);
    count(&parent, 5);
    let child = join(&path, 2);
    count(&child, 7);
    assert!(child.take_over(1, parent.turn()));
    drop(child);
    parent.leave().unwrap();
    drop(parent);
    let next = join(&path, 3);
    count(&next, 1);
    assert_eq!(shown(&next)["cluster.a.x"], 13);
}

#[test]
fn a_damaged_control_file_is_replaced_by_what_lies_around_it() {
    let directory = TempDir::new().unwrap();
    let path = place(&directory);
    for damage in [&b"not it"[..], &[0xff; 4096], b""] {
        live_and_die(&path, 1, 5);
        live_and_die(&path, 2, 7);
        fs::write(path.control(), damage).unwrap();
        let (next, warnings) = join_anyhow(&path, 3);
        assert_eq!(warnings.len(), usize::from(!damage.is_empty()), "{warnings:?}");
        count(&next, 0);
        assert_eq!(shown(&next)["cluster.a.x"], 12);
        assert_eq!(read(&path)["cluster.a.x"], 12);
        next.leave().unwrap();
        assert_eq!(files(&path), [""; 0]);
    }
}

#[test]
fn who_dies_while_replacing_a_control_file_loses_nothing() {
    let directory = TempDir::new().unwrap();
    let path = place(&directory);
    live_and_die(&path, 1, 5);
    live_and_die(&path, 2, 7);
    fs::remove_file(path.control()).unwrap();
    drop(Control::open(&path, 7, &mut Vec::new()).unwrap());
    let next = join(&path, 3);
    count(&next, 1);
    assert_eq!(shown(&next)["cluster.a.x"], 13);
    assert_eq!(read(&path)["cluster.a.x"], 13);
}

#[test]
fn damaged_bases_and_segments_cost_what_they_held_and_no_more() {
    let directory = TempDir::new().unwrap();
    let path = place(&directory);
    live_and_die(&path, 1, 5);
    live_and_die(&path, 2, 7);
    let base = path.base(path.bases().unwrap()[0]);
    let whole = fs::metadata(&base).unwrap().len();
    fs::File::options().write(true).open(&base).unwrap().set_len(whole - 1).unwrap();
    assert!(matches!(LineageReader::open(&path), Err(crate::ReadError::Corrupt(_))));
    let (third, warnings) = join_anyhow(&path, 3);
    assert!(matches!(warnings[..], [LineageWarning::BaseLost(_)]), "{warnings:?}");
    count(&third, 1);
    assert_eq!(shown(&third)["cluster.a.x"], 8);
    drop(third);
    fs::File::options().write(true).open(path.segment(3)).unwrap().write_all_at(&[0xff; 512], 256).unwrap();
    let (fourth, warnings) = join_anyhow(&path, 4);
    assert!(matches!(warnings[..], [LineageWarning::SegmentLost { generation: 3, .. }]), "{warnings:?}");
    count(&fourth, 1);
    assert_eq!(shown(&fourth)["cluster.a.x"], 8);
    fs::remove_file(path.base(path.bases().unwrap()[0])).unwrap();
    assert!(read_result(&path).is_err());
    drop(fourth);
    let (fifth, warnings) = join_anyhow(&path, 5);
    assert!(matches!(warnings[..], [LineageWarning::BaseLost(_)]), "{warnings:?}");
    count(&fifth, 0);
    assert_eq!(shown(&fifth)["cluster.a.x"], 1);
}

fn read_result(path: &LineagePath) -> Result<u64, crate::ReadError> {
    let mut sum = 0;
    LineageReader::open(path)?.for_each(|metric| sum += metric.value.number().unwrap_or(0))?;
    Ok(sum)
}

#[test]
fn numbers_that_are_left_over_are_not_used_again() {
    let directory = TempDir::new().unwrap();
    let path = place(&directory);
    let first = join(&path, 9);
    count(&first, 5);
    // The run directory was wiped, so counting began anew.
    let second = join(&path, 1);
    assert_eq!(second.generation(), 10);
    count(&second, 1);
    assert_eq!(read(&path)["cluster.a.x"], 6);
}

#[test]
fn a_full_list_or_a_missing_directory() {
    let directory = TempDir::new().unwrap();
    let path = place(&directory);
    let crowd: Vec<_> = (1..=64).map(|generation| join(&path, generation)).collect();
    let alone = join(&path, 65);
    count(&alone, 1);
    assert_eq!(shown(&alone)["cluster.a.x"], 1);
    assert!(!read(&path).contains_key("cluster.a.x"));
    assert_eq!(LineageReader::open(&path).unwrap().living().count(), 64);
    drop(crowd);
    let nowhere = LineagePath { directory: directory.path().join("none"), prefix: String::new() };
    assert!(matches!(Lineage::join(options(&nowhere, 1)), Err(StatsError::CreateFile { .. })));
}

#[test]
fn files_of_others_are_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let directory = TempDir::new().unwrap();
    let path = place(&directory);
    fs::write(path.control(), b"").unwrap();
    fs::set_permissions(path.control(), fs::Permissions::from_mode(0o666)).unwrap();
    let (alone, warnings) = join_anyhow(&path, 1);
    assert!(matches!(warnings[..], [LineageWarning::Alone(_)]), "{warnings:?}");
    count(&alone, 1);
    assert_eq!(shown(&alone)["cluster.a.x"], 1);
    assert_eq!(files(&path), ["proxyd_7_control"]);
}

#[derive(Clone, Debug)]
enum Act {
    /// The next generation joins and counts.
    Join(u64),
    /// Of those that live, one counts, sends, tends, is killed or leaves.
    Count(usize, u64),
    Send(usize),
    Tend(usize),
    Kill(usize),
    Leave(usize),
    /// One takes over from whoever leads.
    TakeOver(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let who = 0..3_usize;
    prop_oneof![
        3 => (0..100_u64).prop_map(Act::Join),
        4 => (who.clone(), 1..100_u64).prop_map(|(who, by)| Act::Count(who, by)),
        2 => who.clone().prop_map(Act::Send),
        3 => who.clone().prop_map(Act::Tend),
        2 => who.clone().prop_map(Act::Kill),
        1 => who.clone().prop_map(Act::Leave),
        2 => who.prop_map(Act::TakeOver),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_sum_is_what_was_counted(acts in prop::collection::vec(act(), 1..24)) {
        let directory = TempDir::new().unwrap();
        let path = place(&directory);
        let (mut living, mut counted, mut generation) = (Vec::new(), 0, 0);
        for act in acts {
            match act {
                Act::Join(by) if living.len() < 3 => {
                    generation += 1;
                    let one = join(&path, generation);
                    count(&one, by);
                    counted += by;
                    living.push(one);
                }
                Act::Count(who, by) if who < living.len() => {
                    count(&living[who], by);
                    counted += by;
                }
                Act::Send(who) if who < living.len() => send(&living[who]),
                Act::Tend(who) if who < living.len() => prop_assert!(living[who].tend().is_empty()),
                Act::Kill(who) if who < living.len() => drop(living.remove(who)),
                Act::Leave(who) if who < living.len() => living.remove(who).leave().unwrap(),
                Act::TakeOver(who) if who < living.len() => {
                    let lead = Control::open(&path, 7, &mut Vec::new()).unwrap().lead();
                    prop_assert!(living[who].take_over(lead.leader, lead.turn));
                }
                _ => {}
            }
            if !path.control().exists() {
                // The last one left in good order.
                prop_assert!(living.is_empty());
                counted = 0;
                continue;
            }
            let seen = read(&path);
            prop_assert_eq!(seen.get("cluster.a.x").copied().unwrap_or(0), counted);
            prop_assert_eq!(seen.get("cluster.a.h").copied().unwrap_or(0), counted);
        }
    }
}
