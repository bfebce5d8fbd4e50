//! When a loop counts as standing still: no thread, no clock.
//!
//! A stall is timed by looks at the loop, so it is at least as long as said here, and less than one [`Stalls::interval`]
//! longer. Time in which nobody looked, because the whole process was stopped or had no CPU, is held against no loop.

use std::time::{Duration, Instant};

use proxy_config::settings::Watchdog;
use proxy_runtime::Beat;

/// Loops with the same timeouts: Envoy's guard dog, as a table.
#[derive(Debug)]
pub(super) struct Stalls {
    timeouts: Watchdog,
    loops: Vec<Watched>,
    looked: Option<Instant>,
}

#[derive(Debug, Clone, Default)]
struct Watched {
    /// The number that it has shown since `stalled` began to run.
    turn: Option<u64>,
    stalled: Duration,
    missed: bool,
    megamissed: bool,
}

/// What a look has found. Loops are numbered in the order of their beats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// For the first time in this stall, as [`Found::Megamiss`].
    Miss(usize),
    Megamiss(usize),
    Kill(usize),
    /// The loop that made it one too many.
    Multikill(usize),
}

impl Stalls {
    /// For `loops` loops.
    pub(super) fn new(timeouts: Watchdog, loops: usize) -> Self {
        Self { timeouts, loops: vec![Watched::default(); loops], looked: None }
    }

    /// How often to look: twice in the shortest of the timeouts.
    pub(super) fn interval(&self) -> Duration {
        let Watchdog { miss_timeout, megamiss_timeout, kill_timeout, multikill, .. } = &self.timeouts;
        let kill = kill_timeout.unwrap_or(Duration::MAX);
        let multikill = multikill.map_or(Duration::MAX, |multikill| multikill.timeout);
        let shortest = (*miss_timeout).min(*megamiss_timeout).min(kill).min(multikill);
        (shortest / 2).max(SHORTEST_INTERVAL)
    }

    /// Looks at every loop; the worst comes last. Loops that are awake have to be asked to turn before the next look.
    pub(super) fn look(&mut self, beats: &[Beat], now: Instant) -> Vec<Found> {
        let since = self.looked.replace(now).map_or(Duration::ZERO, |looked| now.duration_since(looked));
        let since = since.min(self.interval() * 2);
        let mut found = Vec::new();
        for (index, (watched, beat)) in self.loops.iter_mut().zip(beats).enumerate() {
            watched.look(*beat, since);
            let crossed = |timeout: Duration, told: &mut bool| {
                watched.stalled > timeout && !std::mem::replace(told, true)
            };
            if crossed(self.timeouts.miss_timeout, &mut watched.missed) {
                found.push(Found::Miss(index));
            }
            if crossed(self.timeouts.megamiss_timeout, &mut watched.megamissed) {
                found.push(Found::Megamiss(index));
            }
        }
        found.extend(self.multikill().map(Found::Multikill));
        found.extend(self.kill().map(Found::Kill));
        found
    }

    fn kill(&self) -> Option<usize> {
        let timeout = self.timeouts.kill_timeout?;
        self.loops.iter().position(|watched| watched.stalled > timeout)
    }

    fn multikill(&self) -> Option<usize> {
        let multikill = self.timeouts.multikill?;
        let share = multikill.threshold_percent / 100.0 * self.loops.len() as f64;
        let needed = (share.ceil() as usize).max(2);
        let mut stuck = (0..).zip(&self.loops).filter(|(_, watched)| watched.stalled > multikill.timeout);
        stuck.nth(needed - 1).map(|(index, _)| index)
    }
}

impl Watched {
    fn look(&mut self, beat: Beat, since: Duration) {
        match beat {
            Beat::Awake(turn) if self.turn == Some(turn) => self.stalled += since,
            Beat::Awake(turn) => *self = Self { turn: Some(turn), ..Self::default() },
            Beat::Waiting | Beat::Ended => *self = Self::default(),
        }
    }
}

const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use proxy_config::settings::Multikill;

    use super::*;

    /// Looks at the beats one after another, an interval apart.
    struct Looks {
        stalls: Stalls,
        now: Instant,
    }

    impl Looks {
        fn new(timeouts: Watchdog, loops: usize) -> Self {
            Self { stalls: Stalls::new(timeouts, loops), now: Instant::now() }
        }

        fn look(&mut self, beats: &[Beat]) -> Vec<Found> {
            self.now += self.stalls.interval();
            self.stalls.look(beats, self.now)
        }

        /// What is found in this many looks at the same.
        fn times(&mut self, looks: usize, beats: &[Beat]) -> Vec<Found> {
            (0..looks).flat_map(|_| self.look(beats)).collect()
        }
    }

    const STUCK: Beat = Beat::Awake(6);

    #[test]
    fn a_stall_is_counted_once_as_each() {
        let mut looks = Looks::new(Watchdog::default(), 1);
        assert_eq!(looks.stalls.interval(), Duration::from_millis(100));
        assert_eq!(looks.times(3, &[STUCK]), [], "200 ms at most");
        assert_eq!(looks.look(&[STUCK]), [Found::Miss(0)]);
        assert_eq!(looks.times(7, &[STUCK]), []);
        assert_eq!(looks.times(100, &[STUCK]), [Found::Megamiss(0)]);
        assert_eq!(looks.look(&[Beat::Awake(7)]), []);
        assert_eq!(looks.times(4, &[Beat::Awake(7)]), [Found::Miss(0)], "the next stall counts anew");
    }

    #[test]
    fn loops_that_turn_wait_or_have_ended_are_well() {
        let mut looks = Looks::new(Watchdog::default(), 3);
        for turn in 0..1000 {
            let waits = if turn % 3 == 0 { Beat::Waiting } else { STUCK };
            assert_eq!(looks.look(&[Beat::Awake(turn), waits, Beat::Ended]), []);
        }
    }

    #[test]
    fn time_in_which_nobody_looked_is_no_stall() {
        let mut looks = Looks::new(Watchdog::default(), 1);
        looks.look(&[STUCK]);
        looks.now += Duration::from_secs(3600);
        assert_eq!(looks.look(&[STUCK]), []);
        assert_eq!(looks.times(10, &[STUCK]), [Found::Miss(0), Found::Megamiss(0)]);
    }

    #[test]
    fn one_loop_is_enough_to_kill() {
        let kill_timeout = Some(Duration::from_millis(50));
        let mut looks = Looks::new(Watchdog { kill_timeout, ..Watchdog::default() }, 2);
        assert_eq!(looks.stalls.interval(), Duration::from_millis(25));
        assert_eq!(looks.times(3, &[Beat::Waiting, STUCK]), []);
        assert_eq!(looks.look(&[Beat::Waiting, STUCK]), [Found::Kill(1)]);
    }

    #[test]
    fn a_multikill_takes_the_share_and_at_least_two() {
        let multikill = |threshold_percent| Watchdog {
            multikill: Some(Multikill { timeout: Duration::from_secs(1), threshold_percent }),
            ..Watchdog::default()
        };
        let deadly = |threshold: f64, stuck: usize, loops: usize| {
            let mut beats = vec![Beat::Waiting; loops];
            beats[..stuck].fill(STUCK);
            let found = Looks::new(multikill(threshold), loops).times(12, &beats);
            found.contains(&Found::Multikill(stuck - 1))
        };
        assert!(!deadly(0.0, 1, 1), "Envoy's rule: never less than two");
        assert!(deadly(0.0, 2, 8));
        assert!(!deadly(50.0, 3, 8));
        assert!(deadly(50.0, 4, 8));
        assert!(!deadly(26.0, 2, 8) && deadly(26.0, 3, 8), "2.08 loops are three");
    }
}
