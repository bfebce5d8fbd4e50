//! A moment of the monotonic clock in one word.
//!
//! A request takes some twenty differences of moments. The standard library's `Instant` has seconds and nanoseconds
//! apart, and each difference costs it forty instructions; here it is one subtraction.

use std::ops::{Add, AddAssign, Sub};
use std::sync::LazyLock;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A moment of the monotonic clock, in nanoseconds, for differences and deadlines. Arithmetic saturates: what lies
/// before or after some hundred years is the first or the last moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The real clock's time; [`crate::clock::now`] is cheaper.
    pub fn now() -> Self {
        Self::from(std::time::Instant::now())
    }

    /// Time since `earlier`, zero where that is later.
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Time since `earlier`, `None` where that is later.
    pub fn checked_duration_since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_nanos)
    }

    /// Nanoseconds since `earlier`, zero where that is later.
    pub fn nanoseconds_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// What another process of this machine calls the same moment by, in nanoseconds.
    pub fn shared(self) -> u64 {
        self.0
    }

    /// The moment that another process of this machine told as [`shared`](Self::shared).
    pub fn from_shared(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }
}

impl From<std::time::Instant> for Instant {
    fn from(at: std::time::Instant) -> Self {
        let (first, first_nanoseconds) = *FIRST;
        match at.checked_duration_since(first) {
            Some(since) => Self(first_nanoseconds.saturating_add(nanoseconds(since))),
            None => Self(first_nanoseconds.saturating_sub(nanoseconds(first - at))),
        }
    }
}

impl From<Instant> for std::time::Instant {
    fn from(at: Instant) -> Self {
        let (first, first_nanoseconds) = *FIRST;
        match at.0.checked_sub(first_nanoseconds) {
            Some(since) => first + Duration::from_nanos(since),
            None => first.checked_sub(Duration::from_nanos(first_nanoseconds - at.0)).unwrap_or(first),
        }
    }
}

impl From<Instant> for tokio::time::Instant {
    fn from(at: Instant) -> Self {
        tokio::time::Instant::from_std(at.into())
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanoseconds(duration)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanoseconds(duration)))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(duration.subsec_nanos()))
}

/// The standard library's instants tell differences only: this is the one that all are told from, and its number.
static FIRST: LazyLock<(std::time::Instant, u64)> = LazyLock::new(|| {
    let look = || {
        let before = system_nanoseconds();
        let at = std::time::Instant::now();
        (system_nanoseconds().saturating_sub(before), at, before)
    };
    // The one that was interrupted least.
    let looks = [look(), look(), look(), look()];
    let (_, at, nanoseconds) = looks.into_iter().min_by_key(|(took, ..)| *took).unwrap_or_else(look);
    (at, SYSTEM_START.saturating_add(nanoseconds))
});

/// Since the machine started, in all its processes.
fn system_nanoseconds() -> u64 {
    // Linux has this clock always.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| nanoseconds(time.into()))
}

/// In the middle, so that a moment before the machine started has a number too.
const SYSTEM_START: u64 = 1 << 62;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_those_of_the_standard_library() {
        let first = std::time::Instant::now();
        for apart in [0, 1, 999_999_999, 1_000_000_000, 123_456_789_012_345].map(Duration::from_nanos) {
            let (early, late) = (Instant::from(first), Instant::from(first + apart));
            assert_eq!(late - early, apart);
            assert_eq!(early + apart, late);
            assert_eq!(late - apart, early);
            assert_eq!(early.checked_duration_since(late), apart.is_zero().then_some(apart));
            assert_eq!(std::time::Instant::from(late), first + apart);
        }
    }

    #[test]
    fn what_began_long_before_this_process_keeps_its_age() {
        let age = Duration::from_secs(50 * 365 * 86400);
        let now = Instant::now();
        assert_eq!(now - (now - age), age);
    }

    #[test]
    fn a_moment_has_the_same_number_in_all_processes() {
        let before = system_nanoseconds();
        let now = Instant::now();
        let after = system_nanoseconds();
        let told = now.shared() - SYSTEM_START;
        // Both clocks are looked at one after the other once.
        let apart = 100_000;
        assert!((before.saturating_sub(apart)..=after + apart).contains(&told), "{before} {told} {after}");
        assert_eq!(Instant::from_shared(now.shared()), now);
    }

    #[test]
    fn what_is_too_far_away_is_the_last_moment_and_the_first() {
        let now = Instant::now();
        assert!(now + Duration::MAX > now + Duration::from_secs(100 * 365 * 86400));
        assert_eq!(now - Duration::MAX, now - Duration::MAX - Duration::from_secs(1));
        assert_eq!((now - Duration::MAX) - now, Duration::ZERO);
        let _ = std::time::Instant::from(now - Duration::MAX);
    }
}
