//! Looking at a whole lineage again and again, from outside, at little cost: [`LineageReader`](super::LineageReader) builds
//! every name anew, this remembers them under numbers.
//!
//! It holds a number, a kind and a name for each stat, and 8 bytes for each slot of a segment. A base is read again only when
//! another one counts, or when marks in it have changed.

mod catalog;
mod segment;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use hashbrown::HashMap;

pub use self::catalog::{Catalog, StatId};
use self::segment::{NONE, WatchedSegment, intern};
use super::base::Base;
use super::control::Snapshot;
use super::files::LineagePath;
use super::fold::Prefixes;
use super::reader::open;
use super::totals::{CONNECTIONS, Total};
use crate::error::ReadError;
use crate::histogram::Distribution;
use crate::metric::{ImportMode, MetricKind, gauge_value};

/// A lineage, and what the last look found.
#[derive(Debug)]
pub struct Watch {
    path: LineagePath,
    control: Snapshot,
    base: Option<WatchedBase>,
    members: Vec<WatchedSegment>,
    catalog: Arc<Catalog>,
    values: Vec<u64>,
}

#[derive(Debug)]
struct WatchedBase {
    base: Base,
    marks: Vec<u8>,
    numbers: Vec<(StatId, u64)>,
    distributions: HashMap<StatId, Distribution>,
    /// Of `numbers`: whether a scope may still show it. Empty: to be found out.
    shown: Vec<bool>,
}

/// A process of the lineage, as the last look found it.
#[derive(Clone, Copy, Debug)]
pub struct WatchedMember<'a> {
    segment: &'a WatchedSegment,
    leads: bool,
}

impl Watch {
    /// Nothing is opened before the first look.
    pub fn new(path: LineagePath) -> Watch {
        Watch {
            path,
            control: Snapshot::default(),
            base: None,
            members: Vec::new(),
            catalog: Arc::default(),
            values: Vec::new(),
        }
    }

    /// Looks again. After an error everything is as the last look found it, or the stats of some members are newer.
    pub fn look(&mut self) -> Result<(), ReadError> {
        for _ in 0..ATTEMPTS {
            let control = open(&self.path.control())?;
            let before = Snapshot::read(&control)?;
            let looked = self.look_at(&before);
            if Snapshot::read(&control)? == before {
                looked?;
                self.add_up()?;
                return Ok(());
            }
            std::thread::yield_now();
        }
        Err(ReadError::Busy)
    }

    fn look_at(&mut self, control: &Snapshot) -> Result<(), ReadError> {
        self.adopt_base(control)?;
        let unfinished = self.base.as_ref().filter(|_| control.settled_base != control.base);
        let absorbed = unfinished.map(|base| base.base.absorbed()).unwrap_or_default();
        let mut before = std::mem::take(&mut self.members);
        let mut changed = false;
        for generation in control.generations.iter().filter(|generation| !absorbed.contains(generation)) {
            let path = self.path.segment(*generation);
            let known = before.iter().position(|member| {
                member.reader.generation() == *generation && member.is_at(&path).unwrap_or(false)
            });
            let opened = match known {
                Some(at) => Ok(before.swap_remove(at)),
                None => WatchedSegment::open(&path),
            };
            match opened {
                Ok(member) => self.members.push(member),
                // Its maker died before it had counted anything.
                Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            changed |= known.is_none();
        }
        changed |= !before.is_empty();
        for member in &mut self.members {
            changed |= member.refresh(&mut self.catalog)?;
        }
        if changed && let Some(base) = &mut self.base {
            base.shown.clear();
        }
        self.control = control.clone();
        Ok(())
    }

    fn adopt_base(&mut self, control: &Snapshot) -> Result<(), ReadError> {
        if control.base == 0 {
            self.base = None;
            return Ok(());
        }
        let path = self.path.base(control.base);
        if let Some(base) = &self.base
            && self.control.base == control.base
            && base.base.marks()? == base.marks
        {
            return Ok(());
        }
        let base = Base::read(open(&path)?, control.base)?;
        let marks = base.marks()?;
        let (mut numbers, mut distributions) = (Vec::with_capacity(base.len()), HashMap::new());
        base.for_each(|name, _, total| {
            let id = intern(&mut self.catalog, name, total.kind())?;
            match total {
                // It was reset.
                Total::Counter { value: 0, pending: 0 } => {}
                Total::Counter { value, .. } => numbers.push((id, value)),
                Total::Histogram(distribution) => {
                    numbers.push((id, distribution.count()));
                    distributions.insert(id, distribution);
                }
                Total::Gauge(..) => {}
            }
            Ok(())
        })?;
        self.base = Some(WatchedBase { base, marks, numbers, distributions, shown: Vec::new() });
        Ok(())
    }

    /// Adds up what members and base have, as [`LineageReader`](super::LineageReader) does.
    fn add_up(&mut self) -> Result<(), ReadError> {
        self.values.clear();
        self.values.resize(self.catalog.len(), ABSENT);
        let Some(first) = self.first_index() else { return Ok(()) };
        for (index, member) in self.members.iter().enumerate() {
            for (id, sum) in member.ids.iter().zip(&member.sums).filter(|(id, _)| **id != NONE) {
                let own = index == first;
                let sum = match self.catalog.kind(StatId(*id)) {
                    Some(MetricKind::Counter | MetricKind::Histogram) if own || *sum != 0 => *sum,
                    Some(MetricKind::Gauge(ImportMode::NeverImport)) if own => gauge_value(*sum),
                    Some(MetricKind::Gauge(ImportMode::NeverImport)) => continue,
                    Some(MetricKind::Gauge(_)) if member.lives && (own || gauge_value(*sum) != 0) => {
                        gauge_value(*sum)
                    }
                    Some(MetricKind::Gauge(_)) if own => 0,
                    _ => continue,
                };
                add(&mut self.values[*id as usize], sum);
            }
        }
        self.add_base()?;
        self.add_parents_connections(first);
        Ok(())
    }

    fn add_base(&mut self) -> Result<(), ReadError> {
        let Some(base) = &mut self.base else { return Ok(()) };
        if base.shown.is_empty() {
            let mut prefixes = Prefixes::default();
            for member in &self.members {
                prefixes.note_settled(&member.reader)?;
                member.prefixes().for_each(|prefix| prefixes.add(prefix));
            }
            let mut last = String::new();
            let shown = |(id, _): &(StatId, u64)| prefixes.may_live(self.catalog.name(*id), &mut last);
            base.shown = base.numbers.iter().map(shown).collect();
        }
        for ((id, number), shown) in base.numbers.iter().zip(&base.shown) {
            let value = &mut self.values[id.0 as usize];
            if *shown || *value != ABSENT {
                add(value, *number);
            }
        }
        Ok(())
    }

    /// The connections of elders have a gauge of their own.
    fn add_parents_connections(&mut self, first: usize) {
        let (own, in_successors) = CONNECTIONS;
        let (Some(own), Some(shown)) = (self.catalog.find(own), self.catalog.find(in_successors)) else {
            return;
        };
        let leader = self.members[first].reader.generation();
        let elders = self.members().filter(|member| member.generation() < leader && member.lives());
        let held = elders.filter_map(|elder| elder.number(own)).fold(0, u64::wrapping_add);
        if held != 0 {
            add(&mut self.values[shown.0 as usize], held);
        }
    }

    /// The leader, or else the newest.
    fn first_index(&self) -> Option<usize> {
        let leads = |member: &WatchedSegment| member.reader.generation() == self.control.leader;
        self.members.iter().position(leads).or(self.members.len().checked_sub(1))
    }

    /// Which lineage, as in `--base-id`.
    pub fn base_id(&self) -> u32 {
        self.control.base_id
    }

    /// Names and numbers. Whoever keeps it has those of this look; numbers mean the same in later ones.
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// By number: of counters the sum over all processes, of gauges over living ones, of histograms how many values there
    /// are. [`Watch::ABSENT`] for texts and for what is not there.
    pub fn values(&self) -> &[u64] {
        &self.values
    }

    /// The sum of a histogram over all processes.
    pub fn histogram(&self, id: StatId) -> Distribution {
        let of_base = self.base.as_ref().and_then(|base| base.distributions.get(&id));
        let mut sum = of_base.cloned().unwrap_or_default();
        for member in &self.members {
            let found = member.slot(id).and_then(|slot| member.distribution(slot));
            found.into_iter().for_each(|distribution| sum.merge(distribution));
        }
        sum
    }

    /// Calls `visit` with the sum of each histogram that is `wanted` and holds something.
    pub fn for_each_histogram(
        &self,
        wanted: impl Fn(StatId) -> bool,
        mut visit: impl FnMut(StatId, &Distribution),
    ) {
        let mut sums: HashMap<StatId, Distribution> = HashMap::new();
        for member in &self.members {
            for (slot, id) in member.histograms().filter(|(_, id)| wanted(*id)) {
                if let Some(found) = member.distribution(slot).filter(|found| !found.is_empty()) {
                    sums.entry(id).or_default().merge(found);
                }
            }
        }
        let of_base = self.base.iter().flat_map(|base| &base.distributions);
        for (id, distribution) in of_base.filter(|(id, _)| wanted(**id)) {
            sums.entry(*id).or_default().merge(distribution);
        }
        sums.iter()
            .filter(|(id, _)| self.values.get(id.0 as usize).is_some_and(|value| *value != ABSENT))
            .for_each(|(id, sum)| visit(*id, sum));
    }

    /// Calls `visit` with each text readout, as the leader has it.
    pub fn for_each_text(&self, mut visit: impl FnMut(StatId, &str)) {
        if let Some(first) = self.first_index().map(|first| &self.members[first]) {
            first.texts().for_each(|(id, text)| visit(id, text));
        }
    }

    /// A text readout, as the leader has it.
    pub fn text(&self, name: &str) -> Option<&str> {
        let first = &self.members[self.first_index()?];
        first.text(first.slot(self.catalog.find(name)?)?)
    }

    /// All processes, living or dead, by generation.
    pub fn members(&self) -> impl Iterator<Item = WatchedMember<'_>> {
        self.members.iter().map(|segment| WatchedMember {
            segment,
            leads: segment.lives && segment.reader.generation() == self.control.leader,
        })
    }

    /// What [`Watch::values`] has for what is not there. No stat has this value: gauges end at 2^63 - 1.
    pub const ABSENT: u64 = ABSENT;
}

impl WatchedMember<'_> {
    /// Number of the process.
    pub fn generation(&self) -> u64 {
        self.segment.reader.generation()
    }

    /// Whether it lives.
    pub fn lives(&self) -> bool {
        self.segment.lives
    }

    /// Whether it lives and leads.
    pub fn leads(&self) -> bool {
        self.leads
    }

    /// Number of the segment's file: `/proc/locks` has the pid of who locks it.
    pub fn inode(&self) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt;
        Ok(self.segment.reader.file().metadata()?.ino())
    }

    /// What this process alone has counted or holds.
    pub fn number(&self, id: StatId) -> Option<u64> {
        self.segment.slot(id).map(|slot| gauge_value(self.segment.sums[slot as usize]))
    }

    /// The sum of what this process alone has of these stats, which are in order.
    pub fn sum(&self, ids: &[StatId]) -> u64 {
        let slots = self.segment.slots_of(ids);
        slots.fold(0, |sum, slot| sum + gauge_value(self.segment.sums[slot as usize]))
    }

    /// As [`WatchedMember::sum`], by thread: main first, then workers. A gauge of a thread that only takes away is 0.
    pub fn sum_by_thread(&self, ids: &[StatId]) -> Result<Vec<u64>, ReadError> {
        let mut sums = vec![0; self.segment.reader.threads() as usize];
        for slot in self.segment.slots_of(ids) {
            let cells = self.segment.cells(slot)?;
            sums.iter_mut().zip(cells).for_each(|(sum, cell)| *sum = cell.wrapping_add(*sum));
        }
        Ok(sums.into_iter().map(gauge_value).collect())
    }
}

fn add(value: &mut u64, more: u64) {
    *value = if *value == ABSENT { more } else { value.wrapping_add(more) };
}

const ABSENT: u64 = u64::MAX;
const ATTEMPTS: u32 = 64;
