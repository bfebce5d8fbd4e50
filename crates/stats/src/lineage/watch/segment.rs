//! One segment, looked at again and again: which stat each slot is, is found out once and whenever owner, descriptor or name
//! have changed; each look takes two reads for these and one for each column, for a thousand slots at a time.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::fence;

use hashbrown::HashMap;

use super::catalog::{Catalog, StatId};
use crate::error::ReadError;
use crate::histogram::Distribution;
use crate::layout::{Area, BLOCK_SLOTS, word};
use crate::metric::MetricKind;
use crate::reader::{ATTEMPTS, Names, Reader, SLICE_SLOTS, half_word, halves, words};

/// A segment and what the last look found in it.
#[derive(Debug)]
pub(super) struct WatchedSegment {
    pub(super) reader: Reader,
    pub(super) lives: bool,
    settled: bool,
    /// Device and number of the file.
    file: (u64, u64),
    sequence: Option<u64>,
    /// Moves when names may have changed although owners and descriptors have not.
    version: u64,
    /// The version at which each slice was resolved.
    resolved: Vec<u64>,
    owners: Vec<u8>,
    descriptors: Vec<u8>,
    /// Number of the stat of each slot, or [`NONE`].
    pub(super) ids: Vec<u32>,
    /// Over all threads.
    pub(super) sums: Vec<u64>,
    scopes: HashMap<u32, ScopeSeen>,
    suffixes: HashMap<u32, Box<str>>,
    /// By slot, with the cell that told where it lies.
    distributions: HashMap<u32, (u64, Distribution)>,
    texts: HashMap<u32, (u64, Box<str>)>,
    scratch: Scratch,
}

#[derive(Debug)]
struct ScopeSeen {
    record: [u32; 3],
    prefix: Box<str>,
}

#[derive(Debug, Default)]
struct Scratch {
    owners: Vec<u8>,
    descriptors: Vec<u8>,
    column: Vec<u8>,
}

impl WatchedSegment {
    pub(super) fn open(path: &Path) -> Result<WatchedSegment, ReadError> {
        let reader = Reader::open(path)?;
        let metadata = reader.file().metadata()?;
        Ok(WatchedSegment {
            reader,
            lives: true,
            settled: false,
            file: (metadata.dev(), metadata.ino()),
            sequence: None,
            version: 0,
            resolved: Vec::new(),
            owners: Vec::new(),
            descriptors: Vec::new(),
            ids: Vec::new(),
            sums: Vec::new(),
            scopes: HashMap::new(),
            suffixes: HashMap::new(),
            distributions: HashMap::new(),
            texts: HashMap::new(),
            scratch: Scratch::default(),
        })
    }

    /// Whether the file at `path` is this one.
    pub(super) fn is_at(&self, path: &Path) -> io::Result<bool> {
        let metadata = std::fs::symlink_metadata(path)?;
        Ok((metadata.dev(), metadata.ino()) == self.file)
    }

    /// Reads all values again. True if stats came, went or changed their names, or others are to show.
    pub(super) fn refresh(&mut self, catalog: &mut Arc<Catalog>) -> Result<bool, ReadError> {
        self.lives = self.reader.writer_lives()?;
        let settled = self.reader.is_settled()?;
        // What is under no scope shows no longer from then on.
        let mut changed = std::mem::replace(&mut self.settled, settled) != settled;
        let (mut start, mut names) = (0, Names::default());
        if self.reader.slots_used()? > MOST_SLOTS {
            return Err(ReadError::Corrupt("more stats than any process has"));
        }
        while start < self.reader.slots_used()? {
            let count = SLICE_SLOTS.min(self.reader.slots() - start);
            changed |= self.refresh_steadily(start, count, catalog, &mut names)?;
            start += count;
        }
        Ok(changed)
    }

    /// As [`Reader`] reads a slice: until nothing was taken away in between.
    fn refresh_steadily(
        &mut self,
        start: u32,
        count: u32,
        catalog: &mut Arc<Catalog>,
        names: &mut Names,
    ) -> Result<bool, ReadError> {
        let mut changed = false;
        for attempt in 1..=ATTEMPTS {
            let before = self.reader.header_word(word::SEQUENCE)?;
            fence(SeqCst);
            if self.sequence != Some(before) {
                *names = Names::default();
                self.check_names()?;
                self.sequence = Some(before);
            }
            let result = self.refresh_slice(start, count, catalog, names);
            fence(SeqCst);
            let settled = before.is_multiple_of(2) || attempt > ATTEMPTS / 2;
            if settled && self.reader.header_word(word::SEQUENCE)? == before {
                return result.map(|more| changed | more);
            }
            changed |= result.unwrap_or(true);
            // What was just found may be wrong.
            self.sequence = None;
            self.resolved[(start / SLICE_SLOTS) as usize] = STALE;
            std::thread::yield_now();
        }
        Err(ReadError::Busy)
    }

    /// Something was taken away since: are the names that are in use still what they were?
    fn check_names(&mut self) -> Result<(), ReadError> {
        let used = self.reader.mark(word::SCOPES_USED, self.reader.capacity(Area::Scopes))?;
        if used > u64::from(MOST_SLOTS) {
            return Err(ReadError::Corrupt("more scopes than any process has"));
        }
        let mut records = Vec::new();
        self.reader.read(Area::Scopes, 0, used, &mut records)?;
        let count = self.scopes.len();
        self.scopes.retain(|scope, seen| record(&records, *scope) == seen.record);
        let mut same = self.scopes.len() == count;
        let (reader, count) = (&self.reader, self.suffixes.len());
        self.suffixes.retain(|suffix, text| reader.suffix(*suffix).is_ok_and(|now| *now == **text));
        same &= self.suffixes.len() == count;
        if !same {
            self.version += 1;
        }
        Ok(())
    }

    fn refresh_slice(
        &mut self,
        start: u32,
        count: u32,
        catalog: &mut Arc<Catalog>,
        names: &mut Names,
    ) -> Result<bool, ReadError> {
        self.grow(start + count);
        let Scratch { owners, descriptors, column } = &mut self.scratch;
        let (first, length) = (u64::from(start), u64::from(count));
        let block = u64::from(BLOCK_SLOTS);
        self.reader.read(Area::Owners, first / block, length / block, owners)?;
        self.reader.read(Area::Descriptors, first, length, descriptors)?;
        let sums = &mut self.sums[start as usize..(start + count) as usize];
        sums.fill(0);
        for thread in 0..=u64::from(self.reader.threads()) {
            let at = thread * u64::from(self.reader.slots()) + first;
            self.reader.read(Area::Columns, at, length, column)?;
            for (sum, cell) in sums.iter_mut().zip(words(column)) {
                *sum = sum.wrapping_add(cell);
            }
        }
        let changed = self.resolve_slice(start, count, catalog, names)?;
        self.follow_places(start, count, catalog)?;
        Ok(changed)
    }

    fn grow(&mut self, slots: u32) {
        let slots = slots as usize;
        if self.ids.len() < slots {
            self.ids.resize(slots, NONE);
            self.sums.resize(slots, 0);
            self.owners.resize(slots / BLOCK_SLOTS as usize * 4, 0);
            self.descriptors.resize(slots * 4, 0);
            self.resolved.resize(slots.div_ceil(SLICE_SLOTS as usize), STALE);
        }
    }

    /// Finds out which stats the slots of a slice are, where that may have changed.
    fn resolve_slice(
        &mut self,
        start: u32,
        count: u32,
        catalog: &mut Arc<Catalog>,
        names: &mut Names,
    ) -> Result<bool, ReadError> {
        let slice = (start / SLICE_SLOTS) as usize;
        let all = self.resolved[slice] != self.version;
        let block = BLOCK_SLOTS as usize;
        let known = (
            &mut self.owners[start as usize / block * 4..(start + count) as usize / block * 4],
            &mut self.descriptors[start as usize * 4..(start + count) as usize * 4],
        );
        if !all && *known.0 == self.scratch.owners && *known.1 == self.scratch.descriptors {
            return Ok(false);
        }
        // Only put right when all has gone well.
        self.resolved[slice] = STALE;
        let scopes = self.reader.mark(word::SCOPES_USED, self.reader.capacity(Area::Scopes))?;
        let suffixes = self.reader.mark(word::SUFFIXES_USED, self.reader.capacity(Area::Suffixes))?;
        let mut name = String::new();
        for index in 0..count as usize {
            let owner = half_word(&self.scratch.owners, index / block);
            let descriptor = half_word(&self.scratch.descriptors, index);
            let same = half_word(known.0, index / block) == owner && half_word(known.1, index) == descriptor;
            if same && !all {
                continue;
            }
            let slot = start + index as u32;
            self.distributions.remove(&slot);
            self.texts.remove(&slot);
            let id = &mut self.ids[slot as usize];
            *id = NONE;
            let (Some(scope), true) = (owner.checked_sub(1), descriptor != 0) else { continue };
            let kind =
                MetricKind::from_code(descriptor & 15).ok_or(ReadError::Corrupt("unknown kind of stat"))?;
            let suffix = descriptor >> 4;
            if u64::from(scope) >= scopes || u64::from(suffix) >= suffixes {
                return Err(ReadError::Corrupt("a stat without a name"));
            }
            name.clear();
            self.reader.push_prefix(names, scope, &mut name)?;
            let prefix = name.len();
            self.reader.push_suffix(names, suffix, &mut name)?;
            if self.scopes.get(&scope).is_none_or(|seen| *seen.prefix != name[..prefix]) {
                let mut bytes = Vec::new();
                self.reader.read(Area::Scopes, u64::from(scope), 1, &mut bytes)?;
                let seen = ScopeSeen { record: record(&bytes, 0), prefix: name[..prefix].into() };
                self.scopes.insert(scope, seen);
            }
            if self.suffixes.get(&suffix).is_none_or(|seen| **seen != name[prefix..]) {
                self.suffixes.insert(suffix, name[prefix..].into());
            }
            *id = intern(catalog, &name, kind)?.0;
        }
        known.0.copy_from_slice(&self.scratch.owners);
        known.1.copy_from_slice(&self.scratch.descriptors);
        self.resolved[slice] = self.version;
        Ok(true)
    }

    /// Reads what cells of histograms and texts point to, if they point somewhere else than last time. The sum of a histogram
    /// becomes the number of its values.
    fn follow_places(&mut self, start: u32, count: u32, catalog: &Catalog) -> Result<(), ReadError> {
        for slot in start..start + count {
            let index = slot as usize;
            if self.ids[index] == NONE {
                continue;
            }
            let cell = self.sums[index];
            let (length, offset) = halves(cell);
            match catalog.kind(StatId(self.ids[index])) {
                Some(MetricKind::Histogram) => {
                    if self.distributions.get(&slot).is_none_or(|(known, _)| *known != cell) && cell != 0 {
                        let distribution = self.reader.distribution(offset, length)?;
                        self.distributions.insert(slot, (cell, distribution));
                    }
                    let found = self.distributions.get(&slot).filter(|_| cell != 0);
                    self.sums[index] = found.map_or(0, |(_, distribution)| distribution.count());
                }
                Some(MetricKind::TextReadout)
                    if self.texts.get(&slot).is_none_or(|(known, _)| *known != cell) =>
                {
                    let text = if cell == 0 { String::new() } else { self.reader.string(offset, length)? };
                    self.texts.insert(slot, (cell, text.into()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Prefixes of the scopes that own stats.
    pub(super) fn prefixes(&self) -> impl Iterator<Item = &str> {
        let mut last = None;
        let slots = self.ids.iter().enumerate().filter(|(_, id)| **id != NONE);
        slots.filter_map(move |(slot, _)| {
            let owner = half_word(&self.owners, slot / BLOCK_SLOTS as usize).checked_sub(1)?;
            (last.replace(owner) != Some(owner)).then(|| self.scopes.get(&owner))?.map(|seen| &*seen.prefix)
        })
    }

    /// Those that hold something, by slot.
    pub(super) fn histograms(&self) -> impl Iterator<Item = (u32, StatId)> {
        self.distributions.keys().map(|slot| (*slot, StatId(self.ids[*slot as usize])))
    }

    pub(super) fn slot(&self, id: StatId) -> Option<u32> {
        self.ids.iter().position(|found| *found == id.0).map(|slot| slot as u32)
    }

    pub(super) fn distribution(&self, slot: u32) -> Option<&Distribution> {
        self.distributions.get(&slot).map(|(_, distribution)| distribution)
    }

    pub(super) fn texts(&self) -> impl Iterator<Item = (StatId, &str)> {
        self.texts.iter().map(|(slot, (_, text))| (StatId(self.ids[*slot as usize]), &**text))
    }

    pub(super) fn text(&self, slot: u32) -> Option<&str> {
        self.texts.get(&slot).map(|(_, text)| &**text)
    }

    /// The slots of these stats, which are in order.
    pub(super) fn slots_of(&self, ids: &[StatId]) -> impl Iterator<Item = u32> {
        let slots = self.ids.iter().enumerate();
        slots.filter(|(_, id)| ids.binary_search(&StatId(**id)).is_ok()).map(|(slot, _)| slot as u32)
    }

    /// The cells of a slot, by thread.
    pub(super) fn cells(&self, slot: u32) -> Result<Vec<u64>, ReadError> {
        let mut bytes = Vec::new();
        (0..u64::from(self.reader.threads()))
            .map(|thread| {
                let at = thread * u64::from(self.reader.slots()) + u64::from(slot);
                self.reader.read(Area::Columns, at, 1, &mut bytes)?;
                Ok(words(&bytes).next().unwrap_or(0))
            })
            .collect()
    }
}

/// Copies the catalog only if there is something new and somebody else holds it.
pub(super) fn intern(catalog: &mut Arc<Catalog>, name: &str, kind: MetricKind) -> Result<StatId, ReadError> {
    Arc::make_mut(catalog).intern(name, kind).ok_or(ReadError::Corrupt("more names than any process has"))
}

/// Arena offset, length and generation of a scope.
fn record(records: &[u8], scope: u32) -> [u32; 3] {
    std::array::from_fn(|index| half_word(records, scope as usize * 4 + index))
}

/// No stat has this number.
pub(super) const NONE: u32 = u32::MAX;
/// As many as a segment of ours can have: what is kept of one has a bound, whatever the file says.
const MOST_SLOTS: u32 = 1 << 23;
/// No version.
const STALE: u64 = u64::MAX;
