//! Walks a message, wherever it came from, and holds it against the API's message rules and against the
//! table of what is supported; also inside every `Any`.

use envoy_types::pb::envoy::config::cluster::v3::load_balancing_policy::Policy;
use prost::Message as _;

use crate::LoadOptions;
use crate::codes::Code;
use crate::constraint::{Constraint, Rule};
use crate::extension::{self, TypedStruct};
use crate::finding::{Findings, Path, Severity};
use crate::hint;
use crate::rules::{self, Shown};
use crate::schema::{self, Field, FieldKind, Form, Message, Shape};
use crate::supported::FieldSupport;
use crate::tree::MAX_DEPTH;
use crate::wire::{Value, View};

/// Reports every broken rule and every unsupported field of the message in `bytes`.
pub(crate) fn check(
    message: &'static Message,
    bytes: &[u8],
    path: &Path<'_>,
    options: &LoadOptions,
    findings: &mut Findings,
) {
    let unsupported = if options.allow_unsupported { Severity::Warning } else { Severity::Error };
    let mut checker = Checker { findings, options, unsupported, depth: 0, secret: false };
    checker.message(message, bytes, path, true);
}

struct Checker<'f> {
    findings: &'f mut Findings,
    options: &'f LoadOptions,
    unsupported: Severity,
    depth: usize,
    /// Inside a sensitive field: no value may be shown.
    secret: bool,
}

impl Checker<'_> {
    /// `wanted`: still inside what is supported; below an unsupported field only the rules matter.
    fn message(&mut self, message: &'static Message, bytes: &[u8], path: &Path<'_>, wanted: bool) {
        if self.depth >= MAX_DEPTH {
            let text = format_args!("nested more than {MAX_DEPTH} levels deep");
            return self.findings.error(path, Code::SYNTAX, text);
        }
        let Ok(view) = View::read(message, bytes) else {
            let text = format_args!("not a valid protobuf message {}", message.name);
            return self.findings.error(path, Code::SYNTAX, text);
        };
        for number in &view.unknown {
            let text = format_args!("{} has no field number {number}", message.name);
            self.findings.error(path, Code::UNKNOWN_FIELD, text);
        }
        self.depth += 1;
        match message.form {
            Form::Plain => self.fields(message, &view, path, wanted),
            Form::Any => self.any(&view, path, wanted),
            _ => {}
        }
        self.depth -= 1;
    }

    fn fields(&mut self, message: &'static Message, view: &View<'_>, path: &Path<'_>, wanted: bool) {
        let mut rest = view.values.as_slice();
        for (index, field) in message.fields.iter().enumerate() {
            let count = rest.iter().take_while(|(set, _)| *set == index).count();
            if count == 0 && field.constraint.is_none() {
                continue;
            }
            let (values, after) = rest.split_at(count);
            rest = after;
            let here = path.field(&field.name);
            let outside = self.secret;
            self.secret |= field.sensitive;
            let supported = count == 0 || !wanted || self.supported(message, field, values, &here);
            // What is refused anyway need not be replaced.
            if field.deprecated && count > 0 && wanted && supported && self.options.lint.is_some() {
                let instead = hint::replacement(message, &field.name);
                let instead = instead.map_or(String::new(), |instead| format!(": use {instead}"));
                let text = format_args!("`{}` of {} is deprecated{instead}", field.name, message.name);
                self.findings.add_at_key(Severity::Warning, &here, Code::DEPRECATED, text);
            }
            let constraint = field.constraint.as_ref().filter(|_| !message.unchecked);
            match field.shape {
                Shape::Single => {
                    let value = values.last().map(|(_, value)| value);
                    self.single(field, value, constraint, &here, wanted && supported);
                }
                Shape::Repeated => self.repeated(field, values, constraint, &here, wanted && supported),
                Shape::Map => self.map(field, values, constraint, &here, wanted && supported),
            }
            self.secret = outside;
        }
        if !message.unchecked {
            self.required_oneofs(message, view, path);
        }
    }

    fn required_oneofs(&mut self, message: &Message, view: &View<'_>, path: &Path<'_>) {
        for (index, oneof) in message.oneofs.iter().enumerate().filter(|(_, oneof)| oneof.required) {
            let member = |field: &Field| field.oneof == Some(index as u16);
            let set = view.values.iter().any(|(set, _)| member(&message.fields[*set]));
            if set || self.findings.explains(path) {
                continue;
            }
            let fields = message.fields.iter().filter(|field| member(field));
            let names: Vec<&str> = fields.take(12).map(|field| field.name.as_str()).collect();
            let text = format_args!("`{}` is required: give one of {}", oneof.name, names.join(", "));
            self.findings.error(path, Code::REQUIRED, text);
        }
    }

    /// Reports a field or value that is not in the table.
    fn supported(
        &mut self,
        message: &Message,
        field: &Field,
        values: &[(usize, Value<'_>)],
        path: &Path<'_>,
    ) -> bool {
        let support = message.support.map_or(FieldSupport::No, |support| support.field(&field.name));
        match support {
            FieldSupport::Yes => true,
            FieldSupport::No => {
                let text = format_args!(
                    "field `{}` of {} is valid in Envoy's v3 API but not implemented by proxyd yet",
                    field.name, message.name
                );
                self.findings.add_at_key(self.unsupported, path, Code::UNSUPPORTED_FIELD, text);
                false
            }
            FieldSupport::Values(known) => {
                let FieldKind::Enum(kind) = &field.kind else { return true };
                for (_, value) in values {
                    let name = kind.by_number(value.integer(&field.kind) as i32).unwrap_or_default();
                    if !name.is_empty() && !known.contains(&name) {
                        let text = format_args!(
                            "value {name} of `{}` is valid in Envoy's v3 API but not implemented by proxyd yet",
                            field.name
                        );
                        self.findings.add(self.unsupported, path, Code::UNSUPPORTED_VALUE, text);
                    }
                }
                true
            }
        }
    }

    fn single(
        &mut self,
        field: &Field,
        value: Option<&Value<'_>>,
        constraint: Option<&Constraint>,
        path: &Path<'_>,
        wanted: bool,
    ) {
        match (value, constraint) {
            // Rules on a member of a oneof apply once it is set.
            (None, _) if field.oneof.is_some() => return,
            (None, Some(constraint)) if constraint.required => {
                return self.broken(path, Code::REQUIRED, format!("`{}` is required", field.name));
            }
            (None, _) if field.presence => return,
            _ => {}
        }
        self.value(field, value, constraint, path, wanted);
    }

    fn value(
        &mut self,
        field: &Field,
        value: Option<&Value<'_>>,
        constraint: Option<&Constraint>,
        path: &Path<'_>,
        wanted: bool,
    ) {
        if let Some(constraint) = constraint
            && let Some(problem) = rules::broken(
                &field.kind,
                value,
                constraint,
                Shown { name: &field.name, secret: self.secret },
            )
        {
            self.broken(path, Code::RULE, problem);
        }
        if let (FieldKind::Message(to), Some(value)) = (&field.kind, value) {
            let skip = constraint.is_some_and(|constraint| constraint.skip);
            if !skip || wanted {
                self.message(to.follow(), value.bytes(), path, wanted);
            }
        }
    }

    fn repeated(
        &mut self,
        field: &Field,
        values: &[(usize, Value<'_>)],
        constraint: Option<&Constraint>,
        path: &Path<'_>,
        wanted: bool,
    ) {
        let mut items = None;
        if let Some(Constraint {
            rule: Rule::Repeated { min, max, unique, items: each }, ignore_empty, ..
        }) = constraint
        {
            items = each.as_deref();
            if !(values.is_empty() && *ignore_empty) {
                self.count(field, values.len() as u64, *min, *max, path);
            }
            if *unique {
                self.unique(field, values, path);
            }
        }
        let one_is_enough =
            wanted && holds_alternatives(field) && values.iter().any(|(_, value)| is_known(value));
        for (index, (_, value)) in values.iter().enumerate() {
            let wanted = wanted && (!one_is_enough || is_known(value));
            self.value(field, Some(value), items, &path.index(index), wanted);
        }
    }

    fn unique(&mut self, field: &Field, values: &[(usize, Value<'_>)], path: &Path<'_>) {
        let mut seen = std::collections::HashSet::new();
        for (index, (_, value)) in values.iter().enumerate() {
            if !seen.insert((value.number(), value.bytes())) {
                let text = format!("`{}` must not hold the same value twice", field.name);
                self.broken(&path.index(index), Code::RULE, text);
            }
        }
    }

    fn map(
        &mut self,
        field: &Field,
        values: &[(usize, Value<'_>)],
        constraint: Option<&Constraint>,
        path: &Path<'_>,
        wanted: bool,
    ) {
        let FieldKind::Message(entry) = &field.kind else { return };
        let entry = entry.follow();
        let (Some((_, key_field)), Some((_, value_field))) = (entry.numbered(1), entry.numbered(2)) else {
            return;
        };
        let (mut key_rules, mut value_rules) = (None, None);
        if let Some(Constraint { rule: Rule::Map { min, max, keys, values: each }, ignore_empty, .. }) =
            constraint
        {
            (key_rules, value_rules) = (keys.as_deref(), each.as_deref());
            if !(values.is_empty() && *ignore_empty) {
                self.count(field, values.len() as u64, *min, *max, path);
            }
        }
        for (_, bytes) in values {
            let Ok(pair) = View::read(entry, bytes.bytes()) else {
                let text = format!("not a valid protobuf message {}", entry.name);
                self.findings.error(path, Code::SYNTAX, text);
                continue;
            };
            let of = |index| pair.values.iter().find(|(set, _)| *set == index).map(|(_, value)| value);
            let key = match of(0) {
                Some(Value::Bytes(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
                Some(number) => number.integer(&key_field.kind).to_string(),
                None => String::new(),
            };
            let here = path.key(&key);
            self.value(key_field, of(0), key_rules, &here, false);
            self.value(value_field, of(1), value_rules, &here, wanted);
        }
    }

    fn count(&mut self, field: &Field, count: u64, min: Option<u64>, max: Option<u64>, path: &Path<'_>) {
        if let Some(min) = min.filter(|min| count < *min) {
            let text = match (min, count) {
                (1, _) => format!("`{}` must not be empty", field.name),
                _ => format!("`{}` must hold at least {min} items, holds {count}", field.name),
            };
            self.broken(path, if count == 0 { Code::REQUIRED } else { Code::RULE }, text);
        }
        if let Some(max) = max.filter(|max| count > *max) {
            let text = format!("`{}` must hold at most {max} items, holds {count}", field.name);
            self.broken(path, Code::RULE, text);
        }
    }

    /// The message inside an `Any`, whose fields stand beside `@type`.
    fn any(&mut self, view: &View<'_>, path: &Path<'_>, wanted: bool) {
        let of = |index| {
            view.values.iter().find(|(set, _)| *set == index).map_or(&[][..], |(_, value)| value.bytes())
        };
        let url = String::from_utf8_lossy(of(0));
        if url.is_empty() {
            return;
        }
        // What its type says of it is found out when it is lowered.
        if extension::is_typed_struct(&url)
            && let Ok(settings) = TypedStruct::decode(of(1))
            && self.options.extensions.knows(extension::name_of(&settings.type_url))
        {
            return;
        }
        let name = extension::name_of(&url);
        let at = path.field("@type");
        let Some(message) = schema::message(name) else {
            let shown: String = name.chars().take(200).collect();
            return self.findings.error(&at, Code::UNKNOWN_TYPE, format_args!("unknown type `{shown}`"));
        };
        let mut wanted = wanted;
        if wanted && message.support.is_none() {
            let text =
                format_args!("type {name} is valid in Envoy's v3 API but not implemented by proxyd yet");
            self.findings.add(self.unsupported, &at, Code::UNSUPPORTED_TYPE, text);
            wanted = false;
        }
        match message.form {
            Form::Plain => self.message(message, of(1), path, wanted),
            _ => self.message(message, of(1), &path.field("value"), wanted),
        }
    }

    /// A broken rule, unless it only follows from an error already reported there.
    fn broken(&mut self, path: &Path<'_>, code: Code, text: String) {
        if !self.findings.explains(path) {
            self.findings.error(path, code, text);
        }
    }
}

/// Whether this is a list of which the first entry of a known type counts. Envoy has one such,
/// `load_balancing_policy.policies`, for files that several versions read.
fn holds_alternatives(field: &Field) -> bool {
    let FieldKind::Message(message) = &field.kind else { return false };
    message.follow().name == "envoy.config.cluster.v3.LoadBalancingPolicy.Policy"
}

/// Whether the type of an alternative is supported.
fn is_known(alternative: &Value<'_>) -> bool {
    let config = Policy::decode(alternative.bytes()).ok().and_then(|policy| policy.typed_extension_config);
    let url = config.and_then(|config| config.typed_config).unwrap_or_default().type_url;
    let message = schema::message(url.rsplit('/').next().unwrap_or_default());
    message.is_some_and(|message| message.support.is_some())
}
