//! Looks at counters in shared memory. The daemon is asked nothing.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use proxy_stats::{Event, EventWatch, ReadError, StatId, Watch, WatchedMember};

use super::Source;
use super::instances::{Instance, counts_privately};
use super::process::{lock_holders, threads, usage};
use super::quantiles::Recent;
use crate::snapshot::{Generation, Snapshot, Standing, Thread, add_events};
use crate::subjects::{Manager, Subjects};

/// The counters of one base-id.
pub(crate) struct SharedMemory {
    watch: Watch,
    events: EventWatch,
    ring: Arc<Vec<Event>>,
    recent: Recent,
    ids: Ids,
    /// Pids by generation.
    pids: HashMap<u64, u32>,
    silence: Silence,
    last: Snapshot,
    instance: Instance,
    /// When it was last looked whether the process that leads counts elsewhere.
    compared_ms: u64,
    private: bool,
}

/// Since when the main thread has not flushed, by its uptime.
#[derive(Default)]
struct Silence {
    uptime: u64,
    since_ms: u64,
    flushes: u64,
    /// Between two flushes, as far as was seen.
    longest_ms: u64,
}

/// Stats that are read by process or thread.
#[derive(Default)]
struct Ids {
    /// The catalog has had so many names.
    names: usize,
    connections: Vec<StatId>,
    connections_total: Vec<StatId>,
    requests_active: Vec<StatId>,
    requests_total: Vec<StatId>,
}

impl SharedMemory {
    pub(crate) fn new(instance: &Instance) -> SharedMemory {
        SharedMemory {
            watch: Watch::new(instance.path.clone()),
            events: EventWatch::new(instance.path.clone()),
            ring: Arc::default(),
            recent: Recent::default(),
            ids: Ids::default(),
            pids: HashMap::new(),
            silence: Silence::default(),
            last: Snapshot { origin: format!("base-id {}", instance.base_id), ..Snapshot::default() },
            instance: instance.clone(),
            compared_ms: 0,
            private: false,
        }
    }

    fn read(&mut self, at_ms: u64) -> Result<Snapshot, ReadError> {
        self.watch.look()?;
        let catalog = Arc::clone(self.watch.catalog());
        self.ids.follow(&self.watch);
        self.find_pids();
        let generations = self.watch.members().map(|member| self.generation(member)).collect();
        let mut snapshot = Snapshot {
            at_ms,
            origin: self.last.origin.clone(),
            quantiles: self.recent.follow(&self.watch, at_ms),
            values: self.watch.values().to_vec(),
            catalog,
            ring: Arc::clone(&self.ring),
            generations,
            ..Snapshot::default()
        };
        let mut texts = HashMap::new();
        self.watch.for_each_text(|id, text| drop(texts.insert(id, text.to_owned())));
        snapshot.texts = Arc::new(texts);
        let leader = self.watch.members().find(WatchedMember::leads);
        snapshot.standing = match (leader, snapshot.named("server.state")) {
            (None, _) if !snapshot.generations.iter().any(|generation| generation.lives) => Standing::Dead,
            _ if self.silence.is_long(snapshot.named("server.uptime"), at_ms) => Standing::Silent,
            (_, 1) => Standing::Draining,
            (_, 2 | 3) => Standing::Starting,
            _ => Standing::Live,
        };
        if let Some(leader) = leader {
            snapshot.threads = self.threads(leader)?;
        }
        Ok(snapshot)
    }

    /// Whether what is shown is not what is now, because another process leads and has no place here.
    fn look_for_private(&mut self, at_ms: u64) {
        if at_ms.saturating_sub(self.compared_ms) >= COMPARE_MS {
            self.compared_ms = at_ms;
            let shared = self.last.generations.iter().filter(|generation| generation.lives).count();
            self.private = counts_privately(&self.instance.run_dir, self.instance.base_id, shared);
        }
        if self.private {
            self.last.standing = Standing::Gone;
            self.last.trouble = Some(
                "a process that counts in private memory, for lack of space, has taken over: proxytop started anew asks that one"
                    .to_owned(),
            );
        }
    }

    /// Asks the kernel only when there is a process whose pid is not known.
    fn find_pids(&mut self) {
        let Self { watch, pids, .. } = self;
        pids.retain(|number, _| {
            watch.members().any(|member| member.generation() == *number && member.lives())
        });
        if watch.members().any(|member| member.lives() && !pids.contains_key(&member.generation())) {
            let holders = lock_holders();
            for member in watch.members().filter(WatchedMember::lives) {
                let pid = member.inode().ok().and_then(|inode| holders.get(&inode)).copied().unwrap_or(0);
                pids.insert(member.generation(), pid);
            }
        }
    }

    fn generation(&self, member: WatchedMember<'_>) -> Generation {
        let lives = member.lives();
        let pid = self.pids.get(&member.generation()).copied().unwrap_or(0);
        let used = if pid == 0 { None } else { usage(pid) };
        let held = |ids: &[StatId]| if lives { member.sum(ids) } else { 0 };
        Generation {
            number: member.generation(),
            lives,
            leads: member.leads(),
            pid,
            connections: held(&self.ids.connections),
            connections_total: member.sum(&self.ids.connections_total),
            requests_active: held(&self.ids.requests_active),
            requests_total: member.sum(&self.ids.requests_total),
            age: used.as_ref().map(|used| used.age),
            cpu_ms: used.as_ref().map(|used| used.cpu_ms),
            resident_bytes: used.map_or(0, |used| used.resident_bytes),
        }
    }

    fn threads(&self, leader: WatchedMember<'_>) -> Result<Vec<Thread>, ReadError> {
        let pid = self.pids.get(&leader.generation()).copied().unwrap_or(0);
        let cpu = if pid == 0 { HashMap::new() } else { threads(pid) };
        let by_thread = |ids: &[StatId]| leader.sum_by_thread(ids);
        let (connections, total) =
            (by_thread(&self.ids.connections)?, by_thread(&self.ids.connections_total)?);
        let (active, requests) =
            (by_thread(&self.ids.requests_active)?, by_thread(&self.ids.requests_total)?);
        let thread = |index: usize| {
            let name = index.checked_sub(1).map_or("main".to_owned(), |worker| format!("worker_{worker}"));
            let cpu_ms = cpu.get(&name).copied();
            Thread {
                name,
                connections: connections[index],
                connections_total: total[index],
                requests_active: active[index],
                requests_total: requests[index],
                cpu_ms,
            }
        };
        Ok((0..connections.len()).map(thread).collect())
    }
}

impl Source for SharedMemory {
    fn look(&mut self, at_ms: u64) -> Snapshot {
        // What is wrong is told of the counters, which lie in the same files.
        add_events(&mut self.ring, self.events.look().unwrap_or_default());
        self.last.ring = Arc::clone(&self.ring);
        match self.read(at_ms) {
            Ok(snapshot) => self.last = snapshot,
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                self.last.standing = Standing::Gone;
                self.last.generations.clear();
                self.last.threads.clear();
            }
            // It is being changed, or is of another version: what was seen last stays, and time shows it.
            Err(error) => self.last.trouble = Some(error.to_string()),
        }
        self.look_for_private(at_ms);
        self.last.clone()
    }
}

impl Silence {
    /// Whether it has lasted far longer than usual. How often stats are flushed is the configuration's affair.
    fn is_long(&mut self, uptime: u64, at_ms: u64) -> bool {
        let lasted = at_ms.saturating_sub(self.since_ms);
        let limit = SILENCE_MS.max(self.longest_ms * 3);
        if uptime == self.uptime && self.flushes > 0 {
            return self.longest_ms > 0 && lasted > limit;
        }
        // Of the first flush it is not known when the one before was; a long silence that has ended is none of the usual ones.
        if self.flushes > 1 && (self.longest_ms == 0 || lasted <= limit) {
            self.longest_ms = self.longest_ms.max(lasted);
        }
        (self.uptime, self.since_ms, self.flushes) = (uptime, at_ms, self.flushes + 1);
        false
    }
}

impl Ids {
    fn follow(&mut self, watch: &Watch) {
        let catalog = watch.catalog();
        if self.names == catalog.len() {
            return;
        }
        let subjects = Subjects::of(catalog);
        let of_managers = |stat: Manager| -> Vec<StatId> {
            let mut ids: Vec<_> = subjects.managers.iter().filter_map(|manager| manager.id(stat)).collect();
            ids.sort_unstable();
            ids
        };
        let of_workers = |ids: fn(&crate::subjects::Worker) -> &Vec<StatId>| -> Vec<StatId> {
            let mut ids: Vec<_> = subjects.workers.iter().flat_map(ids).copied().collect();
            ids.sort_unstable();
            ids
        };
        *self = Ids {
            names: catalog.len(),
            connections: of_workers(|worker| &worker.active),
            connections_total: of_workers(|worker| &worker.total),
            requests_active: of_managers(Manager::Active),
            requests_total: of_managers(Manager::Requests),
        };
    }
}

/// Between two looks at who lives.
const COMPARE_MS: u64 = 5000;
/// Three flushes at the default interval.
const SILENCE_MS: u64 = 15_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_is_long_by_what_is_usual() {
        let mut silence = Silence::default();
        let flushes = [(0, 1000), (5, 3000), (10, 8000), (15, 13_000), (15, 28_000)];
        assert_eq!(flushes.map(|(uptime, at)| silence.is_long(uptime, at)), [false; 5]);
        assert!(silence.is_long(15, 28_001), "flushed every 5 s, then not for 15");
        assert!(!silence.is_long(40, 40_000), "it is back");
        assert!(silence.is_long(40, 55_001), "what it did once is not usual");
        let mut slow = Silence::default();
        for at in 0..5 {
            assert!(!slow.is_long(at * 60, 1000 + at * 60_000));
        }
        assert!(!slow.is_long(240, 360_000), "it flushes once a minute");
        assert!(slow.is_long(240, 430_000));
    }
}
