//! The store: creation, the threads' columns, enumeration, and giving slots free.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FlockArg, fallocate};

use crate::deltas::{Deltas, FlushMark};
use crate::directory::Directory;
use crate::error::StatsError;
use crate::events::EventLog;
use crate::histogram::{Interval, Merge};
use crate::inherited::Inherited;
use crate::layout::{
    Area, BLOCK_SLOTS, Geometry, HEADER_BYTES, MAGIC, MAX_THREADS, RING_BYTES, RING_ENTRY_BYTES, RING_OFFSET,
    VERSION, word,
};
use crate::lineage::{Marks, Totals};
use crate::metric::{ImportMode, MetricKind};
use crate::scope::Scope;
use crate::segment::{Segment, fits_file_limit};
use crate::sorted::{NameOrder, SortedWalk};
use crate::walk::{Copies, Slot, Walk};

/// What a store is made from.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Segment file, such as `/dev/shm/proxyd_<base id>_<generation>`. It must not exist, and stays when the store
    /// goes. None: memory that no other process can read.
    pub path: Option<PathBuf>,
    /// Threads that will be bound: main and workers.
    pub threads: usize,
    /// Number of this process in its lineage; never reused.
    pub generation: u64,
    /// Which lineage, as in `--base-id`.
    pub base_id: u32,
}

impl StoreOptions {
    /// Private memory for `threads` threads, for tests and one-off programs.
    pub fn private(threads: usize) -> StoreOptions {
        StoreOptions { path: None, threads, generation: 0, base_id: 0 }
    }
}

/// Column of a thread: main is 0, workers follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ThreadIndex(pub u16);

/// Says "everything released up to here"; see [`Store::retire`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[must_use = "released slots stay unused until they are reclaimed"]
pub struct Epoch(u64);

/// Where the stats are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// In the segment file, as asked for.
    File,
    /// In private memory, as asked for.
    Private,
    /// There was no space for the file: all stats are private. Deserves a warning.
    FileRefused(Errno),
    /// The file could not grow: stats made since then are private, earlier ones stay in the file. Deserves a warning.
    FileFull(Errno),
}

/// All stats of a process. Cloning is cheap and gives the same store.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    root: Scope,
}

/// What scopes and handles hold of the store.
pub(crate) struct Shared {
    segment: Arc<Segment>,
    directory: Mutex<Directory>,
    lookups: Arc<AtomicU64>,
    refused: Option<Errno>,
}

impl Store {
    /// Makes the segment. Falls back to private memory if the file system is full, see [`Store::backing`].
    pub fn create(options: StoreOptions) -> Result<Store, StatsError> {
        if options.threads == 0 || options.threads > MAX_THREADS {
            return Err(StatsError::Threads { threads: options.threads, max: MAX_THREADS });
        }
        let geometry = Geometry::for_threads(options.threads as u32);
        Store::with_geometry(options, geometry)
    }

    pub(crate) fn with_geometry(options: StoreOptions, geometry: Geometry) -> Result<Store, StatsError> {
        let (file, refused) = match &options.path {
            None => (None, None),
            Some(path) => match create_file(path.clone(), &geometry)? {
                Ok(file) => (Some(file), None),
                Err(error) => (None, Some(error)),
            },
        };
        let segment = Segment::create(file, geometry)?;
        write_header(&segment, &options);
        let lookups = Arc::<AtomicU64>::default();
        let directory = Mutex::new(Directory::new(&segment, Arc::clone(&lookups)));
        let shared = Arc::new(Shared { segment, directory, lookups, refused });
        let root = Scope::root(&shared);
        Ok(Store { shared, root })
    }

    /// The scope with the empty prefix.
    pub fn root(&self) -> Scope {
        self.root.clone()
    }

    /// Where this process writes down what happens to it.
    pub fn events(&self) -> EventLog {
        let segment = &self.shared.segment;
        EventLog::new(segment, segment.header()[word::GENERATION].load(Relaxed))
    }

    /// Makes only those stats that `matcher` accepts, from now on: to be called before there are any. See
    /// [`StatsMatcher`](crate::StatsMatcher).
    pub fn restrict(&self, matcher: impl Fn(&str) -> bool + Send + Sync + 'static) {
        self.shared.lock().restrict(Box::new(matcher));
    }

    /// Where the stats are at the moment.
    pub fn backing(&self) -> Backing {
        let segment = &self.shared.segment;
        match (self.shared.refused, segment.failure()) {
            (Some(error), _) => Backing::FileRefused(error),
            (None, Some(error)) => Backing::FileFull(error),
            (None, None) if segment.is_shared() => Backing::File,
            (None, None) => Backing::Private,
        }
    }

    /// Gives the calling thread a column of its own, until it ends or is bound again. False when there is no such
    /// column or a living thread has it: then the thread counts where all unbound threads do, rightly but slowly.
    pub fn bind_thread(&self, thread: ThreadIndex) -> bool {
        self.shared.segment.bind(usize::from(thread.0))
    }

    /// Calls `visit` for every stat, unsorted. Takes the lock for some hundred stats at a time, and not during
    /// `visit`. Main should walk in slices instead: [`Store::walk`].
    pub fn for_each(&self, mut visit: impl FnMut(&crate::Metric<'_>)) {
        let mut walk = self.walk();
        while walk.advance(&mut visit) {}
    }

    /// A walk over every stat that can be paused.
    pub fn walk(&self) -> Walk {
        Walk::new(self.shared.clone())
    }

    /// A walk in the order of names over stats of the kinds that `wanted` says. Not for main: it begins with sorting the
    /// scopes.
    pub fn sorted(&self, order: NameOrder, wanted: fn(MetricKind) -> bool) -> SortedWalk {
        SortedWalk::new(self.shared.clone(), order, wanted)
    }

    /// Visits stats found by an earlier walk, as they are now. Where one is gone, its slot is skipped or holds another
    /// stat. Takes the lock once: a few hundred slots at a time are enough.
    pub fn revisit(&self, slots: &[Slot], mut visit: impl FnMut(&crate::Metric<'_>)) {
        let mut copies = Copies::default();
        let directory = self.shared.lock();
        copies.begin(directory.interval());
        let (segment, mut wanted) = (&self.shared.segment, |_, _, _| true);
        slots.iter().for_each(|slot| copies.add(segment, &directory, slot.0, &mut wanted));
        drop(directory);
        copies.visit(&mut |_, metric| visit(metric));
    }

    /// Value of the counter or else the gauge with this full name, if it exists.
    pub fn value(&self, name: &str) -> Option<u64> {
        let directory = self.shared.lock();
        let segment = &self.shared.segment;
        if let Some(slot) = directory.find(segment, name, MetricKind::Counter) {
            return Some(directory.counter(segment, slot));
        }
        let slot = directory.find(segment, name, MetricKind::Gauge(ImportMode::Accumulate))?;
        Some(directory.gauge(segment, slot))
    }

    #[cfg(test)]
    pub(crate) fn shared_segment(&self) -> &Segment {
        &self.shared.segment
    }

    /// Ends an epoch: covers all that was released so far. Once every thread has let go of what it got before (main
    /// posts a message to each and waits for the answers), hand the epoch to [`Store::reclaim`].
    pub fn retire(&self) -> Epoch {
        Epoch(self.shared.lock().end_epoch())
    }

    /// Makes slots released up to `epoch` free for new stats; returns how many. No thread may still use a handle to
    /// one of them: its counts would go to another stat.
    pub fn reclaim(&self, epoch: Epoch) -> usize {
        self.shared.lock().reclaim(&self.shared.segment, epoch.0)
    }

    /// Hands what the calling thread has recorded in histograms to the next merge; without it, a thread's values are
    /// merged when it ends. Main posts this to every thread when it flushes.
    pub fn hand_over(&self) {
        self.shared.segment.hand_over();
    }

    /// Begins an interval: what was handed over is to be added to histograms, slice by slice.
    pub fn merge_histograms(&self) -> Merge {
        let interval = Interval(self.shared.lock().begin_interval());
        Merge::new(self.shared.clone(), interval, self.shared.segment.take_recordings())
    }

    /// What counters have gained since sinks were told. Main goes through it at a flush.
    pub fn deltas(&self) -> Deltas {
        Deltas::new(self.shared.clone())
    }

    /// Moves flush marks on: what was sent is not part of later deltas. Takes the lock.
    pub fn mark_flushed(&self, marks: impl IntoIterator<Item = FlushMark>) {
        let directory = self.shared.lock();
        marks.into_iter().for_each(|mark| mark.set(&self.shared.segment, &directory));
    }

    /// Sets the calling thread's part of all counters to zero. Main posts this to every thread; what threads without
    /// a column have counted, and what was inherited, goes with main's part.
    pub fn reset_counters(&self) {
        let mut directory = self.shared.lock();
        if self.shared.segment.bound_column() == Some(0) {
            directory.reset_inherited();
        }
        let used = directory.block_ranges();
        drop(directory);
        let slots = used.into_iter().flat_map(|blocks| blocks.start * BLOCK_SLOTS..blocks.end * BLOCK_SLOTS);
        self.shared.segment.reset_counters(slots);
    }

    /// How often a stat was looked up by name under the store's lock.
    pub fn lookups(&self) -> u64 {
        self.shared.lookups.load(Relaxed)
    }

    /// Shows from now on what other processes have counted as part of its stats, instead of what it had from them before.
    /// Holds the lock for a moment at a time. Not for two threads at once.
    pub(crate) fn inherit(&self, totals: Totals, marks: Option<Marks>) {
        self.shared.lock().prepare(Inherited::new(totals, marks));
        self.piecewise(Some(0), Directory::place_next);
    }

    /// Makes stats that were inherited, and were not made here, under scopes made since the last call. As for
    /// [`Store::inherit`].
    pub(crate) fn claim_inherited(&self) {
        let begin = self.shared.lock().begin_claim();
        self.piecewise(begin, Directory::claim_inherited);
    }

    fn piecewise(
        &self,
        mut next: Option<usize>,
        piece: impl Fn(&mut Directory, &Segment, usize) -> Option<usize>,
    ) {
        while let Some(number) = next {
            next = piece(&mut self.shared.lock(), &self.shared.segment, number);
            if next.is_some() {
                // The lock goes to whoever is awake: one that has just been woken for it gets it only while we sleep.
                thread::sleep(PAUSE);
            }
        }
    }

    /// Tells readers that all scopes of the configuration are there.
    pub(crate) fn note_settled(&self) {
        self.shared.segment.header()[word::SETTLED].store(1, Release);
    }

    /// To other processes this one is as dead from now on: the segment stays as it is, though scopes are dropped.
    pub(crate) fn end(&self) {
        self.shared.lock().freeze();
        self.shared.segment.release();
    }

    /// Stats for which there was no slot left; they count nowhere visible.
    pub fn refused(&self) -> u64 {
        self.shared.lock().refused()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Store").field("backing", &self.backing()).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }

    /// The directory stays consistent across a panic: what can panic in it changes nothing before.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_text(&self, slot: u32, value: &str) {
        self.lock().set_text(&self.segment, slot, value);
    }

    pub(crate) fn text(&self, slot: u32) -> String {
        self.lock().texts.get(&slot).map(|text| text.value.to_string()).unwrap_or_default()
    }
}

/// Makes the file with space for its header. The inner error is a lack of space: no reason not to run.
fn create_file(path: PathBuf, geometry: &Geometry) -> Result<Result<File, Errno>, StatsError> {
    if !fits_file_limit(geometry.file_bytes()) {
        return Ok(Err(Errno::EFBIG));
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let failed = |path: PathBuf| move |source| StatsError::CreateFile { path, source };
    let file = match options.open(&path) {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(Errno::ENOSPC as i32) => return Ok(Err(Errno::ENOSPC)),
        Err(error) => return Err(failed(path)(error)),
    };
    let made = lock_and_size(&file, geometry);
    if made.is_err() {
        // Best effort: an empty file is no segment to any reader.
        let _ = std::fs::remove_file(&path);
    }
    match made {
        Ok(()) => Ok(Ok(file)),
        Err(error @ (Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG | Errno::EOPNOTSUPP)) => Ok(Err(error)),
        Err(error) => Err(failed(path)(io::Error::from(error))),
    }
}

/// The lock says that the writer lives: the kernel lets go of it with the last mapping, however the process ends.
fn lock_and_size(file: &File, geometry: &Geometry) -> Result<(), Errno> {
    flock(file, FlockArg::LockExclusiveNonblock)?;
    nix::unistd::ftruncate(file, geometry.file_bytes() as i64)?;
    fallocate(file.as_fd(), FallocateFlags::empty(), 0, HEADER_BYTES as i64)
}

/// `flock(2)` for as long as the file is open, not as long as a guard.
pub(crate) fn flock(file: &File, how: FlockArg) -> Result<(), Errno> {
    let locked = match how {
        FlockArg::LockSharedNonblock => file.try_lock_shared(),
        _ => file.try_lock(),
    };
    locked.map_err(|error| match error {
        std::fs::TryLockError::WouldBlock => Errno::EWOULDBLOCK,
        std::fs::TryLockError::Error(error) => Errno::from_raw(error.raw_os_error().unwrap_or(0)),
    })
}

/// Of a thread that would hold the lock nearly all the time.
const PAUSE: Duration = Duration::from_micros(20);

fn write_header(segment: &Segment, options: &StoreOptions) {
    let header = segment.header();
    let geometry = segment.geometry();
    let pair = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    header[word::VERSION].store(pair(VERSION, geometry.threads), Relaxed);
    header[word::GENERATION].store(options.generation, Relaxed);
    header[word::BASE_ID].store(pair(options.base_id, BLOCK_SLOTS), Relaxed);
    for area in Area::ALL {
        let entry = word::AREAS + area as usize * 2;
        header[entry].store(geometry.offset(area), Relaxed);
        header[entry + 1].store(geometry.capacity(area), Relaxed);
    }
    header[word::RING].store(RING_OFFSET, Relaxed);
    header[word::RING + 1].store(RING_BYTES / RING_ENTRY_BYTES, Relaxed);
    header[word::MAGIC].store(MAGIC, Release);
}
