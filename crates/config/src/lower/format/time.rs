//! Times in formats: strftime(3) with Envoy's additions, compiled.
//!
//! `%f` is the fraction of the second (`%3f`: three digits of it), `%s` seconds since 1970, and of absl's `%E` forms those
//! with fractions. Whatever else is a conversion of strftime; what none knows is written as it stands.

use jiff::tz::TimeZone;

use super::{FormatError, Written};
use crate::settings::{Moment, TimeFormat, TimePart};

pub(super) fn compile(
    written: &Written<'_>,
    moment: Moment,
    zone: Option<TimeZone>,
) -> Result<TimeFormat, FormatError> {
    written.takes_no_length()?;
    if written.parameter.is_some_and(has_line_feed) {
        return Err(FormatError::LineFeed(written.name.to_owned()));
    }
    let parts = match (written.parameter, &zone) {
        (Some(format), _) => parts(format),
        (None, None) => vec![TimePart::DateTime, text("."), TimePart::Fraction(3), text("Z")],
        (None, Some(_)) => {
            vec![TimePart::DateTime, text("."), TimePart::Fraction(3), TimePart::Conversion("%z".into())]
        }
    };
    Ok(TimeFormat { moment, zone, parts: parts.into() })
}

fn parts(format: &str) -> Vec<TimePart> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        literal.push_str(&rest[..at]);
        rest = &rest[at..];
        let Some((mut made, taken)) = part(&rest[1..]) else {
            literal.push('%');
            rest = &rest[1..];
            continue;
        };
        if let [TimePart::Text(only)] = made.as_slice() {
            literal.push_str(only);
        } else {
            if !literal.is_empty() {
                parts.push(text(&std::mem::take(&mut literal)));
            }
            parts.append(&mut made);
        }
        rest = &rest[1 + taken..];
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        parts.push(text(&literal));
    }
    join_date_time(parts)
}

/// Whether a conversion in it stands for a line feed, with whatever flags and width; asked as Envoy asks.
fn has_line_feed(format: &str) -> bool {
    format.match_indices('%').any(|(at, _)| {
        let behind = format[at + 1..].trim_start_matches(['-', '_', '0', '^', '#']);
        let behind = behind.trim_start_matches(|c: char| matches!(c, '1'..='9'));
        behind.strip_prefix(['E', 'O']).unwrap_or(behind).starts_with('n')
    })
}

/// What the conversion at the start of `text` (behind its `%`) stands for, and how many bytes it takes.
fn part(text_behind: &str) -> Option<(Vec<TimePart>, usize)> {
    let mut characters = text_behind.chars();
    let first = characters.next()?;
    let single = |part: TimePart| Some((vec![part], 1));
    match first {
        '%' => single(text("%")),
        's' => single(TimePart::EpochSeconds),
        'f' => single(TimePart::Fraction(9)),
        '1'..='9' if characters.next() == Some('f') => {
            Some((vec![TimePart::Fraction(first as u8 - b'0')], 2))
        }
        'E' => extended(text_behind),
        // What these stand for in the C locale.
        'c' => single(TimePart::Conversion("%a %b %e %H:%M:%S %Y".into())),
        'r' => single(TimePart::Conversion("%I:%M:%S %p".into())),
        'x' => single(TimePart::Conversion("%m/%d/%y".into())),
        'X' => single(TimePart::Conversion("%H:%M:%S".into())),
        _ if CONVERSIONS.contains(first) => single(TimePart::Conversion(format!("%{first}").into())),
        _ => None,
    }
}

/// absl's extensions: `%E*S`, `%E3S`, `%E*f`, `%E3f`, `%ET`, `%Ez`.
fn extended(text_behind: &str) -> Option<(Vec<TimePart>, usize)> {
    let second = || TimePart::Conversion("%S".into());
    match text_behind.as_bytes().get(1..)? {
        [b'T', ..] => Some((vec![text("T")], 2)),
        [b'z', ..] => Some((vec![TimePart::Conversion("%:z".into())], 2)),
        [b'*', b'S', ..] => Some((vec![second(), text("."), TimePart::ShortestFraction], 3)),
        [b'*', b'f', ..] => Some((vec![TimePart::ShortestFraction], 3)),
        [b'0', b'S', ..] => Some((vec![second()], 3)),
        [digit @ b'1'..=b'9', b'S', ..] => {
            Some((vec![second(), text("."), TimePart::Fraction(digit - b'0')], 3))
        }
        [digit @ b'1'..=b'9', b'f', ..] => Some((vec![TimePart::Fraction(digit - b'0')], 3)),
        _ => None,
    }
}

/// The common beginning as one part, which is quick to write.
fn join_date_time(parts: Vec<TimePart>) -> Vec<TimePart> {
    let conversion = |name: &str| TimePart::Conversion(format!("%{name}").into());
    let common = [
        conversion("Y"),
        text("-"),
        conversion("m"),
        text("-"),
        conversion("d"),
        text("T"),
        conversion("H"),
        text(":"),
        conversion("M"),
        text(":"),
        conversion("S"),
    ];
    match parts.strip_prefix(common.as_slice()) {
        Some(rest) => std::iter::once(TimePart::DateTime).chain(rest.iter().cloned()).collect(),
        None => parts,
    }
}

fn text(text: &str) -> TimePart {
    TimePart::Text(text.into())
}

/// The other conversions of strftime(3).
const CONVERSIONS: &str = "aAbBCdDeFgGhHIjklmMnpPRStTuUVwWyYzZ";
