//! Where things lie in a segment file: the one description that the writer and the reader share.
//!
//! All numbers are in host byte order: a segment never leaves its host, and the magic differs in another order.
//! A change that an old reader would misread raises [`VERSION`]; new areas take a free entry of the directory.

/// First word of a complete header. Written last, so a half-made file is no segment.
pub(crate) const MAGIC: u64 = u64::from_ne_bytes(*b"PRXSTATS");
/// Layout version of this program.
pub(crate) const VERSION: u32 = 2;
/// Bytes of the header, and therefore the offset of the first area. A multiple of every page size in use.
pub(crate) const HEADER_BYTES: u64 = ALIGN;
/// Areas start at multiples of this: the largest page size of x86-64 and aarch64.
pub(crate) const ALIGN: u64 = 64 * 1024;
/// Consecutive slots that always belong to one scope.
pub(crate) const BLOCK_SLOTS: u32 = 4;
/// Slots that one step of growth reserves.
pub(crate) const CHUNK_SLOTS: u32 = 4096;
/// Columns beyond those of threads: what unbound threads count, and how much of each counter sinks have been told.
pub(crate) const EXTRA_COLUMNS: u32 = 2;
/// Threads a segment can have columns for.
pub(crate) const MAX_THREADS: usize = 1024;
/// Where in the header the ring of events begins: words are before it. Programs that do not know it have zeros there.
pub(crate) const RING_OFFSET: u64 = 4096;
pub(crate) const RING_BYTES: u64 = HEADER_BYTES - RING_OFFSET;
pub(crate) const RING_ENTRY_BYTES: u64 = 256;
/// Longest prefix, suffix or text value in bytes.
pub(crate) const MAX_TEXT: usize = 16 * 1024;

/// Header words (8 bytes each), by index. Words up to `BLOCK` never change once the magic is there.
pub(crate) mod word {
    pub(crate) const MAGIC: usize = 0;
    /// Low half version, high half threads.
    pub(crate) const VERSION: usize = 1;
    pub(crate) const GENERATION: usize = 2;
    /// Low half base-id, high half slots in a block.
    pub(crate) const BASE_ID: usize = 3;
    /// Raised before and after each change that takes something away: odd while one is under way.
    pub(crate) const SEQUENCE: usize = 8;
    /// Slots below this have been handed out at some time.
    pub(crate) const SLOTS_USED: usize = 9;
    pub(crate) const SCOPES_USED: usize = 10;
    pub(crate) const SUFFIXES_USED: usize = 11;
    /// Not 0 once the scopes of the writer's configuration are there: a prefix that is missing then is gone for good.
    pub(crate) const SETTLED: usize = 12;
    /// Events ever written to the ring.
    pub(crate) const EVENTS: usize = 13;
    /// The area directory: offset and capacity in elements, one pair per [`Area`](super::Area); 16 pairs.
    pub(crate) const AREAS: usize = 32;
    /// The directory's entry of the ring of events, which lies in the header: offset and entries; 0 where there is none.
    pub(crate) const RING: usize = AREAS + 6 * 2;
    pub(crate) const COUNT: usize = 64;
}

/// Parts of a segment, in file order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Area {
    /// Per slot: suffix id << 4 | kind; 0 is no stat.
    Descriptors = 0,
    /// Per block: scope id + 1; 0 is nobody.
    Owners = 1,
    /// Per scope: arena offset, length, generation, 0.
    Scopes = 2,
    /// Per suffix: arena offset, length.
    Suffixes = 3,
    /// Bytes of prefixes, suffixes and text values.
    Arena = 4,
    /// Per thread, then for unbound threads, then the flush marks: one cell of 8 bytes per slot.
    Columns = 5,
}

impl Area {
    pub(crate) const ALL: [Area; 6] =
        [Area::Descriptors, Area::Owners, Area::Scopes, Area::Suffixes, Area::Arena, Area::Columns];

    /// Bytes of one element.
    pub(crate) const fn element_bytes(self) -> u64 {
        match self {
            Area::Descriptors | Area::Owners => 4,
            Area::Scopes => 16,
            Area::Suffixes | Area::Columns => 8,
            Area::Arena => 1,
        }
    }
}

/// How large a segment can become. This is address space and file length; memory is only what is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) threads: u32,
    /// Slots in the file, and again as many in private memory.
    pub(crate) slots: u32,
    pub(crate) scopes: u32,
    pub(crate) suffixes: u32,
    pub(crate) arena: u32,
}

impl Geometry {
    pub(crate) const fn for_threads(threads: u32) -> Geometry {
        Geometry { threads, slots: 1 << 23, scopes: 1 << 21, suffixes: 1 << 22, arena: 1 << 30 }
    }

    /// Elements that the file can hold in `area`.
    pub(crate) fn capacity(&self, area: Area) -> u64 {
        match area {
            Area::Descriptors => u64::from(self.slots),
            Area::Owners => u64::from(self.slots / BLOCK_SLOTS),
            Area::Scopes => u64::from(self.scopes),
            Area::Suffixes => u64::from(self.suffixes),
            Area::Arena => u64::from(self.arena),
            Area::Columns => u64::from(self.slots) * u64::from(self.threads + EXTRA_COLUMNS),
        }
    }

    /// Bytes of `area` in the file, padded to [`ALIGN`].
    pub(crate) fn area_bytes(&self, area: Area) -> u64 {
        (self.capacity(area) * area.element_bytes()).next_multiple_of(ALIGN)
    }

    /// File offset of `area` in bytes.
    pub(crate) fn offset(&self, area: Area) -> u64 {
        let before = Area::ALL.iter().take_while(|other| **other != area);
        HEADER_BYTES + before.map(|area| self.area_bytes(*area)).sum::<u64>()
    }

    /// File length in bytes.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.offset(Area::Columns) + self.area_bytes(Area::Columns)
    }
}
