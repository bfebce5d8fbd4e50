//! A lineage whose files any process may have written into: whatever control file, base and segment hold, reading ends, and
//! each name of a kind comes once.
//!
//! The first byte says what the rest is: patches on the control file, patches on a whole base, or the entries of a base,
//! whose header then fits them, so that they are looked at.
#![no_main]

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use proxy_stats::{LineagePath, LineageReader, Watch};

fuzz_target!(|data: &[u8]| {
    let Some((what, rest)) = data.split_first() else { return };
    let entries = entries();
    let (mut control, mut base) = (control(), base(&entries, 4));
    match what % 3 {
        0 => patch(&mut control, rest),
        1 => patch(&mut base, rest),
        _ => base = self::base(rest, u64::from(what / 3)),
    }
    let directory = tempfile::tempdir().unwrap();
    let path = LineagePath { directory: directory.path().to_owned(), prefix: "p_".into() };
    write(directory.path(), "p_control", &control);
    write(directory.path(), "p_base_1", &base);
    let mut watch = Watch::new(path.clone());
    for _ in 0..2 {
        let _ = watch.look();
    }
    let Ok(reader) = LineageReader::open(&path) else { return };
    let mut seen = HashSet::new();
    // What is wrong with it is told.
    let _ = reader.for_each(|metric| assert!(seen.insert((metric.name.to_owned(), metric.kind))));
});

fn write(directory: &Path, name: &str, bytes: &[u8]) {
    fs::write(directory.join(name), bytes).unwrap();
}

/// Position and value of words; what is left over cuts the file short.
fn patch(file: &mut Vec<u8>, mut patches: &[u8]) {
    while let Some(([low, high, value @ ..], rest)) = patches.split_first_chunk::<6>() {
        let at = usize::from(u16::from_le_bytes([*low, *high])) * 4 % (file.len() & !3);
        file[at..at + 4].copy_from_slice(value);
        patches = rest;
    }
    if let [cut] = patches {
        file.truncate(file.len().saturating_sub(usize::from(*cut) * 4));
    }
}

/// As `lineage/control.rs` of proxy-stats has it: generation 7, which is not there, led until now; base 1 counts.
fn control() -> Vec<u8> {
    let mut words = vec![0; 512];
    words[0] = u64::from_ne_bytes(*b"PRXLINES");
    words[1] = 1;
    words[2] = 7;
    words[3] = 1;
    words[4] = 1;
    words[16] = 7;
    bytes(&words)
}

/// As `lineage/base.rs` has it, with a checksum that is right.
fn base(body: &[u8], entries: u64) -> Vec<u8> {
    let header = [u64::from_ne_bytes(*b"PRXBASE\0"), 1, 1, entries, body.len() as u64, 1];
    let (words, rest) = body.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let body_words = words.iter().chain([&last]).map(|word| u64::from_ne_bytes(*word));
    let summed = header.into_iter().chain([ABSORBED]).chain(body_words);
    let mix = |sum: u64, word: u64| (sum.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let checksum = summed.fold(0, mix);
    let mut all = bytes(&header);
    all.extend(bytes(&[checksum, 0, ABSORBED]));
    all.extend(bytes(&vec![0; entries.div_ceil(64) as usize]));
    all.extend(body);
    all
}

/// Two counters, one of them twice, and a histogram.
fn entries() -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in [("a.b", 5_u64), ("a.c", 6), ("a.b", 7)] {
        body.extend((name.len() as u32 * 16 + 1).to_ne_bytes());
        body.extend(name.as_bytes());
        body.extend(bytes(&[value, 1]));
    }
    body.extend((3_u32 * 16 + 6).to_ne_bytes());
    body.extend(b"a.h");
    body.extend(8_u32.to_ne_bytes());
    body.extend((1_u64 << 48 | 3).to_ne_bytes());
    body
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

const ABSORBED: u64 = 5;
