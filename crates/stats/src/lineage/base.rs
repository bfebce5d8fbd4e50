//! The base of a lineage: what its dead processes have counted, as one file that is written once and then only marked.
//!
//! ```text
//! header, absorbed generations, marks (a bit per entry), entries: kind and name, then the sum
//! ```
//! A checksum covers all but the marks. The process that leads marks what is no longer to count, so that a scope which
//! was dropped, or a reset, holds for those who come after it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;

use super::files::{open_own, remove};
use super::totals::{Total, Totals};
use crate::error::ReadError;
use crate::histogram::Distribution;
use crate::layout::MAX_TEXT;
use crate::metric::MetricKind;
use crate::reader::word_at;
use crate::segment::fits_file_limit;

/// A whole base file in memory, found to be sound.
#[derive(Debug)]
pub(super) struct Base {
    file: File,
    bytes: Vec<u8>,
    absorbed: usize,
    entries: u32,
}

/// Where to mark entries of a base.
#[derive(Debug)]
pub(crate) struct Marks {
    file: File,
    /// Offset of the bits.
    offset: u64,
}

impl Base {
    /// Writes a new base of all that `totals` has, and tells it where its entries lie. Nobody looks at the file before it
    /// is published.
    pub(super) fn write(
        path: &Path,
        base_id: u32,
        number: u64,
        absorbed: &[u64],
        totals: &mut Totals,
    ) -> io::Result<Marks> {
        let (mut body, mut entries) = (Vec::new(), 0_u32);
        for (name, place, total) in totals.iter_mut() {
            if push_entry(&mut body, name, total) {
                *place = Some(entries);
                entries += 1;
            }
        }
        let mut header = [0; word::COUNT];
        header[word::MAGIC] = MAGIC;
        header[word::VERSION] = u64::from(base_id) << 32 | u64::from(VERSION);
        header[word::NUMBER] = number;
        header[word::ENTRIES] = u64::from(entries);
        header[word::BODY_BYTES] = body.len() as u64;
        header[word::ABSORBED] = absorbed.len() as u64;
        header[word::CHECKSUM] = checksum(&header, absorbed, &body);
        let marks = vec![0; mark_words(entries) as usize];
        let words = header.iter().chain(absorbed).chain(&marks);
        let mut bytes: Vec<u8> = words.flat_map(|word| word.to_ne_bytes()).collect();
        bytes.append(&mut body);
        if !fits_file_limit(bytes.len() as u64) {
            return Err(io::Error::from(Errno::EFBIG));
        }
        remove(path)?;
        let mut file =
            open_own(OpenOptions::new().read(true).write(true).create_new(true).mode(0o600), path)?;
        // Half a file is of no use to anybody.
        file.write_all(&bytes).inspect_err(|_| drop(remove(path)))?;
        Ok(Marks { file, offset: marks_offset(absorbed.len()) })
    }

    /// Reads a base as its lineage does: no other user may have written it.
    pub(super) fn open_own(path: &Path, number: u64) -> Result<Base, ReadError> {
        Base::read(open_own(OpenOptions::new().read(true).write(true), path)?, number)
    }

    /// Reads a base that anybody may have written. `number`: the one it must have.
    pub(super) fn read(file: File, number: u64) -> Result<Base, ReadError> {
        let length = file.metadata()?.len();
        if length > MAX_BYTES {
            return Err(ReadError::Corrupt("the base is too large"));
        }
        let mut bytes = Vec::with_capacity(length as usize);
        (&file).take(length).read_to_end(&mut bytes)?;
        let (header, rest) = bytes.split_at_checked(word::COUNT * 8).ok_or(ReadError::NotASegment)?;
        let header: [u64; word::COUNT] = std::array::from_fn(|index| word_at(header, index));
        if header[word::MAGIC] != MAGIC {
            return Err(ReadError::NotASegment);
        }
        let version = header[word::VERSION] as u32;
        if version != VERSION {
            return Err(ReadError::Version { found: version, expected: VERSION });
        }
        let damaged = ReadError::Corrupt("the base is damaged");
        let (absorbed, entries) = (header[word::ABSORBED], header[word::ENTRIES]);
        if absorbed > MAX_ABSORBED || entries > length || header[word::NUMBER] != number {
            return Err(damaged);
        }
        let entries = entries as u32;
        let before_body = (absorbed + mark_words(entries)) * 8;
        let Some((lists, body)) = rest.split_at_checked(before_body as usize) else { return Err(damaged) };
        let absorbed: Vec<u64> = (0..absorbed as usize).map(|index| word_at(lists, index)).collect();
        let whole = header[word::BODY_BYTES] == body.len() as u64
            && header[word::CHECKSUM] == checksum(&header, &absorbed, body);
        if !whole {
            return Err(damaged);
        }
        Ok(Base { file, absorbed: absorbed.len(), entries, bytes })
    }

    /// Generations whose segments are part of it.
    pub(super) fn absorbed(&self) -> Vec<u64> {
        (0..self.absorbed).map(|index| word_at(&self.bytes[word::COUNT * 8..], index)).collect()
    }

    /// How many there may be of what [`Base::for_each`] visits.
    pub(super) fn len(&self) -> usize {
        self.entries as usize
    }

    /// Visits all that still counts.
    pub(super) fn for_each(
        &self,
        mut visit: impl FnMut(&str, u32, Total) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let reset = word_at(&self.bytes, word::RESET) != 0;
        let offset = marks_offset(self.absorbed) as usize;
        let (marks, mut body) = self.bytes[offset..].split_at(mark_words(self.entries) as usize * 8);
        for place in 0..self.entries {
            let (name, total) =
                next_entry(&mut body).ok_or(ReadError::Corrupt("an entry of the base is damaged"))?;
            if marks[place as usize / 8] & 1 << (place % 8) != 0 {
                continue;
            }
            visit(
                name,
                place,
                match total {
                    Total::Counter { pending, .. } if reset => Total::Counter { value: 0, pending },
                    other => other,
                },
            )?;
        }
        Ok(())
    }

    /// What marks say now: whether counters were reset, and which entries were dropped.
    pub(super) fn marks(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 8 + mark_words(self.entries) as usize * 8];
        let (reset, entries) = bytes.split_at_mut(8);
        self.file.read_exact_at(reset, word::RESET as u64 * 8)?;
        self.file.read_exact_at(entries, marks_offset(self.absorbed))?;
        Ok(bytes)
    }

    pub(super) fn totals(&self) -> Result<Totals, ReadError> {
        let mut totals = Totals::default();
        totals.reserve(self.len());
        self.for_each(|name, place, total| totals.add(name, Some(place), total))?;
        Ok(totals)
    }

    pub(super) fn into_marks(self) -> Marks {
        Marks { offset: marks_offset(self.absorbed), file: self.file }
    }
}

/// Failing is no reason to stop: the worst is that the next process shows a count that this one no longer did.
impl Marks {
    /// The entry does not count any more.
    pub(crate) fn drop_entry(&self, place: u32) {
        let (offset, mut byte) = (self.offset + u64::from(place / 8), [0]);
        if self.file.read_exact_at(&mut byte, offset).is_ok() {
            let _ = self.file.write_all_at(&[byte[0] | 1 << (place % 8)], offset);
        }
    }

    /// Counters begin anew at zero.
    pub(crate) fn reset(&self) {
        let _ = self.file.write_all_at(&1_u64.to_ne_bytes(), word::RESET as u64 * 8);
    }
}

/// False for what no base holds.
fn push_entry(body: &mut Vec<u8>, name: &str, total: &Total) -> bool {
    if name.len() > MAX_NAME {
        return false;
    }
    let head = (name.len() as u32) << 4 | total.kind().code();
    let begin = |body: &mut Vec<u8>| {
        body.extend_from_slice(&head.to_ne_bytes());
        body.extend_from_slice(name.as_bytes());
    };
    match total {
        Total::Gauge(..) => return false,
        Total::Counter { value, pending } => {
            begin(body);
            body.extend_from_slice(&value.to_ne_bytes());
            body.extend_from_slice(&pending.to_ne_bytes());
        }
        Total::Histogram(distribution) => {
            begin(body);
            let at = body.len();
            body.extend_from_slice(&[0; 4]);
            distribution.encode(body);
            let length = (body.len() - at - 4) as u32;
            body[at..at + 4].copy_from_slice(&length.to_ne_bytes());
        }
    }
    true
}

fn next_entry<'a>(body: &mut &'a [u8]) -> Option<(&'a str, Total)> {
    let head = u32::from_ne_bytes(*take(body)?);
    let name = str::from_utf8(body.split_off(..(head >> 4) as usize)?).ok()?;
    let total = match MetricKind::from_code(head & 15)? {
        MetricKind::Counter => {
            let value = u64::from_ne_bytes(*take(body)?);
            Total::Counter { value, pending: u64::from_ne_bytes(*take(body)?) }
        }
        MetricKind::Histogram => {
            let length = u32::from_ne_bytes(*take(body)?);
            Total::Histogram(Distribution::decode(body.split_off(..length as usize)?)?)
        }
        MetricKind::Gauge(_) | MetricKind::TextReadout => return None,
    };
    Some((name, total))
}

fn take<'a, const N: usize>(body: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (first, rest) = body.split_first_chunk()?;
    *body = rest;
    Some(first)
}

fn mark_words(entries: u32) -> u64 {
    u64::from(entries.div_ceil(64))
}

fn marks_offset(absorbed: usize) -> u64 {
    (word::COUNT + absorbed) as u64 * 8
}

/// Tells a file that was cut short or damaged by accident; it is no secret.
fn checksum(header: &[u64; word::COUNT], absorbed: &[u64], body: &[u8]) -> u64 {
    let mix = |sum: u64, word: u64| (sum.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (words, rest) = body.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let body = words.iter().chain([&last]).map(|word| u64::from_ne_bytes(*word));
    header[..word::CHECKSUM].iter().chain(absorbed).copied().chain(body).fold(0, mix)
}

/// Words of the header, by index.
mod word {
    pub(super) const MAGIC: usize = 0;
    /// Low half version, high half base-id.
    pub(super) const VERSION: usize = 1;
    pub(super) const NUMBER: usize = 2;
    pub(super) const ENTRIES: usize = 3;
    pub(super) const BODY_BYTES: usize = 4;
    pub(super) const ABSORBED: usize = 5;
    /// Of all words before it, the absorbed generations and the entries.
    pub(super) const CHECKSUM: usize = 6;
    /// A mark: not 0 if counters are to count as zero.
    pub(super) const RESET: usize = 7;
    pub(super) const COUNT: usize = 8;
}

const MAGIC: u64 = u64::from_ne_bytes(*b"PRXBASE\0");
const VERSION: u32 = 1;
/// As many segments as a control file can list.
const MAX_ABSORBED: u64 = 64;
const MAX_NAME: usize = MAX_TEXT * 2;
/// Ten times what a million names take.
const MAX_BYTES: u64 = 1 << 30;
