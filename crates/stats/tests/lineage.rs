//! Lineages of real processes: killed while they count, several at a time, and where there is no space.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use proxy_stats::{
    Backing, Lineage, LineageOptions, LineagePath, LineageReader, LineageWarning, ThreadIndex, find_lineages,
};

fn place(directory: &Path) -> LineagePath {
    LineagePath { directory: directory.to_owned(), prefix: "proxyd_3_".into() }
}

fn options(directory: &Path, generation: u64) -> LineageOptions {
    LineageOptions { path: place(directory), base_id: 3, generation, threads: 3 }
}

fn read(directory: &Path) -> BTreeMap<String, u64> {
    let found = find_lineages(directory).unwrap();
    assert_eq!(found, [place(directory)]);
    let reader = LineageReader::open(&found[0]).unwrap();
    assert_eq!(reader.base_id(), 3);
    let mut values = BTreeMap::new();
    let visit = |metric: &proxy_stats::Metric<'_>| {
        assert_eq!(values.insert(metric.name.to_owned(), metric.value.number().unwrap_or(0)), None);
    };
    reader.for_each(visit).unwrap();
    values
}

/// Another process, which does what it is told.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(directory: &Path, generation: u64) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process_that_is_told_what_to_do", "--nocapture"])
            .env("STATS_TEST_LINEAGE", directory)
            .env("STATS_TEST_GENERATION", generation.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut process = Process { child, input, output };
        process.answer();
        process
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut lines = self.output.by_ref().lines().map(Result::unwrap);
        lines.find_map(|line| line.strip_prefix("= ").map(str::to_owned)).expect("an answer")
    }

    fn kill(self) {}
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test of its own: see [`Process`].
#[test]
fn process_that_is_told_what_to_do() {
    let Some(directory) = std::env::var_os("STATS_TEST_LINEAGE") else { return };
    let generation = std::env::var("STATS_TEST_GENERATION").unwrap().parse().unwrap();
    let (lineage, warnings) = Lineage::join(options(Path::new(&directory), generation)).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let store = lineage.store();
    assert!(store.bind_thread(ThreadIndex(0)));
    let scope = store.root().scope("t");
    lineage.settle();
    let _ = lineage.look();
    println!("\n= joined");
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let (command, argument) = line.split_once(' ').unwrap_or((&line, "0"));
        let answer = match command {
            "count" => {
                scope.counter("all").add(argument.parse().unwrap());
                String::new()
            }
            // Two threads with columns and one without, for ever. Each counts `before`, `all` and `after` in turn.
            "run" => {
                for index in 1..4 {
                    let (store, scope) = (store.clone(), scope.clone());
                    std::thread::spawn(move || {
                        assert_eq!(store.bind_thread(ThreadIndex(index)), index < 3);
                        let counters = ["before", "all", "after"].map(|name| scope.counter(name));
                        loop {
                            counters.iter().for_each(|counter| counter.inc());
                        }
                    });
                }
                while scope.counter("after").value() < 1000 {
                    std::thread::yield_now();
                }
                String::new()
            }
            "value" => store.value(argument).unwrap_or(0).to_string(),
            "tend" => format!("{:?}", lineage.tend()),
            "take_over" => lineage.take_over(argument.parse().unwrap(), lineage.turn()).to_string(),
            "leads" => lineage.leads().to_string(),
            "leave" => format!("{:?}", lineage.leave()),
            other => panic!("{other}?"),
        };
        println!("\n= {answer}");
    }
}

#[test]
fn processes_killed_one_after_the_other_while_they_count() {
    let directory = tempfile::tempdir().unwrap();
    let mut last = BTreeMap::new();
    for generation in 1..=6 {
        let mut process = Process::start(directory.path(), generation);
        for (name, value) in &last {
            assert_eq!(process.ask(&format!("value {name}")), u64::to_string(value), "{name}");
        }
        process.ask("run");
        process.kill();
        let seen = read(directory.path());
        let (before, all, after) = (seen["t.before"], seen["t.all"], seen["t.after"]);
        assert!(after <= all && all <= before && before <= after + 3 * generation, "{seen:?}");
        assert!(after >= 1000 + last.get("t.after").copied().unwrap_or(0));
        last = seen;
    }
}

#[test]
fn a_child_that_dies_is_folded_by_its_parent_while_others_count() {
    let directory = tempfile::tempdir().unwrap();
    let sum = || read(directory.path())["t.all"];
    let mut parent = Process::start(directory.path(), 1);
    parent.ask("count 5");
    let mut child = Process::start(directory.path(), 2);
    child.ask("count 7");
    let mut third = Process::start(directory.path(), 3);
    third.ask("count 1");
    assert_eq!(sum(), 13);
    child.kill();
    assert_eq!(sum(), 13);
    assert_eq!(third.ask("tend"), "[]");
    assert_eq!(parent.ask("tend"), "[]");
    assert_eq!(sum(), 13);
    assert_eq!(parent.ask("value t.all"), "13");
    // A reader that had opened it before the fold sees what was.
    let before = LineageReader::open(&place(directory.path())).unwrap();
    parent.ask("count 1");
    parent.kill();
    assert_eq!(third.ask("take_over 1"), "true");
    assert_eq!(third.ask("tend"), "[]");
    let mut seen = 0;
    before.for_each(|metric| seen += metric.value.number().unwrap_or(0)).unwrap();
    assert_eq!((seen, sum()), (14, 14));
    assert_eq!(third.ask("value t.all"), "14");
    assert_eq!(third.ask("leave"), "Ok(())");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn of_two_that_want_to_lead_one_does() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..10 {
        let first = 1 + round * 3;
        let mut parent = Process::start(directory.path(), first);
        assert_eq!(parent.ask("leads"), "true");
        let mut children =
            [first + 1, first + 2].map(|generation| Process::start(directory.path(), generation));
        children.iter_mut().for_each(|child| writeln!(child.input, "take_over {first}").unwrap());
        let mut won = children.each_mut().map(|child| child.answer() == "true");
        assert_eq!(children.each_mut().map(|child| child.ask("leads") == "true"), won);
        assert_eq!(parent.ask("leads"), "false");
        won.sort_unstable();
        assert_eq!(won, [false, true]);
        children.into_iter().for_each(Process::kill);
        parent.kill();
    }
}

#[test]
fn readers_see_every_count_while_processes_come_go_and_fold() {
    let directory = tempfile::tempdir().unwrap();
    let mut keeper = Process::start(directory.path(), 1);
    keeper.ask("count 1");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        let reading = threads.spawn(|| {
            let (mut last, mut looks) = (0, 0);
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let sum = read(directory.path())["t.all"];
                // Counts come in tens, and none is ever taken away.
                assert!(sum >= last && sum % 10 == 1, "{sum} after {last}");
                (last, looks) = (sum, looks + 1);
            }
            looks
        });
        for generation in 2..12 {
            let mut child = Process::start(directory.path(), generation);
            child.ask("count 10");
            child.kill();
            assert_eq!(keeper.ask("tend"), "[]");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reading.join().unwrap() > 10);
    });
    assert_eq!(read(directory.path())["t.all"], 101);
}

/// Mounts a file system of so many bytes; false where that is not allowed.
fn mount(directory: &Path, bytes: u64) -> bool {
    let size = format!("size={bytes}");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory).status();
    mounted.is_ok_and(|status| status.success())
}

struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_file_system_prevents_neither_start_nor_sums() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    if !mount(directory, 8 << 20) {
        eprintln!("cannot mount a file system, so nothing is tested here");
        return;
    }
    let _mounted = Mounted(directory);
    let mut first = Process::start(directory, 1);
    first.ask("count 5");
    first.kill();
    // Fill it up.
    let mut filler = std::fs::File::create(directory.join("filler")).unwrap();
    while filler.write_all(&[1; 4096]).is_ok() {}
    {
        let (second, warnings) = Lineage::join(options(directory, 2)).unwrap();
        assert!(matches!(warnings[..], [LineageWarning::NotFolded(_)]), "{warnings:?}");
        assert!(matches!(second.store().backing(), Backing::FileRefused(_)));
        let scope = second.store().root().scope("t");
        second.settle();
        assert!(second.look().is_empty());
        scope.counter("all").inc();
        assert_eq!(second.store().value("t.all"), Some(6));
        assert!(second.tend().is_empty());
        second.leave().unwrap();
    }
    assert_eq!(read(directory)["t.all"], 5);
    drop(filler);
    std::fs::remove_file(directory.join("filler")).unwrap();
    let mut third = Process::start(directory, 3);
    assert_eq!(third.ask("value t.all"), "5");
    third.ask("count 1");
    assert_eq!(read(directory)["t.all"], 6);
    assert_eq!(third.ask("leave"), "Ok(())");
    assert_eq!(std::fs::read_dir(directory).unwrap().count(), 0);
}

/// Not a test of its own: the process of `a_limit_on_file_sizes_prevents_no_start`.
#[test]
fn process_with_a_limit_on_file_sizes() {
    use nix::sys::resource::{Resource, setrlimit};
    let Some(directory) = std::env::var_os("STATS_TEST_LIMITED") else { return };
    setrlimit(Resource::RLIMIT_FSIZE, 1 << 20, 1 << 20).unwrap();
    let (lineage, warnings) = Lineage::join(options(Path::new(&directory), 2)).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert!(matches!(lineage.store().backing(), Backing::FileRefused(_)));
    setrlimit(Resource::RLIMIT_FSIZE, 1000, 1000).unwrap();
    let (lineage, warnings) = Lineage::join(options(Path::new(&directory), 3)).unwrap();
    assert!(matches!(warnings[..], [LineageWarning::Alone(_)]), "{warnings:?}");
    lineage.store().root().counter("x").inc();
    assert_eq!(lineage.store().value("x"), Some(1));
}

#[test]
fn a_limit_on_file_sizes_prevents_no_start() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = Process::start(directory.path(), 1);
    first.ask("count 5");
    first.kill();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process_with_a_limit_on_file_sizes"])
        .env("STATS_TEST_LIMITED", directory.path())
        // The limit would hold for the output, too, were it a file.
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(read(directory.path())["t.all"], 5);
}
