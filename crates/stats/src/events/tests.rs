use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::ring::{ENTRIES, TEXT_BYTES};
use super::*;
use crate::layout::{Geometry, RING_BYTES, RING_ENTRY_BYTES, RING_OFFSET, word};
use crate::{Reader, Store, StoreOptions};

fn store(path: &Path) -> Store {
    let options = StoreOptions { path: Some(path.to_owned()), threads: 1, generation: 3, base_id: 7 };
    Store::with_geometry(options, Geometry::for_threads(1)).unwrap()
}

fn segment() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("segment");
    (directory, path)
}

fn at(us: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(us)
}

fn tell(store: &Store, us: u64, text: &str) {
    store.events().tell(at(us), EventKind::RELOAD, Severity::Error, format_args!("{text}"));
}

#[test]
fn an_event_is_read_as_it_was_written() {
    let (_directory, path) = segment();
    let store = store(&path);
    assert_eq!(Reader::open(&path).unwrap().events().unwrap(), []);
    tell(&store, 1_700_000_000_123_456, "nothing\nhas changed\u{7}");
    let expected = Event {
        at_us: 1_700_000_000_123_456,
        generation: 3,
        number: 1,
        kind: EventKind::RELOAD,
        severity: Severity::Error,
        text: "nothing has changed ".to_owned(),
    };
    assert_eq!(Reader::open(&path).unwrap().events().unwrap(), [expected]);
    store.end();
    tell(&store, 0, "too late");
    assert_eq!(Reader::open(&path).unwrap().events().unwrap().len(), 1);
}

#[test]
fn a_long_text_is_cut_at_a_character() {
    let (_directory, path) = segment();
    let store = store(&path);
    let whole = "x".repeat(TEXT_BYTES);
    for text in
        [whole.clone(), whole.clone() + "y", "\u{e4}".repeat(200), "a".to_owned() + &"\u{1F600}".repeat(90)]
    {
        tell(&store, 0, &text);
        let event = Reader::open(&path).unwrap().events().unwrap().pop().unwrap();
        if text == whole {
            assert_eq!(event.text, whole);
            continue;
        }
        let kept = event.text.strip_suffix('\u{2026}').unwrap();
        assert!(text.starts_with(kept), "{kept}");
        assert!((TEXT_BYTES - 3..=TEXT_BYTES).contains(&event.text.len()), "{}", event.text.len());
    }
}

#[test]
fn the_oldest_events_go_and_new_ones_are_told_apart() {
    let (_directory, path) = segment();
    let store = store(&path);
    let reader = Reader::open(&path).unwrap();
    (1..=10).for_each(|number| tell(&store, number, "first"));
    let (events, seen) = reader.events_since(0).unwrap();
    assert_eq!((events.len(), seen), (10, 10));
    assert_eq!(reader.events_since(seen).unwrap(), (Vec::new(), 10));
    (11..=20).for_each(|number| tell(&store, number, "then"));
    let numbers = |events: &[Event]| events.iter().map(|event| event.number).collect::<Vec<_>>();
    assert_eq!(numbers(&reader.events_since(seen).unwrap().0), (11..=20).collect::<Vec<_>>());
    let many = 20 + ENTRIES as u64 + 7;
    (21..=many).for_each(|number| tell(&store, number, "many"));
    assert_eq!(numbers(&reader.events_since(seen).unwrap().0), (28..=many).collect::<Vec<_>>());
    assert_eq!(numbers(&reader.events_since(many - 3).unwrap().0), (many - 2..=many).collect::<Vec<_>>());
    assert_eq!(numbers(&reader.events_since(many + 9).unwrap().0).len(), ENTRIES, "it is another ring");
}

#[test]
fn times_are_dates() {
    let cases = [
        (0, "1970-01-01T00:00:00.000000Z"),
        (951_782_399_999_999, "2000-02-28T23:59:59.999999Z"),
        (951_868_799_000_000, "2000-02-29T23:59:59.000000Z"),
        (1_700_000_000_000_001, "2023-11-14T22:13:20.000001Z"),
        (1_735_689_599_000_000, "2024-12-31T23:59:59.000000Z"),
        (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        (u64::MAX, "9999-12-30T22:00:00.999999Z"),
    ];
    assert_eq!(cases.map(|(at, _)| utc(at)), cases.map(|(_, text)| text));
}

#[test]
fn kinds_have_names() {
    assert_eq!(EventKind::LOG_LEVEL.name(), "log level");
    assert_eq!(EventKind(999).name(), "event 999");
    assert_eq!([0, 1, 2, 3, 200].map(Severity::of_code).map(Severity::name).last(), Some(&"info"));
}

#[test]
fn events_of_the_dead_take_no_room_of_newer_ones() {
    let (_directory, path) = segment();
    let store = store(&path);
    let event = |number: u64, at_us: u64| Event {
        at_us,
        generation: 2,
        number,
        kind: EventKind::START,
        severity: Severity::Info,
        text: number.to_string(),
    };
    let own = ENTRIES as u64 - 10;
    (1..=own).for_each(|number| tell(&store, 1000 + number, "own"));
    // 10 have room, of 5 more those that are newer than what they overwrite: one is, the others are not.
    let dead = (1..=14).map(|number| event(number, number)).chain([event(15, 1_000_000)]).collect();
    store.events().adopt(dead);
    let events = Reader::open(&path).unwrap().events().unwrap();
    let adopted: Vec<_> =
        events.iter().filter(|event| event.generation == 2).map(|event| event.number).collect();
    assert_eq!(adopted, (6..=15).collect::<Vec<_>>());
    assert_eq!(events.len(), ENTRIES);
    assert_eq!(events.iter().filter(|event| event.text == "own").count() as u64, own);
    // As many as half of the ring, however many there are.
    store.events().adopt((16..1000).map(|number| event(number, 2_000_000 + number)).collect());
    let events = Reader::open(&path).unwrap().events().unwrap();
    assert_eq!(
        events.iter().filter(|event| event.number >= 16 && event.generation == 2).count(),
        ENTRIES / 2
    );
    assert_eq!((events[ENTRIES - 1].number, &*events[ENTRIES - 1].text), (999, "999"));
}

/// Whatever a reader takes for whole is whole, while a writer goes round and round.
#[test]
fn an_event_that_is_being_overwritten_is_not_read() {
    let (_directory, path) = segment();
    let store = store(&path);
    let over = AtomicBool::new(false);
    let seen = std::thread::scope(|threads| {
        threads.spawn(|| {
            for number in 1_u64..=120_000 {
                // Time and every character of the text say which event it is; lengths differ from one round to the next.
                let digit = char::from(b'a' + (number % 26) as u8).to_string();
                tell(&store, number, &digit.repeat((number % TEXT_BYTES as u64) as usize));
            }
            over.store(true, Ordering::Release);
        });
        let reader = Reader::open(&path).unwrap();
        let (mut seen, mut whole, mut last) = (0, 0_u64, false);
        while !last {
            last = over.load(Ordering::Acquire);
            let (events, written) = reader.events_since(seen).unwrap();
            let mut before = seen;
            for event in events {
                let (number, text) = (event.number, event.text);
                assert!(number > before && number <= written);
                before = number;
                assert_eq!((event.at_us, text.len() as u64), (number, number % TEXT_BYTES as u64));
                let digit = b'a' + (number % 26) as u8;
                assert!(text.bytes().all(|byte| byte == digit), "{number}: {text}");
                whole += 1;
            }
            seen = written;
        }
        (seen, whole)
    });
    assert_eq!(seen.0, 120_000);
    assert!(seen.1 >= ENTRIES as u64, "{} were whole", seen.1);
}

#[test]
fn an_entry_whose_writer_died_in_it_is_left_out() {
    let (_directory, path) = segment();
    let store = store(&path);
    (1..=5).for_each(|number| tell(&store, number, "whole"));
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&5_u64.to_ne_bytes(), RING_OFFSET + 2 * RING_ENTRY_BYTES).unwrap();
    let events = Reader::open(&path).unwrap().events().unwrap();
    assert_eq!(events.iter().map(|event| event.number).collect::<Vec<_>>(), [1, 2, 4, 5]);
}

/// As [`an_event_that_is_being_overwritten_is_not_read`], one moment after the other.
#[test]
fn an_entry_counts_if_it_was_whole_before_and_after_it_was_read() {
    let (_directory, path) = segment();
    let store = store(&path);
    tell(&store, 1, "whole");
    let entry = |sequence: u64| {
        let mut bytes = vec![0; RING_ENTRY_BYTES as usize];
        File::open(&path).unwrap().read_exact_at(&mut bytes, RING_OFFSET).unwrap();
        bytes[..8].copy_from_slice(&sequence.to_ne_bytes());
        bytes
    };
    let again = (ENTRIES as u64 + 1) * 2;
    for (sequences, whole) in [
        ([2, 2, 2], true),
        ([2, 2, again - 1], false),
        ([2, again - 1, again], false),
        ([2, again, again], false),
        ([1, 2, 2], false),
        ([again; 3], false),
    ] {
        let [before, read, after] = sequences.map(entry);
        assert_eq!(decode(1, &before, &read, &after).is_some(), whole, "{sequences:?}");
    }
}

proptest! {
    /// Whatever is in the ring and in the words that point to it: reading ends, and gives no more than fit.
    #[test]
    fn garbage_is_read_without_harm(
        patches in proptest::collection::vec((0..RING_BYTES / 8, any::<u64>()), 0..40),
        count in prop_oneof![any::<u64>(), 0..600_u64],
        pointer in prop_oneof![Just((RING_OFFSET, ENTRIES as u64)), (any::<u64>(), any::<u64>()), (0..100_000_u64, 0..5000_u64)],
        seen in prop_oneof![any::<u64>(), 0..600_u64],
    ) {
        let (_directory, path) = segment();
        let store = store(&path);
        (1..=300).for_each(|number| tell(&store, number, "a text \u{e4}\u{f6}\u{fc}"));
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let put = |at: u64, word: u64| file.write_all_at(&word.to_ne_bytes(), at).unwrap();
        for (at, word) in patches {
            put(RING_OFFSET + at * 8, word);
        }
        put(word::EVENTS as u64 * 8, count);
        put(word::RING as u64 * 8, pointer.0);
        put(word::RING as u64 * 8 + 8, pointer.1);
        let reader = Reader::from_file(File::open(&path).unwrap()).unwrap();
        for seen in [0, seen] {
            let (events, written) = reader.events_since(seen).unwrap();
            prop_assert!(events.len() as u64 <= pointer.1.min(4096));
            prop_assert!(events.iter().all(|event| !event.text.contains(char::is_control)));
            prop_assert!(written == count || written == 0);
        }
        fs::remove_file(&path).unwrap();
    }
}
