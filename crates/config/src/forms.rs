//! The well-known types that have a JSON form of their own, read from a tree.

use crate::codes::Code;
use crate::finding::Path;
use crate::reader::Reader;
use crate::scalar::{self, Scalar};
use crate::schema::{Form, Message};
use crate::tree::{Kind, Node};
use crate::wire::delimited;

/// Reads a message that has a form of its own.
pub(crate) fn read(reader: &mut Reader<'_>, node: Node<'_>, message: &'static Message, path: &Path<'_>) {
    match message.form {
        // Envoy also takes `{seconds: 1, nanos: 500000000}`.
        Form::Duration | Form::Timestamp if node.kind() == Kind::Mapping => {
            reader.plain(node, message, path, false);
        }
        Form::Duration => {
            let expected = "a duration such as \"1.5s\"";
            let number = matches!(Scalar::of(node), Scalar::Integer(_) | Scalar::Number(_));
            match duration_meant(node.text()).filter(|_| number || duration(node.text()).is_none()) {
                Some(meant) => {
                    let number: Option<f64> = node.text().parse().ok();
                    let hint = match number.filter(|number| *number >= 1000.0) {
                        // Who writes so many may count in other units.
                        Some(number) => {
                            format!("write {meant}, or {}s if milliseconds were meant", number / 1000.0)
                        }
                        None => format!("write {meant}"),
                    };
                    let hint = Some(hint);
                    let message = format_args!("expected {expected}, found {}", node.describe());
                    reader.hinted(node, path, Code::BAD_DURATION, message, hint);
                }
                None => seconds_and_nanos(reader, node, path, duration, Code::BAD_DURATION, expected),
            }
        }
        Form::Timestamp => seconds_and_nanos(
            reader,
            node,
            path,
            timestamp,
            Code::TYPE_MISMATCH,
            "a time such as \"2026-01-31T12:00:00Z\"",
        ),
        Form::FieldMask => field_mask(reader, node, path),
        Form::Wrapper => wrapper(reader, node, message, path),
        Form::Struct => structure(reader, node, path, false),
        Form::Value => value(reader, node, path),
        Form::ListValue => list(reader, node, path),
        // The reader deals with these itself.
        Form::Plain | Form::Any => {}
    }
}

fn seconds_and_nanos(
    reader: &mut Reader<'_>,
    node: Node<'_>,
    path: &Path<'_>,
    parse: fn(&str) -> Option<(i64, i32)>,
    code: Code,
    expected: &str,
) {
    let text = match (node.kind(), Scalar::of(node)) {
        (Kind::Null, _) => return,
        (Kind::Plain | Kind::Quoted, Scalar::Text(text)) => text,
        _ => return reader.mismatch(node, path, expected),
    };
    let Some((seconds, nanos)) = parse(text) else {
        return reader.error(node, path, code, format_args!("expected {expected}"));
    };
    for (number, part) in [(1, seconds), (2, i64::from(nanos))] {
        if part != 0 {
            reader.out.key(number, crate::wire::WireType::Varint);
            reader.out.varint(part as u64);
        }
    }
}

/// What a number without a unit, or with another one, means in seconds.
fn duration_meant(text: &str) -> Option<String> {
    let text = text.trim();
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic() || letter == ' ');
    let number: f64 = digits.parse().ok()?;
    let per_unit = match text[digits.len()..].trim() {
        "" | "s" | "sec" | "secs" | "second" | "seconds" | "S" => 1.0,
        "ms" | "msec" => 0.001,
        "us" => 0.000_001,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        _ => return None,
    };
    let seconds = (number * per_unit * 1e9).round() / 1e9;
    (seconds.is_finite() && (0.0..1e11).contains(&seconds)).then(|| format!("{seconds}s"))
}

/// Seconds and nanoseconds of `-1.5s`; at most 315,576,000,000 s either way (duration.proto).
pub(crate) fn duration(text: &str) -> Option<(i64, i32)> {
    let (negative, number) = match text.strip_suffix('s')?.strip_prefix('-') {
        Some(number) => (true, number),
        None => (false, text.strip_suffix('s')?),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let nanos = nanoseconds(fraction)?;
    if whole.is_empty() || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = whole.parse::<i64>().ok().filter(|seconds| *seconds <= 315_576_000_000)?;
    Some(if negative { (-seconds, -nanos) } else { (seconds, nanos) })
}

/// Nanoseconds of the digits after a decimal point.
fn nanoseconds(fraction: &str) -> Option<i32> {
    let valid = (1..=9).contains(&fraction.len()) && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let scale = 10_i32.pow(9u32.checked_sub(u32::try_from(fraction.len()).ok()?)?);
    valid.then(|| fraction.parse::<i32>().ok().map(|digits| digits * scale))?
}

/// Seconds since 1970 and nanoseconds of an RFC 3339 time.
fn timestamp(text: &str) -> Option<(i64, i32)> {
    let (date, time) = text.split_once(['T', 't'])?;
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone_at);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(clock, ':')?;
    let days_in_month = match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let valid = (1..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in_month).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let offset = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign, rest) => {
            let [hours, minutes] = numbers(rest, ':')?;
            let offset = hours * 3600 + minutes * 60;
            if hours > 23 || minutes > 59 {
                return None;
            }
            if sign == "-" { -offset } else { offset }
        }
    };
    let seconds = days_since_1970(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset;
    valid.then_some((seconds, nanoseconds(fraction)?))
}

/// Unsigned numbers between separators, exactly as many as asked for.
fn numbers<const N: usize>(text: &str, separator: char) -> Option<[i64; N]> {
    let mut found = [0; N];
    let mut parts = text.split(separator);
    for slot in &mut found {
        let part =
            parts.next().filter(|part| part.len() <= 4 && part.bytes().all(|byte| byte.is_ascii_digit()));
        *slot = part?.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

/// Days in the proleptic Gregorian calendar, counting years from March.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let from_march = (month + 9) % 12;
    year * 365 + year / 4 - year / 100 + year / 400 + (from_march * 306 + 5) / 10 + day - 1 - 719_468
}

fn field_mask(reader: &mut Reader<'_>, node: Node<'_>, path: &Path<'_>) {
    if node.kind() == Kind::Mapping || node.kind() == Kind::Sequence {
        return reader.mismatch(node, path, "field names with commas between them");
    }
    let Some(text) = reader.string(node, path) else { return };
    for name in text.split(',').filter(|name| !name.is_empty()) {
        let mut snake = String::with_capacity(name.len() + 4);
        for letter in name.chars() {
            if letter.is_ascii_uppercase() {
                snake.push('_');
            }
            snake.push(letter.to_ascii_lowercase());
        }
        reader.out.slice(1, snake.as_bytes());
    }
}

/// A wrapper is written as its value; Envoy also takes `{value: 5}`.
fn wrapper(reader: &mut Reader<'_>, node: Node<'_>, message: &'static Message, path: &Path<'_>) {
    let Some((_, field)) = message.numbered(1) else { return };
    if node.kind() != Kind::Mapping {
        if node.kind() != Kind::Null {
            reader.value(node, field, path);
        }
        return;
    }
    for (key, inner) in node.entries() {
        match key.text() {
            "value" => reader.value(inner, field, &path.field("value")),
            name => reader.error(
                key,
                path,
                Code::UNKNOWN_FIELD,
                format_args!("{} has no field `{name}`", message.name),
            ),
        }
    }
}

/// `google.protobuf.Struct`; `typed` if `@type` stands among the fields and is none.
pub(crate) fn structure(reader: &mut Reader<'_>, node: Node<'_>, path: &Path<'_>, typed: bool) {
    match node.kind() {
        Kind::Null => {}
        Kind::Mapping => {
            for (key, inner) in node.entries().filter(|(key, _)| !typed || key.text() != "@type") {
                delimited(reader, 1, |reader| {
                    reader.out.slice(1, key.text().as_bytes());
                    delimited(reader, 2, |reader| value(reader, inner, &path.key(key.text())));
                });
            }
        }
        _ => reader.mismatch(node, path, "a mapping"),
    }
}

fn list(reader: &mut Reader<'_>, node: Node<'_>, path: &Path<'_>) {
    match node.kind() {
        Kind::Null => {}
        Kind::Sequence => {
            for (index, item) in node.children().enumerate() {
                delimited(reader, 1, |reader| value(reader, item, &path.index(index)));
            }
        }
        _ => reader.mismatch(node, path, "a list"),
    }
}

/// `google.protobuf.Value`, struct.proto.
fn value(reader: &mut Reader<'_>, node: Node<'_>, path: &Path<'_>) {
    let number = |reader: &mut Reader<'_>, number: f64| {
        reader.out.key(2, crate::wire::WireType::Fixed64);
        reader.out.bytes.extend_from_slice(&number.to_bits().to_le_bytes());
    };
    match node.kind() {
        Kind::Null => {
            reader.out.key(1, crate::wire::WireType::Varint);
            reader.out.varint(0);
        }
        Kind::Mapping => delimited(reader, 5, |reader| structure(reader, node, path, false)),
        Kind::Sequence => delimited(reader, 6, |reader| list(reader, node, path)),
        Kind::Quoted => reader.out.slice(3, node.text().as_bytes()),
        Kind::Plain => match Scalar::of(node) {
            Scalar::Bool(value) => {
                reader.out.key(4, crate::wire::WireType::Varint);
                reader.out.varint(u64::from(value));
            }
            // Envoy's YAML reader keeps integers beyond 32 bits and all fractions as strings.
            Scalar::Integer(value) if node.is_yaml() && i32::try_from(value).is_err() => {
                reader.out.slice(3, value.to_string().as_bytes());
            }
            Scalar::Integer(value) => number(reader, value as f64),
            Scalar::Number(text) if !node.is_yaml() => {
                number(reader, scalar::number(text).unwrap_or_default())
            }
            Scalar::Number(text) | Scalar::Text(text) => reader.out.slice(3, text.as_bytes()),
        },
    }
}

/// Base64 (RFC 4648) in either alphabet, padded or not, as protobuf's JSON form allows.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if text.len() - digits.len() > 2 || digits.len() % 4 == 1 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut held) = (0u32, 0);
    for digit in digits.bytes() {
        let six = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("1.5s"), Some((1, 500_000_000)));
        assert_eq!(duration("-0.000000001s"), Some((0, -1)));
        assert_eq!(duration("10s"), Some((10, 0)));
        for bad in
            ["", "s", "1", "1 s", ".5s", "1.s", "1ms", "--1s", "+1s", "1.0000000001s", "9999999999999s"]
        {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn timestamps() {
        assert_eq!(timestamp("1970-01-01T00:00:00Z"), Some((0, 0)));
        assert_eq!(timestamp("2000-02-29T12:34:56.25+01:00"), Some((951_824_096, 250_000_000)));
        assert_eq!(timestamp("2001-02-29T00:00:00Z"), None);
        assert_eq!(timestamp("2001-01-01"), None);
    }

    #[test]
    fn base64_in_both_alphabets() {
        assert_eq!(base64("aGk="), Some(b"hi".to_vec()));
        assert_eq!(base64("aGk"), Some(b"hi".to_vec()));
        assert_eq!(base64("-_8="), Some(vec![0xfb, 0xff]));
        assert_eq!(base64("a"), None);
        assert_eq!(base64("a b="), None);
    }
}
