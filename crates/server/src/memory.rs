//! Memory of this process: as its allocator counts it, or else as the system does.

use tikv_jemalloc_ctl::{Access, AsName, epoch, stats};

use crate::admin::Memory;
use crate::options::Allocator;

/// What cannot be told is 0.
pub(crate) fn read(allocator: Allocator) -> Memory {
    match allocator {
        Allocator::Jemalloc => of_jemalloc().unwrap_or_default(),
        Allocator::System => of_system(),
    }
}

/// jemalloc's words for what tcmalloc tells Envoy.
fn of_jemalloc() -> tikv_jemalloc_ctl::Result<Memory> {
    // Numbers are those of the moment in which an epoch was begun.
    epoch::advance()?;
    let (mapped, retained) = (stats::mapped::read()?, stats::retained::read()?);
    let (active, metadata) = (stats::active::read()?, stats::metadata::read()?);
    let resident = stats::resident::read()?;
    let thread_cache: usize = THREAD_CACHES.name().read()?;
    Ok(Memory {
        allocated: stats::allocated::read()? as u64,
        heap_size: mapped as u64,
        pageheap_unmapped: retained as u64,
        pageheap_free: resident.saturating_sub(active + metadata) as u64,
        total_thread_cache: thread_cache as u64,
        total_physical_bytes: resident as u64,
    })
}

/// From `/proc/self`.
fn of_system() -> Memory {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).unwrap_or(0)
            << 10
    };
    Memory {
        allocated: kib("RssAnon"),
        heap_size: kib("VmData"),
        total_physical_bytes: kib("VmRSS"),
        ..Memory::default()
    }
}

/// Over all arenas, which have the number 4096 together (`MALLCTL_ARENAS_ALL`).
const THREAD_CACHES: &[u8] = b"stats.arenas.4096.tcache_bytes\0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_sizes_that_fit_together() {
        let memory = read(Allocator::System);
        assert!(memory.allocated > 0 && memory.heap_size > memory.allocated);
        assert!(memory.total_physical_bytes > memory.allocated);
    }

    #[test]
    fn jemalloc_knows_every_number_that_is_asked_of_it() {
        of_jemalloc().unwrap();
    }
}
