//! The control file of a lineage: who leads, which base counts, and which segments.
//!
//! Whoever changes base or list holds the lock on the file meanwhile. The leader word alone changes hands without it, so
//! that a process that was stopped with the lock in hand keeps nobody from leading.

use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FlockArg, fallocate};

use super::files::{LineagePath, open_own, remove};
use super::words::Words;
use crate::error::{LineageWarning, ReadError};
use crate::segment::fits_file_limit;
use crate::store::flock;

/// The control file, mapped.
pub(super) struct Control {
    file: File,
    words: Words,
}

/// The leader word. Who knows it of an earlier turn cannot change it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lead {
    /// Generation of the leader, of 48 bits; 0: nobody.
    pub(super) leader: u64,
    /// Counts, round and round, how often the word has been written.
    pub(super) turn: u16,
}

impl Lead {
    fn from_word(word: u64) -> Lead {
        Lead { leader: word & GENERATION, turn: (word >> GENERATION.count_ones()) as u16 }
    }

    fn to_word(self) -> u64 {
        u64::from(self.turn) << GENERATION.count_ones() | (self.leader & GENERATION)
    }
}

/// The right to change base and list, until dropped.
pub(super) struct Changing<'a>(&'a Control);

/// What the control file said at one moment, if it says the same a second time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) base_id: u32,
    /// Generation of the leader; 0: nobody.
    pub(super) leader: u64,
    /// What lay around the file when it was made is in it.
    pub(super) complete: bool,
    /// Number of the base that counts; 0: none.
    pub(super) base: u64,
    /// Number of the last base whose absorbed segments are off the list. While it is not `base`, segments that the base
    /// has absorbed do not count even if they are listed.
    pub(super) settled_base: u64,
    /// Ascending.
    pub(super) generations: Vec<u64>,
}

impl Control {
    /// Opens the control file, made anew if there is none that can be used.
    pub(super) fn open(
        path: &LineagePath,
        base_id: u32,
        warnings: &mut Vec<LineageWarning>,
    ) -> io::Result<Control> {
        if !fits_file_limit(BYTES) {
            return Err(io::Error::from(Errno::EFBIG));
        }
        let path = path.control();
        for _ in 0..ATTEMPTS {
            let mut options = OpenOptions::new();
            let file =
                open_own(options.read(true).write(true).create(true).truncate(false).mode(0o600), &path)?;
            lock(&file)?;
            if !is_at(&file, &path) {
                continue;
            }
            match Snapshot::read(&file) {
                Ok(snapshot) if snapshot.base_id == base_id => {
                    let words = Words::map(&file, COUNT)?;
                    file.unlock()?;
                    return Ok(Control { file, words });
                }
                // Never finished: its maker died, or the file system was full.
                Err(ReadError::NotASegment) if is_unfinished(&file)? => {
                    let made = Control::make(file, base_id);
                    // An empty file is of no use to anybody.
                    return made.inspect_err(|_| drop(remove(&path)));
                }
                Ok(_) => warnings.push(LineageWarning::ControlReplaced(ReadError::NotASegment)),
                Err(error) => warnings.push(LineageWarning::ControlReplaced(error)),
            }
            // Others may have it mapped: it is replaced, not repaired.
            remove(&path)?;
        }
        Err(io::Error::other("the control file is replaced again and again"))
    }

    fn make(file: File, base_id: u32) -> io::Result<Control> {
        file.set_len(BYTES)?;
        fallocate(file.as_fd(), FallocateFlags::empty(), 0, BYTES as i64)?;
        let words = Words::map(&file, COUNT)?;
        words[word::VERSION].store(u64::from(base_id) << 32 | u64::from(VERSION), Relaxed);
        words[word::MAGIC].store(MAGIC, Release);
        file.unlock()?;
        Ok(Control { file, words })
    }

    /// Waits for the lock, for at most a second.
    pub(super) fn change(&self) -> io::Result<Changing<'_>> {
        lock(&self.file)?;
        Ok(Changing(self))
    }

    /// None if another process has the lock.
    pub(super) fn try_change(&self) -> io::Result<Option<Changing<'_>>> {
        match flock(&self.file, FlockArg::LockExclusiveNonblock) {
            Ok(()) => Ok(Some(Changing(self))),
            Err(Errno::EWOULDBLOCK) => Ok(None),
            Err(error) => Err(io::Error::from(error)),
        }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot::from_words(|index| self.words[index].load(Acquire))
    }

    pub(super) fn leader(&self) -> u64 {
        self.lead().leader
    }

    pub(super) fn lead(&self) -> Lead {
        Lead::from_word(self.words[word::LEADER].load(Acquire))
    }

    /// The lead goes from one process to another in one step. False if it is not `from` any more.
    pub(super) fn hand_over(&self, from: Lead, to: u64) -> bool {
        let next = Lead { leader: to, turn: from.turn.wrapping_add(1) };
        let word = &self.words[word::LEADER];
        word.compare_exchange(from.to_word(), next.to_word(), AcqRel, Acquire).is_ok()
    }

    /// Whether the file at `path` is this one.
    pub(super) fn is_at(&self, path: &LineagePath) -> bool {
        is_at(&self.file, &path.control())
    }
}

impl Changing<'_> {
    pub(super) fn snapshot(&self) -> Snapshot {
        self.0.snapshot()
    }

    /// Puts a segment on the list. False if the list is full.
    pub(super) fn add(&self, generation: u64) -> bool {
        let free = self.list().iter().find(|entry| entry.load(Relaxed) == 0);
        free.inspect(|entry| entry.store(generation, Release)).is_some()
    }

    pub(super) fn remove(&self, generation: u64) {
        self.list()
            .iter()
            .filter(|entry| entry.load(Relaxed) == generation)
            .for_each(|entry| entry.store(0, Release));
    }

    /// From here on the base of this number counts, and the segments that it has absorbed do not.
    pub(super) fn publish_base(&self, number: u64) {
        self.0.words[word::BASE].store(number, Release);
    }

    pub(super) fn settle_base(&self, number: u64) {
        self.0.words[word::SETTLED_BASE].store(number, Release);
    }

    pub(super) fn set_complete(&self) {
        self.0.words[word::COMPLETE].store(1, Release);
    }

    fn list(&self) -> &[std::sync::atomic::AtomicU64] {
        &self.0.words[word::LIST..word::LIST + MAX_SEGMENTS]
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        // The kernel would do it at the end of the process.
        let _ = self.0.file.unlock();
    }
}

impl Snapshot {
    /// Reads a control file that anybody may have written.
    pub(super) fn read(file: &File) -> Result<Snapshot, ReadError> {
        let mut bytes = [0; COUNT.get() * 8];
        file.read_exact_at(&mut bytes, 0).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ReadError::NotASegment,
            _ => ReadError::Io(error),
        })?;
        let word = |index: usize| u64::from_ne_bytes(bytes.as_chunks().0[index]);
        if word(word::MAGIC) != MAGIC {
            return Err(ReadError::NotASegment);
        }
        let version = word(word::VERSION) as u32;
        if version != VERSION {
            return Err(ReadError::Version { found: version, expected: VERSION });
        }
        Ok(Snapshot::from_words(word))
    }

    fn from_words(word: impl Fn(usize) -> u64) -> Snapshot {
        let list = (0..MAX_SEGMENTS).map(|index| word(word::LIST + index));
        let mut generations: Vec<u64> = list.filter(|generation| *generation != 0).collect();
        generations.sort_unstable();
        generations.dedup();
        Snapshot {
            base_id: (word(word::VERSION) >> 32) as u32,
            leader: Lead::from_word(word(word::LEADER)).leader,
            complete: word(word::COMPLETE) != 0,
            base: word(word::BASE),
            settled_base: word(word::SETTLED_BASE),
            generations,
        }
    }
}

fn is_unfinished(file: &File) -> io::Result<bool> {
    let mut magic = [0xff; 8];
    Ok(file.metadata()?.len() == 0 || (file.read_at(&mut magic, 0)? == 8 && magic == [0; 8]))
}

fn is_at(file: &File, path: &Path) -> bool {
    let same = |one: std::fs::Metadata, other: std::fs::Metadata| {
        (one.dev(), one.ino()) == (other.dev(), other.ino())
    };
    file.metadata().and_then(|own| Ok(same(own, std::fs::symlink_metadata(path)?))).unwrap_or(false)
}

/// A holder needs milliseconds, so waiting is polling.
fn lock(file: &File) -> io::Result<()> {
    for _ in 0..LOCK_ATTEMPTS {
        match flock(file, FlockArg::LockExclusiveNonblock) {
            Err(Errno::EWOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            other => return other.map_err(io::Error::from),
        }
    }
    Err(io::Error::from(Errno::EWOULDBLOCK))
}

/// Words of the file, by index.
mod word {
    /// Written last.
    pub(super) const MAGIC: usize = 0;
    /// Low half version, high half base-id.
    pub(super) const VERSION: usize = 1;
    /// See [`super::Lead`].
    pub(super) const LEADER: usize = 2;
    pub(super) const BASE: usize = 3;
    pub(super) const SETTLED_BASE: usize = 4;
    /// Not 0 once what lay around the file is in it.
    pub(super) const COMPLETE: usize = 5;
    /// Generations of the segments that count; 0 is a free entry.
    pub(super) const LIST: usize = 16;
}

const MAGIC: u64 = u64::from_ne_bytes(*b"PRXLINES");
const VERSION: u32 = 1;
/// Of the leader word.
const GENERATION: u64 = (1 << 48) - 1;
const MAX_SEGMENTS: usize = 64;
const COUNT: NonZeroUsize = NonZeroUsize::new(word::LIST + MAX_SEGMENTS).expect("there are words");
const BYTES: u64 = 4096;
const ATTEMPTS: u32 = 16;
const LOCK_ATTEMPTS: u32 = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(2);
