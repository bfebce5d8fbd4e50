//! The table of what proxyd implements of the v3 API: `supported.txt`. A field or type that is not in
//! it is refused with its place, never ignored.
//!
//! A line names a message and its fields: `envoy.config.core.v3.SocketAddress: address port_value`.
//! `*` stands for all fields; `protocol=TCP|UDP` restricts an enum field to these values; a line may
//! repeat a message to add fields; `#` starts a comment.

use std::collections::HashMap;
use std::sync::LazyLock;

/// What is supported of one message.
#[derive(Debug, Default)]
pub(crate) struct Support {
    all: bool,
    fields: HashMap<&'static str, Option<Vec<&'static str>>>,
}

/// How far a field is supported.
pub(crate) enum FieldSupport<'s> {
    No,
    Yes,
    /// Only these enum values.
    Values(&'s [&'static str]),
}

impl Support {
    pub(crate) fn field(&self, name: &str) -> FieldSupport<'_> {
        match self.fields.get(name) {
            Some(Some(values)) => FieldSupport::Values(values),
            Some(None) => FieldSupport::Yes,
            None if self.all => FieldSupport::Yes,
            None => FieldSupport::No,
        }
    }
}

/// What is supported of the message with this full name; None if nothing is.
pub(crate) fn of(message: &str) -> Option<&'static Support> {
    TABLE.get(message)
}

fn parse(text: &'static str) -> HashMap<&'static str, Support> {
    let mut table: HashMap<&'static str, Support> = HashMap::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let Some((message, fields)) = line.split_once(':') else { continue };
        let support = table.entry(message.trim()).or_default();
        for field in fields.split_whitespace() {
            match field.split_once('=') {
                _ if field == "*" => support.all = true,
                Some((name, values)) => {
                    support.fields.insert(name, Some(values.split('|').collect()));
                }
                None => {
                    support.fields.insert(field, None);
                }
            }
        }
    }
    table
}

static TABLE: LazyLock<HashMap<&'static str, Support>> =
    LazyLock::new(|| parse(include_str!("../supported.txt")));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_names_what_exists() {
        for (name, support) in TABLE.iter() {
            let message = crate::schema::message(name).unwrap_or_else(|| panic!("no message {name}"));
            for (field, values) in &support.fields {
                let (_, field) = message.field(field).unwrap_or_else(|| panic!("no field {name}.{field}"));
                for value in values.iter().flatten() {
                    let crate::schema::FieldKind::Enum(kind) = &field.kind else {
                        panic!("{name}.{} is no enum", field.name)
                    };
                    assert!(kind.values.iter().any(|(known, _)| known == value), "{name}: no {value}");
                }
            }
        }
    }
}
