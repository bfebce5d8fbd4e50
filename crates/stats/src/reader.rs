//! Reading a segment file of another process, alive or dead.
//!
//! The file is not trusted: every number in it is checked before use, memory is bounded by a slice of slots and a
//! capped cache of names, and nothing is mapped, since a file that shrinks would then be SIGBUS.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::fence;

use hashbrown::HashMap;
use nix::errno::Errno;
use nix::fcntl::{FlockArg, OFlag};

use crate::error::ReadError;
use crate::events::Pointer;
use crate::histogram::{Distribution, HistogramValue};
use crate::layout::{Area, BLOCK_SLOTS, EXTRA_COLUMNS, MAGIC, MAX_TEXT, MAX_THREADS, VERSION, word};
use crate::metric::{Metric, MetricKind, Value, gauge_value};
use crate::store::flock;

mod events;

/// An open segment file.
#[derive(Debug)]
pub struct Reader {
    file: File,
    generation: u64,
    base_id: u32,
    threads: u32,
    slots: u32,
    /// Offset in bytes and capacity in elements, checked against the file's length.
    areas: [(u64, u64); Area::ALL.len()],
    /// None: it was written by a program without, or lies outside the file.
    ring: Option<Pointer>,
}

/// What one slice of slots was found to hold.
#[derive(Default)]
struct Slice {
    owners: Vec<u8>,
    descriptors: Vec<u8>,
    column: Vec<u8>,
    sums: Vec<u64>,
    flushed: Vec<u8>,
    text: String,
    /// Prefixes in `text`, of scopes that own slots; a scope may come twice.
    scopes: Vec<std::ops::Range<usize>>,
    found: Vec<Found>,
}

struct Found {
    name: std::ops::Range<usize>,
    kind: MetricKind,
    value: FoundValue,
    generation: u32,
    flushed: u64,
}

/// What a scan is to look for.
#[derive(Clone, Copy)]
pub(crate) struct Scan {
    /// Also stats that hold nothing.
    pub(crate) empty: bool,
    /// Also prefixes and flush marks, which only the lineage's keeper needs.
    pub(crate) keeping: bool,
}

/// What a scan comes upon.
pub(crate) enum Seen<'a> {
    /// The prefix of a scope that owns stats. May come several times.
    Scope(&'a str),
    /// A stat, and how much of it has been flushed, wrapping.
    Stat(Metric<'a>, u64),
}

enum FoundValue {
    Number(u64),
    Histogram(Distribution),
    /// In `Slice::text`.
    Text(std::ops::Range<usize>),
}

/// Names read before; good for as long as the writer takes nothing away.
#[derive(Default)]
pub(crate) struct Names {
    sequence: u64,
    suffixes: HashMap<u32, Box<str>>,
    scope: Option<(u32, String, u32)>,
}

impl Reader {
    /// Opens a segment file and checks its header.
    pub fn open(path: &Path) -> Result<Reader, ReadError> {
        let mut options = OpenOptions::new();
        // Not blocking: somebody may have put a FIFO there.
        options.read(true).custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits());
        Reader::from_file(options.open(path)?)
    }

    /// Takes an open file, such as one received over a socket.
    pub fn from_file(file: File) -> Result<Reader, ReadError> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(ReadError::NotASegment);
        }
        let mut bytes = [0; word::COUNT * 8];
        file.read_exact_at(&mut bytes, 0).map_err(short(ReadError::NotASegment))?;
        let header: Vec<u64> = words(&bytes).collect();
        if header[word::MAGIC] != MAGIC {
            return Err(ReadError::NotASegment);
        }
        let (version, threads) = halves(header[word::VERSION]);
        if version != VERSION {
            return Err(ReadError::Version { found: version, expected: VERSION });
        }
        let (base_id, block_slots) = halves(header[word::BASE_ID]);
        let entry = |area: Area| {
            (header[word::AREAS + area as usize * 2], header[word::AREAS + area as usize * 2 + 1])
        };
        let areas = Area::ALL.map(entry);
        let fits = Area::ALL.iter().zip(areas).all(|(area, (offset, capacity))| {
            let bytes = capacity.checked_mul(area.element_bytes());
            let end = bytes.and_then(|bytes| offset.checked_add(bytes));
            end.is_some_and(|end| end <= metadata.len()) && capacity > 0
        });
        if !fits {
            return Err(ReadError::Corrupt("an area lies outside the file"));
        }
        let slots = u32::try_from(areas[Area::Descriptors as usize].1).unwrap_or(0);
        let columns = u64::from(slots) * (u64::from(threads) + u64::from(EXTRA_COLUMNS));
        let agree = (1..=MAX_THREADS as u32).contains(&threads)
            && slots != 0
            && block_slots == BLOCK_SLOTS
            && areas[Area::Columns as usize].1 == columns
            && areas[Area::Owners as usize].1 == u64::from(slots / BLOCK_SLOTS);
        if !agree {
            return Err(ReadError::Corrupt("areas do not fit together"));
        }
        let ring = events::pointer(&header, metadata.len());
        Ok(Reader { file, generation: header[word::GENERATION], base_id, threads, slots, areas, ring })
    }

    /// Generation of the process that writes or wrote the segment.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Lineage of that process.
    pub fn base_id(&self) -> u32 {
        self.base_id
    }

    /// Whether that process still lives: the kernel drops its lock on the file however it ends.
    pub fn writer_lives(&self) -> Result<bool, ReadError> {
        match flock(&self.file, FlockArg::LockSharedNonblock) {
            Ok(()) => {
                self.file.unlock()?;
                Ok(false)
            }
            Err(Errno::EWOULDBLOCK) => Ok(true),
            Err(error) => Err(ReadError::Io(io::Error::from(error))),
        }
    }

    /// Whether that process had made all scopes of its configuration.
    pub(crate) fn is_settled(&self) -> Result<bool, ReadError> {
        Ok(self.header_word(word::SETTLED)? != 0)
    }

    pub(crate) fn slots_used(&self) -> Result<u32, ReadError> {
        Ok(self.mark(word::SLOTS_USED, u64::from(self.slots))? as u32)
    }

    /// Calls `visit` for every stat, unsorted. Stats that come or go meanwhile may or may not be seen.
    pub fn for_each(&self, mut visit: impl FnMut(&Metric<'_>)) -> Result<(), ReadError> {
        self.scan(Scan { empty: true, keeping: false }, |seen| {
            if let Seen::Stat(metric, _) = seen {
                visit(&metric);
            }
            Ok(())
        })
    }

    /// As [`Reader::for_each`], until an error.
    pub(crate) fn scan(
        &self,
        scan: Scan,
        mut visit: impl FnMut(Seen<'_>) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let (mut slice, mut names, mut start) = (Slice::default(), Names::default(), 0);
        while start < self.slots_used()? {
            let count = SLICE_SLOTS.min(self.slots - start);
            self.read_steadily(scan, &mut slice, &mut names, start, count)?;
            for prefix in &slice.scopes {
                visit(Seen::Scope(&slice.text[prefix.clone()]))?;
            }
            for found in &slice.found {
                let value = match &found.value {
                    FoundValue::Number(number) => Value::Number(*number),
                    FoundValue::Histogram(cumulative) => {
                        Value::Histogram(HistogramValue { interval: Distribution::none(), cumulative })
                    }
                    FoundValue::Text(range) => Value::Text(&slice.text[range.clone()]),
                };
                let name = &slice.text[found.name.clone()];
                let metric = Metric { name, kind: found.kind, value, generation: found.generation };
                visit(Seen::Stat(metric, found.flushed))?;
            }
            start += count;
        }
        Ok(())
    }

    /// Reads a slice until nothing was taken away in between. A writer that died half-way through a change leaves
    /// the sequence odd for good; it stores in such an order that each moment can be read.
    fn read_steadily(
        &self,
        scan: Scan,
        slice: &mut Slice,
        names: &mut Names,
        start: u32,
        count: u32,
    ) -> Result<(), ReadError> {
        for attempt in 1..=ATTEMPTS {
            let before = self.header_word(word::SEQUENCE)?;
            fence(SeqCst);
            if before != names.sequence || names.suffixes.len() > CACHED_NAMES {
                *names = Names { sequence: before, ..Names::default() };
            }
            let result = self.read_slice(scan, slice, names, start, count);
            fence(SeqCst);
            let settled = before.is_multiple_of(2) || attempt > ATTEMPTS / 2;
            if settled && self.header_word(word::SEQUENCE)? == before {
                return result;
            }
            *names = Names::default();
            std::thread::yield_now();
        }
        Err(ReadError::Busy)
    }

    fn read_slice(
        &self,
        scan: Scan,
        slice: &mut Slice,
        names: &mut Names,
        start: u32,
        count: u32,
    ) -> Result<(), ReadError> {
        slice.text.clear();
        slice.scopes.clear();
        slice.found.clear();
        self.read(
            Area::Owners,
            u64::from(start / BLOCK_SLOTS),
            u64::from(count / BLOCK_SLOTS),
            &mut slice.owners,
        )?;
        self.read(Area::Descriptors, u64::from(start), u64::from(count), &mut slice.descriptors)?;
        slice.sums.clear();
        slice.sums.resize(count as usize, 0);
        for column in 0..=u64::from(self.threads) {
            let first = column * u64::from(self.slots) + u64::from(start);
            self.read(Area::Columns, first, u64::from(count), &mut slice.column)?;
            for (sum, cell) in slice.sums.iter_mut().zip(words(&slice.column)) {
                *sum = sum.wrapping_add(cell);
            }
        }
        if scan.keeping {
            let column = u64::from(self.threads) + 1;
            let first = column * u64::from(self.slots) + u64::from(start);
            self.read(Area::Columns, first, u64::from(count), &mut slice.flushed)?;
        }
        // The marks are raised before what they cover is used, so they are read after it.
        let scopes = self.mark(word::SCOPES_USED, self.areas[Area::Scopes as usize].1)?;
        let suffixes = self.mark(word::SUFFIXES_USED, self.areas[Area::Suffixes as usize].1)?;
        let mut last_owner = 0;
        for index in 0..count as usize {
            let owner = half_word(&slice.owners, index / BLOCK_SLOTS as usize);
            let descriptor = half_word(&slice.descriptors, index);
            let (Some(scope), true) = (owner.checked_sub(1), descriptor != 0) else { continue };
            let kind =
                MetricKind::from_code(descriptor & 15).ok_or(ReadError::Corrupt("unknown kind of stat"))?;
            if u64::from(scope) >= scopes || u64::from(descriptor >> 4) >= suffixes {
                return Err(ReadError::Corrupt("a stat without a name"));
            }
            if scan.keeping && last_owner != owner {
                last_owner = owner;
                let begin = slice.text.len();
                self.push_prefix(names, scope, &mut slice.text)?;
                slice.scopes.push(begin..slice.text.len());
            }
            let flushed = word_at(&slice.flushed, index);
            let sum = slice.sums[index];
            if !scan.empty && (sum, flushed) == (0, 0) {
                continue;
            }
            let begin = slice.text.len();
            let generation = self.push_prefix(names, scope, &mut slice.text)?;
            self.push_suffix(names, descriptor >> 4, &mut slice.text)?;
            let name = begin..slice.text.len();
            let (length, offset) = halves(sum);
            let value = match kind {
                MetricKind::Counter => FoundValue::Number(sum),
                MetricKind::Gauge(_) => FoundValue::Number(gauge_value(sum)),
                MetricKind::Histogram => FoundValue::Histogram(self.distribution(offset, length)?),
                MetricKind::TextReadout => {
                    slice.text.push_str(&self.string(offset, length)?);
                    FoundValue::Text(name.end..slice.text.len())
                }
            };
            slice.found.push(Found { name, kind, value, generation, flushed });
        }
        Ok(())
    }

    pub(crate) fn push_prefix(
        &self,
        names: &mut Names,
        scope: u32,
        text: &mut String,
    ) -> Result<u32, ReadError> {
        if let Some((_, prefix, generation)) = names.scope.as_ref().filter(|(known, ..)| *known == scope) {
            text.push_str(prefix);
            return Ok(*generation);
        }
        let mut record = Vec::new();
        self.read(Area::Scopes, u64::from(scope), 1, &mut record)?;
        let prefix = self.string(half_word(&record, 0), half_word(&record, 1))?;
        let generation = half_word(&record, 2);
        text.push_str(&prefix);
        names.scope = Some((scope, prefix, generation));
        Ok(generation)
    }

    pub(crate) fn push_suffix(
        &self,
        names: &mut Names,
        suffix: u32,
        text: &mut String,
    ) -> Result<(), ReadError> {
        if let Some(known) = names.suffixes.get(&suffix) {
            text.push_str(known);
            return Ok(());
        }
        let found = self.suffix(suffix)?;
        text.push_str(&found);
        // Long names are not worth keeping: with them the cache would have no bound in bytes.
        if found.len() <= CACHED_BYTES {
            names.suffixes.insert(suffix, found.into());
        }
        Ok(())
    }

    pub(crate) fn string(&self, offset: u32, length: u32) -> Result<String, ReadError> {
        let bytes = self.bytes(offset, length)?;
        String::from_utf8(bytes).map_err(|_| ReadError::Corrupt("a name is not UTF-8"))
    }

    pub(crate) fn distribution(&self, offset: u32, length: u32) -> Result<Distribution, ReadError> {
        Distribution::decode(&self.bytes(offset, length)?).ok_or(ReadError::Corrupt("a histogram is none"))
    }

    /// The text of a suffix.
    pub(crate) fn suffix(&self, suffix: u32) -> Result<String, ReadError> {
        let mut record = Vec::new();
        self.read(Area::Suffixes, u64::from(suffix), 1, &mut record)?;
        self.string(half_word(&record, 0), half_word(&record, 1))
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn threads(&self) -> u32 {
        self.threads
    }

    pub(crate) fn slots(&self) -> u32 {
        self.slots
    }

    /// How many elements an area can hold.
    pub(crate) fn capacity(&self, area: Area) -> u64 {
        self.areas[area as usize].1
    }

    fn bytes(&self, offset: u32, length: u32) -> Result<Vec<u8>, ReadError> {
        if length as usize > MAX_TEXT {
            return Err(ReadError::Corrupt("a name or histogram is too long"));
        }
        let mut bytes = Vec::new();
        self.read(Area::Arena, u64::from(offset), u64::from(length), &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `into` with `count` elements of an area, which must lie in it.
    pub(crate) fn read(
        &self,
        area: Area,
        first: u64,
        count: u64,
        into: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let (offset, capacity) = self.areas[area as usize];
        if first.checked_add(count).is_none_or(|end| end > capacity) {
            return Err(ReadError::Corrupt("a reference leaves its area"));
        }
        into.clear();
        into.resize((count * area.element_bytes()) as usize, 0);
        let at = offset + first * area.element_bytes();
        self.file.read_exact_at(into, at).map_err(short(ReadError::Corrupt("the file has shrunk")))
    }

    pub(crate) fn mark(&self, index: usize, capacity: u64) -> Result<u64, ReadError> {
        let used = self.header_word(index)?;
        if used > capacity {
            return Err(ReadError::Corrupt("more in use than there is"));
        }
        Ok(used)
    }

    pub(crate) fn header_word(&self, index: usize) -> Result<u64, ReadError> {
        let mut bytes = [0; 8];
        let end = short(ReadError::Corrupt("the file has shrunk"));
        self.file.read_exact_at(&mut bytes, index as u64 * 8).map_err(end)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}

fn short(meaning: ReadError) -> impl FnOnce(io::Error) -> ReadError {
    |error| if error.kind() == io::ErrorKind::UnexpectedEof { meaning } else { ReadError::Io(error) }
}

pub(crate) fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.as_chunks().0.iter().map(|bytes| u64::from_ne_bytes(*bytes))
}

/// 0 beyond the end.
pub(crate) fn word_at(bytes: &[u8], index: usize) -> u64 {
    bytes.as_chunks().0.get(index).map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

pub(crate) fn half_word(bytes: &[u8], index: usize) -> u32 {
    bytes.as_chunks().0.get(index).map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

/// Low, then high.
pub(crate) fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

pub(crate) const SLICE_SLOTS: u32 = 1024;
pub(crate) const ATTEMPTS: u32 = 64;
const CACHED_NAMES: usize = 16 * 1024;
const CACHED_BYTES: usize = 256;
