//! Coarse time, read once per loop turn.
//!
//! A request sets several deadlines and stamps several moments; reading the kernel clock for each costs more than
//! the work itself. Threads that run a loop built by [`crate::local_runtime`] refresh a thread-local copy whenever
//! the loop wakes and whenever the timer wheel turns; every other thread falls through to the real clock, so a
//! caller never sees time that stands still.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::instant::Instant;

/// The monotonic time of this loop turn; the real clock on a thread without a loop of ours.
pub fn now() -> Instant {
    NOW.get().unwrap_or_else(read)
}

/// Reads the clock again, for code that has just spent or waited for a noticeable time. Returns the new time.
pub fn refresh() -> Instant {
    let now = read();
    if NOW.get().is_some() {
        NOW.set(Some(now));
    }
    now
}

/// Turns this thread's copy on, or renews it. Only a loop may call it, because only a loop keeps it moving.
pub(crate) fn turn() {
    NOW.set(Some(read()));
}

/// Back to the real clock, when the loop of this thread has ended: destructors may still ask for the time.
pub(crate) fn detach() {
    NOW.set(None);
}

/// The wall clock that belongs to [`now`]; a step of the system's clock is noticed within a second.
pub fn system_now() -> SystemTime {
    let now = now();
    let anchor = ANCHOR.get().filter(|(at, _)| now.saturating_duration_since(*at) < Duration::from_secs(1));
    match anchor {
        Some((at, wall)) => wall + now.saturating_duration_since(at),
        None => {
            let wall = SystemTime::now();
            ANCHOR.set(Some((now, wall)));
            wall
        }
    }
}

/// The `date` header of this second (RFC 9110, section 5.6.7), formatted once a second and not per call.
pub fn http_date() -> [u8; HTTP_DATE_LENGTH] {
    let second = system_now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DATE.with(|cell| {
        let mut cached = cell.borrow_mut();
        if cached.0 != second {
            *cached = (second, format_http_date(second));
        }
        cached.1
    })
}

/// Length of an IMF-fixdate, which is the same for every date.
pub const HTTP_DATE_LENGTH: usize = 29;

/// The last second of the year 9999, past which an IMF-fixdate has no form.
const LAST_SECOND: u64 = 253_402_300_799;

fn format_http_date(second: u64) -> [u8; HTTP_DATE_LENGTH] {
    let at = UNIX_EPOCH + Duration::from_secs(second.min(LAST_SECOND));
    let mut text = [b' '; HTTP_DATE_LENGTH];
    // The form has exactly this length for every year up to 9999, so the write cannot run short.
    let _ = write!(text.as_mut_slice(), "{}", httpdate::HttpDate::from(at));
    text
}

fn read() -> Instant {
    // tokio's clock is the system's, except under a test that paused it.
    tokio::time::Instant::now().into_std().into()
}

thread_local! {
    static NOW: Cell<Option<Instant>> = const { Cell::new(None) };
    static ANCHOR: Cell<Option<(Instant, SystemTime)>> = const { Cell::new(None) };
    static DATE: RefCell<(u64, [u8; HTTP_DATE_LENGTH])> = const { RefCell::new((u64::MAX, [b' '; HTTP_DATE_LENGTH])) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_without_a_loop_sees_the_real_clock() {
        let before = Instant::now();
        assert!(now() >= before);
        assert!(refresh() >= before);
    }

    #[test]
    fn a_loop_turn_holds_time_still_until_refreshed() {
        turn();
        let first = now();
        while Instant::now() == first {}
        assert_eq!(now(), first);
        assert!(refresh() > first);
        detach();
    }

    #[test]
    fn dates_follow_the_fixed_form_and_never_leave_it() {
        assert_eq!(&format_http_date(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&format_http_date(u64::MAX), b"Fri, 31 Dec 9999 23:59:59 GMT");
        assert!(http_date().ends_with(b" GMT"));
    }

    #[test]
    fn the_wall_clock_moves_with_the_coarse_one() {
        turn();
        let first = system_now();
        assert_eq!(system_now(), first);
        while Instant::now() == now() {}
        refresh();
        assert!(system_now() > first);
        detach();
    }
}
