//! The memory behind a store: one mapping, handed out as slices of atomics, and the thread's own column.
//!
//! This file and its child are the only ones of the crate with `unsafe`. They know areas and cells, not names or
//! scopes.
//!
//! Every array of slots is mapped twice as long as the file has room for: the first half is the file, the second an
//! anonymous file. A slot of either half is reached the same way, so running out of space in the file changes
//! nothing for those who count.
#![allow(unsafe_code)] // maps memory

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::fence;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::ftruncate;

use crate::error::StatsError;
use crate::events::Ring;
use crate::histogram::Recording;
use crate::layout::{
    ALIGN, Area, BLOCK_SLOTS, CHUNK_SLOTS, EXTRA_COLUMNS, Geometry, HEADER_BYTES, RING_BYTES, RING_OFFSET,
    word,
};
use crate::metric::MetricKind;

mod handle;

pub(crate) use handle::Handle;

/// One mapped segment. Lives as long as its store and every thread bound to it.
pub(crate) struct Segment {
    id: u32,
    geometry: Geometry,
    base: NonNull<u8>,
    mapped: usize,
    places: Places,
    /// The segment file; None when all of it is private memory. Also holds the lock that says the writer lives.
    file: Option<File>,
    /// Bytes from the start of each area (columns: of each column) that have space behind them.
    granted: Mutex<[u64; Area::ALL.len()]>,
    /// Per column beyond those of threads and stretch of `STRETCH_SLOTS` slots: where its cells are.
    extra: [Box<[AtomicU8]>; EXTRA_COLUMNS as usize],
    claimed: Box<[AtomicBool]>,
    /// The error that ended growth of the file; 0 is none. From then on new stats are private.
    failure: AtomicI32,
    /// The right to write events; false once nothing in the file may change any more.
    telling: Mutex<bool>,
    /// Recorded by threads, for main to merge.
    handed_over: Mutex<Vec<Recording>>,
    /// Recorded by threads without a column; not worth more than a lock.
    unbound: Mutex<Recording>,
}

/// Offsets within the mapping, in bytes.
struct Places {
    descriptors: usize,
    owners: usize,
    scopes: usize,
    suffixes: usize,
    arena: usize,
    columns: usize,
    column_stride: usize,
}

/// A column that no thread owns. Its space is taken on first use, so that it costs nothing where it serves nobody.
#[derive(Clone, Copy)]
enum Extra {
    /// Counts of threads without a column.
    Unbound = 0,
    /// How much of each counter has been flushed to sinks; wraps as counters do.
    Flushed = 1,
}

// SAFETY: the mapping is only ever reached as atomics, and is unmapped only when the last owner drops the segment.
unsafe impl Send for Segment {}
// SAFETY: as above; all other fields are Sync by themselves.
unsafe impl Sync for Segment {}

impl Segment {
    /// Maps `file` (already of full length and with space for its header), or private memory.
    pub(crate) fn create(file: Option<File>, geometry: Geometry) -> Result<Arc<Segment>, StatsError> {
        let memory = |what| move |source| StatsError::Memory { what, source };
        let (places, mapped) = Places::lay_out(&geometry);
        let length = NonZeroUsize::new(mapped).expect("a mapping has at least its header");
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let base = if fits_file_limit(mapped as u64) {
            // Holes of an anonymous file cost nothing, not even where the kernel does not overcommit.
            let private = memfd_create(c"proxy-stats", MFdFlags::MFD_CLOEXEC).map_err(memory("memfd"))?;
            ftruncate(&private, mapped as i64).map_err(memory("memfd length"))?;
            // SAFETY: a fresh mapping at an address the kernel chooses touches no memory of ours.
            unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, &private, 0) }
        } else {
            let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
            // SAFETY: as above.
            unsafe { mmap_anonymous(None, length, access, flags) }
        };
        let base = base.map_err(memory("address space"))?.cast::<u8>();
        let stretches = (u64::from(geometry.slots) * 2).div_ceil(u64::from(STRETCH_SLOTS));
        let unused = || (0..stretches).map(|_| AtomicU8::new(CELLS_UNUSED)).collect();
        let segment = Segment {
            id: handle::next_id(),
            geometry,
            base,
            mapped,
            places,
            file,
            granted: Mutex::default(),
            extra: [unused(), unused()],
            claimed: (0..geometry.threads).map(|_| AtomicBool::new(false)).collect(),
            failure: AtomicI32::new(0),
            telling: Mutex::new(true),
            handed_over: Mutex::default(),
            unbound: Mutex::default(),
        };
        segment.map_file().map_err(memory("file mapping"))?;
        let segment = Arc::new(segment);
        handle::register(&segment);
        Ok(segment)
    }

    /// Lays the file over its half of the arrays.
    fn map_file(&self) -> Result<(), Errno> {
        let Some(file) = &self.file else { return Ok(()) };
        let (geometry, places) = (&self.geometry, &self.places);
        let over = |place: usize, offset: u64, bytes: u64| -> Result<(), Errno> {
            let bytes = usize::try_from(bytes).map_err(|_| Errno::ENOMEM)?;
            debug_assert!(place + bytes <= self.mapped);
            let address = NonZeroUsize::new(self.base.as_ptr() as usize + place).ok_or(Errno::EINVAL)?;
            let bytes = NonZeroUsize::new(bytes).ok_or(Errno::EINVAL)?;
            let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
            let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
            // SAFETY: the range lies within our own mapping (see `Places::lay_out`), to which no reference exists yet.
            unsafe { mmap(Some(address), bytes, access, flags, file, offset as i64) }.map(drop)
        };
        over(0, 0, HEADER_BYTES)?;
        over(places.descriptors, geometry.offset(Area::Descriptors), geometry.area_bytes(Area::Descriptors))?;
        over(places.owners, geometry.offset(Area::Owners), geometry.area_bytes(Area::Owners))?;
        over(places.scopes, geometry.offset(Area::Scopes), geometry.area_bytes(Area::Scopes))?;
        over(places.suffixes, geometry.offset(Area::Suffixes), geometry.area_bytes(Area::Suffixes))?;
        over(places.arena, geometry.offset(Area::Arena), geometry.area_bytes(Area::Arena))?;
        let column = u64::from(geometry.slots) * 8;
        let threads = (0..geometry.threads).map(|index| (index as usize, index));
        let extra = [Extra::Unbound, Extra::Flushed]
            .map(|extra| (self.extra_column(extra, CELLS_IN_FILE), geometry.threads + extra as u32));
        for (mapped, in_file) in threads.chain(extra) {
            let place = places.columns + mapped * places.column_stride;
            over(place, geometry.offset(Area::Columns) + u64::from(in_file) * column, column)?;
        }
        Ok(())
    }

    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Whether there is a file that other processes can read.
    pub(crate) fn is_shared(&self) -> bool {
        self.file.is_some()
    }

    /// Why the file stopped growing, if it did.
    pub(crate) fn failure(&self) -> Option<Errno> {
        Some(self.failure.load(Relaxed)).filter(|code| *code != 0).map(Errno::from_raw)
    }

    /// Behaves from now on as if the file system were full.
    #[cfg(test)]
    pub(crate) fn fill_up(&self) {
        self.failure.store(Errno::ENOSPC as i32, Relaxed);
    }

    /// Header words, see [`word`].
    pub(crate) fn header(&self) -> &[AtomicU64] {
        self.slice(0, word::COUNT)
    }

    /// One per slot of the file, then one per private slot. The same holds for owners (blocks) and columns.
    pub(crate) fn descriptors(&self) -> &[AtomicU32] {
        self.slice(self.places.descriptors, self.slots())
    }

    pub(crate) fn owners(&self) -> &[AtomicU32] {
        self.slice(self.places.owners, self.slots() / BLOCK_SLOTS as usize)
    }

    /// The scope that owns `slot`.
    pub(crate) fn owner(&self, slot: u32) -> Option<u32> {
        self.owners()[(slot / BLOCK_SLOTS) as usize].load(Acquire).checked_sub(1)
    }

    /// Four words per scope.
    pub(crate) fn scopes(&self) -> &[AtomicU32] {
        self.slice(self.places.scopes, self.geometry.scopes as usize * 4)
    }

    /// Two words per suffix.
    pub(crate) fn suffixes(&self) -> &[AtomicU32] {
        self.slice(self.places.suffixes, self.geometry.suffixes as usize * 2)
    }

    pub(crate) fn arena(&self) -> &[AtomicU8] {
        self.slice(self.places.arena, self.geometry.arena as usize)
    }

    /// Cells of one thread, or of an [`Extra`]: see `extra_column`.
    fn column(&self, index: usize) -> &[AtomicU64] {
        assert!(index < mapped_columns(&self.geometry), "columns are those of threads and extra ones");
        self.slice(self.places.columns + index * self.places.column_stride, self.slots())
    }

    fn slots(&self) -> usize {
        self.geometry.slots as usize * 2
    }

    fn slice<T: Atomic>(&self, place: usize, length: usize) -> &[T] {
        assert!(place.is_multiple_of(align_of::<T>()) && place + length * size_of::<T>() <= self.mapped);
        // SAFETY: in bounds and aligned (just checked; the mapping starts at a page), initialised (files read as
        // zeros), valid as atomics for any bytes (`Atomic` is sealed to those), mapped as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(place).cast::<T>(), length) }
    }

    /// Makes sure that the first `elements` of a file area have space behind them; for columns: of every column.
    /// Private memory always has. Without this a store to a full file system would be SIGBUS.
    pub(crate) fn reserve(&self, area: Area, elements: u64) -> Result<(), Errno> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        let held = granted[area as usize];
        let wanted = elements * area.element_bytes();
        if wanted <= held {
            return Ok(());
        }
        if let Some(error) = self.failure() {
            return Err(error);
        }
        let step = area.element_bytes() * u64::from(CHUNK_SLOTS);
        let whole = if area == Area::Columns {
            u64::from(self.geometry.slots) * 8
        } else {
            self.geometry.area_bytes(area)
        };
        let wanted = wanted.next_multiple_of(step).min(whole);
        let columns = if area == Area::Columns { u64::from(self.geometry.threads) } else { 1 };
        for column in 0..columns {
            let start = self.geometry.offset(area) + column * whole + held;
            let grown =
                fallocate(file.as_fd(), FallocateFlags::empty(), start as i64, (wanted - held) as i64);
            grown.inspect_err(|error| self.failure.store(*error as i32, Relaxed))?;
        }
        granted[area as usize] = wanted;
        Ok(())
    }

    /// Sum over all columns, wrapping: gauges are two's complement.
    pub(crate) fn sum(&self, slot: u32) -> u64 {
        let slot = slot as usize;
        let bound = (0..self.geometry.threads as usize).map(|column| self.column(column)[slot].load(Relaxed));
        bound.fold(self.extra_value(Extra::Unbound, slot), u64::wrapping_add)
    }

    /// Makes the sum `value` by changing only the cell of the calling thread, so no other thread's count is lost.
    fn set(&self, slot: u32, value: u64) {
        let difference = value.wrapping_sub(self.sum(slot));
        self.handle(slot).add(difference);
    }

    /// Stores a value that is not a count (a text's place) in main's cell. Only under the store's lock.
    pub(crate) fn store_word(&self, slot: u32, value: u64) {
        self.column(0)[slot as usize].store(value, Release);
    }

    /// Back to zero in all columns. Only when no thread uses the slot any more.
    pub(crate) fn zero(&self, slot: u32) {
        let slot = slot as usize;
        for column in 0..self.geometry.threads as usize {
            let cell = &self.column(column)[slot];
            if cell.load(Relaxed) != 0 {
                cell.store(0, Relaxed);
            }
        }
        for extra in [Extra::Unbound, Extra::Flushed] {
            if self.extra_value(extra, slot) != 0 {
                self.extra_cell(extra, slot).store(0, Relaxed);
            }
        }
    }

    /// How much of a counter has been flushed, wrapping: more than its sum where a predecessor's counts were, or where
    /// it was reset before.
    ///
    /// To be read before the sum: a reset zeroes a cell first and takes it back from the mark afterwards.
    pub(crate) fn flushed(&self, slot: u32) -> u64 {
        self.extra_value(Extra::Flushed, slot as usize)
    }

    /// Moves the flush mark of a counter on.
    pub(crate) fn add_flushed(&self, slot: u32, amount: u64) {
        self.extra_cell(Extra::Flushed, slot as usize).fetch_add(amount, Release);
    }

    /// Calls `change` with the ring of events, unless the segment has been [released](Segment::release).
    pub(crate) fn ring(&self, change: impl FnOnce(&mut Ring<'_>)) {
        // What panics leaves an entry behind that no reader takes for whole.
        let open = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        if *open {
            let words = self.slice(RING_OFFSET as usize, RING_BYTES as usize / 8);
            change(&mut Ring { words, count: &self.header()[word::EVENTS] });
        }
    }

    /// Lets go of the lock that says that the writer lives. No events are written from then on.
    pub(crate) fn release(&self) {
        *self.telling.lock().unwrap_or_else(PoisonError::into_inner) = false;
        if let Some(file) = &self.file {
            // It goes with the process anyway.
            let _ = file.unlock();
        }
    }

    /// Makes the calling thread's cells of those `slots` that are counters zero. What had not been flushed of them
    /// still will be.
    pub(crate) fn reset_counters(&self, slots: impl Iterator<Item = u32>) {
        let Some(column) = self.bound_column() else { return };
        let cells = self.column(column);
        let is_counter =
            |slot: &usize| self.descriptors()[*slot].load(Relaxed) & 15 == MetricKind::Counter.code();
        for slot in slots.map(|slot| slot as usize).filter(is_counter) {
            let own = cells[slot].load(Relaxed);
            if own != 0 {
                cells[slot].store(0, Relaxed);
            }
            let unbound = match column {
                0 if self.extra_value(Extra::Unbound, slot) != 0 => {
                    self.extra_cell(Extra::Unbound, slot).swap(0, Relaxed)
                }
                _ => 0,
            };
            let taken = own.wrapping_add(unbound);
            if taken != 0 {
                self.add_flushed(slot as u32, taken.wrapping_neg());
            }
        }
    }

    fn extra_value(&self, extra: Extra, slot: usize) -> u64 {
        match self.extra[extra as usize][slot / STRETCH_SLOTS as usize].load(Acquire) {
            CELLS_UNUSED => 0,
            _ => self.extra_cell(extra, slot).load(Acquire),
        }
    }

    /// A cell that threads share: changed by read-modify-write only.
    fn extra_cell(&self, extra: Extra, slot: usize) -> &AtomicU64 {
        let state = &self.extra[extra as usize][slot / STRETCH_SLOTS as usize];
        let mut found = state.load(Acquire);
        if found == CELLS_UNUSED {
            let _one_at_a_time = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
            found = state.load(Acquire);
            if found == CELLS_UNUSED {
                found = if self.extra_space(extra, slot) { CELLS_IN_FILE } else { CELLS_PRIVATE };
                state.store(found, Release);
            }
        }
        &self.column(self.extra_column(extra, found))[slot]
    }

    /// Which mapped column holds cells of `extra`: each has one with a half in the file, and a wholly private one.
    fn extra_column(&self, extra: Extra, state: u8) -> usize {
        self.geometry.threads as usize + extra as usize * 2 + usize::from(state == CELLS_PRIVATE)
    }

    fn extra_space(&self, extra: Extra, slot: usize) -> bool {
        let Some(file) = self.file.as_ref().filter(|_| slot < self.geometry.slots as usize) else {
            return true;
        };
        let (slots, stretch) = (u64::from(self.geometry.slots), u64::from(STRETCH_SLOTS));
        let first = slot as u64 / stretch * stretch;
        let cell = slots * u64::from(self.geometry.threads + extra as u32) + first;
        let length = stretch.min(slots - first) * 8;
        let start = self.geometry.offset(Area::Columns) + cell * 8;
        fallocate(file.as_fd(), FallocateFlags::empty(), start as i64, length as i64).is_ok()
    }

    fn accept(&self, recording: Recording) {
        if !recording.is_empty() {
            self.handed_over.lock().unwrap_or_else(PoisonError::into_inner).push(recording);
        }
    }

    /// All that was handed over, and what unbound threads recorded.
    pub(crate) fn take_recordings(&self) -> Vec<Recording> {
        self.accept(std::mem::take(&mut *self.unbound.lock().unwrap_or_else(PoisonError::into_inner)));
        std::mem::take(&mut *self.handed_over.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Drops what was recorded for slots that `dead` says are gone, as far as it was handed over.
    pub(crate) fn forget_recorded(&self, dead: impl Fn(u32) -> bool) {
        self.unbound.lock().unwrap_or_else(PoisonError::into_inner).forget(&dead);
        let mut handed_over = self.handed_over.lock().unwrap_or_else(PoisonError::into_inner);
        handed_over.iter_mut().for_each(|recording| recording.forget(&dead));
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        handle::unregister(self.id);
        // SAFETY: base and length are those of `create`; slices borrow `self`, and a thread's column pointer is
        // cleared before its binding lets go of the segment, so nothing reaches the memory any more.
        let unmapped = unsafe { munmap(self.base.cast(), self.mapped) };
        debug_assert!(unmapped.is_ok());
    }
}

impl Places {
    fn lay_out(geometry: &Geometry) -> (Places, usize) {
        let mut next = HEADER_BYTES as usize;
        let mut take = |bytes: u64| {
            let place = next;
            next += bytes.next_multiple_of(ALIGN) as usize;
            place
        };
        // The private half follows where the file's ends without a gap: slot counts are multiples of ALIGN (see
        // `Geometry`), so that each half of each array is whole pages.
        assert!((u64::from(geometry.slots / BLOCK_SLOTS) * 4).is_multiple_of(ALIGN));
        let column_stride = geometry.slots as usize * 16;
        let places = Places {
            descriptors: take(u64::from(geometry.slots) * 8),
            owners: take(u64::from(geometry.slots / BLOCK_SLOTS) * 8),
            scopes: take(geometry.area_bytes(Area::Scopes)),
            suffixes: take(geometry.area_bytes(Area::Suffixes)),
            arena: take(geometry.area_bytes(Area::Arena)),
            columns: take(column_stride as u64 * mapped_columns(geometry) as u64),
            column_stride,
        };
        (places, next)
    }
}

/// Tells readers of the file that something they may have read is being taken away.
pub(crate) struct Change<'a>(&'a Segment);

impl<'a> Change<'a> {
    pub(crate) fn begin(segment: &'a Segment) -> Change<'a> {
        segment.header()[word::SEQUENCE].fetch_add(1, Relaxed);
        // What follows must not be seen before the sequence is odd.
        fence(SeqCst);
        Change(segment)
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.0.header()[word::SEQUENCE].fetch_add(1, Release);
    }
}

/// Types that any bytes are a valid value of, and that others may change meanwhile.
trait Atomic {}
impl Atomic for AtomicU8 {}
impl Atomic for AtomicU32 {}
impl Atomic for AtomicU64 {}

/// Whether a file may have this length: making a longer one would end the process by SIGXFSZ.
pub(crate) fn fits_file_limit(bytes: u64) -> bool {
    getrlimit(Resource::RLIMIT_FSIZE).is_ok_and(|(soft, _)| bytes <= soft)
}

/// Columns in the mapping: of each extra one there are two, see `Segment::extra_column`.
fn mapped_columns(geometry: &Geometry) -> usize {
    (geometry.threads + EXTRA_COLUMNS * 2) as usize
}

/// Slots whose extra cells get their space in one step.
const STRETCH_SLOTS: u32 = CHUNK_SLOTS * 2;
const CELLS_UNUSED: u8 = 0;
const CELLS_IN_FILE: u8 = 1;
const CELLS_PRIVATE: u8 = 2;
