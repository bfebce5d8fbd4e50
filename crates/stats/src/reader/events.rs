//! Reading the ring of events of a segment.

use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::fence;

use super::{Reader, short};
use crate::error::ReadError;
use crate::events::{Event, Pointer, decode, numbers, slot_of};
use crate::layout::{RING_ENTRY_BYTES, word};

impl Reader {
    /// What has happened to that process, and to those before it whose events it has taken over, in the order in which it was
    /// written: the last some hundred.
    pub fn events(&self) -> Result<Vec<Event>, ReadError> {
        Ok(self.events_since(0)?.0)
    }

    /// As [`Reader::events`], of those after the first `seen`; and how many were ever written.
    pub(crate) fn events_since(&self, seen: u64) -> Result<(Vec<Event>, u64), ReadError> {
        let Some(ring) = self.ring else { return Ok((Vec::new(), 0)) };
        let written = self.header_word(word::EVENTS)?;
        let numbers = numbers(seen, written, ring.entries);
        if numbers.is_empty() {
            return Ok((Vec::new(), written));
        }
        let mut looks = [const { Vec::new() }; 3];
        for look in &mut looks {
            fence(SeqCst);
            self.read_ring(ring, &numbers, look)?;
        }
        let [before, entries, after] = looks.each_ref().map(|look| look.chunks(RING_ENTRY_BYTES as usize));
        let found = numbers.zip(before.zip(entries.zip(after)));
        let events =
            found.filter_map(|(number, (before, (entry, after)))| decode(number, before, entry, after));
        Ok((events.collect(), written))
    }

    /// Entries of these numbers, which are no more than there are entries.
    fn read_ring(
        &self,
        ring: Pointer,
        numbers: &std::ops::Range<u64>,
        into: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let count = numbers.end - numbers.start;
        into.resize((count * RING_ENTRY_BYTES) as usize, 0);
        let first = slot_of(numbers.start, ring.entries);
        let until_end = count.min(ring.entries - first);
        let (one, other) = into.split_at_mut((until_end * RING_ENTRY_BYTES) as usize);
        for (slot, bytes) in [(first, one), (0, other)] {
            let at = ring.offset + slot * RING_ENTRY_BYTES;
            self.file.read_exact_at(bytes, at).map_err(short(ReadError::Corrupt("the file has shrunk")))?;
        }
        Ok(())
    }
}

/// What the header says of the ring. None: its program had none, or it does not lie in the file.
pub(super) fn pointer(header: &[u64], length: u64) -> Option<Pointer> {
    let ring = Pointer { offset: header[word::RING], entries: header[word::RING + 1] };
    let end = ring.entries.saturating_mul(RING_ENTRY_BYTES).saturating_add(ring.offset);
    Some(ring).filter(|ring| (1..=MOST_EVENTS).contains(&ring.entries) && end <= length)
}

/// Entries that a ring can have.
const MOST_EVENTS: u64 = 4096;
