//! A message as JSON for people to see (`/config_dump`): proto3 JSON with proto field names, `Any`
//! written out, and nothing left of fields that the API marks sensitive.

use prost::Message as _;
use serde_json::{Map, Value as Json};

use crate::extension::{self, TypedStruct};
use crate::schema::{self, Field, FieldKind, Form, Message, Shape};
use crate::tree::MAX_DEPTH;
use crate::wire::{Value, View};

/// The message in `bytes`, of the type with this full name, as JSON. Strings in sensitive fields
/// (`udpa.annotations.sensitive`) read `[redacted]`, their numbers are left out, as in Envoy. Of an
/// unknown type or bytes that are no such message, nothing is shown.
pub fn redacted(type_name: &str, bytes: &[u8]) -> Json {
    match schema::message(type_name) {
        Some(message) => write_message(message, bytes, Limits { secret: false, depth: 0 }),
        None => Json::Null,
    }
}

#[derive(Clone, Copy)]
struct Limits {
    secret: bool,
    depth: usize,
}

fn write_message(message: &'static Message, bytes: &[u8], mut limits: Limits) -> Json {
    limits.depth += 1;
    if limits.depth > MAX_DEPTH {
        return Json::Null;
    }
    let Ok(view) = View::read(message, bytes) else { return Json::Null };
    match message.form {
        Form::Plain => Json::Object(write_fields(message, &view, limits)),
        Form::Any => write_any(&view, limits),
        Form::Duration => {
            let [seconds, nanos] = seconds_and_nanos(message, &view);
            let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
            let (seconds, fraction) = (seconds.unsigned_abs(), fraction(nanos));
            Json::String(format!("{sign}{seconds}{fraction}s"))
        }
        Form::Timestamp => {
            let [seconds, nanos] = seconds_and_nanos(message, &view);
            let (year, month, day) = date(seconds.div_euclid(86400));
            let clock = seconds.rem_euclid(86400);
            let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
            let fraction = fraction(nanos);
            Json::String(format!(
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z"
            ))
        }
        Form::FieldMask => {
            let names: Vec<_> =
                view.values.iter().map(|(_, name)| String::from_utf8_lossy(name.bytes())).collect();
            Json::String(names.join(","))
        }
        Form::Wrapper => {
            let Some((_, field)) = message.numbered(1) else { return Json::Null };
            let default = match field.kind {
                FieldKind::String | FieldKind::Bytes => Value::Bytes((&[][..]).into()),
                _ => Value::Number(0),
            };
            let value = view.values.first().map_or(&default, |(_, value)| value);
            write_value(field, value, limits).unwrap_or(Json::Null)
        }
        Form::Struct => view_field(message, &view, 1, limits).unwrap_or_else(|| Json::Object(Map::new())),
        Form::ListValue => view_field(message, &view, 1, limits).unwrap_or_else(|| Json::Array(Vec::new())),
        Form::Value => match view.values.first() {
            Some((index, value)) if message.fields[*index].number != 1 => {
                write_value(&message.fields[*index], value, limits).unwrap_or(Json::Null)
            }
            _ => Json::Null,
        },
    }
}

fn write_fields(message: &'static Message, view: &View<'_>, limits: Limits) -> Map<String, Json> {
    let mut object = Map::new();
    let mut last = None;
    for (index, _) in &view.values {
        if last.replace(index) == Some(index) {
            continue;
        }
        let field = &message.fields[*index];
        if let Some(json) = view_field(message, view, field.number, limits) {
            object.insert(field.name.clone(), json);
        }
    }
    object
}

/// All values of one field.
fn view_field(message: &'static Message, view: &View<'_>, number: u32, mut limits: Limits) -> Option<Json> {
    let (index, field) = message.numbered(number)?;
    limits.secret |= field.sensitive;
    let mut values = view.values.iter().filter(|(set, _)| *set == index).map(|(_, value)| value).peekable();
    values.peek()?;
    match field.shape {
        Shape::Single => write_value(field, values.last()?, limits),
        Shape::Repeated => {
            Some(Json::Array(values.filter_map(|value| write_value(field, value, limits)).collect()))
        }
        Shape::Map => {
            let FieldKind::Message(entry) = &field.kind else { return None };
            let entry = entry.follow();
            let mut object = Map::new();
            for bytes in values {
                let Ok(pair) = View::read(entry, bytes.bytes()) else { continue };
                let key = view_field(entry, &pair, 1, Limits { secret: false, ..limits });
                let key = key.map_or_else(String::new, |key| {
                    key.as_str().map_or_else(|| key.to_string(), str::to_owned)
                });
                object.insert(key, view_field(entry, &pair, 2, limits).unwrap_or(Json::Null));
            }
            Some(Json::Object(object))
        }
    }
}

/// One value; None for a number that must not be shown.
fn write_value(field: &Field, value: &Value<'_>, limits: Limits) -> Option<Json> {
    Some(match &field.kind {
        FieldKind::Message(to) => write_message(to.follow(), value.bytes(), limits),
        FieldKind::String if limits.secret => Json::String(REDACTED.to_owned()),
        FieldKind::Bytes if limits.secret => Json::String(base64(REDACTED.as_bytes())),
        _ if limits.secret => return None,
        FieldKind::String => Json::String(String::from_utf8_lossy(value.bytes()).into_owned()),
        FieldKind::Bytes => Json::String(base64(value.bytes())),
        FieldKind::Bool => Json::Bool(value.number() != 0),
        FieldKind::Double | FieldKind::Float => {
            let number = value.float(&field.kind);
            if number.fract() == 0.0 && number.abs() < EXACT {
                Json::from(number as i64)
            } else {
                serde_json::Number::from_f64(number)
                    .map_or_else(|| Json::String(number.to_string()), Json::Number)
            }
        }
        FieldKind::Int64
        | FieldKind::Uint64
        | FieldKind::Sint64
        | FieldKind::Fixed64
        | FieldKind::Sfixed64 => Json::String(value.integer(&field.kind).to_string()),
        FieldKind::Enum(to) => {
            let number = value.integer(&field.kind) as i32;
            to.by_number(number).map_or_else(|| Json::from(number), Json::from)
        }
        kind => Json::from(value.integer(kind) as i64),
    })
}

fn write_any(view: &View<'_>, limits: Limits) -> Json {
    let of =
        |index| view.values.iter().find(|(set, _)| *set == index).map_or(&[][..], |(_, value)| value.bytes());
    let url = String::from_utf8_lossy(of(0));
    let mut object = Map::new();
    object.insert("@type".to_owned(), Json::from(url.as_ref()));
    let name = url.rsplit('/').next().unwrap_or_default();
    if extension::is_typed_struct(&url) && !limits.secret {
        if let Ok(settings) = TypedStruct::decode(of(1)) {
            object.insert("value".to_owned(), settings.json());
            object.insert("type_url".to_owned(), Json::from(settings.type_url));
        }
    } else if let Some(message) = schema::message(name) {
        match (message.form, write_message(message, of(1), limits)) {
            (Form::Plain, Json::Object(fields)) => object.extend(fields),
            (_, json) => {
                object.insert("value".to_owned(), json);
            }
        }
    }
    Json::Object(object)
}

fn seconds_and_nanos(message: &Message, view: &View<'_>) -> [i64; 2] {
    [0, 1].map(|index| {
        let set = view.values.iter().find(|(set, _)| *set == index);
        set.map_or(0, |(_, value)| value.integer(&message.fields[index].kind) as i64)
    })
}

/// Nothing, or a point and 3, 6 or 9 digits.
fn fraction(nanos: i64) -> String {
    let nanos = nanos.unsigned_abs();
    match nanos {
        0 => String::new(),
        _ if nanos.is_multiple_of(1_000_000) => format!(".{:03}", nanos / 1_000_000),
        _ if nanos.is_multiple_of(1000) => format!(".{:06}", nanos / 1000),
        _ => format!(".{nanos:09}"),
    }
}

/// Year, month and day of a day counted from 1970 (proleptic Gregorian calendar).
fn date(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// RFC 4648, padded.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// Below this every whole number is exact in an f64; protobuf writes such numbers without a fraction.
const EXACT: f64 = 9_007_199_254_740_992.0;

const REDACTED: &str = "[redacted]";

#[cfg(test)]
mod tests {
    use super::*;

    fn as_json(type_name: &str, yaml: &str) -> Json {
        let (tree, _) = crate::yaml::parse("test.yaml".into(), yaml);
        let mut findings = crate::Findings::default();
        let bytes = crate::reader::read(
            tree.unwrap().root(),
            schema::message(type_name).unwrap(),
            &Default::default(),
            &mut findings,
        );
        assert!(findings.is_empty(), "{findings:?}");
        redacted(type_name, &bytes)
    }

    #[test]
    fn secrets_are_gone_also_inside_any() {
        let json = as_json(
            "envoy.config.core.v3.TransportSocket",
            "name: tls
typed_config:
  '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
  common_tls_context:
    tls_certificates:
    - {certificate_chain: {inline_string: public}, private_key: {inline_string: hidden}, password: {inline_bytes: aGk=}}",
        );
        let text = json.to_string();
        assert!(!text.contains("hidden") && !text.contains("aGk="), "{text}");
        let certificate = &json["typed_config"]["common_tls_context"]["tls_certificates"][0];
        assert_eq!(certificate["certificate_chain"]["inline_string"], "public");
        assert_eq!(certificate["private_key"]["inline_string"], "[redacted]");
        assert_eq!(certificate["password"]["inline_bytes"], "W3JlZGFjdGVkXQ==");
    }

    #[test]
    fn a_message_reads_as_envoy_writes_it() {
        let json = as_json(
            "envoy.config.cluster.v3.Cluster",
            "{name: c, type: strict_dns, connectTimeout: 1.5s, perConnectionBufferLimitBytes: 32768,
              metadata: {filterMetadata: {a: {b: [1, x, true, null]}}}, max_requests_per_connection: {value: 0}}",
        );
        let expected = serde_json::json!({
            "name": "c", "type": "STRICT_DNS", "connect_timeout": "1.500s",
            "per_connection_buffer_limit_bytes": 32768, "max_requests_per_connection": 0,
            "metadata": {"filter_metadata": {"a": {"b": [1, "x", true, null]}}},
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn times() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(base64(b"hi"), "aGk=");
    }
}
