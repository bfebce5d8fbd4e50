//! What looks have shown over time: figures for the lines of the overview, and events. Both bounded.

use std::collections::VecDeque;

use crate::panes::overview::Sums;
use crate::rates::risen;
use crate::snapshot::{Snapshot, Standing};
use crate::subjects::{Cluster, Subjects};
use crate::table::Mood;

/// Something that has changed from one look to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) at_ms: u64,
    pub(crate) what: &'static str,
    pub(crate) mood: Mood,
    pub(crate) text: String,
}

/// Sums of the last looks, the newest last.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) sums: VecDeque<Sums>,
    pub(crate) events: Vec<Event>,
}

impl History {
    pub(crate) fn add(&mut self, sums: Sums) {
        if self.sums.len() == MOST_SUMS {
            self.sums.pop_front();
        }
        self.sums.push_back(sums);
    }

    pub(crate) fn tell(&mut self, events: impl IntoIterator<Item = Event>) {
        self.events.extend(events);
        let surplus = self.events.len().saturating_sub(MOST_EVENTS);
        self.events.drain(..surplus);
    }
}

/// What has changed.
pub(crate) fn compare(before: &Snapshot, now: &Snapshot, subjects: &Subjects) -> Vec<Event> {
    let mut told = Told { at_ms: now.at_ms, events: Vec::new(), tells: now.tells() };
    told.standing(before, now);
    told.generations(before, now);
    told.starts(before, now);
    if !told.tells {
        told.counters(before, now);
        told.stops(before, now);
    }
    told.clusters(before, now, subjects);
    let more = told.events.len().saturating_sub(MOST_AT_ONCE);
    told.events.truncate(MOST_AT_ONCE);
    if more > 0 {
        told.add("source", Mood::Plain, format!("and {more} more at the same time"));
    }
    told.events
}

struct Told {
    at_ms: u64,
    events: Vec<Event>,
    /// Processes write down themselves what they know: only what they cannot know is told here.
    tells: bool,
}

impl Told {
    fn add(&mut self, what: &'static str, mood: Mood, text: String) {
        self.events.push(Event { at_ms: self.at_ms, what, mood, text });
    }

    fn standing(&mut self, before: &Snapshot, now: &Snapshot) {
        // That it begins or ends it tells itself; not that it hangs, was killed, or is back.
        let trouble = |snapshot: &Snapshot| {
            matches!(snapshot.standing, Standing::Silent | Standing::Dead | Standing::Gone)
        };
        let news = !self.tells || trouble(before) || trouble(now);
        if before.standing != now.standing && before.standing != Standing::Unknown && news {
            let (mood, text) = match now.standing {
                Standing::Live => (Mood::Good, "it serves"),
                Standing::Silent => (Mood::Bad, "its main thread has long flushed no stats: it may hang"),
                Standing::Draining => (Mood::Warning, "it drains"),
                Standing::Starting => (Mood::Plain, "it starts"),
                Standing::Dead => (Mood::Bad, "its last process was killed; this is what it left"),
                Standing::Gone => {
                    (Mood::Bad, "it has ended or cannot be reached; this is what was seen last")
                }
                Standing::Unknown => (Mood::Plain, "nothing is known of it"),
            };
            let what = if now.standing == Standing::Draining { "drain" } else { "state" };
            self.add(what, mood, text.to_owned());
        }
        if before.trouble != now.trouble {
            match &now.trouble {
                Some(trouble) => self.add("source", Mood::Warning, trouble.clone()),
                None => self.add("source", Mood::Plain, "looks succeed again".to_owned()),
            }
        }
    }

    fn generations(&mut self, before: &Snapshot, now: &Snapshot) {
        let led = now.generations.iter().any(|generation| generation.leads);
        let mut ended = Vec::new();
        for generation in &now.generations {
            let number = generation.number;
            let earlier = before.generations.iter().find(|other| other.number == number);
            if !self.tells && earlier.is_none() && !before.generations.is_empty() {
                self.add("generation", Mood::Plain, format!("generation {number} has started"));
            }
            if !self.tells && generation.leads && earlier.is_some_and(|earlier| !earlier.leads) {
                self.add("generation", Mood::Good, format!("generation {number} leads"));
            }
            if earlier.is_some_and(|earlier| earlier.lives) && !generation.lives {
                ended.push(number);
            }
        }
        let gone = |number: u64| !now.generations.iter().any(|other| other.number == number);
        let lived = before.generations.iter().filter(|generation| generation.lives);
        ended.extend(lived.map(|generation| generation.number).filter(|number| gone(*number)));
        for number in ended {
            // Of one that is not missed it cannot be told.
            match led || gone(number) {
                // The last of all takes its ring with it.
                true if self.tells && now.standing != Standing::Gone => {}
                true => self.add("generation", Mood::Plain, format!("generation {number} has ended")),
                false => self.add("generation", Mood::Bad, format!("generation {number} was killed")),
            }
        }
    }

    /// Of an admin port, processes are not known.
    fn starts(&mut self, before: &Snapshot, now: &Snapshot) {
        let uptime = |snapshot: &Snapshot| snapshot.named("server.uptime");
        if now.generations.is_empty() && uptime(now) < uptime(before) {
            self.add("generation", Mood::Plain, "it was started anew".to_owned());
        }
    }

    fn counters(&mut self, before: &Snapshot, now: &Snapshot) {
        if !before.same_processes(now) {
            return;
        }
        let rises = [
            ("config_reload.success", "reload", Mood::Good, "the configuration was read again"),
            (
                "config_reload.failure",
                "reload",
                Mood::Bad,
                "the configuration was refused; nothing has changed",
            ),
            ("cluster_manager.cluster_added", "cluster", Mood::Plain, "clusters added"),
            ("cluster_manager.cluster_modified", "cluster", Mood::Plain, "clusters changed"),
            ("cluster_manager.cluster_removed", "cluster", Mood::Plain, "clusters removed"),
            ("listener_manager.listener_added", "listener", Mood::Plain, "listeners added"),
            ("listener_manager.listener_modified", "listener", Mood::Plain, "listeners changed"),
            ("listener_manager.listener_removed", "listener", Mood::Plain, "listeners removed"),
            (
                "listener_manager.listener_create_failure",
                "listener",
                Mood::Bad,
                "listeners could not be made",
            ),
        ];
        for (name, what, mood, text) in rises {
            let Some(id) = now.catalog.find(name) else { continue };
            if let (Some(earlier), Some(later)) = (before.value(id), now.value(id))
                && later > earlier
            {
                let count = risen(earlier, later);
                self.add(what, mood, format!("{text} ({count})"));
            }
        }
        // All at once, and never by itself.
        let fell = |name: &str| before.named(name) > now.named(name);
        if fell("listener_manager.listener_create_success") || fell("cluster_manager.cluster_added") {
            self.add("reset", Mood::Plain, "counters were reset to zero".to_owned());
        }
    }

    /// A drain has come to its end. Of a process that another has taken over from it says nothing.
    fn stops(&mut self, before: &Snapshot, now: &Snapshot) {
        let stopped = |snapshot: &Snapshot| snapshot.named("listener_manager.listener_stopped");
        let alone = now.generations.iter().filter(|generation| generation.lives).count() <= 1;
        if alone && before.same_processes(now) && stopped(now) > stopped(before) {
            let count = risen(stopped(before), stopped(now));
            self.add("drain", Mood::Warning, format!("listeners accept no more connections ({count})"));
        }
    }

    fn clusters(&mut self, before: &Snapshot, now: &Snapshot, subjects: &Subjects) {
        for cluster in &subjects.clusters {
            let change = |stat: Cluster| {
                let id = cluster.id(stat)?;
                let (earlier, later) = (before.value(id)?, now.value(id)?);
                (earlier != later).then_some((earlier, later))
            };
            let name = &cluster.name;
            if let Some((earlier, later)) = change(Cluster::Healthy) {
                let all = cluster.value(now, Cluster::Members);
                let mood = if later < earlier { Mood::Bad } else { Mood::Good };
                self.add(
                    "health",
                    mood,
                    format!("{name}: {later} of {all} hosts are healthy (before: {earlier})"),
                );
            }
            for (stat, _, what) in Cluster::BREAKERS {
                match change(stat) {
                    Some((0, _)) => {
                        self.add("breaker", Mood::Bad, format!("{name}: the limit of {what} is reached"));
                    }
                    Some((_, 0)) => {
                        self.add("breaker", Mood::Good, format!("{name}: within the limit of {what} again"));
                    }
                    _ => {}
                }
            }
        }
    }
}

/// As many as the widest screen shows.
const MOST_SUMS: usize = 600;
const MOST_EVENTS: usize = 2000;
const MOST_AT_ONCE: usize = 50;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proxy_stats::{Catalog, ImportMode, MetricKind};

    use super::*;
    use crate::snapshot::Generation;

    fn look(values: &[(&str, u64)], generations: &[(u64, bool, bool)]) -> Snapshot {
        let mut catalog = Catalog::default();
        for (name, _) in values {
            catalog.intern(name, MetricKind::Gauge(ImportMode::Accumulate)).unwrap();
        }
        let generation = |(number, lives, leads): &(u64, bool, bool)| Generation {
            number: *number,
            lives: *lives,
            leads: *leads,
            ..Generation::default()
        };
        Snapshot {
            catalog: Arc::new(catalog),
            values: values.iter().map(|(_, value)| *value).collect(),
            generations: generations.iter().map(generation).collect(),
            standing: Standing::Live,
            ..Snapshot::default()
        }
    }

    fn told(before: &Snapshot, now: &Snapshot) -> Vec<String> {
        let events = compare(before, now, &Subjects::of(&now.catalog));
        events.into_iter().map(|event| format!("{}: {}", event.what, event.text)).collect()
    }

    #[test]
    fn a_hot_restart_is_told_step_by_step() {
        let alone = look(&[], &[(1, true, true)]);
        let both = look(&[], &[(1, true, true), (2, true, false)]);
        let over = look(&[], &[(1, true, false), (2, true, true)]);
        let end = look(&[], &[(2, true, true)]);
        assert_eq!(told(&alone, &both), ["generation: generation 2 has started"]);
        assert_eq!(told(&both, &over), ["generation: generation 2 leads"]);
        assert_eq!(told(&over, &end), ["generation: generation 1 has ended"]);
        assert_eq!(told(&alone, &look(&[], &[(1, false, false)])), ["generation: generation 1 was killed"]);
        assert_eq!(told(&alone, &alone), [""; 0]);
    }

    #[test]
    fn what_a_process_tells_itself_is_not_told_twice() {
        let reloads =
            |count| [("config_reload.success", count), ("listener_manager.listener_stopped", count)];
        let (alone, both): (&[_], &[_]) = (&[(1, true, true)], &[(1, true, true), (2, true, false)]);
        let with_ring = |mut snapshot: Snapshot| {
            let event = proxy_stats::Event {
                at_us: 1,
                generation: 1,
                number: 1,
                kind: proxy_stats::EventKind::START,
                severity: proxy_stats::Severity::Info,
                text: String::new(),
            };
            snapshot.ring = Arc::new(vec![event]);
            snapshot
        };
        let before = with_ring(look(&reloads(1), alone));
        assert_eq!(told(&before, &with_ring(look(&reloads(2), alone))), [""; 0]);
        assert_eq!(told(&before, &with_ring(look(&reloads(1), both))), [""; 0]);
        let mut silent = before.clone();
        silent.standing = Standing::Silent;
        assert_eq!(told(&before, &silent).len(), 1);
        assert_eq!(told(&silent, &before), ["state: it serves"]);
        let killed = with_ring(look(&reloads(1), &[(1, false, false)]));
        assert_eq!(told(&before, &killed), ["generation: generation 1 was killed"]);
    }

    #[test]
    fn the_end_of_a_drain_is_told_but_not_of_a_process_that_was_replaced() {
        let look =
            |stopped, generations| look(&[("listener_manager.listener_stopped", stopped)], generations);
        let (alone, both): (&[_], &[_]) = (&[(1, true, true)], &[(1, true, false), (2, true, true)]);
        assert_eq!(
            told(&look(0, alone), &look(2, alone)),
            ["drain: listeners accept no more connections (2)"]
        );
        assert_eq!(told(&look(0, both), &look(2, both)), [""; 0]);
    }

    #[test]
    fn health_and_breakers_are_told_by_cluster() {
        let names = ["membership_total", "membership_healthy", "circuit_breakers.default.rq_open"];
        let names = names.map(|name| format!("cluster.a.{name}"));
        let with = |values: [u64; 3]| {
            let values: Vec<_> = names.iter().map(|name| &**name).zip(values).collect();
            look(&values, &[(1, true, true)])
        };
        assert_eq!(
            told(&with([2, 2, 0]), &with([2, 1, 1])),
            [
                "health: a: 1 of 2 hosts are healthy (before: 2)",
                "breaker: a: the limit of requests is reached"
            ]
        );
    }

    #[test]
    fn reloads_are_told_and_resets_too() {
        let look = |reload, clusters| {
            look(
                &[("config_reload.failure", reload), ("cluster_manager.cluster_added", clusters)],
                &[(1, true, true)],
            )
        };
        assert_eq!(
            told(&look(0, 3), &look(1, 3)),
            ["reload: the configuration was refused; nothing has changed (1)"]
        );
        assert_eq!(told(&look(1, 3), &look(0, 0)), ["reset: counters were reset to zero"]);
    }
}
