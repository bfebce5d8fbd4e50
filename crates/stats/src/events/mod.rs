//! What happened to a process, in a ring in the header of its segment: the last some hundred events, to be read by others while it
//! lives, and after it was killed. Who leads copies those of the dead into its own ring when it folds their segments.
//!
//! Stats say how much; this says what and when. It is no log: texts are short, and old events are overwritten.

mod ring;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

pub(crate) use self::ring::{Pointer, Ring, decode, numbers, slot_of};
use self::ring::{Record, Text};
use crate::segment::Segment;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Microseconds since 1970.
    pub at_us: u64,
    /// Whose event it is.
    pub generation: u64,
    /// Counts events of that generation from 1, with gaps; with the generation it names the event wherever it was copied to.
    pub number: u64,
    pub kind: EventKind,
    pub severity: Severity,
    /// At most 216 bytes, on one line; one that was cut ends with an ellipsis.
    pub text: String,
}

/// What sort of thing an event is. Others than those below come from newer programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventKind(pub u16);

/// How much it matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Severity {
    #[default]
    Info = 0,
    /// Something has come out well.
    Success = 1,
    Warning = 2,
    Error = 3,
}

/// Writes events of a process. Writing takes well under a microsecond, allocates nothing and cannot fail; the oldest event goes.
#[derive(Clone)]
pub struct EventLog {
    segment: Arc<Segment>,
    generation: u64,
}

macro_rules! kinds {
    ($($constant:ident $number:literal $name:literal $about:literal;)*) => {
        impl EventKind {
            $(#[doc = $about] pub const $constant: EventKind = EventKind($number);)*

            fn known(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($name),)*
                    _ => None,
                }
            }
        }
    };
}

// Numbers are never used again for something else: rings outlive programs.
kinds! {
    START 1 "start" "A process has started.";
    SERVE 2 "serve" "It accepts connections.";
    RESTART 3 "restart" "A step of a hot restart, on either side.";
    RELOAD 4 "reload" "The configuration was read again, or refused.";
    LISTENER 5 "listener" "Listeners were added, changed, removed, or have drained.";
    DRAIN 6 "drain" "A drain has begun or ended.";
    SHUTDOWN 7 "shutdown" "The process ends in good order.";
    END 8 "end" "The last event of a process that ended in good order.";
    KILLED 9 "killed" "Another process was found dead that did not end in good order.";
    LOG_LEVEL 10 "log level" "Log levels were changed.";
    HEALTH_CHECK 11 "healthcheck" "Health checks were made to fail, or to pass again.";
    PANIC 12 "panic" "A thread has panicked.";
    STATS 13 "stats" "Counters were reset, or new ones are in private memory.";
    WATCHDOG 14 "watchdog" "A thread does not react.";
}

impl EventKind {
    /// One or two words; `event N` for a kind that this program does not know.
    pub fn name(self) -> Cow<'static, str> {
        self.known().map_or_else(|| format!("event {}", self.0).into(), Cow::Borrowed)
    }
}

impl Severity {
    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Success => "success",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }

    /// What is not known is no cause for alarm.
    pub fn of_code(code: u8) -> Severity {
        match code {
            1 => Severity::Success,
            2 => Severity::Warning,
            3 => Severity::Error,
            _ => Severity::Info,
        }
    }
}

impl Event {
    /// By time; of the same time, as they were written.
    pub fn order(&self) -> (u64, u64, u64) {
        (self.at_us, self.generation, self.number)
    }

    /// Names it, in whatever ring it is found.
    pub fn id(&self) -> (u64, u64) {
        (self.generation, self.number)
    }
}

impl EventLog {
    pub(crate) fn new(segment: &Arc<Segment>, generation: u64) -> EventLog {
        EventLog { segment: Arc::clone(segment), generation }
    }

    /// Writes an event down. Text beyond 216 bytes is cut. For any thread, but not for many events: each takes a lock for a moment.
    pub fn tell(&self, at: SystemTime, kind: EventKind, severity: Severity, text: fmt::Arguments<'_>) {
        let at_us = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        // Formatted before the lock is taken: what is formatted may panic, and panics are events.
        let text = Text::of(text);
        let record = Record { at_us, generation: self.generation, number: None, kind, severity };
        self.segment.ring(|ring| ring.push(&record, text.as_bytes()));
    }

    /// Copies events of dead processes: those that are among the newest that fit, together with the events that are here.
    pub(crate) fn adopt(&self, mut events: Vec<Event>) {
        self.segment.ring(|ring| {
            let mut times = ring.times();
            times.extend(events.iter().map(|event| event.at_us));
            times.sort_unstable();
            let oldest = times[times.len().saturating_sub(ring::ENTRIES)..].first().copied().unwrap_or(0);
            events.retain(|event| event.at_us >= oldest);
            events.sort_unstable_by_key(Event::order);
            events.drain(..events.len().saturating_sub(ADOPTED));
            // Readers tell copies from what they have seen by the highest number of a generation.
            events.sort_unstable_by_key(Event::id);
            for event in &events {
                let Event { at_us, generation, number, kind, severity, ref text } = *event;
                let record = Record { at_us, generation, number: Some(number), kind, severity };
                ring.push(&record, Text::of(format_args!("{text}")).as_bytes());
            }
        });
    }
}

impl fmt::Debug for EventLog {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("EventLog").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// A time in UTC as RFC 3339 has it, with six digits after the second; always 27 bytes. `unix_us`: microseconds since 1970, up to the
/// end of the year 9999.
pub fn utc(unix_us: u64) -> String {
    let at = i64::try_from(unix_us).ok().and_then(|unix_us| Timestamp::from_microsecond(unix_us).ok());
    at.unwrap_or(Timestamp::MAX).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Copied at once, at most: half of a ring.
const ADOPTED: usize = ring::ENTRIES / 2;

#[cfg(test)]
mod tests;
