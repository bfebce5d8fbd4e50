//! What the kernel says of a process and its threads. Asks the daemon nothing: a hanging one is the one to look at.

use std::collections::HashMap;
use std::fs;

/// Of a process.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    pub(crate) cpu_ms: u64,
    pub(crate) resident_bytes: u64,
    /// Seconds.
    pub(crate) age: u64,
}

/// Pids by number of the file that they hold a lock on. Containers with PID namespaces of their own have none here.
pub(crate) fn lock_holders() -> HashMap<u64, u32> {
    holders(&fs::read_to_string("/proc/locks").unwrap_or_default())
}

fn holders(locks: &str) -> HashMap<u64, u32> {
    let holder = |line: &str| {
        let mut words = line.split_whitespace();
        words.find(|word| *word == "FLOCK")?;
        let (pid, file) = (words.nth(2)?, words.next()?);
        Some((file.rsplit(':').next()?.parse().ok()?, pid.parse().ok()?))
    };
    locks.lines().filter_map(holder).collect()
}

/// What a process has used, and for how long it has lived.
pub(crate) fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let pages = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let resident: u64 = pages.split_whitespace().nth(1)?.parse().ok()?;
    let up = fs::read_to_string("/proc/uptime").ok()?;
    let up: f64 = up.split_whitespace().next()?.parse().ok()?;
    let begun = fields(&stat)?.nth(19)?.parse::<u64>().ok()? * MILLISECONDS_PER_TICK / 1000;
    Some(Usage {
        cpu_ms: cpu_ms(&stat)?,
        resident_bytes: resident * page_bytes(),
        age: (up as u64).saturating_sub(begun),
    })
}

/// CPU time in milliseconds of the threads of a process that serve: main and workers, by name.
pub(crate) fn threads(pid: u32) -> HashMap<String, u64> {
    let mut found = HashMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let main = entry.file_name().to_str() == Some(&pid.to_string());
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let name = match name.trim_end().strip_prefix("wrk:") {
            Some(worker) => worker.to_owned(),
            None if main => "main".to_owned(),
            None => continue,
        };
        if let Some(cpu) = fs::read_to_string(entry.path().join("stat")).ok().and_then(|stat| cpu_ms(&stat)) {
            found.insert(name, cpu);
        }
    }
    found
}

/// User and system time of a `stat` file.
fn cpu_ms(stat: &str) -> Option<u64> {
    let mut fields = fields(stat)?.skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) * MILLISECONDS_PER_TICK)
}

/// Those after the name, which may hold anything, also parentheses.
fn fields(stat: &str) -> Option<impl Iterator<Item = &str>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace())
}

/// Of this kernel: 4 KiB, or as much as 64 KiB on aarch64.
fn page_bytes() -> u64 {
    let told = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
    told.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4096)
}

/// USER_HZ is 100 on x86-64 and aarch64.
const MILLISECONDS_PER_TICK: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_name_their_holders() {
        let text = "1: FLOCK  ADVISORY  WRITE 1935 00:1b:5184002 0 EOF\n\
                    2: OFDLCK ADVISORY  WRITE -1 fe:00:10010994 0 EOF\n\
                    2: -> FLOCK  ADVISORY  WRITE 7 fe:00:12 0 EOF\n";
        assert_eq!(holders(text), HashMap::from([(5_184_002, 1935), (12, 7)]));
    }

    #[test]
    fn a_name_with_parentheses_is_no_trouble() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 1 2 3 4 12 34 0 0 20 0 1 0 5";
        assert_eq!(cpu_ms(stat), Some(460));
        assert_eq!(cpu_ms("7 (a"), None);
        let own = std::process::id();
        assert!(
            usage(own).is_some_and(|used| used.resident_bytes >= page_bytes() && used.age < 3600)
                && threads(own).contains_key("main")
        );
    }
}
