//! Moments as text.

use std::cell::RefCell;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};
use proxy_config::settings::{Moment, TimeFormat, TimePart};

use super::FormatContext;

/// Writes the moment that `format` asks for.
pub(super) fn write(format: &TimeFormat, context: &FormatContext<'_>, out: &mut Vec<u8>) {
    let at = match format.moment {
        Moment::Emit => context.wall,
        Moment::Start => context.wall - context.now.saturating_duration_since(context.record.start),
    };
    // A clock before 1970 is not worth more than a wrong line.
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, nanoseconds) = (since.as_secs(), since.subsec_nanos());
    let mut zoned = None;
    for part in &format.parts {
        match part {
            TimePart::Text(text) => out.extend_from_slice(text.as_bytes()),
            TimePart::EpochSeconds => number(seconds, out),
            TimePart::Fraction(digits) => fraction(nanoseconds, usize::from(*digits), out),
            TimePart::ShortestFraction => {
                let text = format!("{nanoseconds:09}");
                let digits = text.trim_end_matches('0');
                out.extend_from_slice(if digits.is_empty() { b"0" } else { digits.as_bytes() });
            }
            TimePart::DateTime if format.zone.is_none() => utc_date_time(seconds, out),
            TimePart::DateTime => conversion("%Y-%m-%dT%H:%M:%S", at, format, &mut zoned, out),
            TimePart::Conversion(text) => conversion(text, at, format, &mut zoned, out),
        }
    }
}

/// So many digits of the fraction of the second.
fn fraction(nanoseconds: u32, digits: usize, out: &mut Vec<u8>) {
    let mut text = [b'0'; 9];
    let mut rest = nanoseconds;
    for place in text.iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&text[..digits.min(9)]);
}

fn conversion(
    conversion: &str,
    at: SystemTime,
    format: &TimeFormat,
    zoned: &mut Option<ZonedDateTime>,
    out: &mut Vec<u8>,
) {
    if zoned.is_none() {
        let zone = format.zone.clone().unwrap_or(TimeZone::UTC);
        *zoned = Timestamp::try_from(at).ok().map(|timestamp| timestamp.to_zoned_datetime(zone));
    }
    if let Some(zoned) = zoned
        && let Ok(text) = jiff::fmt::strtime::format(conversion, &*zoned)
    {
        out.extend_from_slice(text.as_bytes());
    }
}

/// `2026-11-24T06:08:01`; made once a second and copied otherwise.
fn utc_date_time(seconds: u64, out: &mut Vec<u8>) {
    LAST.with_borrow_mut(|(last, text)| {
        if *last != Some(seconds) {
            *last = Some(seconds);
            text.clear();
            if let Ok(timestamp) = Timestamp::from_second(i64::try_from(seconds).unwrap_or_default()) {
                let at = timestamp.to_zoned_datetime(TimeZone::UTC).datetime();
                // A write to a vector does not fail.
                let _ = write!(
                    text,
                    "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
                    at.year(),
                    at.month(),
                    at.day(),
                    at.hour(),
                    at.minute(),
                    at.second()
                );
            }
        }
        out.extend_from_slice(text);
    });
}

pub(super) fn number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

thread_local! {
    static LAST: RefCell<(Option<u64>, Vec<u8>)> = const { RefCell::new((None, Vec::new())) };
}
