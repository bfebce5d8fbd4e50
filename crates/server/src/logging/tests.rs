//! The log as its reader sees it.

use std::fs;
use std::io::Write;
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::Value;
use tracing::subscriber::with_default;
use tracing::{debug, error, info, warn};

use super::*;

#[derive(Clone, Default)]
struct Page(Arc<Mutex<Vec<u8>>>);

impl Write for Page {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Page {
    fn lines(&self) -> Vec<String> {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
    }
}

/// What `work` logs under `options`.
fn logged(options: &LogOptions, work: impl FnOnce(&Log)) -> Vec<String> {
    let page = Page::default();
    let (subscriber, log, guard) = build(options, Sink::Test(Box::new(page.clone()))).unwrap();
    with_default(subscriber, || work(&log));
    drop(guard);
    page.lines()
}

#[test]
fn a_text_line_has_time_level_component_message_and_fields() {
    let lines = logged(&LogOptions::default(), |_| {
        warn!(target: "proxy_upstream::dns", host = "example.com", tries = 3, "no answer");
    });
    let (time, rest) = lines[0].split_once(' ').unwrap();
    assert!(time.ends_with('Z') && time.len() == 27, "{time}");
    assert_eq!(rest, "warning dns: no answer host=example.com tries=3");
}

#[test]
fn a_json_line_is_one_object() {
    let options = LogOptions { format: LogFormat::Json, ..LogOptions::default() };
    let lines = logged(&options, |_| error!(target: "proxy_net", bytes = 7, "broken \"pipe\"\n"));
    let line: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(line["level"], "error");
    assert_eq!(line["component"], "connection");
    assert_eq!(line["message"], "broken \"pipe\"\n");
    assert_eq!(line["bytes"], 7);
}

#[test]
fn what_the_network_sends_cannot_forge_a_line() {
    let lines = logged(&LogOptions::default(), |_| {
        info!(target: "proxy_http", path = %"/\n2026 error main: \x1b[2Jforged\u{9b}", "request");
    });
    assert_eq!(lines.len(), 1);
    assert!(lines[0].ends_with(r"path=/\n2026 error main: \u{1b}[2Jforged\u{9b}"), "{}", lines[0]);
}

#[test]
fn levels_change_while_running() {
    let options = LogOptions { components: "dns:debug".parse().unwrap(), ..LogOptions::default() };
    let lines = logged(&options, |log| {
        let everywhere = |text: &str| {
            debug!(target: "proxy_upstream::dns", "{text} dns");
            debug!(target: "proxy_http::h1", "{text} http");
        };
        everywhere("one");
        log.set_all(Level::Off);
        everywhere("two");
        log.set(&"http:trace".parse().unwrap());
        everywhere("three");
        assert!(log.levels().iter().any(|level| level == ("http", Level::Trace)));
    });
    let messages: Vec<_> = lines.iter().map(|line| line.rsplit(": ").next().unwrap()).collect();
    assert_eq!(messages, ["one dns", "three http"]);
}

#[test]
fn a_long_line_is_cut() {
    let lines = logged(&LogOptions::default(), |_| info!("{}", "x".repeat(100_000)));
    assert_eq!(lines[0].len() + 1, 8 << 10);
    assert!(lines[0].ends_with("x [cut]"));
}

/// Takes a line and then waits to be let go.
struct Stuck {
    taken: Sender<()>,
    go: Receiver<()>,
    page: Page,
}

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.taken.send(());
        let _ = self.go.recv();
        self.page.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_stuck_sink_costs_lines_but_never_blocks_who_logs() {
    let page = Page::default();
    let (taken, is_taken) = channel();
    let (go, may_go) = channel();
    let sink = Sink::Test(Box::new(Stuck { taken, go: may_go, page: page.clone() }));
    let (subscriber, log, guard) = build(&LogOptions::default(), sink).unwrap();
    with_default(subscriber, || {
        info!("first");
        is_taken.recv().unwrap();
        for _ in 0..5000 {
            info!("more");
        }
        assert_eq!(log.dropped_lines(), 5000 - 4096);
    });
    drop(go);
    log.reopen(); // waits for no room either
    while page.lines().last().is_none_or(|line| !line.ends_with("could be written")) {
        let _ = is_taken.recv();
    }
    assert!(page.lines().last().unwrap().starts_with("904 log lines were lost"));
    drop(guard);
}

#[test]
fn a_moved_file_is_opened_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let (subscriber, log, guard) = build(&LogOptions::default(), Sink::file(&path).unwrap()).unwrap();
    with_default(subscriber, || {
        info!("old");
        guard.writer.finish(FINISH_LIMIT);
        fs::rename(&path, directory.path().join("log.1")).unwrap();
        info!("still old");
        log.reopen();
        info!("new");
    });
    drop(guard);
    let old = fs::read_to_string(directory.path().join("log.1")).unwrap();
    assert!(old.contains("old") && old.contains("still old") && !old.contains("new"), "{old}");
    let new = fs::read_to_string(&path).unwrap();
    assert!(new.contains("new") && !new.contains("old"), "{new}");
}
