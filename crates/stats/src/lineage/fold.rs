//! Folding: what dead processes have counted becomes part of a new base, and their segments go.
//!
//! 1. The new base is written beside the old one, with the generations that it absorbs. Nobody looks at it yet.
//! 2. It is published: one store of its number. From here on it counts, and the absorbed segments do not.
//! 3. They are taken off the list.
//! 4. Their files and those of other bases are removed; one store says that all of this is done.
//!
//! A process that dies in between leaves either the old state or one that [`complete`] brings to its end.

use std::fs::{File, OpenOptions};
use std::io;

use hashbrown::HashSet;
use nix::errno::Errno;
use nix::fcntl::FlockArg;

use super::base::{Base, Marks};
use super::control::{Changing, Snapshot};
use super::files::{LineagePath, open_own, remove};
use super::totals::{Total, Totals};
use crate::error::{LineageWarning, ReadError};
use crate::events::{Event, EventKind};
use crate::metric::{ImportMode, MetricKind, Value};
use crate::reader::{Reader, Scan, Seen};
use crate::store::flock;

/// What processes that are gone have counted.
#[derive(Default)]
pub(super) struct Past {
    pub(super) totals: Totals,
    /// Of the base file that holds `totals`; None if there is none.
    pub(super) marks: Option<Marks>,
    /// What was in the rings of those who were folded just now.
    pub(super) events: Vec<Event>,
    /// Of those, who had not ended in good order.
    pub(super) killed: Vec<u64>,
}

/// A fold under way.
pub(super) struct Fold<'a> {
    path: &'a LineagePath,
    changing: &'a Changing<'a>,
    base_id: u32,
    number: u64,
    absorbed: Vec<u64>,
    past: Past,
}

/// Segments on the list, by whether their process lives.
#[derive(Default)]
pub(super) struct Members {
    pub(super) living: Vec<u64>,
    pub(super) dead: Vec<u64>,
}

/// Prefixes of scopes that own stats.
#[derive(Default)]
pub(super) struct Prefixes {
    known: HashSet<Box<str>>,
    /// One of the processes had made all of its scopes, so what is not among them is gone.
    settled: bool,
}

impl Members {
    pub(super) fn of(path: &LineagePath, snapshot: &Snapshot) -> io::Result<Members> {
        let mut members = Members::default();
        for generation in &snapshot.generations {
            let list = if lives(path, *generation)? { &mut members.living } else { &mut members.dead };
            list.push(*generation);
        }
        Ok(members)
    }
}

impl Prefixes {
    pub(super) fn add(&mut self, prefix: &str) {
        if !prefix.is_empty() && !self.known.contains(prefix) {
            self.known.insert(prefix.into());
        }
    }

    pub(super) fn note_settled(&mut self, reader: &Reader) -> Result<(), ReadError> {
        self.settled |= reader.is_settled()?;
        Ok(())
    }

    /// Whether a stat of this name may still be counted in. `last`: the prefix found last time, which neighbours share.
    pub(super) fn may_live(&self, name: &str, last: &mut String) -> bool {
        if !self.settled || (!last.is_empty() && name.starts_with(&**last)) {
            return true;
        }
        let mut prefixes = name.rmatch_indices('.').map(|(dot, _)| &name[..=dot]);
        let found = prefixes.find(|prefix| self.known.contains(*prefix));
        found.inspect(|found| (*found).clone_into(last)).is_some()
    }
}

impl<'a> Fold<'a> {
    /// Adds up what is to be in the new base. None if nobody has died.
    pub(super) fn begin(
        path: &'a LineagePath,
        changing: &'a Changing<'a>,
        warnings: &mut Vec<LineageWarning>,
    ) -> io::Result<Option<Fold<'a>>> {
        let snapshot = changing.snapshot();
        let members = Members::of(path, &snapshot)?;
        if members.dead.is_empty() {
            return Ok(None);
        }
        let (mut totals, prefixes) = add_up(path, &members, warnings)?;
        let newest = path.bases()?.into_iter().max().unwrap_or(0);
        if let Some(base) = open_base(path, &snapshot, warnings)? {
            // Most of it is what the dead have counted in too.
            let (mut prefix, more) = (String::new(), base.len().saturating_sub(totals.len()));
            totals.reserve(more);
            let kept = base.for_each(|name, _, total| {
                if prefixes.may_live(name, &mut prefix) || totals.contains(name, total.kind().class()) {
                    totals.add(name, None, total)?;
                }
                Ok(())
            });
            kept.map_err(io::Error::other)?;
        }
        for (_, _, total) in totals.iter_mut() {
            // More flushed than counted: the base that was counted in is lost.
            if let Total::Counter { pending, .. } = total
                && *pending > i64::MAX as u64
            {
                *pending = 0;
            }
        }
        let (events, killed) = last_events(path, &members.dead);
        let past = Past { totals, marks: None, events, killed };
        let (base_id, number) = (snapshot.base_id, newest.max(snapshot.base) + 1);
        Ok(Some(Fold { path, changing, base_id, number, absorbed: members.dead, past }))
    }

    /// All steps. What could not be written still counts, from the segments.
    pub(super) fn run(mut self, warnings: &mut Vec<LineageWarning>) -> Past {
        match self.write() {
            Ok(()) => {
                self.publish();
                self.clear();
                if let Err(error) = self.clean_up() {
                    warnings.push(LineageWarning::NotRemoved(error));
                }
            }
            Err(error) => {
                // The segments stay, with what is in their rings.
                (self.past.events, self.past.killed) = Default::default();
                warnings.push(LineageWarning::NotFolded(error));
            }
        }
        self.past
    }

    pub(super) fn write(&mut self) -> io::Result<()> {
        let path = self.path.base(self.number);
        self.past.marks =
            Some(Base::write(&path, self.base_id, self.number, &self.absorbed, &mut self.past.totals)?);
        Ok(())
    }

    pub(super) fn publish(&self) {
        self.changing.publish_base(self.number);
    }

    pub(super) fn clear(&self) {
        self.absorbed.iter().for_each(|generation| self.changing.remove(*generation));
    }

    pub(super) fn clean_up(&self) -> io::Result<()> {
        clean_up(self.path, self.changing)
    }
}

/// Brings a fold to its end that its process did not live to finish, and removes what such processes have left.
pub(super) fn complete(
    path: &LineagePath,
    changing: &Changing<'_>,
    warnings: &mut Vec<LineageWarning>,
) -> io::Result<()> {
    let snapshot = changing.snapshot();
    if snapshot.settled_base != snapshot.base
        && let Some(base) = open_base(path, &snapshot, warnings)?
    {
        base.absorbed().into_iter().for_each(|generation| changing.remove(generation));
    }
    clean_up(path, changing)
}

/// Removes files of dead processes that are not on the list, and bases that do not count.
fn clean_up(path: &LineagePath, changing: &Changing<'_>) -> io::Result<()> {
    let snapshot = changing.snapshot();
    for generation in path.segments()? {
        if !snapshot.generations.contains(&generation) && !lives(path, generation)? {
            remove(&path.segment(generation))?;
        }
    }
    for number in path.bases()?.into_iter().filter(|number| *number != snapshot.base) {
        remove(&path.base(number))?;
    }
    changing.settle_base(snapshot.base);
    Ok(())
}

/// Tells a new control file, once, what the files around it say: the highest base that is whole counts, and all segments
/// that it has not absorbed.
pub(super) fn recover(path: &LineagePath, changing: &Changing<'_>) -> io::Result<()> {
    if changing.snapshot().complete {
        return Ok(());
    }
    let mut absorbed = Vec::new();
    let mut bases = path.bases()?;
    bases.sort_unstable();
    for number in bases.into_iter().rev() {
        if let Ok(base) = Base::open_own(&path.base(number), number) {
            absorbed = base.absorbed();
            changing.publish_base(number);
            break;
        }
    }
    let mut segments = path.segments()?;
    segments.retain(|generation| !absorbed.contains(generation));
    segments.sort_unstable();
    for generation in segments.into_iter().rev() {
        // Whoever began this before may have died half-way. More than fit cannot have been on a list.
        changing.remove(generation);
        if !changing.add(generation) {
            break;
        }
    }
    changing.set_complete();
    Ok(())
}

/// The base that counts, if it can be read.
pub(super) fn open_base(
    path: &LineagePath,
    snapshot: &Snapshot,
    warnings: &mut Vec<LineageWarning>,
) -> io::Result<Option<Base>> {
    if snapshot.base == 0 {
        return Ok(None);
    }
    match Base::open_own(&path.base(snapshot.base), snapshot.base) {
        Ok(base) => Ok(Some(base)),
        Err(ReadError::Io(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Err(error) => {
            warnings.push(LineageWarning::BaseLost(error));
            Ok(None)
        }
    }
}

/// What dead segments hold, and the scopes of all. A segment that is damaged counts for nothing.
fn add_up(
    path: &LineagePath,
    members: &Members,
    warnings: &mut Vec<LineageWarning>,
) -> io::Result<(Totals, Prefixes)> {
    let mut damaged = HashSet::new();
    loop {
        let (mut totals, mut prefixes) = (Totals::default(), Prefixes::default());
        let dead = members.dead.iter().map(|generation| (*generation, true));
        let living = members.living.iter().map(|generation| (*generation, false));
        let failed = dead.chain(living).filter(|(generation, _)| !damaged.contains(generation)).find_map(
            |(generation, counts)| {
                let file = open_segment(path, generation).transpose()?;
                let result = file
                    .map_err(ReadError::Io)
                    .and_then(|file| add_segment(file, counts.then_some(&mut totals), &mut prefixes, false));
                Some((generation, result.err()?))
            },
        );
        match failed {
            None => return Ok((totals, prefixes)),
            Some((_, ReadError::Io(error))) => return Err(error),
            Some((generation, error)) => {
                damaged.insert(generation);
                if members.dead.contains(&generation) {
                    warnings.push(LineageWarning::SegmentLost { generation, error });
                }
            }
        }
    }
}

/// Events in the rings of dead processes, and which of these had not ended in good order. What cannot be read has none.
fn last_events(path: &LineagePath, dead: &[u64]) -> (Vec<Event>, Vec<u64>) {
    let (mut all, mut killed) = (Vec::new(), Vec::new());
    for generation in dead {
        let file = open_segment(path, *generation).ok().flatten();
        let reader = file.and_then(|file| Reader::from_file(file).ok());
        let events = reader.and_then(|reader| reader.events().ok()).unwrap_or_default();
        let own = events.iter().filter(|event| event.generation == *generation);
        if own.max_by_key(|event| event.number).is_some_and(|last| last.kind != EventKind::END) {
            killed.push(*generation);
        }
        all.extend(events);
    }
    (all, killed)
}

/// Adds what a segment holds of counters and histograms, and of gauges if its process lives.
fn add_segment(
    file: File,
    mut totals: Option<&mut Totals>,
    prefixes: &mut Prefixes,
    lives: bool,
) -> Result<(), ReadError> {
    let reader = Reader::from_file(file)?;
    prefixes.note_settled(&reader)?;
    if let Some(totals) = &mut totals {
        // Most stats never count anything.
        totals.reserve(reader.slots_used()? as usize / 2);
    }
    reader.scan(Scan { empty: false, keeping: true }, |seen| {
        match (seen, &mut totals) {
            (Seen::Scope(prefix), _) => prefixes.add(prefix),
            (Seen::Stat(metric, flushed), Some(totals)) => match (metric.kind, metric.value) {
                (MetricKind::Counter, Value::Number(value)) => {
                    let pending = value.wrapping_sub(flushed);
                    totals.add(metric.name, None, Total::Counter { value, pending })?;
                }
                (MetricKind::Gauge(mode), Value::Number(value))
                    if lives && mode != ImportMode::NeverImport =>
                {
                    totals.add(metric.name, None, Total::Gauge(mode, value))?;
                }
                (_, Value::Histogram(histogram)) => {
                    totals.add(metric.name, None, Total::Histogram(histogram.cumulative.clone()))?;
                }
                _ => {}
            },
            (Seen::Stat(..), None) => {}
        }
        Ok(())
    })
}

/// Adds what processes other than `own` have counted so far, and hold if they live. What they have not flushed is not ours
/// to flush.
pub(super) fn add_others(
    path: &LineagePath,
    generations: &[u64],
    own: u64,
    totals: &mut Totals,
) -> io::Result<()> {
    for generation in generations.iter().filter(|generation| **generation != own) {
        let Some(file) = open_segment(path, *generation)? else { continue };
        let (mut counted, lives) = (Totals::default(), lives(path, *generation)?);
        // One that cannot be read now can be the next time.
        if add_segment(file, Some(&mut counted), &mut Prefixes::default(), lives).is_err() {
            continue;
        }
        if *generation < own {
            counted.add_for_successors().map_err(io::Error::other)?;
        }
        for (name, _, total) in counted.iter() {
            let total = match total {
                Total::Counter { value, .. } => Total::Counter { value: *value, pending: 0 },
                other => other.clone(),
            };
            totals.add(name, None, total).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

fn open_segment(path: &LineagePath, generation: u64) -> io::Result<Option<File>> {
    match open_own(OpenOptions::new().read(true), &path.segment(generation)) {
        Ok(file) => Ok(Some(file)),
        // Gone, or not what a process of ours has left there.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether the writer of a segment lives: it holds the lock, and no pid is asked, since it may be of another container.
pub(super) fn lives(path: &LineagePath, generation: u64) -> io::Result<bool> {
    let Some(file) = open_segment(path, generation)? else { return Ok(false) };
    match flock(&file, FlockArg::LockSharedNonblock) {
        Ok(()) => Ok(false),
        Err(Errno::EWOULDBLOCK) => Ok(true),
        Err(error) => Err(io::Error::from(error)),
    }
}
