//! What threads record: each into memory of its own, which changes hands as a whole once per flush.
//!
//! A thread's two sets are the one that it records into and the one that waits for main to merge it; handing over is
//! the swap. Recording is a look-up by slot and an increment.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;

use super::bucket::{BucketIndex, DECADES, PER_DECADE};
use super::distribution::Distribution;

/// Histograms of one thread since it handed over last, by slot. Those that nothing was recorded in take no memory.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    by_slot: HashMap<u32, Counts, BuildHasherDefault<SlotHasher>>,
}

/// Counts of one histogram, dense within each power of ten that has been seen.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    zero: u64,
    decades: [Option<Box<[u64; PER_DECADE]>>; DECADES],
}

impl Recording {
    #[inline]
    pub(crate) fn record(&mut self, slot: u32, value: u64) {
        self.by_slot.entry(slot).or_default().record(value);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_slot.is_empty()
    }

    /// Drops what was recorded for slots that `dead` says are gone.
    pub(crate) fn forget(&mut self, dead: impl Fn(u32) -> bool) {
        self.by_slot.retain(|slot, _| !dead(*slot));
    }

    pub(crate) fn into_histograms(self) -> impl Iterator<Item = (u32, Counts)> {
        self.by_slot.into_iter()
    }
}

impl Counts {
    #[inline]
    fn record(&mut self, value: u64) {
        match BucketIndex::of(value).place() {
            None => self.zero += 1,
            Some((decade, place)) => {
                self.decades[decade].get_or_insert_with(|| Box::new([0; PER_DECADE]))[place] += 1;
            }
        }
    }

    pub(crate) fn add_to(&self, distribution: &mut Distribution) {
        if self.zero > 0 {
            distribution.add(BucketIndex::ZERO, self.zero);
        }
        for (decade, counts) in self.decades.iter().enumerate() {
            let counts = counts.iter().flat_map(|counts| counts.iter());
            for (place, count) in counts.enumerate().filter(|(_, count)| **count > 0) {
                distribution.add(BucketIndex::from_place(decade, place), *count);
            }
        }
    }
}

/// Slots are chosen by us, so spreading their bits is all a hash has to do.
#[derive(Default)]
struct SlotHasher(u64);

impl Hasher for SlotHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32(u32::from(*byte)));
    }

    fn write_u32(&mut self, slot: u32) {
        self.0 = (self.0 ^ u64::from(slot)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
