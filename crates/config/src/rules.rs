//! One value against the message rules of its field (protoc-gen-validate), worded for a human.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::constraint::{Constraint, Octets, Range, Rule, Text, WellKnown};
use crate::hint;
use crate::schema::{FieldKind, Form};
use crate::wire::{Raw, Value, next_field};

/// How a field may appear in a message.
#[derive(Clone, Copy)]
pub(crate) struct Shown<'n> {
    pub(crate) name: &'n str,
    /// Its value must not be shown.
    pub(crate) secret: bool,
}

/// What is wrong with `value` (None: the default), if anything.
pub(crate) fn broken(
    kind: &FieldKind,
    value: Option<&Value<'_>>,
    constraint: &Constraint,
    shown: Shown<'_>,
) -> Option<String> {
    if let FieldKind::Message(to) = kind {
        let message = to.follow();
        let value = value?;
        return match (&constraint.rule, message.form) {
            (Rule::Duration(range), Form::Duration) => {
                range_problem(range, nanoseconds(value.bytes()), shown, &|nanos| Seconds(*nanos).to_string())
            }
            (Rule::Any { within, not_in }, Form::Any) => any_problem(value.bytes(), within, not_in, shown),
            (Rule::None, _) => None,
            (_, Form::Wrapper) => {
                let (_, inner) = message.numbered(1)?;
                let mut rest = value.bytes();
                let mut found = None;
                while let Ok(Some((1, raw))) = next_field(&mut rest) {
                    found = Some(match raw {
                        Raw::Varint(number) | Raw::Fixed64(number) => Value::Number(number),
                        Raw::Fixed32(number) => Value::Number(u64::from(number)),
                        Raw::Bytes(bytes) => Value::Bytes(bytes.into()),
                    });
                }
                broken(&inner.kind, found.as_ref(), constraint, shown)
            }
            _ => None,
        };
    }
    let default = match kind {
        FieldKind::String | FieldKind::Bytes => Value::Bytes((&[][..]).into()),
        _ => Value::Number(0),
    };
    let value = value.unwrap_or(&default);
    if constraint.ignore_empty && value.number() == 0 && value.bytes().is_empty() {
        return None;
    }
    match &constraint.rule {
        Rule::Integer(range) => range_problem(range, value.integer(kind), shown, &i128::to_string),
        Rule::Float(range) => range_problem(range, value.float(kind), shown, &f64::to_string),
        Rule::Bool(wanted) => {
            ((value.number() != 0) != *wanted).then(|| format!("`{}` must be {wanted}", shown.name))
        }
        Rule::String(rules) => match std::str::from_utf8(value.bytes()) {
            Ok(text) => text_problem(text, rules, shown),
            Err(_) => Some(format!("`{}` must be valid UTF-8", shown.name)),
        },
        Rule::Bytes(rules) => octets_problem(value.bytes().len() as u64, rules, shown),
        Rule::Enum { defined_only, constant, within, not_in } => {
            let number = value.integer(kind) as i32;
            let FieldKind::Enum(names) = kind else { return None };
            let name = names.by_number(number);
            let refused = constant.is_some_and(|constant| constant != number)
                || (!within.is_empty() && !within.contains(&number))
                || not_in.contains(&number);
            match name {
                None if *defined_only => {
                    let known: Vec<_> = names.values.iter().map(|(name, _)| name.as_str()).collect();
                    let known = known.join(", ");
                    let (field, of) = (shown.name, &names.name);
                    Some(match hint::redirect(of, number) {
                        Some(name) => format!("`{field}`: {of} has no value {number}: write {name}"),
                        None => format!("`{field}`: {of} has no value {number}, it has {known}"),
                    })
                }
                _ if refused => {
                    Some(format!("`{}` must not be {}", shown.name, name.unwrap_or("this value")))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn range_problem<T: PartialOrd + Copy>(
    range: &Range<T>,
    value: T,
    shown: Shown<'_>,
    write: &dyn Fn(&T) -> String,
) -> Option<String> {
    // Bounds the wrong way round mean "outside of both" (PGV: exclusive ranges).
    let low = range.greater.or(range.least);
    let high = range.less.or(range.most);
    let above =
        range.greater.is_none_or(|bound| value > bound) && range.least.is_none_or(|bound| value >= bound);
    let below = range.less.is_none_or(|bound| value < bound) && range.most.is_none_or(|bound| value <= bound);
    let outside = matches!((low, high), (Some(low), Some(high)) if high < low);
    let expected = if range.constant.is_some_and(|constant| constant != value) {
        format!("be {}", range.constant.as_ref().map(write).unwrap_or_default())
    } else if outside && !(above || below) {
        let (low, high) = (low.as_ref().map(write), high.as_ref().map(write));
        format!("be below {} or above {}", high.unwrap_or_default(), low.unwrap_or_default())
    } else if !outside && !above {
        match (&range.greater, &range.least) {
            (Some(bound), _) => format!("be greater than {}", write(bound)),
            (_, Some(bound)) => format!("be at least {}", write(bound)),
            _ => return None,
        }
    } else if !outside && !below {
        match (&range.less, &range.most) {
            (Some(bound), _) => format!("be less than {}", write(bound)),
            (_, Some(bound)) => format!("be at most {}", write(bound)),
            _ => return None,
        }
    } else if !range.within.is_empty() && !range.within.contains(&value) {
        format!("be one of {}", range.within.iter().map(write).collect::<Vec<_>>().join(", "))
    } else if range.not_in.contains(&value) {
        format!("not be {}", write(&value))
    } else {
        return None;
    };
    let is = if shown.secret { String::new() } else { format!(", is {}", write(&value)) };
    Some(format!("`{}` must {expected}{is}", shown.name))
}

fn text_problem(text: &str, rules: &Text, shown: Shown<'_>) -> Option<String> {
    let letters = || text.chars().count() as u64;
    let bytes = text.len() as u64;
    let listed = |list: &[String]| list.iter().any(|item| item == text);
    let lacks = |part: &Option<String>, has: fn(&str, &str) -> bool| {
        part.as_ref().filter(|part| !has(text, part)).map(|part| format!("{part:?}"))
    };
    let expected = if let Some(constant) = rules.constant.as_ref().filter(|constant| *constant != text) {
        format!("be {constant:?}")
    } else if let Some(length) = rules.length.filter(|length| letters() != *length) {
        format!("have {length} characters")
    } else if let Some(least) = rules.min_length.filter(|least| letters() < *least) {
        if least == 1 { "not be empty".to_owned() } else { format!("have at least {least} characters") }
    } else if let Some(most) = rules.max_length.filter(|most| letters() > *most) {
        format!("have at most {most} characters, has {}", letters())
    } else if let Some(length) = rules.length_bytes.filter(|length| bytes != *length) {
        format!("have {length} bytes")
    } else if let Some(least) = rules.min_bytes.filter(|least| bytes < *least) {
        if least == 1 { "not be empty".to_owned() } else { format!("have at least {least} bytes") }
    } else if let Some(most) = rules.max_bytes.filter(|most| bytes > *most) {
        format!("have at most {most} bytes, has {bytes}")
    } else if let Some(pattern) = rules.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
        format!("match {pattern}")
    } else if let Some(part) = lacks(&rules.prefix, |text, part| text.starts_with(part)) {
        format!("begin with {part}")
    } else if let Some(part) = lacks(&rules.suffix, |text, part| text.ends_with(part)) {
        format!("end with {part}")
    } else if let Some(part) = lacks(&rules.contains, |text, part| text.contains(part)) {
        format!("contain {part}")
    } else if let Some(part) = lacks(&rules.not_contains, |text, part| !text.contains(part)) {
        format!("not contain {part}")
    } else if !rules.within.is_empty() && !listed(&rules.within) {
        format!("be one of {}", rules.within.join(", "))
    } else if listed(&rules.not_in) {
        "have another value".to_owned()
    } else {
        let kind = rules.well_known.filter(|kind| !kind.accepts(text))?;
        kind.wording().to_owned()
    };
    let is = match text.len() {
        1..=60 if !shown.secret => format!(", is {text:?}"),
        _ => String::new(),
    };
    Some(format!("`{}` must {expected}{is}", shown.name))
}

fn octets_problem(length: u64, rules: &Octets, shown: Shown<'_>) -> Option<String> {
    let expected = if let Some(wanted) = rules.length.filter(|wanted| *wanted != length) {
        format!("have {wanted} bytes")
    } else if let Some(least) = rules.min_length.filter(|least| length < *least) {
        format!("have at least {least} bytes")
    } else {
        let most = rules.max_length.filter(|most| length > *most)?;
        format!("have at most {most} bytes")
    };
    Some(format!("`{}` must {expected}, has {length}", shown.name))
}

fn any_problem(bytes: &[u8], within: &[String], not_in: &[String], shown: Shown<'_>) -> Option<String> {
    let mut rest = bytes;
    let mut url = "";
    while let Ok(Some((number, raw))) = next_field(&mut rest) {
        if let (1, Raw::Bytes(text)) = (number, raw) {
            url = std::str::from_utf8(text).ok()?;
        }
    }
    let listed = |list: &[String]| list.iter().any(|item| item == url);
    ((!within.is_empty() && !listed(within)) || listed(not_in))
        .then(|| format!("`{}` must not be of type {url}", shown.name))
}

/// The length of an encoded `google.protobuf.Duration`.
fn nanoseconds(bytes: &[u8]) -> i128 {
    let mut rest = bytes;
    let (mut seconds, mut nanos) = (0, 0);
    while let Ok(Some((number, raw))) = next_field(&mut rest) {
        match (number, raw) {
            (1, Raw::Varint(value)) => seconds = i128::from(value as i64),
            (2, Raw::Varint(value)) => nanos = i128::from(value as i32),
            _ => {}
        }
    }
    seconds * 1_000_000_000 + nanos
}

/// Nanoseconds, written as seconds.
struct Seconds(i128);

impl fmt::Display for Seconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, part) = (self.0.unsigned_abs() / 1_000_000_000, self.0.unsigned_abs() % 1_000_000_000);
        if part == 0 {
            return write!(out, "{sign}{whole}s");
        }
        let digits = format!("{part:09}");
        write!(out, "{sign}{whole}.{}s", digits.trim_end_matches('0'))
    }
}

impl WellKnown {
    fn accepts(self, text: &str) -> bool {
        match self {
            WellKnown::Email => {
                text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && hostname(host))
            }
            WellKnown::Hostname => hostname(text),
            WellKnown::Ip => text.parse::<IpAddr>().is_ok(),
            WellKnown::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            WellKnown::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            WellKnown::Address => hostname(text) || text.parse::<IpAddr>().is_ok(),
            WellKnown::Uri => uri_characters(text) && has_scheme(text),
            WellKnown::UriRef => uri_characters(text),
            WellKnown::Uuid => uuid(text),
            WellKnown::HeaderName { strict: true } => {
                let name = text.strip_prefix(':').unwrap_or(text);
                !name.is_empty() && name.bytes().all(is_token)
            }
            WellKnown::HeaderValue { strict: true } => {
                !text.bytes().any(|byte| (byte < 0x20 && byte != b'\t') || byte == 0x7f)
            }
            WellKnown::HeaderName { .. } | WellKnown::HeaderValue { .. } => {
                !text.bytes().any(|byte| matches!(byte, 0 | b'\r' | b'\n'))
            }
        }
    }

    fn wording(self) -> &'static str {
        match self {
            WellKnown::Email => "be an e-mail address",
            WellKnown::Hostname => "be a host name",
            WellKnown::Ip => "be an IP address",
            WellKnown::Ipv4 => "be an IPv4 address",
            WellKnown::Ipv6 => "be an IPv6 address",
            WellKnown::Uri => "be an absolute URI",
            WellKnown::UriRef => "be a URI or a reference to one",
            WellKnown::Address => "be a host name or an IP address",
            WellKnown::Uuid => "be a UUID",
            WellKnown::HeaderName { strict: true } => "be a header name",
            WellKnown::HeaderName { strict: false } => "be a header name, without NUL and line breaks",
            WellKnown::HeaderValue { strict: true } => "be a header value, without control characters",
            WellKnown::HeaderValue { strict: false } => "be a header value, without NUL and line breaks",
        }
    }
}

/// Labels of RFC 1034, 253 characters at most.
fn hostname(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    (1..=253).contains(&text.len())
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// RFC 3986: no character that must be escaped, every escape whole.
fn uri_characters(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.iter().enumerate().all(|(at, byte)| match byte {
        b'%' => bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)),
        byte => byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=".contains(byte),
    })
}

fn has_scheme(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    })
}

fn uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
