//! What the watchdog holds against a thread whose loop stands still.

use std::time::Duration;

/// `watchdogs`, or the older `watchdog` for both.
#[derive(Debug, Default, Clone)]
pub struct Watchdogs {
    pub main_thread: Watchdog,
    pub workers: Watchdog,
}

/// `envoy.config.bootstrap.v3.Watchdog`.
#[derive(Debug, Clone, PartialEq)]
pub struct Watchdog {
    /// After this a thread is counted in `watchdog_miss`; 200 ms when unset.
    pub miss_timeout: Duration,
    /// After this, in `watchdog_mega_miss`; 1 s when unset.
    pub megamiss_timeout: Duration,
    /// After this the process is killed.
    pub kill_timeout: Option<Duration>,
    /// Up to this much, at random, is added to `kill_timeout`.
    pub max_kill_timeout_jitter: Duration,
    pub multikill: Option<Multikill>,
}

/// Kill when many threads stand still at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Multikill {
    /// `multikill_timeout`.
    pub timeout: Duration,
    /// `multikill_threshold`: percent of the threads, from 0 to 100; but never less than two threads.
    pub threshold_percent: f64,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self {
            miss_timeout: Duration::from_millis(200),
            megamiss_timeout: Duration::from_secs(1),
            kill_timeout: None,
            max_kill_timeout_jitter: Duration::ZERO,
            multikill: None,
        }
    }
}
