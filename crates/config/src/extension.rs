//! Settings of filters that proxyd does not know: a program adds their types, each with a serde type that reads what
//! stands beside `@type`. Where that fails, the error has its place like any other.
//!
//! In messages such settings travel as `xds.type.v3.TypedStruct`, the form in which control planes send what has no
//! protobuf type; so a file, `/config_dump` and discovery agree on them.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use prost::Message;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::Path;

/// What an extension's settings are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtensionKind {
    /// `listener_filters`.
    ListenerFilter,
    /// `filter_chains[].filters`.
    NetworkFilter,
    /// `http_filters`.
    HttpFilter,
    /// `typed_per_filter_config`.
    RouteFilter,
}

/// The types that a program adds to Envoy's.
#[derive(Clone, Default)]
pub struct ExtensionTypes(HashMap<(ExtensionKind, Arc<str>), Parse>);

type Parse = Arc<dyn Fn(&Json) -> Result<Arc<dyn Any + Send + Sync>, SettingsError> + Send + Sync>;

/// Settings that have been read, as the type that was added for them.
#[derive(Clone)]
pub struct Extension {
    /// The full name of their type.
    pub type_name: Arc<str>,
    pub settings: Arc<dyn Any + Send + Sync>,
}

/// What is wrong with settings, and where in them.
struct SettingsError {
    steps: Vec<Step>,
    message: String,
}

enum Step {
    Field(String),
    Index(usize),
}

impl ExtensionTypes {
    /// Has settings of the type called `type_name` (what follows the last slash of a type URL) read as `S`. A later
    /// type of the same name and kind takes the place of an earlier one.
    pub fn add<S: DeserializeOwned + Send + Sync + 'static>(&mut self, kind: ExtensionKind, type_name: &str) {
        let parse: Parse = Arc::new(|json| {
            let read: Result<S, _> = serde_path_to_error::deserialize(json);
            read.map(|settings| Arc::new(settings) as Arc<dyn Any + Send + Sync>).map_err(SettingsError::of)
        });
        self.0.insert((kind, type_name.into()), parse);
    }

    /// Whether settings of this type can be read, for whatever kind of filter.
    pub(crate) fn knows(&self, type_name: &str) -> bool {
        self.0.keys().any(|(_, name)| **name == *type_name)
    }

    /// Reads settings. `None`: no such type was added for this kind. `report` gets an error with its path.
    pub(crate) fn read(
        &self,
        kind: ExtensionKind,
        type_name: &str,
        settings: &Json,
        path: &Path<'_>,
        report: impl FnOnce(&Path<'_>, &str),
    ) -> Option<Option<Extension>> {
        let key = (kind, Arc::from(type_name));
        let parse = self.0.get(&key)?;
        Some(match parse(settings) {
            Ok(settings) => Some(Extension { type_name: key.1, settings }),
            Err(error) => {
                at(path, &error.steps, |path| report(path, &error.message));
                None
            }
        })
    }
}

impl fmt::Debug for ExtensionTypes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.0.keys()).finish()
    }
}

impl fmt::Debug for Extension {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Extension").field(&self.type_name).finish()
    }
}

impl Extension {
    /// The settings, if they are of this type.
    pub fn settings<S: Send + Sync + 'static>(&self) -> Option<Arc<S>> {
        Arc::clone(&self.settings).downcast().ok()
    }
}

impl SettingsError {
    fn of(error: serde_path_to_error::Error<serde_json::Error>) -> SettingsError {
        use serde_path_to_error::Segment;
        let steps = error.path().iter().filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Field(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        });
        SettingsError { steps: steps.collect(), message: error.inner().to_string() }
    }
}

/// Follows `steps` from `path` and calls `visit` there.
fn at(path: &Path<'_>, steps: &[Step], visit: impl FnOnce(&Path<'_>)) {
    match steps.split_first() {
        None => visit(path),
        Some((Step::Field(name), rest)) => at(&path.field(name), rest, visit),
        Some((Step::Index(index), rest)) => at(&path.index(*index), rest, visit),
    }
}

/// The full name in a type URL.
pub(crate) fn name_of(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or_default()
}

/// Whether a type URL says that the settings' type is told inside, with them.
pub(crate) fn is_typed_struct(url: &str) -> bool {
    matches!(name_of(url), "xds.type.v3.TypedStruct" | "udpa.type.v1.TypedStruct")
}

/// The type URL of messages made here.
pub(crate) const TYPED_STRUCT: &str = "type.googleapis.com/xds.type.v3.TypedStruct";

/// `xds.type.v3.TypedStruct`, which `envoy-types` does not have; `udpa.type.v1.TypedStruct` is the same.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TypedStruct {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) value: Option<Struct>,
}

impl TypedStruct {
    /// The settings as JSON; whole numbers are whole numbers again.
    pub(crate) fn json(&self) -> Json {
        self.value.as_ref().map_or_else(|| Json::Object(serde_json::Map::new()), object)
    }
}

fn object(fields: &Struct) -> Json {
    let mut fields: Vec<_> = fields.fields.iter().map(|(name, value)| (name.clone(), json(value))).collect();
    // The message does not know in which order they were written.
    fields.sort_by(|(one, _), (other, _)| one.cmp(other));
    Json::Object(fields.into_iter().collect())
}

fn json(value: &Value) -> Json {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => Json::Bool(*value),
        Some(Kind::StringValue(text)) => Json::String(text.clone()),
        Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() < EXACT => {
            Json::from(*number as i64)
        }
        Some(Kind::NumberValue(number)) => Json::from(*number),
        Some(Kind::StructValue(fields)) => object(fields),
        Some(Kind::ListValue(list)) => Json::Array(list.values.iter().map(json).collect()),
    }
}

/// Whole numbers below this are exact in the floating point of `google.protobuf.Value`.
const EXACT: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde::Deserialize;

    use super::*;
    use crate::lower::LowerOptions;
    use crate::settings::{HttpFilterConfig, NetworkFilterConfig};
    use crate::{Configuration, Finding, LoadInputs, LoadOptions, load, redacted};

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Greeting {
        text: String,
        times: Vec<u32>,
    }

    fn loaded(filter: &str) -> Result<Configuration, Vec<Finding>> {
        let text = format!(
            "static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: a
          route_config: {{}}
          http_filters:
          - name: greeting
            typed_config: {filter}
          - name: router
            typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"
        );
        let mut types = ExtensionTypes::default();
        types.add::<Greeting>(ExtensionKind::HttpFilter, "example.Greeting");
        let options = LoadOptions { extensions: Arc::new(types), ..LoadOptions::default() };
        load(&LoadInputs { file: None, yaml_override: Some(text), options }, &LowerOptions::default())
    }

    fn error(filter: &str) -> String {
        let findings = loaded(filter).unwrap_err();
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings[0].to_string()
    }

    #[test]
    fn settings_are_read_as_their_type_in_either_form() {
        let struct_url = "type.googleapis.com/xds.type.v3.TypedStruct";
        for filter in [
            "{'@type': type.example.com/example.Greeting, text: hello, times: [1, 2]}".to_owned(),
            format!(
                "{{'@type': {struct_url}, type_url: a/example.Greeting, value: {{text: hello, times: [1, 2]}}}}"
            ),
        ] {
            let configuration = loaded(&filter).unwrap();
            let NetworkFilterConfig::HttpConnectionManager(manager) =
                &configuration.settings.listeners[0].chains[0].filters[0].config
            else {
                panic!("{filter}");
            };
            let HttpFilterConfig::Extension(extension) = &manager.filters[0].config else {
                panic!("{filter}");
            };
            let greeting = extension.settings::<Greeting>().unwrap();
            assert_eq!((greeting.text.as_str(), greeting.times.as_slice()), ("hello", &[1, 2][..]));
            let shown = redacted("envoy.config.bootstrap.v3.Bootstrap", &configuration.message).to_string();
            assert!(shown.contains("{\"text\":\"hello\",\"times\":[1,2]}"), "{shown}");
        }
    }

    #[test]
    fn errors_have_their_place() {
        let wrong = error(
            "\n              '@type': type.example.com/example.Greeting\n              text: hello\n              times:\n              - 1\n              - many\n",
        );
        assert!(wrong.contains(":18:17:"), "{wrong}");
        assert!(wrong.contains("typed_config.times[1]") && wrong.contains("expected u32"), "{wrong}");
        let missing = error("{'@type': type.example.com/example.Greeting, text: hello}");
        assert!(missing.contains("missing field `times`"), "{missing}");
        let unknown = error("{'@type': type.example.com/example.Farewell, text: hello}");
        assert!(unknown.contains("unknown type `example.Farewell`"), "{unknown}");
    }
}
