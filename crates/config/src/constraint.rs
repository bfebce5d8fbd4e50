//! The message rules of one field (protoc-gen-validate), read from its descriptor.

use prost_reflect::{DynamicMessage, ReflectMessage, Value};
use regex::Regex;

/// What `validate.rules` says about a field, or about the items of one.
#[derive(Debug, Default)]
pub(crate) struct Constraint {
    pub(crate) required: bool,
    /// The message in this field is not looked into.
    pub(crate) skip: bool,
    pub(crate) ignore_empty: bool,
    pub(crate) rule: Rule,
}

#[derive(Debug, Default)]
pub(crate) enum Rule {
    #[default]
    None,
    Integer(Range<i128>),
    Float(Range<f64>),
    Bool(bool),
    String(Box<Text>),
    Bytes(Box<Octets>),
    Enum {
        defined_only: bool,
        constant: Option<i32>,
        within: Vec<i32>,
        not_in: Vec<i32>,
    },
    Repeated {
        min: Option<u64>,
        max: Option<u64>,
        unique: bool,
        items: Option<Box<Constraint>>,
    },
    Map {
        min: Option<u64>,
        max: Option<u64>,
        keys: Option<Box<Constraint>>,
        values: Option<Box<Constraint>>,
    },
    Any {
        within: Vec<String>,
        not_in: Vec<String>,
    },
    /// In nanoseconds.
    Duration(Range<i128>),
}

/// Bounds on a number.
#[derive(Debug)]
pub(crate) struct Range<T> {
    pub(crate) constant: Option<T>,
    pub(crate) less: Option<T>,
    pub(crate) most: Option<T>,
    pub(crate) greater: Option<T>,
    pub(crate) least: Option<T>,
    pub(crate) within: Vec<T>,
    pub(crate) not_in: Vec<T>,
}

/// Rules on a string; lengths in characters unless they say bytes.
#[derive(Debug, Default)]
pub(crate) struct Text {
    pub(crate) constant: Option<String>,
    pub(crate) length: Option<u64>,
    pub(crate) min_length: Option<u64>,
    pub(crate) max_length: Option<u64>,
    pub(crate) length_bytes: Option<u64>,
    pub(crate) min_bytes: Option<u64>,
    pub(crate) max_bytes: Option<u64>,
    pub(crate) pattern: Option<Regex>,
    pub(crate) prefix: Option<String>,
    pub(crate) suffix: Option<String>,
    pub(crate) contains: Option<String>,
    pub(crate) not_contains: Option<String>,
    pub(crate) within: Vec<String>,
    pub(crate) not_in: Vec<String>,
    pub(crate) well_known: Option<WellKnown>,
}

/// Rules on bytes; those that the v3 API uses.
#[derive(Debug, Default)]
pub(crate) struct Octets {
    pub(crate) length: Option<u64>,
    pub(crate) min_length: Option<u64>,
    pub(crate) max_length: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WellKnown {
    Email,
    Hostname,
    Ip,
    Ipv4,
    Ipv6,
    Uri,
    UriRef,
    /// Host name or IP address.
    Address,
    Uuid,
    /// Strict: an HTTP token, or a pseudo-header name; else only no NUL, CR or LF.
    HeaderName {
        strict: bool,
    },
    HeaderValue {
        strict: bool,
    },
}

impl Constraint {
    /// From a `validate.FieldRules`; None if it says nothing.
    pub(crate) fn read(rules: &Value) -> Option<Constraint> {
        let rules = rules.as_message()?;
        let mut constraint = Constraint::default();
        if let Some(message) = child(rules, "message") {
            constraint.required = boolean(&message, "required");
            constraint.skip = boolean(&message, "skip");
        }
        for (field, value) in rules.fields() {
            let Some(body) = value.as_message() else { continue };
            constraint.ignore_empty |= boolean(body, "ignore_empty");
            constraint.required |=
                matches!(field.name(), "any" | "duration" | "timestamp") && boolean(body, "required");
            if let Some(rule) = Rule::read(field.name(), body) {
                constraint.rule = rule;
            }
        }
        Some(constraint)
    }
}

impl Rule {
    fn read(kind: &str, body: &DynamicMessage) -> Option<Rule> {
        Some(match kind {
            "float" | "double" => Rule::Float(range(body, float)),
            "int32" | "int64" | "uint32" | "uint64" | "sint32" | "sint64" | "fixed32" | "fixed64"
            | "sfixed32" | "sfixed64" => Rule::Integer(range(body, integer)),
            "duration" => Rule::Duration(range(body, nanoseconds)),
            "bool" => Rule::Bool(present(body, "const")?.as_bool()?),
            "string" => Rule::String(Box::new(Text::read(body))),
            "bytes" => Rule::Bytes(Box::new(Octets {
                length: number(body, "len"),
                min_length: number(body, "min_len"),
                max_length: number(body, "max_len"),
            })),
            "enum" => Rule::Enum {
                defined_only: boolean(body, "defined_only"),
                constant: present(body, "const").and_then(|value| value.as_i32()),
                within: list(body, "in", Value::as_i32),
                not_in: list(body, "not_in", Value::as_i32),
            },
            "repeated" => Rule::Repeated {
                min: number(body, "min_items"),
                max: number(body, "max_items"),
                unique: boolean(body, "unique"),
                items: nested(body, "items"),
            },
            "map" => Rule::Map {
                min: number(body, "min_pairs"),
                max: number(body, "max_pairs"),
                keys: nested(body, "keys"),
                values: nested(body, "values"),
            },
            "any" => Rule::Any { within: list(body, "in", string), not_in: list(body, "not_in", string) },
            _ => return None,
        })
    }
}

impl Text {
    fn read(body: &DynamicMessage) -> Text {
        let text = |name| present(body, name).and_then(|value| string(&value));
        // PGV's patterns are RE2, which `regex` follows; all of the API's are compiled by a test.
        let pattern = text("pattern").and_then(|pattern| Regex::new(&pattern).ok());
        Text {
            constant: text("const"),
            length: number(body, "len"),
            min_length: number(body, "min_len"),
            max_length: number(body, "max_len"),
            length_bytes: number(body, "len_bytes"),
            min_bytes: number(body, "min_bytes"),
            max_bytes: number(body, "max_bytes"),
            pattern,
            prefix: text("prefix"),
            suffix: text("suffix"),
            contains: text("contains"),
            not_contains: text("not_contains"),
            within: list(body, "in", string),
            not_in: list(body, "not_in", string),
            well_known: well_known(body),
        }
    }
}

fn well_known(body: &DynamicMessage) -> Option<WellKnown> {
    const NAMES: [(&str, WellKnown); 9] = [
        ("email", WellKnown::Email),
        ("hostname", WellKnown::Hostname),
        ("ip", WellKnown::Ip),
        ("ipv4", WellKnown::Ipv4),
        ("ipv6", WellKnown::Ipv6),
        ("uri", WellKnown::Uri),
        ("uri_ref", WellKnown::UriRef),
        ("address", WellKnown::Address),
        ("uuid", WellKnown::Uuid),
    ];
    if let Some((_, kind)) = NAMES.iter().find(|(name, _)| boolean(body, name)) {
        return Some(*kind);
    }
    let strict = present(body, "strict").and_then(|value| value.as_bool()).unwrap_or(true);
    match present(body, "well_known_regex")?.as_enum_number()? {
        1 => Some(WellKnown::HeaderName { strict }),
        2 => Some(WellKnown::HeaderValue { strict }),
        _ => None,
    }
}

fn range<T>(body: &DynamicMessage, read: fn(&Value) -> Option<T>) -> Range<T> {
    let one = |name| present(body, name).and_then(|value| read(&value));
    Range {
        constant: one("const"),
        less: one("lt"),
        most: one("lte"),
        greater: one("gt"),
        least: one("gte"),
        within: list(body, "in", read),
        not_in: list(body, "not_in", read),
    }
}

fn nested(body: &DynamicMessage, name: &str) -> Option<Box<Constraint>> {
    present(body, name).and_then(|rules| Constraint::read(&rules)).map(Box::new)
}

fn child(body: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    present(body, name)?.as_message().cloned()
}

/// The value of a field that is set.
fn present(body: &DynamicMessage, name: &str) -> Option<Value> {
    let field = body.descriptor().get_field_by_name(name)?;
    body.has_field(&field).then(|| body.get_field(&field).into_owned())
}

fn boolean(body: &DynamicMessage, name: &str) -> bool {
    present(body, name).and_then(|value| value.as_bool()).unwrap_or(false)
}

fn number(body: &DynamicMessage, name: &str) -> Option<u64> {
    present(body, name)?.as_u64()
}

fn list<T>(body: &DynamicMessage, name: &str, read: fn(&Value) -> Option<T>) -> Vec<T> {
    let values = present(body, name);
    let values = values.as_ref().and_then(Value::as_list).unwrap_or(&[]);
    values.iter().filter_map(read).collect()
}

fn string(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::F32(number) => Some(f64::from(*number)),
        Value::F64(number) => Some(*number),
        _ => None,
    }
}

fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::I32(number) => Some(i128::from(*number)),
        Value::I64(number) => Some(i128::from(*number)),
        Value::U32(number) => Some(i128::from(*number)),
        Value::U64(number) => Some(i128::from(*number)),
        _ => None,
    }
}

fn nanoseconds(value: &Value) -> Option<i128> {
    let duration = value.as_message()?;
    let part = |name| duration.get_field_by_name(name).and_then(|value| integer(&value)).unwrap_or(0);
    Some(part("seconds") * 1_000_000_000 + part("nanos"))
}
