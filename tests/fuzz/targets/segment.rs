//! A stats segment that any process may have written into: whatever it holds, reading ends, and names are text.
//!
//! The input is patches (position, value) on a small whole segment, so that nearly every one gets past the header.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use proxy_stats::{EventWatch, LineagePath, Reader, Watch};

fuzz_target!(|data: &[u8]| {
    let mut segment = segment();
    let mut patches = data;
    while let Some(([low, high, value @ ..], rest)) = patches.split_first_chunk::<6>() {
        let at = usize::from(u16::from_le_bytes([*low, *high])) * 4 % segment.len();
        segment[at..at + 4].copy_from_slice(value);
        patches = rest;
    }
    // What is left over cuts the file short.
    if let [cut] = patches {
        segment.truncate(segment.len() - usize::from(*cut) * 4);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = LineagePath { directory: directory.path().to_owned(), prefix: "p_".into() };
    fs::write(directory.path().join("p_control"), control()).unwrap();
    fs::write(path.segment(GENERATION), &segment).unwrap();
    // A second look goes by what the first has found.
    let (mut watch, mut events) = (Watch::new(path.clone()), EventWatch::new(path.clone()));
    for _ in 0..2 {
        let _ = watch.look();
        assert!(watch.catalog().len() <= SLOTS * 2);
        let found = events.look().unwrap_or_default();
        assert!(found.len() <= segment.len() / EVENT_BYTES);
        assert!(found.iter().all(|event| !event.text.contains(char::is_control)));
    }
    let file = fs::File::open(path.segment(GENERATION)).unwrap();
    let Ok(reader) = Reader::from_file(file) else { return };
    let mut seen = 0;
    // What is wrong with it is told; seeing more than there is room for is not possible.
    let _ = reader.for_each(|_| seen += 1);
    assert!(seen <= SLOTS);
    let events = reader.events().map_or(0, |events| events.len());
    assert!(events <= segment.len() / EVENT_BYTES);
});

/// As `lineage/control.rs` has it: the segment is on the list, and led.
fn control() -> Vec<u8> {
    let mut words = vec![0; 512];
    words[0] = u64::from_ne_bytes(*b"PRXLINES");
    words[1] = 1 | 7 << 32;
    words[2] = GENERATION;
    words[4] = 1;
    words[16] = GENERATION;
    words.iter().flat_map(|word: &u64| word.to_ne_bytes()).collect()
}

/// One thread, [`SLOTS`] slots, four events: every area in the order of the real file, as `layout.rs` of proxy-stats has it; the
/// ring of events at the end, where patches reach it as well.
fn segment() -> Vec<u8> {
    let mut words = vec![0u64; 64];
    words[0] = u64::from_ne_bytes(*b"PRXSTATS");
    words[1] = 2 | 1 << 32;
    words[2] = GENERATION;
    words[3] = 7 | 4 << 32;
    words[9] = SLOTS as u64;
    words[10] = 2;
    words[11] = 3;
    let capacities = [SLOTS, SLOTS / 4, 4, 8, 256, SLOTS * 3];
    let mut offset = words.len() * 8;
    for (area, (capacity, bytes)) in capacities.into_iter().zip([4, 4, 16, 8, 1, 8]).enumerate() {
        words[32 + area * 2] = offset as u64;
        words[33 + area * 2] = capacity as u64;
        offset += capacity * bytes;
    }
    words[13] = EVENTS;
    words[44] = offset as u64;
    words[45] = EVENTS;
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let mut push = |numbers: &[u32]| bytes.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
    // Descriptors: suffix and kind. A counter, two gauges, a text, a stat of a suffix that is not there, a histogram.
    push(&[1, 1 << 4 | 2, 2 << 4 | 3, 5, 7 << 4 | 1, 6]);
    push(&[0; SLOTS - 6]);
    push(&[1, 2, 2, 0, 0, 0, 0, 0]);
    push(&[0, 4, 1, 0, 4, 8, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    push(&[0, 3, 3, 5, 8, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend(b"abcdefghijklmnop".iter().cycle().take(256 - 8));
    // Three values in the bucket of 1, and where the histogram says so.
    bytes.extend((1u64 << 48 | 3).to_ne_bytes());
    let histogram = bytes.len() + 5 * 8;
    bytes.resize(offset, 0);
    bytes[histogram..histogram + 8].copy_from_slice(&(248u64 << 32 | 8).to_ne_bytes());
    for number in 1..=EVENTS {
        let words = [number * 2, 1_700_000_000_000_000 + number, 6 | 3 << 16 | 16 << 24, GENERATION, number];
        bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        bytes.extend(b"nothing changed.");
        bytes.resize(offset + number as usize * EVENT_BYTES, 0);
    }
    bytes
}

const SLOTS: usize = 32;
const EVENTS: u64 = 4;
const EVENT_BYTES: usize = 256;
const GENERATION: u64 = 5;
