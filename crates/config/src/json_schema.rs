//! A JSON Schema (draft-07, which editors know best) of bootstraps that proxyd runs, for editors and validators.
//!
//! It is stricter than the reader where that serves who writes a file: enum values in capitals, lists as lists, numbers
//! without quotes, no empty values (which set nothing). Fields that are not supported are not in it. The snake_case names are what
//! editors offer; camelCase ones, which are matched by patterns, are valid too. What needs the whole file (names of clusters,
//! unreachable routes, regexes) only `proxyctl validate config` knows.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::constraint::{Constraint, Range, Rule};
use crate::hint;
use crate::schema::{self, Enum, Field, FieldKind, Form, Message, Shape};
use crate::supported::FieldSupport;

/// The schema of bootstraps.
pub fn json_schema() -> Value {
    let root = schema::message(BOOTSTRAP).expect("the v3 API has a bootstrap, tests load one");
    let mut builder = Builder::default();
    builder.message(root);
    let typed = typed_configs(&builder.definitions.keys().cloned().collect());
    for message in &typed {
        builder.typed(message);
    }
    builder.definitions.insert(ANY.to_owned(), any(&typed));
    let mut schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "proxyd: Envoy's v3 bootstrap, as far as it is supported",
        "$ref": reference(BOOTSTRAP),
    });
    schema["definitions"] = builder.definitions.into_iter().collect();
    schema
}

/// Messages that may stand in a `typed_config`: those of extensions, and those that stand nowhere else.
fn typed_configs(reached: &BTreeSet<String>) -> Vec<&'static Message> {
    let names: BTreeSet<&str> = schema::type_names().iter().map(String::as_str).collect();
    let is_nested = |name: &str| name.rsplit_once('.').is_some_and(|(parent, _)| names.contains(parent));
    let is_typed = |name: &&&str| {
        !is_nested(name) && (name.starts_with("envoy.extensions.") || !reached.contains(**name))
    };
    let messages = names.iter().filter(is_typed).filter_map(|name| schema::message(name));
    messages.filter(|message| message.support.is_some() && message.form == Form::Plain).collect()
}

/// A `typed_config`: what else stands in it depends on its type. Types of other hosts are those that a program adds.
fn any(typed: &[&'static Message]) -> Value {
    let url = |name: &str| format!("type.googleapis.com/{name}");
    let structs = STRUCTS.iter().map(|name| url(name));
    let urls: Vec<String> = typed.iter().map(|message| url(&message.name)).chain(structs).collect();
    let each = typed.iter().map(|message| {
        json!({
            "if": {"properties": {"@type": {"const": url(&message.name)}}, "required": ["@type"]},
            "then": {"$ref": reference(&typed_name(&message.name))},
        })
    });
    json!({
        "type": "object",
        "required": ["@type"],
        "properties": {
            "@type": {
                "type": "string",
                "anyOf": [{"enum": urls}, {"pattern": "^(?!type\\.googleapis\\.com/)[^/]+/"}],
            },
        },
        "allOf": each.collect::<Value>(),
    })
}

#[derive(Default)]
struct Builder {
    definitions: BTreeMap<String, Value>,
}

impl Builder {
    /// Defines a message and all that it holds. They refer to each other in circles, never deeper than the API is.
    fn message(&mut self, message: &'static Message) {
        if self.definitions.contains_key(&message.name) {
            return;
        }
        self.definitions.insert(message.name.clone(), Value::Null);
        let definition = self.object(message);
        self.definitions.insert(message.name.clone(), definition);
    }

    /// The same with `@type`.
    fn typed(&mut self, message: &'static Message) {
        let mut definition = self.object(message);
        definition["properties"]["@type"] = json!({"type": "string"});
        self.definitions.insert(typed_name(&message.name), definition);
    }

    fn object(&mut self, message: &'static Message) -> Value {
        let (mut names, mut camel_case, mut rules) = (Map::new(), Map::new(), Vec::new());
        for field in supported(message) {
            let value = self.field(message, field);
            if field.json_name != field.name {
                camel_case.insert(format!("^{}$", field.json_name), value.clone());
            }
            names.insert(field.name.clone(), value);
            if field.oneof.is_none() && is_required(field) {
                rules.push(is_set(field));
            }
        }
        rules.extend(oneofs(message));
        let mut object = json!({
            "type": "object",
            "title": message.name,
            "properties": names,
            "additionalProperties": false,
        });
        if !camel_case.is_empty() {
            object["patternProperties"] = camel_case.into();
        }
        if !rules.is_empty() {
            object["allOf"] = rules.into();
        }
        object
    }

    fn field(&mut self, message: &Message, field: &'static Field) -> Value {
        let rule = field.constraint.as_ref();
        let mut value = match field.shape {
            Shape::Single => self.value(message, field, rule),
            Shape::Repeated => {
                let (least, most, items) = match rule.map(|rule| &rule.rule) {
                    Some(Rule::Repeated { min, max, items, .. }) => (*min, *max, items.as_deref()),
                    _ => (None, None, None),
                };
                let mut list = json!({"type": "array", "items": self.value(message, field, items)});
                bound(&mut list, "minItems", least.filter(|least| *least > 0));
                bound(&mut list, "maxItems", most);
                list
            }
            Shape::Map => self.map(field),
        };
        if field.deprecated {
            let instead = hint::replacement(message, &field.name);
            let instead = instead.map_or(String::new(), |instead| format!(": use {instead}"));
            let text = format!("`{}` is deprecated{instead}", field.name);
            // In place of siblings, which draft-07 ignores beside a reference.
            value = json!({"allOf": [value], "deprecated": true, "deprecationMessage": text});
        }
        value
    }

    fn map(&mut self, field: &'static Field) -> Value {
        let FieldKind::Message(entry) = &field.kind else { return json!({"type": "object"}) };
        let entry = entry.follow();
        let values = entry.numbered(2).map(|(_, value)| self.value(entry, value, None));
        json!({"type": "object", "additionalProperties": values.unwrap_or(Value::Bool(true))})
    }

    fn value(&mut self, message: &Message, field: &'static Field, rule: Option<&Constraint>) -> Value {
        let rule = rule.map_or(&Rule::None, |rule| &rule.rule);
        match &field.kind {
            FieldKind::Double | FieldKind::Float => json!({"type": "number"}),
            FieldKind::Int32 | FieldKind::Sint32 | FieldKind::Sfixed32 => {
                integer(rule, i32::MIN.into(), i32::MAX.into())
            }
            // Written in octal, which editors take for decimal: their YAML is 1.2.
            FieldKind::Uint32 if field.name == "mode" => json!({"type": "integer", "minimum": 0}),
            FieldKind::Uint32 | FieldKind::Fixed32 => integer(rule, 0, u32::MAX.into()),
            FieldKind::Int64 | FieldKind::Sint64 | FieldKind::Sfixed64 => long(),
            FieldKind::Uint64 | FieldKind::Fixed64 => long(),
            FieldKind::Bool => json!({"type": "boolean"}),
            FieldKind::String => text(rule),
            FieldKind::Bytes => json!({"type": "string"}),
            FieldKind::Enum(kind) => enumeration(kind, message, field),
            FieldKind::Message(to) => self.held(to.follow(), rule),
        }
    }

    fn held(&mut self, message: &'static Message, rule: &Rule) -> Value {
        match message.form {
            Form::Plain => {
                self.message(message);
                json!({"$ref": reference(&message.name)})
            }
            Form::Any => json!({"$ref": reference(ANY)}),
            Form::Duration => json!({"type": "string", "pattern": DURATION}),
            Form::Timestamp => json!({"type": "string", "format": "date-time"}),
            Form::FieldMask => json!({"type": "string"}),
            Form::Wrapper => match message.numbered(1) {
                Some((_, value)) => self.value(message, value, None).take_rule(rule, value),
                None => Value::Bool(true),
            },
            Form::Struct => json!({"type": "object"}),
            Form::Value => Value::Bool(true),
            Form::ListValue => json!({"type": "array"}),
        }
    }
}

/// A wrapper's value under the rules of the field that holds the wrapper.
trait Wrapped {
    fn take_rule(self, rule: &Rule, value: &Field) -> Value;
}

impl Wrapped for Value {
    fn take_rule(self, rule: &Rule, value: &Field) -> Value {
        match (rule, &value.kind) {
            (Rule::Integer(_), FieldKind::Uint32) => integer(rule, 0, u32::MAX.into()),
            (Rule::Integer(_), FieldKind::Int32) => integer(rule, i32::MIN.into(), i32::MAX.into()),
            (Rule::String(_), FieldKind::String) => text(rule),
            _ => self,
        }
    }
}

fn supported(message: &'static Message) -> impl Iterator<Item = &'static Field> {
    let support = message.support;
    message.fields.iter().filter(move |field| {
        support.is_some_and(|support| !matches!(support.field(&field.name), FieldSupport::No))
    })
}

/// That at least one, and at most one, or at most one of a oneof's fields is set.
fn oneofs(message: &'static Message) -> Vec<Value> {
    let mut rules = Vec::new();
    for (index, oneof) in message.oneofs.iter().enumerate() {
        let members = supported(message).filter(|field| field.oneof == Some(index as u16));
        let mut members: Vec<Value> = members.map(is_set).collect();
        let required = oneof.required && !message.unchecked;
        match members.len() {
            0 => continue,
            1 if !required => continue,
            _ if !required => members.push(json!({"not": {"anyOf": members.clone()}})),
            _ => {}
        }
        // What is no mapping is told so elsewhere.
        rules.push(json!({"if": {"type": "object"}, "then": {"oneOf": members}}));
    }
    rules
}

fn is_required(field: &Field) -> bool {
    let Some(constraint) = &field.constraint else { return false };
    let not_empty = match &constraint.rule {
        Rule::String(text) => !constraint.ignore_empty && text.min_length.or(text.min_bytes) > Some(0),
        Rule::Repeated { min, .. } => !constraint.ignore_empty && *min > Some(0),
        _ => false,
    };
    constraint.required || not_empty
}

/// That a field is set, under either of its names.
fn is_set(field: &Field) -> Value {
    match field.json_name == field.name {
        true => json!({"required": [field.name]}),
        false => json!({"anyOf": [{"required": [field.name]}, {"required": [field.json_name]}]}),
    }
}

fn integer(rule: &Rule, least: i128, most: i128) -> Value {
    let (mut low, mut high) = (least, most);
    if let Rule::Integer(Range { less, most, greater, least, .. }) = rule {
        low = least.or(greater.map(|number| number + 1)).unwrap_or(low);
        high = most.or(less.map(|number| number - 1)).unwrap_or(high);
    }
    json!({"type": "integer", "minimum": low as i64, "maximum": high as i64})
}

/// 64 bits do not fit the numbers of every JSON reader: text is as good.
fn long() -> Value {
    json!({"type": ["integer", "string"]})
}

fn text(rule: &Rule) -> Value {
    let mut value = json!({"type": "string"});
    if let Rule::String(text) = rule {
        bound(&mut value, "minLength", text.min_length.or(text.min_bytes.map(|least| least.min(1))));
        bound(&mut value, "maxLength", text.max_length);
        if !text.within.is_empty() {
            value["enum"] = json!(text.within);
        }
    }
    value
}

fn bound(value: &mut Value, name: &str, bound: Option<u64>) {
    if let Some(bound) = bound {
        value[name] = bound.into();
    }
}

fn enumeration(kind: &Enum, message: &Message, field: &Field) -> Value {
    let only = match message.support.map(|support| support.field(&field.name)) {
        Some(FieldSupport::Values(values)) => Some(values),
        _ => None,
    };
    let names = kind.values.iter().map(|(name, _)| name.as_str());
    let names: Vec<&str> = names.filter(|name| only.is_none_or(|only| only.contains(name))).collect();
    json!({"enum": names})
}

fn reference(name: &str) -> String {
    format!("#/definitions/{name}")
}

fn typed_name(name: &str) -> String {
    format!("{name}:typed")
}

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";
const ANY: &str = "google.protobuf.Any";

/// Types that stand for another, which they name.
const STRUCTS: [&str; 2] = ["xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct"];

/// Seconds with at most nine decimals (proto3 JSON mapping).
const DURATION: &str = r"^-?[0-9]+(\.[0-9]{1,9})?s$";

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_to_a_definition() {
        let schema = json_schema();
        let mut found = Vec::new();
        references(&schema, &mut found);
        assert!(found.len() > 300, "{}", found.len());
        for reference in found {
            let name = reference.strip_prefix("#/definitions/").unwrap();
            assert!(schema["definitions"][name].is_object(), "{name}");
        }
    }

    #[test]
    fn every_supported_message_is_defined_with_its_supported_fields() {
        let schema = json_schema();
        for covered in crate::coverage() {
            let name = &covered.message;
            let definitions = &schema["definitions"];
            let typed = &definitions[typed_name(name)];
            let definition = if typed.is_null() { &definitions[name] } else { typed };
            let is_map_entry = name.ends_with("Entry");
            if definition.is_null() && (is_map_entry || schema::message(name).unwrap().form != Form::Plain) {
                continue;
            }
            for field in covered.supported {
                assert!(
                    definition["properties"][&field].is_boolean()
                        || definition["properties"][&field].is_object(),
                    "{name}.{field}"
                );
            }
            for field in covered.missing {
                assert!(definition["properties"][&field].is_null(), "{name}.{field}");
            }
        }
    }

    #[test]
    fn rules_of_the_api_are_in_it() {
        let schema = json_schema();
        let of = |message: &str| schema["definitions"][message].clone();
        let address = of("envoy.config.core.v3.SocketAddress");
        assert_eq!(address["properties"]["port_value"]["maximum"], 65535);
        assert_eq!(address["properties"]["protocol"]["enum"], json!(["TCP", "UDP"]));
        assert_eq!(address["patternProperties"]["^portValue$"], address["properties"]["port_value"]);
        assert_eq!(
            of("envoy.config.cluster.v3.Cluster")["properties"]["connect_timeout"]["pattern"],
            DURATION
        );
    }
}
