//! JSON formats: a `Struct` whose texts are format strings.

use std::collections::BTreeMap;

use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};

use super::{Context, access_log};
use crate::Path;
use crate::settings::{Format, JsonFormat, Piece};

/// The object at `path`; `None` when one of its formats means nothing.
pub(super) fn lower(context: &mut Context<'_>, path: &Path<'_>, message: &Struct) -> Option<JsonFormat> {
    // Envoy writes properties sorted by name.
    let sorted: BTreeMap<_, _> = message.fields.iter().collect();
    let mut complete = true;
    let mut entries = Vec::with_capacity(sorted.len());
    for (key, message) in sorted {
        match value(context, &path.key(key), message) {
            Some(value) => entries.push((format!("{}:", quoted(key)).into_boxed_str(), value)),
            None => complete = false,
        }
    }
    complete.then(|| JsonFormat::Object(entries.into()))
}

fn value(context: &mut Context<'_>, path: &Path<'_>, message: &Value) -> Option<JsonFormat> {
    Some(match &message.kind {
        None | Some(Kind::NullValue(_)) => JsonFormat::Null,
        Some(Kind::NumberValue(number)) => JsonFormat::Literal(numeral(*number).into()),
        Some(Kind::BoolValue(flag)) => JsonFormat::Literal(flag.to_string().into()),
        Some(Kind::StringValue(text)) => text_value(access_log::compiled(context, path, text)?),
        Some(Kind::StructValue(object)) => return lower(context, path, object),
        Some(Kind::ListValue(list)) => {
            let each = list.values.iter().enumerate();
            let values: Vec<_> =
                each.map(|(index, message)| value(context, &path.index(index), message)).collect();
            JsonFormat::Array(values.into_iter().collect::<Option<_>>()?)
        }
    })
}

/// A format without operators is the same text for every line.
fn text_value(format: Format) -> JsonFormat {
    match &*format.pieces {
        [] => JsonFormat::Literal("\"\"".into()),
        [Piece::Text(text)] => JsonFormat::Literal(quoted(text).into()),
        _ => JsonFormat::Format(format),
    }
}

/// Whole numbers without a fraction, others in their shortest form.
fn numeral(number: f64) -> String {
    serde_json::Number::from_f64(number).map_or_else(
        || "null".to_owned(),
        |json| {
            if number.fract() == 0.0 && number.abs() < 1e15 {
                format!("{number:.0}")
            } else {
                json.to_string()
            }
        },
    )
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
