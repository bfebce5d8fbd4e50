//! Names of stats under numbers that stay the same: who looks again and again compares by number, not by name.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable, hash_table};

use crate::metric::MetricKind;

/// Number of a stat in a [`Catalog`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatId(pub u32);

/// Names and kinds by number. It only grows; a name that comes back has the number that it had.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    hasher: DefaultHashBuilder,
    names: String,
    /// Where each name ends.
    ends: Vec<u32>,
    kinds: Vec<MetricKind>,
    index: HashTable<u32>,
}

impl Catalog {
    /// The number of a stat, given out if it has none. None when there are more names than any process has.
    pub fn intern(&mut self, name: &str, kind: MetricKind) -> Option<StatId> {
        let Self { hasher, names, ends, kinds, index } = self;
        let hash = |id: &u32| hasher.hash_one(text(names, ends, *id));
        let same = |id: &u32| kinds[*id as usize].class() == kind.class() && text(names, ends, *id) == name;
        match index.entry(hasher.hash_one(name), same, hash) {
            hash_table::Entry::Occupied(found) => {
                let id = *found.get();
                kinds[id as usize] = kind;
                Some(StatId(id))
            }
            hash_table::Entry::Vacant(vacant) => {
                let end = u32::try_from(names.len() + name.len()).ok().filter(|end| *end <= MOST_BYTES)?;
                let id = u32::try_from(ends.len()).ok()?;
                vacant.insert(id);
                names.push_str(name);
                ends.push(end);
                kinds.push(kind);
                Some(StatId(id))
            }
        }
    }

    /// The number of a stat of this name, whatever its kind.
    pub fn find(&self, name: &str) -> Option<StatId> {
        let found =
            self.index.find(self.hasher.hash_one(name), |id| text(&self.names, &self.ends, *id) == name);
        found.copied().map(StatId)
    }

    /// Numbers go from 0 to below this.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it has no name.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The full name of a stat; empty for a number that was not given out.
    pub fn name(&self, id: StatId) -> &str {
        if (id.0 as usize) < self.ends.len() { text(&self.names, &self.ends, id.0) } else { "" }
    }

    /// The kind of a stat.
    pub fn kind(&self, id: StatId) -> Option<MetricKind> {
        self.kinds.get(id.0 as usize).copied()
    }

    /// All numbers.
    pub fn ids(&self) -> impl Iterator<Item = StatId> + use<> {
        (0..self.ends.len() as u32).map(StatId)
    }
}

fn text<'a>(names: &'a str, ends: &[u32], id: u32) -> &'a str {
    let begin = id.checked_sub(1).map_or(0, |before| ends[before as usize]);
    &names[begin as usize..ends[id as usize] as usize]
}

/// Twice what a million names take, and as much again.
const MOST_BYTES: u32 = 1 << 28;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImportMode;

    #[test]
    fn names_keep_their_numbers() {
        let mut catalog = Catalog::default();
        let gauge = MetricKind::Gauge(ImportMode::Accumulate);
        let a = catalog.intern("a", MetricKind::Counter);
        let b = catalog.intern("", gauge);
        assert_eq!(catalog.intern("a", MetricKind::Counter), a);
        assert_ne!(catalog.intern("a", gauge), a);
        assert_eq!((catalog.len(), catalog.find("a"), catalog.find("")), (3, a, b));
        assert_eq!(
            (catalog.name(StatId(0)), catalog.name(StatId(1)), catalog.name(StatId(7))),
            ("a", "", "")
        );
        assert_eq!(catalog.find("b"), None);
    }
}
