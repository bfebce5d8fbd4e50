//! A watch says what a reader says that begins anew, whatever has happened in between.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{Lineage, LineageOptions, LineageReader, Scope, ThreadIndex, Value};

fn place(directory: &TempDir) -> LineagePath {
    LineagePath { directory: directory.path().to_owned(), prefix: "proxyd_7_".into() }
}

/// A process; as good as killed when dropped.
struct Process {
    lineage: Lineage,
    scopes: Vec<Scope>,
}

impl Process {
    fn join(path: &LineagePath, generation: u64) -> Process {
        let options = LineageOptions { path: path.clone(), base_id: 7, generation, threads: 2 };
        let (lineage, warnings) = Lineage::join(options).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert!(lineage.store().bind_thread(ThreadIndex(0)));
        Process { lineage, scopes: Vec::new() }
    }

    fn count(&mut self, scope: u8, by: u64) {
        let name = format!("cluster.{scope}");
        let scope = self.lineage.store().root().scope(&name);
        scope.counter("total").add(by);
        scope.gauge("active", ImportMode::Accumulate).add(by as i64 - 5);
        scope.gauge("state", ImportMode::NeverImport).set(by);
        scope.histogram("time").record(by);
        scope.text_readout("version").set(&"v".repeat(by as usize));
        self.scopes.push(scope);
    }

    fn flush(&self) {
        self.lineage.settle();
        self.lineage.store().hand_over();
        let mut merge = self.lineage.store().merge_histograms();
        while merge.advance() {}
        self.lineage.tend();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.lineage.store().end();
    }
}

fn of_reader(path: &LineagePath) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let note = |metric: &crate::Metric<'_>| {
        let value = match metric.value {
            Value::Number(number) => number,
            Value::Histogram(histogram) => histogram.cumulative.count(),
            Value::Text(_) => return,
        };
        assert_eq!(found.insert(metric.name.to_owned(), value), None);
    };
    LineageReader::open(path).unwrap().for_each(note).unwrap();
    found
}

fn of_watch(watch: &Watch) -> BTreeMap<String, u64> {
    let present = watch.catalog().ids().zip(watch.values()).filter(|(_, value)| **value != Watch::ABSENT);
    present.map(|(id, value)| (watch.catalog().name(id).to_owned(), *value)).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Join,
    Die(usize),
    Count(usize, u8, u64),
    DropScopes(usize),
    Flush(usize),
    Reset(usize),
    Look,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = 0..3_usize;
    let step = prop_oneof![
        1 => Just(Step::Join),
        1 => who.clone().prop_map(Step::Die),
        8 => (who.clone(), 0..6_u8, 0..20_u64).prop_map(|(who, scope, by)| Step::Count(who, scope, by)),
        2 => who.clone().prop_map(Step::DropScopes),
        3 => who.clone().prop_map(Step::Flush),
        1 => who.prop_map(Step::Reset),
        4 => Just(Step::Look),
    ];
    prop::collection::vec(step, 1..60)
}

fn run(steps: Vec<Step>) {
    let directory = TempDir::new().unwrap();
    let path = place(&directory);
    let mut processes = vec![Process::join(&path, 1)];
    let (mut generation, mut watch) = (1, Watch::new(path.clone()));
    for step in steps.into_iter().chain([Step::Look]) {
        let process = |processes: &mut Vec<Process>, who: usize| who % processes.len().max(1);
        match step {
            Step::Join if processes.len() < 3 => {
                // The store is bound to this thread, one at a time.
                generation += 1;
                processes.push(Process::join(&path, generation));
            }
            Step::Join => {}
            Step::Die(who) if processes.len() > 1 => drop(processes.remove(who % processes.len())),
            Step::Die(_) => {}
            Step::Count(who, scope, by) => {
                let at = process(&mut processes, who);
                processes[at].lineage.store().bind_thread(ThreadIndex(0));
                processes[at].count(scope, by);
            }
            Step::DropScopes(who) => {
                let at = process(&mut processes, who);
                processes[at].scopes.clear();
                let epoch = processes[at].lineage.store().retire();
                processes[at].lineage.store().reclaim(epoch);
            }
            Step::Flush(who) => {
                let at = process(&mut processes, who);
                processes[at].lineage.store().bind_thread(ThreadIndex(0));
                processes[at].lineage.take_over_from_dead();
                processes[at].flush();
            }
            Step::Reset(who) => {
                let at = process(&mut processes, who);
                processes[at].lineage.store().reset_counters();
            }
            Step::Look => {
                watch.look().unwrap();
                assert_eq!(of_watch(&watch), of_reader(&path));
                let mut histograms = BTreeMap::new();
                watch.for_each_histogram(
                    |_| true,
                    |id, sum| assert_eq!(histograms.insert(id, sum.count()), None),
                );
                for (id, count) in &histograms {
                    assert_eq!(watch.values()[id.0 as usize], *count);
                    assert_eq!(watch.histogram(*id).count(), *count);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_watch_says_what_a_new_reader_says(steps in steps()) {
        run(steps);
    }
}

#[test]
fn numbers_stay_and_names_that_come_are_found() {
    let directory = TempDir::new().unwrap();
    let path = place(&directory);
    let mut process = Process::join(&path, 1);
    process.count(1, 3);
    let mut watch = Watch::new(path.clone());
    watch.look().unwrap();
    let (catalog, id) = (Arc::clone(watch.catalog()), watch.catalog().find("cluster.1.total").unwrap());
    process.count(2, 4);
    process.count(1, 5);
    watch.look().unwrap();
    assert_eq!(watch.catalog().find("cluster.1.total"), Some(id));
    assert_eq!((watch.values()[id.0 as usize], catalog.find("cluster.2.total")), (8, None));
    assert_eq!(watch.text("cluster.1.version"), Some("vvvvv"));
    let mut texts = Vec::new();
    watch.for_each_text(|id, text| texts.push(format!("{} {text}", watch.catalog().name(id))));
    texts.sort_unstable();
    assert_eq!(texts, ["cluster.1.version vvvvv", "cluster.2.version vvvv"]);
    let member = watch.members().next().unwrap();
    assert_eq!((member.generation(), member.lives(), member.leads()), (1, true, true));
    assert_eq!(member.sum_by_thread(&[id]).unwrap(), [8, 0]);
    assert_eq!((member.number(id), member.sum(&[id])), (Some(8), 8));
}

#[test]
fn the_last_look_stays_when_the_lineage_is_gone() {
    let directory = TempDir::new().unwrap();
    let path = place(&directory);
    let mut process = Process::join(&path, 1);
    process.count(1, 3);
    let mut watch = Watch::new(path);
    watch.look().unwrap();
    process.lineage.settle();
    process.lineage.leave().unwrap();
    assert!(matches!(watch.look(), Err(ReadError::Io(_))));
    let id = watch.catalog().find("cluster.1.total").unwrap();
    assert_eq!(watch.values()[id.0 as usize], 3);
}
