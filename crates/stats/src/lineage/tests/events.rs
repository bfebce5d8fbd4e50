//! What has happened to processes, as those after them tell it.

use super::*;
use crate::{Event, EventKind, ReadError, Severity};

fn tell(process: &Process, kind: EventKind, text: &str) {
    process.store().events().tell(std::time::UNIX_EPOCH, kind, Severity::Info, format_args!("{text}"));
}

fn told(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| format!("{} {}", event.generation, event.text)).collect()
}

#[test]
fn what_happened_before_a_crash_is_told_after_the_next_start_and_the_one_after_it() {
    let directory = TempDir::new().unwrap();
    let path = place(&directory);
    let mut watch = EventWatch::new(path.clone());
    assert!(matches!(watch.look(), Err(ReadError::Io(_))), "there is nothing yet");
    let first = join(&path, 1);
    tell(&first, EventKind::START, "starts");
    assert_eq!(told(&watch.look().unwrap()), ["1 starts"]);
    tell(&first, EventKind::SERVE, "serves");
    drop(first);
    let second = join(&path, 2);
    assert_eq!(second.take_killed(), [1]);
    assert_eq!(second.take_killed(), [0; 0]);
    tell(&second, EventKind::START, "starts");
    assert_eq!(told(&watch.look().unwrap()), ["1 serves", "2 starts"], "what was seen is not told again");
    drop(second);
    let third = join(&path, 3);
    assert_eq!(third.take_killed(), [2]);
    assert_eq!(watch.look().unwrap(), []);
    assert_eq!(told(&EventWatch::new(path).look().unwrap()), ["1 starts", "1 serves", "2 starts"]);
}

#[test]
fn a_predecessor_that_ends_leaves_its_events_to_who_leads() {
    let directory = TempDir::new().unwrap();
    let path = place(&directory);
    let (old, new) = (join(&path, 1), join(&path, 2));
    let mut watch = EventWatch::new(path.clone());
    tell(&old, EventKind::RESTART, "hands over");
    tell(&new, EventKind::RESTART, "takes over");
    assert_eq!(told(&watch.look().unwrap()), ["1 hands over", "2 takes over"]);
    assert!(new.take_over(1, new.turn()));
    old.settle();
    new.settle();
    tell(&old, EventKind::END, "ends");
    old.leave().unwrap();
    drop(old);
    assert_eq!(new.tend().len(), 0);
    assert!(!path.segment(1).exists(), "it was folded");
    assert_eq!(new.take_killed(), [0; 0], "it ended in good order");
    assert_eq!(told(&watch.look().unwrap()), ["1 ends"]);
    assert_eq!(told(&EventWatch::new(path).look().unwrap()), ["1 hands over", "1 ends", "2 takes over"]);
}

#[test]
fn events_stay_where_a_fold_could_not_be_written() {
    let directory = TempDir::new().unwrap();
    let path = place(&directory);
    let first = join(&path, 1);
    tell(&first, EventKind::START, "starts");
    count(&first, 3);
    drop(first);
    // Where the base would be written there is a directory.
    fs::create_dir(path.base(1)).unwrap();
    let (second, _) = join_anyhow(&path, 2);
    assert_eq!(second.take_killed(), [0; 0]);
    assert_eq!(told(&EventWatch::new(path.clone()).look().unwrap()), ["1 starts"], "once, in its own ring");
}
