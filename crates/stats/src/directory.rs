//! Who owns which slot: scopes, the slots of each, and how a full name finds its one slot.
//!
//! A name can be asked for by several splits (`a.` + `b.c`, `a.b.` + `c`); it is stored under the one that came first
//! and lent to the others. All of this is behind the store's lock; nothing here is on the data path.

use std::hash::BuildHasher;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::{Arc, Weak};

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use crate::blocks::{Blocks, Extent};
use crate::inherited::Inherited;
use crate::layout::{Area, BLOCK_SLOTS, word};
use crate::matcher::StatsMatcher;
use crate::metric::MetricKind;
use crate::names::{Arena, Suffixes, bounded, raise};
use crate::remembered::Incarnation;
use crate::scope::ScopeInner;
use crate::segment::{Change, Segment};

mod entry;
mod values;

use entry::ScopeEntry;
use values::Histogram;
pub(crate) use values::Text;

/// Everything about the stats but their values.
pub(crate) struct Directory {
    hasher: DefaultHashBuilder,
    pub(crate) suffixes: Suffixes,
    pub(crate) arena: Arena,
    scopes: Vec<Option<ScopeEntry>>,
    scope_index: HashTable<u32>,
    scope_free: Vec<u32>,
    generations: u32,
    /// Of the file, then of private memory.
    pools: [Blocks; 2],
    pub(crate) texts: HashMap<u32, Text>,
    histograms: HashMap<u32, Histogram>,
    pub(crate) inherited: Inherited,
    /// What is to take the place of `inherited`, while it is made ready.
    pub(crate) next: Option<Box<Inherited>>,
    /// Number of the flush interval that was begun last.
    interval: u64,
    /// Released, but perhaps still incremented by a thread; with the epoch of their release.
    quarantine: Vec<(u64, Extent)>,
    epoch: u64,
    /// What has been counted is to stay.
    frozen: bool,
    refused: u64,
    /// None: all stats are to exist.
    matcher: Option<Box<StatsMatcher>>,
    lookups: Arc<AtomicU64>,
    full_name: String,
}

impl Directory {
    /// `lookups`: counts how often a stat is looked up.
    pub(crate) fn new(segment: &Segment, lookups: Arc<AtomicU64>) -> Directory {
        let half = segment.geometry().slots / BLOCK_SLOTS;
        Directory {
            hasher: DefaultHashBuilder::default(),
            suffixes: Suffixes::default(),
            arena: Arena::default(),
            scopes: Vec::new(),
            scope_index: HashTable::new(),
            scope_free: Vec::new(),
            generations: 0,
            // The first block of each half stays unused: slot 0 means "none" in `fill`, see `no_slot` for the other;
            // and so no extent spans both halves.
            pools: [Blocks::new(0, half, 1), Blocks::new(half, half * 2, 1)],
            texts: HashMap::new(),
            histograms: HashMap::new(),
            inherited: Inherited::default(),
            next: None,
            interval: 0,
            quarantine: Vec::new(),
            epoch: 0,
            frozen: false,
            refused: 0,
            matcher: None,
            lookups,
            full_name: String::new(),
        }
    }

    /// The entry for `prefix`, made if there is none, and its living handle if it has one.
    pub(crate) fn open(&mut self, prefix: &str) -> (u32, Weak<ScopeInner>) {
        let id = self.find_scope(prefix).unwrap_or_else(|| self.add_scope(prefix));
        let entry = self.entry(id);
        (id, entry.map(|entry| entry.handle.clone()).unwrap_or_default())
    }

    /// Gives the scope a new handle, whose close must name the returned incarnation.
    pub(crate) fn revive(&mut self, id: u32) -> Incarnation {
        let Some(entry) = self.entry_mut(id) else { return Incarnation::NONE };
        if let Some(rare) = &mut entry.rare {
            rare.closed = false;
        }
        entry.incarnation = Incarnation::next();
        entry.incarnation
    }

    pub(crate) fn attach(&mut self, id: u32, handle: Weak<ScopeInner>) {
        if let Some(entry) = self.entry_mut(id) {
            entry.handle = handle;
        }
    }

    fn find_scope(&self, prefix: &str) -> Option<u32> {
        let same = |id: &u32| self.entry(*id).is_some_and(|entry| *entry.prefix == *prefix);
        self.scope_index.find(self.hasher.hash_one(prefix), same).copied()
    }

    fn add_scope(&mut self, prefix: &str) -> u32 {
        self.generations = self.generations.wrapping_add(1);
        let entry = ScopeEntry {
            prefix: prefix.into(),
            handle: Weak::new(),
            incarnation: Incarnation::NONE,
            generation: self.generations,
            first: Extent::default(),
            fill: [0; 2],
            place: None,
            rare: None,
        };
        let id = self.scope_free.pop().unwrap_or_else(|| {
            self.scopes.push(None);
            self.scopes.len() as u32 - 1
        });
        self.scopes[id as usize] = Some(entry);
        let Self { hasher, scopes, scope_index, .. } = self;
        scope_index.insert_unique(hasher.hash_one(prefix), id, |id| {
            hasher.hash_one(scopes[*id as usize].as_ref().map_or("", |entry| &*entry.prefix))
        });
        id
    }

    fn entry(&self, id: u32) -> Option<&ScopeEntry> {
        self.scopes.get(id as usize)?.as_ref()
    }

    fn entry_mut(&mut self, id: u32) -> Option<&mut ScopeEntry> {
        self.scopes.get_mut(id as usize)?.as_mut()
    }

    pub(crate) fn prefix(&self, id: u32) -> &str {
        self.entry(id).map_or("", |entry| &entry.prefix)
    }

    pub(crate) fn generation(&self, id: u32) -> u32 {
        self.entry(id).map_or(0, |entry| entry.generation)
    }

    /// The slot of `prefix of scope` + `suffix`: the existing one, or a new one owned by `scope`.
    /// `matcher` decides in place of the store's, if there is one.
    pub(crate) fn resolve(
        &mut self,
        segment: &Segment,
        scope: u32,
        suffix: &str,
        kind: MetricKind,
        matcher: Option<&StatsMatcher>,
    ) -> u32 {
        self.lookups.fetch_add(1, Relaxed);
        let suffix = &*bounded(suffix);
        if !self.accepts(scope, suffix, matcher) {
            return no_slot(segment);
        }
        let known = self.suffixes.find(suffix);
        if let Some(slot) = known.and_then(|known| self.find_in(segment, self.owning(scope)?, known, kind)) {
            return slot;
        }
        if let Some((owner, slot)) = self.find_elsewhere(segment, scope, suffix, kind) {
            self.lend(owner, scope);
            return slot;
        }
        match known.or_else(|| self.suffixes.intern(suffix)) {
            Some(suffix) => self.add_slot(segment, scope, suffix, kind),
            None => {
                self.refused += 1;
                no_slot(segment)
            }
        }
    }

    /// From now on only stats that `matcher` accepts get slots.
    pub(crate) fn restrict(&mut self, matcher: Box<StatsMatcher>) {
        self.matcher = Some(matcher);
    }

    fn accepts(&mut self, scope: u32, suffix: &str, matcher: Option<&StatsMatcher>) -> bool {
        if matcher.is_none() && self.matcher.is_none() {
            return true;
        }
        let name = self.take_full_name(scope, suffix);
        let accepted = matcher.or(self.matcher.as_deref()).is_none_or(|accepts| accepts(&name));
        self.full_name = name;
        accepted
    }

    /// Name of a stat, in a buffer that is to be put back.
    fn take_full_name(&mut self, scope: u32, suffix: &str) -> String {
        let mut name = std::mem::take(&mut self.full_name);
        name.clear();
        name.push_str(self.prefix(scope));
        name.push_str(suffix);
        name
    }

    /// The slot that another scope has for the name that `suffix` gives in this one.
    fn find_elsewhere(
        &mut self,
        segment: &Segment,
        scope: u32,
        suffix: &str,
        kind: MetricKind,
    ) -> Option<(u32, u32)> {
        if !self.suffixes.may_be_split_otherwise(suffix) {
            return None;
        }
        let name = self.take_full_name(scope, suffix);
        let own = name.len() - suffix.len();
        let found = self.find_split(segment, &name, own, kind);
        self.full_name = name;
        found
    }

    /// The slot of a full name, if it exists.
    pub(crate) fn find(&self, segment: &Segment, name: &str, kind: MetricKind) -> Option<u32> {
        self.find_split(segment, name, usize::MAX, kind).map(|(_, slot)| slot)
    }

    /// Tries each split of `name` at a dot but the one at `except`.
    fn find_split(
        &self,
        segment: &Segment,
        name: &str,
        except: usize,
        kind: MetricKind,
    ) -> Option<(u32, u32)> {
        let dots = name.bytes().enumerate().filter(|(_, byte)| *byte == b'.').map(|(at, _)| at + 1);
        std::iter::once(0).chain(dots).filter(|at| *at != except).find_map(|at| {
            let (prefix, suffix) = name.split_at(at);
            let scope = self.find_scope(prefix)?;
            let entry = self.owning(scope)?;
            let suffix = self.suffixes.find(suffix)?;
            Some((scope, self.find_in(segment, entry, suffix, kind)?))
        })
    }

    /// Ids of scopes are below this.
    pub(crate) fn scope_count(&self) -> u32 {
        self.scopes.len() as u32
    }

    pub(crate) fn owns_slots(&self, scope: u32) -> bool {
        self.owning(scope).is_some()
    }

    /// The scope's slots that hold stats of the kinds wanted.
    pub(crate) fn slots_of<'a>(
        &'a self,
        segment: &'a Segment,
        scope: u32,
        wanted: fn(MetricKind) -> bool,
    ) -> impl Iterator<Item = u32> + 'a {
        let kind = |slot: u32| MetricKind::from_code(segment.descriptors()[slot as usize].load(Relaxed) & 15);
        let slots = self.entry(scope).into_iter().flat_map(ScopeEntry::extents).flat_map(Extent::slots);
        slots.filter(move |slot| kind(*slot).is_some_and(wanted))
    }

    /// The scope's entry if it has slots.
    fn owning(&self, scope: u32) -> Option<&ScopeEntry> {
        self.entry(scope).filter(|entry| entry.fill != [0; 2])
    }

    fn find_in(&self, segment: &Segment, entry: &ScopeEntry, suffix: u32, kind: MetricKind) -> Option<u32> {
        let wanted = suffix << 2 | kind.class();
        if let Some(rare) = entry.rare.as_deref().filter(|rare| !rare.index.is_empty()) {
            return rare.index.get(&wanted).copied();
        }
        entry.extents().find_map(|extent| {
            let slots = extent.slots();
            let descriptors = &segment.descriptors()[slots.start as usize..slots.end as usize];
            let matches = |descriptor: u32| descriptor >> 4 == suffix && key(descriptor) == Some(wanted);
            let at = descriptors.iter().position(|descriptor| matches(descriptor.load(Relaxed)))?;
            Some(slots.start + at as u32)
        })
    }

    fn lend(&mut self, owner: u32, borrower: u32) {
        if let Some(entry) = self.entry_mut(owner) {
            entry.rare.get_or_insert_default().lent += 1;
        }
        if let Some(entry) = self.entry_mut(borrower) {
            entry.rare.get_or_insert_default().lenders.push(owner);
        }
    }

    fn add_slot(&mut self, segment: &Segment, scope: u32, suffix: u32, kind: MetricKind) -> u32 {
        let visible =
            self.suffixes.publish(suffix, segment, &mut self.arena) && self.publish_scope(segment, scope);
        let slot = (if visible { self.next_slot(segment, scope, 0) } else { None })
            .or_else(|| self.next_slot(segment, scope, 1));
        let Some(slot) = slot else {
            self.suffixes.forget_unused(suffix, &mut self.arena);
            self.refused += 1;
            return no_slot(segment);
        };
        self.suffixes.hold(suffix);
        segment.descriptors()[slot as usize].store(suffix << 4 | kind.code(), Release);
        segment.owners()[(slot / BLOCK_SLOTS) as usize].store(scope + 1, Release);
        if slot < segment.geometry().slots {
            raise(segment, word::SLOTS_USED, u64::from(slot) + 1);
        }
        self.note_slot(segment, scope, slot);
        if self.awaits_stats() {
            let mut name = std::mem::take(&mut self.full_name);
            name.clear();
            name.push_str(self.prefix(scope));
            name.push_str(self.suffixes.text(suffix));
            self.take_inherited(&name, kind.class(), slot);
            self.full_name = name;
        }
        slot
    }

    fn next_slot(&mut self, segment: &Segment, scope: u32, pool: usize) -> Option<u32> {
        let next = self.entry(scope)?.fill[pool];
        if !next.is_multiple_of(BLOCK_SLOTS) {
            self.entry_mut(scope)?.fill[pool] += 1;
            return Some(next);
        }
        let block = self.pools[pool].take(segment)?;
        let entry = self.entry_mut(scope)?;
        entry.push_block(block);
        entry.fill[pool] = block * BLOCK_SLOTS + 1;
        Some(block * BLOCK_SLOTS)
    }

    /// Large scopes get an index; a small one is scanned faster than it would be hashed.
    fn note_slot(&mut self, segment: &Segment, scope: u32, slot: u32) {
        let Some(entry) = self.entry_mut(scope) else { return };
        let blocks: u32 = entry.first.count + entry.rare.as_deref().map_or(0, |rare| rare.blocks());
        if blocks * BLOCK_SLOTS <= SCANNED_SLOTS {
            return;
        }
        let key = |slot: u32| key(segment.descriptors()[slot as usize].load(Relaxed));
        let mut index = std::mem::take(&mut entry.rare.get_or_insert_default().index);
        if index.is_empty() {
            index.extend(entry.extents().flat_map(Extent::slots).filter_map(|slot| Some((key(slot)?, slot))));
        } else if let Some(key) = key(slot) {
            index.insert(key, slot);
        }
        entry.rare.get_or_insert_default().index = index;
    }

    fn publish_scope(&mut self, segment: &Segment, id: u32) -> bool {
        let Self { scopes, arena, .. } = self;
        let Some(entry) = scopes.get_mut(id as usize).and_then(Option::as_mut) else { return false };
        if entry.place.is_some() {
            return true;
        }
        let Some(record) = segment.scopes().get(id as usize * 4..id as usize * 4 + 4) else { return false };
        if segment.reserve(Area::Scopes, u64::from(id) + 1).is_err() {
            return false;
        }
        let Some(place) = arena.store(segment, entry.prefix.as_bytes()) else { return false };
        record[0].store(place.offset, Relaxed);
        record[1].store(place.length, Relaxed);
        record[2].store(entry.generation, Release);
        raise(segment, word::SCOPES_USED, u64::from(id) + 1);
        entry.place = Some(Box::new(place));
        true
    }

    /// Scopes that are dropped from now on keep their slots.
    pub(crate) fn freeze(&mut self) {
        self.frozen = true;
    }

    /// The last handle of a scope is gone. Its slots go too, unless another scope uses one of them.
    pub(crate) fn close(&mut self, segment: &Segment, id: u32, incarnation: Incarnation) {
        if self.frozen {
            return;
        }
        let Some(entry) = self.entry_mut(id).filter(|entry| entry.incarnation == incarnation) else { return };
        let rare = entry.rare.get_or_insert_default();
        rare.closed = true;
        let lenders = std::mem::take(&mut rare.lenders);
        if rare.lent == 0 {
            self.release(segment, id);
        }
        for lender in lenders {
            let Some(rare) = self.entry_mut(lender).and_then(|entry| entry.rare.as_deref_mut()) else {
                continue;
            };
            rare.lent = rare.lent.saturating_sub(1);
            if rare.closed && rare.lent == 0 {
                self.release(segment, lender);
            }
        }
    }

    fn release(&mut self, segment: &Segment, id: u32) {
        let Some(entry) = self.scopes.get_mut(id as usize).and_then(Option::take) else { return };
        if let Ok(found) =
            self.scope_index.find_entry(self.hasher.hash_one(&*entry.prefix), |found| *found == id)
        {
            found.remove();
        }
        let _change = Change::begin(segment);
        for extent in entry.extents() {
            for block in extent.blocks() {
                segment.owners()[block as usize].store(0, Release);
            }
            for slot in extent.slots() {
                let descriptor = segment.descriptors()[slot as usize].swap(0, Relaxed);
                if descriptor != 0 {
                    self.suffixes.release(descriptor >> 4, &mut self.arena);
                }
                let text = self.texts.remove(&slot).and_then(|text| text.place);
                let histogram = self.histograms.remove(&slot).and_then(|histogram| histogram.place);
                text.into_iter().chain(histogram).for_each(|place| self.arena.free(place));
                self.release_inherited(slot);
            }
            self.quarantine.push((self.epoch, extent));
        }
        if let Some(place) = entry.place {
            self.arena.free(*place);
        }
        self.scope_free.push(id);
    }

    /// Ends an epoch and returns its number: what is released from now on belongs to the next.
    pub(crate) fn end_epoch(&mut self) -> u64 {
        self.epoch += 1;
        self.epoch - 1
    }

    /// Makes slots released up to the end of `epoch` free for new stats.
    pub(crate) fn reclaim(&mut self, segment: &Segment, epoch: u64) -> usize {
        let (done, kept) =
            self.quarantine.drain(..).partition::<Vec<_>, _>(|(released, _)| *released <= epoch);
        self.quarantine = kept;
        // What was recorded for them is not for their next owners.
        segment.forget_recorded(|slot| segment.descriptors()[slot as usize].load(Relaxed) == 0);
        let mut slots = 0;
        for (_, extent) in done {
            extent.slots().for_each(|slot| segment.zero(slot));
            slots += extent.slots().len();
            if let Some(pool) = self.pools.iter_mut().find(|pool| pool.owns(extent.first)) {
                pool.give_back(extent);
            }
        }
        slots
    }

    /// Blocks to look at when walking over all stats.
    pub(crate) fn block_ranges(&self) -> [std::ops::Range<u32>; 2] {
        [self.pools[0].used(), self.pools[1].used()]
    }

    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }
}

/// What a slot is found by: suffix and class. None if it is empty.
fn key(descriptor: u32) -> Option<u32> {
    Some(descriptor >> 4 << 2 | MetricKind::from_code(descriptor & 15)?.class())
}

/// Where stats without a slot count, rejected or refused: the first private slot, which always has memory and never an owner.
fn no_slot(segment: &Segment) -> u32 {
    segment.geometry().slots
}

const SCANNED_SLOTS: u32 = 128;
