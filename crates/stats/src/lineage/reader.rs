//! Reading a whole lineage from outside: each stat once, as the sum over the base and all segments on the list.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

use super::base::Base;
use super::control::Snapshot;
use super::files::LineagePath;
use super::fold::Prefixes;
use super::totals::{Total, Totals};
use crate::error::ReadError;
use crate::histogram::{Distribution, HistogramValue};
use crate::metric::{ImportMode, Metric, MetricKind, Value};
use crate::reader::{Reader, Scan, Seen};

/// What a lineage consisted of when it was opened. Files that a fold removes meanwhile are still open here, so the sums
/// stay whole; they are of the past once there is a new base: open it again for every look.
#[derive(Debug)]
pub struct LineageReader {
    base_id: u32,
    leader: u64,
    base: Option<Base>,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    reader: Reader,
    lives: bool,
}

impl LineageReader {
    /// Opens the control file, the base and every segment on the list. Nothing in them is trusted.
    pub fn open(path: &LineagePath) -> Result<LineageReader, ReadError> {
        let control = open(&path.control())?;
        let mut before = Snapshot::read(&control)?;
        for _ in 0..ATTEMPTS {
            let opened = LineageReader::open_members(path, &before);
            let after = Snapshot::read(&control)?;
            if after == before {
                return opened;
            }
            before = after;
            std::thread::yield_now();
        }
        Err(ReadError::Busy)
    }

    fn open_members(path: &LineagePath, snapshot: &Snapshot) -> Result<LineageReader, ReadError> {
        let base = match snapshot.base {
            0 => None,
            number => Some(Base::read(open(&path.base(number))?, number)?),
        };
        let unfinished = base.as_ref().filter(|_| snapshot.settled_base != snapshot.base);
        let absorbed = unfinished.map(Base::absorbed).unwrap_or_default();
        let mut members = Vec::new();
        for generation in snapshot.generations.iter().filter(|generation| !absorbed.contains(generation)) {
            let reader = match open(&path.segment(*generation)) {
                // Its maker died before it had counted anything.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                file => Reader::from_file(file?)?,
            };
            let lives = reader.writer_lives()?;
            members.push(Member { reader, lives });
        }
        Ok(LineageReader { base_id: snapshot.base_id, leader: snapshot.leader, base, members })
    }

    /// Which lineage, as in `--base-id`.
    pub fn base_id(&self) -> u32 {
        self.base_id
    }

    /// Generation of the process that leads; None if there is none, or it is dead.
    pub fn leader(&self) -> Option<u64> {
        self.first()
            .filter(|first| first.lives && first.reader.generation() == self.leader)
            .map(|_| self.leader)
    }

    /// Generations whose processes live.
    pub fn living(&self) -> impl Iterator<Item = u64> {
        self.members.iter().filter(|member| member.lives).map(|member| member.reader.generation())
    }

    /// Calls `visit` for every stat, unsorted: counters and histograms as the sum over all processes, gauges as the sum
    /// over living ones or, if they are not imported, and text readouts, as the leader has them.
    ///
    /// Memory is that for names which others than the leader have counted something under.
    pub fn for_each(&self, mut visit: impl FnMut(&Metric<'_>)) -> Result<(), ReadError> {
        let first = self.first();
        let (mut totals, mut prefixes) = (Totals::default(), Prefixes::default());
        for member in
            self.members.iter().filter(|member| !first.is_some_and(|first| std::ptr::eq(first, *member)))
        {
            let mut held = Totals::default();
            member.add_to(&mut held, &mut prefixes)?;
            if first.is_some_and(|first| member.reader.generation() < first.reader.generation()) {
                held.add_for_successors()?;
            }
            held.iter().try_for_each(|(name, place, total)| totals.add(name, place, total.clone()))?;
        }
        let mut base = self.base.as_ref().map(Base::totals).transpose()?.unwrap_or_default();
        if let Some(first) = first {
            prefixes.note_settled(&first.reader)?;
            first.reader.scan(Scan { empty: true, keeping: true }, |seen| {
                match seen {
                    Seen::Scope(prefix) => prefixes.add(prefix),
                    Seen::Stat(metric, _) => visit_sum(first, &metric, [&mut totals, &mut base], &mut visit),
                }
                Ok(())
            })?;
        }
        for (name, _, total) in totals.iter() {
            let more = base.take(name, total.kind().class()).map(|(_, total)| total);
            visit_total(name, total, more.as_ref(), &mut visit);
        }
        let mut prefix = String::new();
        for (name, _, total) in base.iter().filter(|(name, ..)| prefixes.may_live(name, &mut prefix)) {
            visit_total(name, total, None, &mut visit);
        }
        Ok(())
    }

    /// The leader's segment, or else the newest.
    fn first(&self) -> Option<&Member> {
        let leader = self.members.iter().find(|member| member.reader.generation() == self.leader);
        leader.or(self.members.last())
    }
}

impl Member {
    /// Adds what counts of a process that does not lead.
    fn add_to(&self, totals: &mut Totals, prefixes: &mut Prefixes) -> Result<(), ReadError> {
        prefixes.note_settled(&self.reader)?;
        self.reader.scan(Scan { empty: false, keeping: true }, |seen| match seen {
            Seen::Scope(prefix) => {
                prefixes.add(prefix);
                Ok(())
            }
            Seen::Stat(metric, _) => match (metric.kind, metric.value) {
                (MetricKind::Counter, Value::Number(value)) => {
                    totals.add(metric.name, None, Total::Counter { value, pending: 0 })
                }
                (MetricKind::Gauge(mode), Value::Number(value))
                    if self.lives && mode != ImportMode::NeverImport =>
                {
                    totals.add(metric.name, None, Total::Gauge(mode, value))
                }
                (_, Value::Histogram(histogram)) => {
                    totals.add(metric.name, None, Total::Histogram(histogram.cumulative.clone()))
                }
                _ => Ok(()),
            },
        })
    }
}

/// Visits a stat of the leader with what others add to it.
fn visit_sum(
    first: &Member,
    metric: &Metric<'_>,
    others: [&mut Totals; 2],
    visit: &mut impl FnMut(&Metric<'_>),
) {
    let class = metric.kind.class();
    let others = others.map(|totals| totals.take(metric.name, class).map(|(_, total)| total));
    match metric.value {
        Value::Number(own) => {
            let imported = metric.kind != MetricKind::Gauge(ImportMode::NeverImport);
            let counts = first.lives || metric.kind == MetricKind::Counter || !imported;
            let others = others.iter().flatten().filter(|_| imported).map(number);
            let value = others.fold(if counts { own } else { 0 }, u64::wrapping_add);
            visit(&Metric { value: Value::Number(value), ..*metric });
        }
        Value::Histogram(own) if others.iter().any(Option::is_some) => {
            let mut sum = own.cumulative.clone();
            others.iter().flatten().filter_map(distribution).for_each(|other| sum.merge(other));
            visit_histogram(metric.name, &sum, metric.generation, visit);
        }
        Value::Histogram(_) | Value::Text(_) => visit(metric),
    }
}

/// Visits a stat that the leader does not have.
fn visit_total(name: &str, total: &Total, more: Option<&Total>, visit: &mut impl FnMut(&Metric<'_>)) {
    match distribution(total) {
        Some(own) => {
            let mut sum = own.clone();
            more.and_then(distribution).into_iter().for_each(|more| sum.merge(more));
            visit_histogram(name, &sum, 0, visit);
        }
        None => {
            let value = Value::Number(more.map_or(0, number).wrapping_add(number(total)));
            visit(&Metric { name, kind: total.kind(), value, generation: 0 });
        }
    }
}

fn visit_histogram(name: &str, sum: &Distribution, generation: u32, visit: &mut impl FnMut(&Metric<'_>)) {
    let value = Value::Histogram(HistogramValue { interval: Distribution::none(), cumulative: sum });
    visit(&Metric { name, kind: MetricKind::Histogram, value, generation });
}

fn number(total: &Total) -> u64 {
    match total {
        Total::Counter { value, .. } | Total::Gauge(_, value) => *value,
        Total::Histogram(_) => 0,
    }
}

fn distribution(total: &Total) -> Option<&Distribution> {
    match total {
        Total::Histogram(distribution) => Some(distribution),
        Total::Counter { .. } | Total::Gauge(..) => None,
    }
}

pub(super) fn open(path: &Path) -> io::Result<File> {
    // Not blocking: somebody may have put a FIFO there.
    OpenOptions::new().read(true).custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits()).open(path)
}

const ATTEMPTS: u32 = 64;
