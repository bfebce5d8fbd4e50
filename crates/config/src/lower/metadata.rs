//! `Metadata` of routes, virtual hosts, clusters and endpoints.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::core::v3 as core_v3;
use envoy_types::pb::google::protobuf::{Struct, Value as Message, value::Kind};
use serde_json::{Map, Number, Value};

use crate::settings::Metadata;

/// Its `filter_metadata`.
pub(super) fn lower(message: Option<&core_v3::Metadata>) -> Metadata {
    let namespaces = message.map(|message| &message.filter_metadata);
    let namespaces = namespaces.into_iter().flatten();
    Metadata::new(namespaces.map(|(name, fields)| (name.clone(), object(fields))).collect())
}

fn object(message: &Struct) -> Value {
    // Envoy writes properties sorted by name.
    let sorted: BTreeMap<_, _> = message.fields.iter().collect();
    Value::Object(
        sorted.into_iter().map(|(key, message)| (key.clone(), value(message))).collect::<Map<_, _>>(),
    )
}

fn value(message: &Message) -> Value {
    match &message.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(number)) => whole(*number)
            .map(Number::from)
            .or_else(|| Number::from_f64(*number))
            .map_or(Value::Null, Value::Number),
        Some(Kind::BoolValue(flag)) => Value::Bool(*flag),
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::StructValue(message)) => object(message),
        Some(Kind::ListValue(list)) => Value::Array(list.values.iter().map(value).collect()),
    }
}

/// A number without a fraction is written without one.
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() < 1e15).then_some(number as i64)
}
