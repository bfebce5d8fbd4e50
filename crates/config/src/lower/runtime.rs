//! `layered_runtime`: static layers, flattened into keys. A key that nothing here goes by is refused, as any setting is that
//! would have no effect.

use std::collections::{BTreeMap, HashMap};

use envoy_types::pb::envoy::config::bootstrap::v3 as bootstrap_v3;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};

use super::Context;
use crate::settings::{Fraction, Runtime, RuntimeValue};
use crate::{Code, Path};

/// Keys, and the last layer that has each.
pub(super) type Places = BTreeMap<String, usize>;

pub(super) fn lower(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &bootstrap_v3::LayeredRuntime,
) -> (Runtime, Places) {
    use bootstrap_v3::runtime_layer::LayerSpecifier;
    let mut runtime = Runtime { layers: message.layers.len(), ..Runtime::default() };
    let mut places = Places::new();
    let mut names = HashMap::with_capacity(message.layers.len());
    let here = path.field("layers");
    for (index, layer) in message.layers.iter().enumerate() {
        let here = here.index(index);
        if let Some(other) = names.insert(layer.name.as_str(), index) {
            let message = format_args!("layers[{other}] is named {:?} as well", layer.name);
            context.error(&here.field("name"), Code::DUPLICATE_NAME, message);
        }
        match &layer.layer_specifier {
            Some(LayerSpecifier::StaticLayer(message)) => {
                let mut values = HashMap::new();
                add(context, &here.field("static_layer"), "", message, &mut values);
                places.extend(values.keys().map(|key| (key.clone(), index)));
                runtime.values.extend(values);
            }
            Some(_) => context.refused_type(&here, "only a static_layer is supported"),
            None => context.missing(&here, "a static_layer is required"),
        }
    }
    (runtime, places)
}

/// As deep as messages nest, which their decoder limits.
fn add(
    context: &mut Context<'_>,
    path: &Path<'_>,
    prefix: &str,
    message: &Struct,
    values: &mut HashMap<String, RuntimeValue>,
) {
    for (name, message) in &message.fields {
        let here = path.key(name);
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match &message.kind {
            Some(Kind::BoolValue(flag)) => drop(values.insert(key, RuntimeValue::Bool(*flag))),
            Some(Kind::NumberValue(number)) => drop(values.insert(key, RuntimeValue::Number(*number))),
            Some(Kind::StringValue(text)) => drop(values.insert(key, of_text(text))),
            Some(Kind::StructValue(message)) => match fraction(message) {
                Some(fraction) => drop(values.insert(key, fraction)),
                None => add(context, &here, &key, message, values),
            },
            _ => {
                context.error(&here, Code::INVALID, "a number, a text, true, false or a fraction is expected")
            }
        }
    }
}

fn of_text(text: &str) -> RuntimeValue {
    match text.trim() {
        "true" => RuntimeValue::Bool(true),
        "false" => RuntimeValue::Bool(false),
        text => text.parse().map_or(RuntimeValue::Text, RuntimeValue::Number),
    }
}

/// A `FractionalPercent`, if it looks like one.
fn fraction(message: &Struct) -> Option<RuntimeValue> {
    if !message.fields.contains_key("numerator") && !message.fields.contains_key("denominator") {
        return None;
    }
    let kind = |name: &str| message.fields.get(name).and_then(|Value { kind }| kind.as_ref());
    let numerator = match kind("numerator") {
        Some(Kind::NumberValue(number)) => *number as u32,
        _ => 0,
    };
    let denominator = match kind("denominator") {
        Some(Kind::StringValue(text)) if text.eq_ignore_ascii_case("TEN_THOUSAND") => 10_000,
        Some(Kind::StringValue(text)) if text.eq_ignore_ascii_case("MILLION") => 1_000_000,
        _ => 100,
    };
    Some(RuntimeValue::Fraction(Fraction { numerator, denominator }))
}

impl Context<'_> {
    /// The value of a runtime key, if a layer has one; from now on something goes by it.
    pub(super) fn runtime(&mut self, key: &str) -> Option<RuntimeValue> {
        let value = *self.runtime.values.get(key).filter(|_| !key.is_empty())?;
        self.runtime_used.insert(key.to_owned());
        Some(value)
    }

    /// Refuses the keys that nothing has asked for, or leaves them out where the operator said so.
    pub(super) fn check_runtime(&mut self, path: &Path<'_>, places: &Places) {
        let here = path.field("layers");
        for (key, layer) in places.iter().filter(|(key, _)| !self.runtime_used.contains(*key)) {
            let layer = here.index(*layer);
            let layer = layer.field("static_layer");
            let message = format_args!("nothing goes by the runtime key {key:?}");
            if self.options.allow_unsupported {
                self.findings.warning(&layer.key(key), Code::UNSUPPORTED_VALUE, message);
            } else {
                self.failed = true;
                self.findings.error(&layer.key(key), Code::UNSUPPORTED_VALUE, message);
            }
        }
    }
}
