//! What a thread has looked up by name lately: the first place to look, without a lock.
//!
//! An entry names the incarnation of its scope, and those are never used again. So one of a scope that is gone is never
//! found, holds nothing, and gives way like any other: deleting a scope has to tell no thread. The table has a fixed
//! size and each entry one cache line; what is longer than fits is looked up under the lock.

use std::array;
use std::cell::RefCell;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hashbrown::DefaultHashBuilder;

use crate::metric::MetricKind;

/// One life of a scope, from the first handle to the last; of all stores of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Incarnation(u64);

impl Incarnation {
    /// Of no scope.
    pub(crate) const NONE: Incarnation = Incarnation(0);

    /// One that was never used.
    pub(crate) fn next() -> Incarnation {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Incarnation(LAST.fetch_add(1, Relaxed) + 1)
    }
}

/// The slot of `name` in a scope that lives, as this thread remembers it or as `look_up` finds it.
pub(crate) fn slot(scope: Incarnation, name: &str, kind: MetricKind, look_up: impl FnOnce() -> u32) -> u32 {
    if name.len() > LONGEST {
        return look_up();
    }
    let key = Key { scope, class: kind.class() as u8, name: name.as_bytes() };
    // A thread that is ending remembers nothing.
    let found = REMEMBERED.try_with(|table| table.borrow().as_ref()?.find(&key)).ok().flatten();
    found.unwrap_or_else(|| {
        let slot = look_up();
        let _ = REMEMBERED.try_with(|table| table.borrow_mut().get_or_insert_default().remember(&key, slot));
        slot
    })
}

struct Key<'a> {
    scope: Incarnation,
    class: u8,
    name: &'a [u8],
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Entry {
    scope: Incarnation,
    slot: u32,
    class: u8,
    length: u8,
    name: [u8; LONGEST],
}

/// An entry is in the set that its hash says, the latest first.
struct Table {
    hasher: DefaultHashBuilder,
    sets: Box<[[Entry; WAYS]]>,
}

impl Table {
    fn find(&self, key: &Key<'_>) -> Option<u32> {
        let set = &self.sets[self.set_of(key)];
        set.iter().find(|entry| entry.is(key)).map(|entry| entry.slot)
    }

    fn remember(&mut self, key: &Key<'_>, slot: u32) {
        let set = self.set_of(key);
        let set = &mut self.sets[set];
        set.rotate_right(1);
        set[0] = Entry {
            scope: key.scope,
            slot,
            class: key.class,
            length: key.name.len() as u8,
            name: [0; LONGEST],
        };
        set[0].name[..key.name.len()].copy_from_slice(key.name);
    }

    fn set_of(&self, key: &Key<'_>) -> usize {
        self.hasher.hash_one((key.scope, key.class, key.name)) as usize % SETS
    }
}

impl Default for Table {
    fn default() -> Self {
        let nothing = Entry { scope: Incarnation::NONE, slot: 0, class: 0, length: 0, name: [0; LONGEST] };
        let sets = vec![array::from_fn(|_| nothing); SETS].into_boxed_slice();
        Table { hasher: DefaultHashBuilder::default(), sets }
    }
}

impl Entry {
    fn is(&self, key: &Key<'_>) -> bool {
        self.scope == key.scope
            && self.class == key.class
            && self.name[..usize::from(self.length)] == *key.name
    }
}

thread_local! {
    static REMEMBERED: RefCell<Option<Table>> = const { RefCell::new(None) };
}

/// With [`WAYS`], 512 entries, which take 32 KiB.
const SETS: usize = 128;
const WAYS: usize = 4;
const LONGEST: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown() -> u32 {
        panic!("it was remembered")
    }

    #[test]
    fn an_entry_is_a_cache_line() {
        assert_eq!(size_of::<Entry>(), 64);
    }

    #[test]
    fn names_scopes_and_kinds_are_told_apart() {
        let (one, other) = (Incarnation::next(), Incarnation::next());
        let long = "a".repeat(LONGEST);
        let keys = [
            (one, "a", MetricKind::Counter, 1),
            (one, "b", MetricKind::Counter, 2),
            (one, "a", MetricKind::Histogram, 3),
            (other, "a", MetricKind::Counter, 4),
            (one, &long, MetricKind::Counter, 5),
            (one, "", MetricKind::Counter, 6),
        ];
        for (scope, name, kind, number) in keys {
            assert_eq!(slot(scope, name, kind, || number), number);
        }
        for (scope, name, kind, number) in keys {
            assert_eq!(slot(scope, name, kind, unknown), number);
        }
        let next = Incarnation::next();
        assert_eq!(slot(next, "a", MetricKind::Counter, || 7), 7, "a scope that comes back is another");
    }

    #[test]
    fn what_does_not_fit_is_looked_up_each_time() {
        let (scope, long) = (Incarnation::next(), "a".repeat(LONGEST + 1));
        assert_eq!(slot(scope, &long, MetricKind::Counter, || 1), 1);
        assert_eq!(slot(scope, &long, MetricKind::Counter, || 2), 2);
    }

    #[test]
    fn many_names_push_each_other_out_and_nothing_grows() {
        let scope = Incarnation::next();
        for round in 0..2 {
            for number in 0..10_000 {
                let found = slot(scope, &format!("name_{number}"), MetricKind::Counter, || number);
                assert_eq!(found, number, "round {round}");
            }
        }
        assert_eq!(slot(scope, "name_9999", MetricKind::Counter, unknown), 9999);
    }
}
