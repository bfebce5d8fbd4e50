//! Memory of this process, as the system counts it.

use crate::admin::Memory;

/// Resident and heap sizes from `/proc/self`; what cannot be read is 0.
pub(crate) fn read() -> Memory {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).unwrap_or(0)
            << 10
    };
    let (anonymous, resident) = (kib("RssAnon"), kib("VmRSS"));
    Memory {
        allocated: anonymous,
        heap_size: kib("VmData"),
        total_physical_bytes: resident,
        ..Memory::default()
    }
}
