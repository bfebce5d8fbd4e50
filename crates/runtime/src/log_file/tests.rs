use std::fs;
use std::path::Path;
use std::rc::Rc;

use proxy_stats::{MetricKind, Store, StoreOptions, Value};

use super::*;
use crate::{Workers, WorkersOptions};

struct Setting {
    store: Store,
    files: LogFiles,
    workers: Workers,
    directory: tempfile::TempDir,
}

impl Setting {
    fn new(workers: u16, interval: Duration) -> Setting {
        let store = Store::create(StoreOptions::private(8)).unwrap();
        let options = FlushOptions { interval, ..FlushOptions::default() };
        Setting {
            files: LogFiles::new(&store.root(), options),
            store,
            workers: Workers::start(WorkersOptions { concurrency: workers, measured: false }, |_| {}),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn open(&self, path: &Path) -> LogFile {
        self.files.open(&Destination::File(path.to_owned())).unwrap()
    }

    /// Appends on every worker, then ends the workers and waits for the file.
    fn append_and_finish(self, file: &LogFile, lines: usize, line: &'static str) -> Store {
        append(&self.workers, file, lines, line);
        crate::local_runtime().unwrap().block_on(self.workers.stop(Duration::from_secs(10))).unwrap();
        self.files.finish(Duration::from_secs(10));
        self.store
    }
}

fn append(workers: &Workers, file: &LogFile, lines: usize, line: &'static str) {
    let file = file.clone();
    workers.post_all(move || {
        let buffer = file.on_this_worker();
        crate::worker_local::insert(Rc::new(Kept(Rc::clone(&buffer))));
        (0..lines).for_each(|_| buffer.append(|out| out.extend_from_slice(line.as_bytes())));
    });
}

/// Holds a worker's buffer until the worker ends.
struct Kept(#[expect(dead_code)] Rc<LineBuffer>);

fn value(store: &Store, name: &str) -> Option<u64> {
    let mut found = None;
    store.for_each(|metric| {
        if metric.name == name
            && !matches!(metric.kind, MetricKind::TextReadout)
            && let Value::Number(number) = metric.value
        {
            found = Some(number);
        }
    });
    found
}

fn await_content(path: &Path, expected: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while fs::read_to_string(path).unwrap_or_default() != expected {
        assert!(Instant::now() < deadline, "{:?}", fs::read_to_string(path));
        std::thread::yield_now();
    }
}

#[test]
fn lines_of_all_workers_arrive_whole_and_once() {
    let setting = Setting::new(3, Duration::from_secs(3600));
    let line = "0123456789abcdefghijklmnopqrstuvwxyz\n";
    // Not the setting's directory, which goes with it.
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("log");
    let file = setting.open(&target);
    let store = setting.append_and_finish(&file, 10_000, line);
    let text = fs::read_to_string(&target).unwrap();
    assert_eq!(text.lines().count(), 30_000);
    assert!(text.lines().all(|found| found == line.trim_end()));
    assert_eq!(value(&store, "filesystem.write_buffered"), Some(30_000));
    assert_eq!(value(&store, "filesystem.write_total_buffered"), Some(0));
    assert_eq!(value(&store, "filesystem.write_failed"), Some(0));
    assert_eq!(value(&store, "filesystem.lines_lost"), None);
}

#[test]
fn the_first_line_comes_at_once_and_the_next_with_the_timer() {
    let setting = Setting::new(1, Duration::from_millis(10));
    let path = setting.path();
    let file = setting.open(&path);
    append(&setting.workers, &file, 1, "a\n");
    await_content(&path, "a\n");
    append(&setting.workers, &file, 2, "b\n");
    await_content(&path, "a\nb\nb\n");
    assert_eq!(value(&setting.store, "filesystem.flushed_by_timer"), Some(1));
}

#[test]
fn a_file_that_was_moved_away_is_opened_anew() {
    let setting = Setting::new(1, Duration::from_millis(10));
    let (path, moved) = (setting.path(), setting.directory.path().join("moved"));
    let file = setting.open(&path);
    append(&setting.workers, &file, 1, "old\n");
    await_content(&path, "old\n");
    fs::rename(&path, &moved).unwrap();
    setting.files.reopen();
    append(&setting.workers, &file, 1, "new\n");
    await_content(&path, "new\n");
    assert_eq!(fs::read_to_string(&moved).unwrap(), "old\n");
    assert!(Arc::ptr_eq(&file.queue, &setting.open(&path).queue));
}

#[test]
fn a_full_disk_loses_lines_and_counts_them() {
    let setting = Setting::new(1, Duration::from_secs(3600));
    let file = setting.open(Path::new("/dev/full"));
    let store = setting.append_and_finish(&file, 100, "x\n");
    assert_eq!(value(&store, "filesystem.lines_lost"), Some(100));
    assert_eq!(value(&store, "filesystem.write_total_buffered"), Some(0));
    assert!(value(&store, "filesystem.write_failed") > Some(0));
}

#[test]
fn a_pipe_that_nobody_empties_holds_nobody_up() {
    let setting = Setting::new(1, Duration::from_millis(1));
    let path = setting.path();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Without a reader it opens all the same.
    let file = setting.open(&path);
    let reader = fs::File::options().read(true).write(true).open(&path).unwrap();
    // Far more than a pipe and the queue hold.
    let line: &'static str = String::leak("x".repeat(99_999) + "\n");
    append(&setting.workers, &file, 400, line);
    let deadline = Instant::now() + Duration::from_secs(10);
    while value(&setting.store, "filesystem.lines_lost").is_none_or(|lost| lost < 200) {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    assert!(value(&setting.store, "filesystem.write_total_buffered") < Some(20 << 20));
    drop(reader);
}

#[test]
fn what_cannot_be_opened_is_told_with_its_path() {
    let setting = Setting::new(1, Duration::from_secs(1));
    let error = setting.files.open(&Destination::File("/nonexistent/log".into())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unable to open file '/nonexistent/log': No such file or directory (os error 2)"
    );
}
