//! `/config_dump`: the configuration in use. Rendered by a thread, because one resource (the bootstrap of a large file) can take
//! longer than main may work in one go.

use std::time::SystemTime;

use http::StatusCode;
use jiff::Timestamp;
use regex::Regex;
use serde_json::{Map, Value, json};

use super::answer::{Answer, JSON, JsonList};
use super::query::Query;
use super::rendering::{ClientGone, Output};
use super::routes::Context;
use super::state::{ConfigDump, ConfigKind, ConfigResource};
use super::stats::pattern;

pub(super) fn config_dump(context: &Context, query: &Query) -> Answer {
    let selection = match Selection::parse(query) {
        Ok(selection) => selection,
        Err(answer) => return answer,
    };
    let dump = context.state.config_dump();
    Answer::rendered(JSON, Box::new(move |output| Rendering { output, selection }.run(dump)))
}

/// Which part of the configuration is shown.
struct Selection {
    /// `resource`: elements of one field of one message.
    field: Option<&'static Field>,
    mask: Mask,
    names: Option<Regex>,
}

impl Selection {
    fn parse(query: &Query) -> Result<Self, Answer> {
        let names = query.value("name_regex").map(|text| {
            // Envoy wants the whole name to match here, unlike in `/clusters` and `/stats`.
            pattern(&format!("^(?:{text})$")).map_err(|error| {
                let message =
                    format!("INVALID_ARGUMENT: Error while parsing name_regex from {text}: {error}");
                Answer::error(StatusCode::BAD_REQUEST, message)
            })
        });
        let field = query.value("resource").map(|wanted| {
            let found = MESSAGES.iter().flat_map(|message| message.fields).find(|field| field.name == wanted);
            match found {
                None => {
                    Err(Answer::error(StatusCode::NOT_FOUND, format!("{wanted} not found in config dump")))
                }
                Some(field) if !field.repeated => {
                    let message = format!(
                        "{wanted} is not a repeated field. Use ?mask={wanted} to get only this field"
                    );
                    Err(Answer::error(StatusCode::BAD_REQUEST, message))
                }
                Some(field) => Ok(field),
            }
        });
        let field = field.transpose()?;
        let mask = Mask::parse(query.value("mask").unwrap_or_default());
        if field.is_none() && !mask.is_empty() && !mask.begins_with_a_field() {
            let mask = query.value("mask").unwrap_or_default();
            let message = format!("FieldMask {mask} could not be successfully applied to any configs.");
            return Err(Answer::error(StatusCode::BAD_REQUEST, message));
        }
        Ok(Self { field, mask, names: names.transpose()? })
    }

    fn takes(&self, resource: &ConfigResource) -> bool {
        resource.kind == ConfigKind::Bootstrap
            || self.names.as_ref().is_none_or(|names| names.is_match(&resource.name))
    }
}

/// A dump on its way to the client.
struct Rendering<'a> {
    output: &'a mut Output,
    selection: Selection,
}

impl Rendering<'_> {
    fn run(mut self, dump: ConfigDump) -> Result<(), ClientGone> {
        let mut list = JsonList { field: "configs", written: 0 };
        let mut resources = dump.resources;
        resources.retain(|resource| self.selection.takes(resource));
        match self.selection.field {
            Some(field) => self.elements(&mut list, field, resources)?,
            None => self.messages(&mut list, resources)?,
        }
        list.end(self.output.piece());
        Ok(())
    }

    /// Every element of one field is a config of its own.
    fn elements(
        &mut self,
        list: &mut JsonList<'_>,
        field: &Field,
        resources: Vec<ConfigResource>,
    ) -> Result<(), ClientGone> {
        for resource in resources.into_iter().filter(|resource| Some(resource.kind) == field.kind) {
            let mut element = json!({ "@type": format!("{ADMIN}{}", field.element) });
            if let Value::Object(fields) = self.selection.mask.apply(field.message(resource)) {
                element.as_object_mut().expect("made as an object above").extend(fields);
            }
            self.write(list, &element)?;
        }
        Ok(())
    }

    fn messages(
        &mut self,
        list: &mut JsonList<'_>,
        resources: Vec<ConfigResource>,
    ) -> Result<(), ClientGone> {
        let mut resources = resources.into_iter().peekable();
        for message in MESSAGES {
            let mut body = Map::new();
            for field in message.fields {
                let of_field = |resource: &ConfigResource| Some(resource.kind) == field.kind;
                let mut elements = Vec::new();
                while let Some(resource) = resources.next_if(of_field) {
                    elements.push(field.message(resource));
                }
                match elements.pop() {
                    None => {}
                    Some(Value::Object(only)) if !field.repeated => body.extend(only),
                    Some(last) => {
                        elements.push(last);
                        body.insert(field.name.to_owned(), elements.into());
                    }
                }
            }
            let body = self.selection.mask.apply(Value::Object(body));
            let mut config =
                Map::from_iter([("@type".to_owned(), format!("{ADMIN}{}", message.name).into())]);
            match body {
                Value::Object(fields) if fields.is_empty() && !self.selection.mask.is_empty() => continue,
                Value::Object(fields) => config.extend(fields),
                _ => {}
            }
            self.write(list, &Value::Object(config))?;
        }
        Ok(())
    }

    fn write(&mut self, list: &mut JsonList<'_>, config: &Value) -> Result<(), ClientGone> {
        list.item(self.output.piece(), config);
        self.output.sent()
    }
}

/// A message of `envoy.admin.v3` that a dump consists of.
struct Message {
    name: &'static str,
    fields: &'static [Field],
}

struct Field {
    name: &'static str,
    repeated: bool,
    /// Where its elements come from; `None` for what proxyd never has.
    kind: Option<ConfigKind>,
    /// The type of an element.
    element: &'static str,
    /// The field of an element that holds the resource.
    inner: &'static str,
}

impl Field {
    fn message(&self, resource: ConfigResource) -> Value {
        let mut message = Map::new();
        message.insert(self.inner.to_owned(), (resource.json)());
        message.insert("last_updated".to_owned(), timestamp(resource.last_updated).into());
        message.into()
    }

    const fn repeated(
        name: &'static str,
        kind: ConfigKind,
        element: &'static str,
        inner: &'static str,
    ) -> Self {
        Self { name, repeated: true, kind: Some(kind), element, inner }
    }

    const fn empty(name: &'static str) -> Self {
        Self { name, repeated: true, kind: None, element: "", inner: "" }
    }
}

/// In Envoy's order.
const MESSAGES: &[Message] = &[
    Message {
        name: "BootstrapConfigDump",
        fields: &[Field {
            name: "bootstrap",
            repeated: false,
            kind: Some(ConfigKind::Bootstrap),
            element: "",
            inner: "bootstrap",
        }],
    },
    Message {
        name: "ClustersConfigDump",
        fields: &[
            Field::repeated(
                "static_clusters",
                ConfigKind::StaticCluster,
                "ClustersConfigDump.StaticCluster",
                "cluster",
            ),
            Field::empty("dynamic_active_clusters"),
            Field::empty("dynamic_warming_clusters"),
        ],
    },
    Message {
        name: "ListenersConfigDump",
        fields: &[
            Field::repeated(
                "static_listeners",
                ConfigKind::StaticListener,
                "ListenersConfigDump.StaticListener",
                "listener",
            ),
            Field::empty("dynamic_listeners"),
        ],
    },
    Message {
        name: "ScopedRoutesConfigDump",
        fields: &[Field::empty("inline_scoped_route_configs"), Field::empty("dynamic_scoped_route_configs")],
    },
    Message {
        name: "RoutesConfigDump",
        fields: &[
            Field::repeated(
                "static_route_configs",
                ConfigKind::StaticRoute,
                "RoutesConfigDump.StaticRouteConfig",
                "route_config",
            ),
            Field::empty("dynamic_route_configs"),
        ],
    },
    Message {
        name: "SecretsConfigDump",
        fields: &[
            Field::empty("static_secrets"),
            Field::empty("dynamic_active_secrets"),
            Field::empty("dynamic_warming_secrets"),
        ],
    },
];

/// `google.protobuf.FieldMask` over JSON: keeps what one of its paths leads to; lists are masked element by element. Empty keeps all.
struct Mask(Vec<Vec<String>>);

impl Mask {
    fn parse(text: &str) -> Self {
        let paths = text.split(',').filter(|path| !path.is_empty());
        Self(paths.map(|path| path.split('.').map(str::to_owned).collect()).collect())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether some path leads into a message of a dump.
    fn begins_with_a_field(&self) -> bool {
        let mut fields = MESSAGES.iter().flat_map(|message| message.fields);
        fields.any(|field| self.0.iter().any(|path| path[0] == field.name))
    }

    fn apply(&self, value: Value) -> Value {
        if self.is_empty() {
            return value;
        }
        let paths: Vec<&[String]> = self.0.iter().map(Vec::as_slice).collect();
        keep(value, &paths)
    }
}

fn keep(value: Value, paths: &[&[String]]) -> Value {
    if paths.iter().any(|path| path.is_empty()) {
        return value;
    }
    match value {
        Value::Array(all) => all.into_iter().map(|element| keep(element, paths)).collect(),
        Value::Object(fields) => {
            let masked = fields.into_iter().filter_map(|(name, value)| {
                if name == "@type" {
                    return Some((name, value));
                }
                let below: Vec<_> =
                    paths.iter().filter(|path| path[0] == name).map(|path| &path[1..]).collect();
                (!below.is_empty()).then(|| (name, keep(value, &below)))
            });
            Value::Object(masked.collect())
        }
        other => other,
    }
}

/// RFC 3339 with milliseconds, as in Envoy's dumps.
fn timestamp(time: SystemTime) -> String {
    // A clock that far off is not worth more than a wrong time.
    let at = Timestamp::try_from(time).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

const ADMIN: &str = "type.googleapis.com/envoy.admin.v3.";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn timestamps_are_rfc_3339() {
        let at = |seconds, millis: u32| {
            timestamp(SystemTime::UNIX_EPOCH + Duration::new(seconds, millis * 1_000_000))
        };
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_399, 999), "2000-02-28T23:59:59.999Z");
        assert_eq!(at(951_782_400, 5), "2000-02-29T00:00:00.005Z");
        assert_eq!(at(1_795_409_905, 118), "2026-11-23T04:58:25.118Z");
        assert_eq!(at(4_107_542_399, 0), "2100-02-28T23:59:59.000Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn a_mask_keeps_paths_and_types() {
        let value =
            json!({ "@type": "t", "a": [{ "b": 1, "c": 2 }, { "c": 3 }], "d": { "e": { "f": 4 } }, "g": 5 });
        let masked = |mask: &str| Mask::parse(mask).apply(value.clone());
        assert_eq!(masked("a.b"), json!({ "@type": "t", "a": [{ "b": 1 }, {}] }));
        assert_eq!(masked("d.e,g"), json!({ "@type": "t", "d": { "e": { "f": 4 } }, "g": 5 }));
        assert_eq!(masked("d.x"), json!({ "@type": "t", "d": {} }));
        assert_eq!(masked(""), value);
    }
}
