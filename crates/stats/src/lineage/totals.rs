//! Sums by full name, of stats that hold something: what several processes have counted, added up.

use std::hash::BuildHasher;
use std::ops::Range;

use hashbrown::{DefaultHashBuilder, HashTable, hash_table};

use crate::error::ReadError;
use crate::histogram::Distribution;
use crate::metric::{ImportMode, MetricKind};

/// Names in one string and sums in one table: there may be hundreds of thousands.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    hasher: DefaultHashBuilder,
    names: String,
    entries: Vec<Entry>,
    /// Also of what was taken out: gaps would make looking for other names slow.
    index: HashTable<u32>,
    taken: usize,
    /// The entry after the one found last: processes of a lineage make their stats in about the same order.
    next: u32,
}

#[derive(Debug)]
struct Entry {
    name: Range<u32>,
    place: Place,
    /// None: taken out.
    total: Option<Total>,
}

/// Number of an entry in a base file; none if it is not in one.
pub(crate) type Place = Option<u32>;

/// What is known of one stat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Total {
    Counter {
        value: u64,
        /// How much of it sinks have not been told, wrapping.
        pending: u64,
    },
    /// Two's complement.
    Gauge(ImportMode, u64),
    Histogram(Distribution),
}

impl Total {
    pub(crate) fn kind(&self) -> MetricKind {
        match self {
            Total::Counter { .. } => MetricKind::Counter,
            Total::Gauge(mode, _) => MetricKind::Gauge(*mode),
            Total::Histogram(_) => MetricKind::Histogram,
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Total::Counter { value, pending } => (*value, *pending) == (0, 0),
            Total::Gauge(_, sum) => *sum == 0,
            Total::Histogram(distribution) => distribution.is_empty(),
        }
    }

    /// Adds `other`, of the same class.
    fn add(&mut self, other: &Total) {
        match (self, other) {
            (Total::Counter { value, pending }, Total::Counter { value: more, pending: unsent }) => {
                *value = value.wrapping_add(*more);
                *pending = pending.wrapping_add(*unsent);
            }
            (Total::Gauge(_, sum), Total::Gauge(_, more)) => *sum = sum.wrapping_add(*more),
            (Total::Histogram(one), Total::Histogram(other)) => one.merge(other),
            _ => {}
        }
    }
}

impl Totals {
    /// Makes room for as many stats more.
    pub(crate) fn reserve(&mut self, stats: usize) {
        let Self { hasher, names, entries, index, .. } = self;
        entries.reserve(stats);
        index.reserve(stats, |id| hasher.hash_one(text(names, &entries[*id as usize])));
        names.reserve(stats * USUAL_NAME);
    }

    /// Adds to the stat of this name and class. What holds nothing is left out.
    pub(crate) fn add(&mut self, name: &str, place: Place, total: Total) -> Result<(), ReadError> {
        if total.is_empty() {
            return Ok(());
        }
        let class = total.kind().class();
        if let Some(known) =
            self.expected(name, class).and_then(|id| self.entries[id as usize].total.as_mut())
        {
            known.add(&total);
            return Ok(());
        }
        let Self { hasher, names, entries, index, next, .. } = self;
        let hash = |id: &u32| hasher.hash_one(text(names, &entries[*id as usize]));
        let same = |id: &u32| entries[*id as usize].is(names, name, class);
        match index.entry(hasher.hash_one(name), same, hash) {
            hash_table::Entry::Occupied(found) => {
                *next = *found.get() + 1;
                if let Some(known) = &mut entries[*found.get() as usize].total {
                    known.add(&total);
                }
            }
            hash_table::Entry::Vacant(vacant) => {
                let start = names.len();
                if start + name.len() > MAX_BYTES {
                    return Err(ReadError::Corrupt("more names than any process has"));
                }
                vacant.insert(entries.len() as u32);
                names.push_str(name);
                let name = start as u32..names.len() as u32;
                entries.push(Entry { name, place, total: Some(total) });
            }
        }
        Ok(())
    }

    /// These are those of one process, as one that came after it is to see them: the connections of elders have a gauge
    /// of their own.
    pub(crate) fn add_for_successors(&mut self) -> Result<(), ReadError> {
        let (own, in_successors) = CONNECTIONS;
        let held = self.find(own, MetricKind::Gauge(ImportMode::Accumulate).class());
        let held = held.and_then(|id| self.entries[id as usize].total.clone());
        held.map_or(Ok(()), |held| self.add(in_successors, None, held))
    }

    /// Takes a stat out.
    pub(crate) fn take(&mut self, name: &str, class: u32) -> Option<(Place, Total)> {
        let id = self.expected(name, class).or_else(|| self.find(name, class))?;
        self.next = id + 1;
        self.take_entry(id as usize)
    }

    /// Entries have numbers below this.
    pub(crate) fn entries(&self) -> usize {
        self.entries.len()
    }

    /// The stat of an entry, if it has not been taken out.
    pub(crate) fn entry(&self, number: usize) -> Option<(&str, &Total)> {
        let entry = self.entries.get(number)?;
        Some((text(&self.names, entry), entry.total.as_ref()?))
    }

    /// Takes an entry's stat out.
    pub(crate) fn take_entry(&mut self, number: usize) -> Option<(Place, Total)> {
        let entry = self.entries.get_mut(number)?;
        let taken = (entry.place, entry.total.take()?);
        self.taken += 1;
        if self.is_empty() {
            // The names were the most of it.
            *self = Totals::default();
        }
        Some(taken)
    }

    fn expected(&mut self, name: &str, class: u32) -> Option<u32> {
        let id = self.next;
        self.entries.get(id as usize).filter(|entry| entry.is(&self.names, name, class))?;
        self.next += 1;
        Some(id)
    }

    pub(crate) fn contains(&self, name: &str, class: u32) -> bool {
        self.find(name, class).is_some()
    }

    fn find(&self, name: &str, class: u32) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        let same = |id: &u32| self.entries[*id as usize].is(&self.names, name, class);
        self.index.find(self.hasher.hash_one(name), same).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.taken
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, Place, &Total)> {
        let known = |entry| Some((text(&self.names, entry), entry.place, entry.total.as_ref()?));
        self.entries.iter().filter_map(known)
    }

    /// As [`Totals::iter`]; the sums may be changed, and where they are in a base file.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Place, &mut Total)> {
        let Self { names, entries, .. } = self;
        entries.iter_mut().filter_map(|Entry { name, place, total }| {
            Some((&names[name.start as usize..name.end as usize], place, total.as_mut()?))
        })
    }
}

impl Entry {
    fn is(&self, names: &str, name: &str, class: u32) -> bool {
        self.total.as_ref().is_some_and(|total| total.kind().class() == class) && text(names, self) == name
    }
}

fn text<'a>(names: &'a str, entry: &Entry) -> &'a str {
    &names[entry.name.start as usize..entry.name.end as usize]
}

/// The gauge of open connections, and what Envoy calls those of the parent in a hot restart.
pub(super) const CONNECTIONS: (&str, &str) = ("server.total_connections", "server.parent_connections");
const USUAL_NAME: usize = 48;
/// Places of names have 32 bits; no process has as many.
const MAX_BYTES: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(value: u64) -> Total {
        Total::Counter { value, pending: value }
    }

    #[test]
    fn one_name_is_one_sum_per_class() {
        let mut totals = Totals::default();
        for (name, total) in [("a.x", counter(2)), ("a.y", counter(0)), ("a.x", counter(3))] {
            totals.add(name, None, total).unwrap();
        }
        totals.add("a.x", None, Total::Gauge(ImportMode::Accumulate, 7)).unwrap();
        assert_eq!(totals.iter().count(), 2);
        assert_eq!(totals.take("a.x", MetricKind::Counter.class()), Some((None, counter(5))));
        assert_eq!(totals.take("a.x", MetricKind::Counter.class()), None);
        assert!(!totals.is_empty());
        assert!(totals.take("a.x", MetricKind::Gauge(ImportMode::NeverImport).class()).is_some());
        assert!(totals.is_empty());
        assert_eq!(totals.iter().count(), 0);
    }
}
