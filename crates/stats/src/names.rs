//! Strings: suffixes interned once for all scopes, and the arena in the segment that lets other processes read them.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::sync::atomic::Ordering::{Relaxed, Release};

use hashbrown::hash_map::Entry;
use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use crate::layout::{Area, MAX_TEXT, word};
use crate::segment::Segment;

/// Every suffix in use, with the number of slots that use it.
#[derive(Default)]
pub(crate) struct Suffixes {
    hasher: DefaultHashBuilder,
    entries: Vec<Suffix>,
    index: HashTable<u32>,
    free: Vec<u32>,
    /// By hash: how many suffixes with dots end in this part after their last dot.
    tails: HashMap<u64, u32>,
}

#[derive(Default)]
struct Suffix {
    text: Box<str>,
    slots: u32,
    /// Where the segment holds it, once a slot that others can see uses it.
    place: Option<Place>,
}

impl Suffixes {
    pub(crate) fn find(&self, text: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(text);
        self.index.find(hash, |id| *self.entries[*id as usize].text == *text).copied()
    }

    /// The id of `text`, new or not. It stays valid while slots hold it. None when ids have run out.
    pub(crate) fn intern(&mut self, text: &str) -> Option<u32> {
        if let Some(id) = self.find(text) {
            return Some(id);
        }
        let id = match self.free.pop() {
            Some(id) => id,
            None if self.entries.len() >= MAX_SUFFIXES => return None,
            None => {
                self.entries.push(Suffix::default());
                self.entries.len() as u32 - 1
            }
        };
        self.entries[id as usize].text = text.into();
        if let Some((_, tail)) = text.rsplit_once('.') {
            *self.tails.entry(self.hasher.hash_one(tail)).or_default() += 1;
        }
        let Self { hasher, entries, index, .. } = self;
        index.insert_unique(hasher.hash_one(text), id, |id| hasher.hash_one(&*entries[*id as usize].text));
        Some(id)
    }

    /// Whether a stat of this suffix may be known under a shorter prefix or a longer one. Cheap, and nearly always no.
    pub(crate) fn may_be_split_otherwise(&self, suffix: &str) -> bool {
        suffix.contains('.')
            || (!self.tails.is_empty() && self.tails.contains_key(&self.hasher.hash_one(suffix)))
    }

    pub(crate) fn text(&self, id: u32) -> &str {
        self.entries.get(id as usize).map_or("", |suffix| &suffix.text)
    }

    pub(crate) fn hold(&mut self, id: u32) {
        self.entries[id as usize].slots += 1;
    }

    /// One slot less; the last one frees the suffix, so that names that come and go do not pile up.
    pub(crate) fn release(&mut self, id: u32, arena: &mut Arena) {
        let suffix = &mut self.entries[id as usize];
        suffix.slots = suffix.slots.saturating_sub(1);
        if suffix.slots == 0 {
            self.forget(id, arena);
        }
    }

    /// Drops a suffix that no slot took after all.
    pub(crate) fn forget_unused(&mut self, id: u32, arena: &mut Arena) {
        if self.entries[id as usize].slots == 0 {
            self.forget(id, arena);
        }
    }

    fn forget(&mut self, id: u32, arena: &mut Arena) {
        let suffix = std::mem::take(&mut self.entries[id as usize]);
        if let Some(place) = suffix.place {
            arena.free(place);
        }
        if let Ok(entry) = self.index.find_entry(self.hasher.hash_one(&*suffix.text), |found| *found == id) {
            entry.remove();
        }
        if let Some((_, tail)) = suffix.text.rsplit_once('.')
            && let Entry::Occupied(mut count) = self.tails.entry(self.hasher.hash_one(tail))
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        self.free.push(id);
    }

    /// Writes the suffix to the segment's table. False if there is no space for it.
    pub(crate) fn publish(&mut self, id: u32, segment: &Segment, arena: &mut Arena) -> bool {
        let suffix = &mut self.entries[id as usize];
        if suffix.place.is_some() {
            return true;
        }
        let Some(record) = segment.suffixes().get(id as usize * 2..id as usize * 2 + 2) else { return false };
        if segment.reserve(Area::Suffixes, u64::from(id) + 1).is_err() {
            return false;
        }
        let Some(place) = arena.store(segment, suffix.text.as_bytes()) else { return false };
        record[0].store(place.offset, Relaxed);
        record[1].store(place.length, Release);
        raise(segment, word::SUFFIXES_USED, u64::from(id) + 1);
        suffix.place = Some(place);
        true
    }
}

/// Bytes of the segment's arena in use by one string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

/// Hands out the arena in steps of 8 bytes; what is freed serves strings of the same length class.
#[derive(Default)]
pub(crate) struct Arena {
    used: u32,
    free: HashMap<u32, Vec<u32>>,
}

impl Place {
    /// As in a slot's cell.
    pub(crate) fn word(self) -> u64 {
        u64::from(self.offset) << 32 | u64::from(self.length)
    }
}

impl Arena {
    /// Copies `bytes` into the segment. None if there is no space for them.
    pub(crate) fn store(&mut self, segment: &Segment, bytes: &[u8]) -> Option<Place> {
        let length = u32::try_from(bytes.len()).ok()?;
        let class = class(length);
        let offset = match self.free.get_mut(&class).and_then(Vec::pop) {
            Some(offset) => offset,
            None => {
                let end = self.used.checked_add(class).filter(|end| *end <= segment.geometry().arena)?;
                segment.reserve(Area::Arena, u64::from(end)).ok()?;
                std::mem::replace(&mut self.used, end)
            }
        };
        let target = &segment.arena()[offset as usize..(offset + length) as usize];
        for (cell, byte) in target.iter().zip(bytes) {
            cell.store(*byte, Relaxed);
        }
        Some(Place { offset, length })
    }

    pub(crate) fn free(&mut self, place: Place) {
        self.free.entry(class(place.length)).or_default().push(place.offset);
    }
}

fn class(length: u32) -> u32 {
    length.max(1).next_multiple_of(8)
}

/// Lifts a high-water mark of the header after what lies below it is in place.
pub(crate) fn raise(segment: &Segment, index: usize, value: u64) {
    let mark = &segment.header()[index];
    if mark.load(Relaxed) < value {
        mark.store(value, Release);
    }
}

/// Cuts a name that no reader would take, keeping it distinct by a hash of the whole.
pub(crate) fn bounded(name: &str) -> Cow<'_, str> {
    if name.len() < MAX_TEXT {
        return Cow::Borrowed(name);
    }
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let end = name.floor_char_boundary(MAX_TEXT - 32);
    Cow::Owned(format!("{}~{hash:016x}", &name[..end]))
}

/// A scope name as Envoy makes it a prefix: without a dot at either end and without colons.
pub(crate) fn sanitized(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let name = name.strip_prefix('.').unwrap_or(name);
    if !name.contains([':', '\0']) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.replace("://", "_").replace(":/", "_").replace([':', '\0'], "_"))
}

/// Suffix ids share a word with the kind.
const MAX_SUFFIXES: usize = 1 << 28;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scope_names_lose_colons_and_outer_dots() {
        assert_eq!(sanitized("listener.127.0.0.1:80."), "listener.127.0.0.1_80");
        assert_eq!(sanitized(".a://b:/c"), "a_b_c");
        assert_eq!(sanitized(""), "");
    }

    #[test]
    fn overlong_names_stay_distinct_and_short() {
        let long = "ä".repeat(MAX_TEXT);
        let other = format!("{long}x");
        assert!(bounded(&long).len() < MAX_TEXT);
        assert_ne!(bounded(&long), bounded(&other));
        assert_eq!(bounded("short"), "short");
    }

    #[test]
    fn suffixes_are_shared_and_freed_with_their_last_slot() {
        let (mut suffixes, mut arena) = (Suffixes::default(), Arena::default());
        let a = suffixes.intern("a").unwrap();
        assert_eq!(suffixes.intern("a"), Some(a));
        suffixes.hold(a);
        suffixes.hold(a);
        suffixes.release(a, &mut arena);
        assert_eq!(suffixes.find("a"), Some(a));
        suffixes.release(a, &mut arena);
        assert_eq!(suffixes.find("a"), None);
        assert_eq!(suffixes.intern("b"), Some(a));
    }
}
