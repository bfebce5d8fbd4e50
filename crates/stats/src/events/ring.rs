//! The ring as bytes: fixed entries that each carry a sequence, so that who reads the file can tell one that is being overwritten.
//!
//! Event number `n`, from 1, lies in entry `(n - 1) % ENTRIES`. Its first word is `2n - 1` while it is written and `2n` once it is whole;
//! the header's count follows. Readers take an entry for good if that word is `2n` before and after they have read it.

use std::fmt;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

use super::{Event, EventKind, Severity};
use crate::layout::{RING_BYTES, RING_ENTRY_BYTES};

/// The ring of a segment, held by the one thread that writes at the moment.
pub(crate) struct Ring<'a> {
    pub(crate) words: &'a [AtomicU64],
    /// The header's count.
    pub(crate) count: &'a AtomicU64,
}

/// What is written of an event beside its text.
pub(super) struct Record {
    pub(super) at_us: u64,
    pub(super) generation: u64,
    /// None: the number that it gets here.
    pub(super) number: Option<u64>,
    pub(super) kind: EventKind,
    pub(super) severity: Severity,
}

/// At most [`TEXT_BYTES`] of text without control characters.
pub(super) struct Text {
    bytes: [u8; TEXT_BYTES],
    length: usize,
    cut: bool,
}

/// Where a segment's header says that the ring is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pointer {
    pub(crate) offset: u64,
    pub(crate) entries: u64,
}

impl Ring<'_> {
    pub(super) fn push(&mut self, record: &Record, text: &[u8]) {
        let number = self.count.load(Relaxed) + 1;
        let begin = slot_of(number, ENTRIES as u64) as usize * ENTRY_WORDS;
        let entry = &self.words[begin..begin + ENTRY_WORDS];
        entry[word::SEQUENCE].store(number * 2 - 1, Relaxed);
        // What follows must not be seen before the sequence is odd.
        fence(Release);
        entry[word::TIME].store(record.at_us, Relaxed);
        let (kind, severity) = (u64::from(record.kind.0), record.severity as u64);
        entry[word::WHAT].store(kind | severity << 16 | (text.len() as u64) << 24, Relaxed);
        entry[word::GENERATION].store(record.generation, Relaxed);
        entry[word::NUMBER].store(record.number.unwrap_or(number), Relaxed);
        for (word, bytes) in entry[word::TEXT..].iter().zip(text.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(whole), Relaxed);
        }
        entry[word::SEQUENCE].store(number * 2, Release);
        self.count.store(number, Release);
    }

    /// When what is in the ring happened.
    pub(super) fn times(&self) -> Vec<u64> {
        let held = self.count.load(Relaxed).min(ENTRIES as u64) as usize;
        self.words.chunks(ENTRY_WORDS).take(held).map(|entry| entry[word::TIME].load(Relaxed)).collect()
    }
}

impl Text {
    pub(super) fn of(text: fmt::Arguments<'_>) -> Text {
        let mut into = Text { bytes: [0; TEXT_BYTES], length: 0, cut: false };
        // An error says that there is no more room; what is formatted may say so too, and then this is as far as it got.
        let _ = fmt::write(&mut into, text);
        into
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn cut(&mut self) {
        self.cut = true;
        while self.length + ELLIPSIS.len() > TEXT_BYTES || !self.is_at_character() {
            self.length -= 1;
        }
        self.bytes[self.length..self.length + ELLIPSIS.len()].copy_from_slice(ELLIPSIS.as_bytes());
        self.length += ELLIPSIS.len();
    }

    /// Whether a character begins at the end.
    fn is_at_character(&self) -> bool {
        self.bytes.get(self.length).is_none_or(|byte| byte & 0xC0 != 0x80)
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.cut {
                return Err(fmt::Error);
            }
            let shown = if character.is_control() { ' ' } else { character };
            let length = shown.len_utf8();
            if self.length + length > TEXT_BYTES {
                self.cut();
                return Err(fmt::Error);
            }
            shown.encode_utf8(&mut self.bytes[self.length..]);
            self.length += length;
        }
        Ok(())
    }
}

/// Numbers of events that may be in a ring of `entries`, of which those up to `seen` are known. A count that is lower than what was
/// seen is another ring's.
pub(crate) fn numbers(seen: u64, written: u64, entries: u64) -> std::ops::Range<u64> {
    let seen = if seen > written { 0 } else { seen };
    // The highest number can only be in a file that nobody has counted in.
    let end = written.saturating_add(1);
    seen.max(written.saturating_sub(entries)).saturating_add(1)..end
}

pub(crate) fn slot_of(number: u64, entries: u64) -> u64 {
    (number - 1) % entries
}

/// The event in the bytes of an entry; `before` and `after` are the same bytes as read before and after. None: it is not whole, or
/// another one.
pub(crate) fn decode(number: u64, before: &[u8], entry: &[u8], after: &[u8]) -> Option<Event> {
    let word = |bytes: &[u8], index: usize| bytes.as_chunks().0.get(index).copied().map(u64::from_ne_bytes);
    let sequence = number.checked_mul(2);
    if [before, entry, after].iter().any(|bytes| word(bytes, word::SEQUENCE) != sequence) {
        return None;
    }
    let what = word(entry, word::WHAT)?;
    let length = (what >> 24 & 0xFF) as usize;
    let text = entry.get(word::TEXT * 8..)?;
    let text = String::from_utf8_lossy(&text[..length.min(text.len())]);
    Some(Event {
        at_us: word(entry, word::TIME)?,
        generation: word(entry, word::GENERATION)?,
        number: word(entry, word::NUMBER)?,
        kind: EventKind(what as u16),
        severity: Severity::of_code((what >> 16) as u8),
        text: text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect(),
    })
}

/// Words of an entry (8 bytes each).
mod word {
    pub(super) const SEQUENCE: usize = 0;
    /// Microseconds since 1970.
    pub(super) const TIME: usize = 1;
    /// From the lowest bit: 16 of kind, 8 of severity, 8 of the text's length in bytes.
    pub(super) const WHAT: usize = 2;
    pub(super) const GENERATION: usize = 3;
    pub(super) const NUMBER: usize = 4;
    pub(super) const TEXT: usize = 5;
}

pub(super) const ENTRIES: usize = (RING_BYTES / RING_ENTRY_BYTES) as usize;
const ENTRY_WORDS: usize = RING_ENTRY_BYTES as usize / 8;
pub(super) const TEXT_BYTES: usize = (ENTRY_WORDS - word::TEXT) * 8;
const ELLIPSIS: &str = "\u{2026}";
