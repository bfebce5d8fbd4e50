//! Tree and message type to message: writes protobuf bytes in one pass, goes on after every error and
//! reports each at its node.
//!
//! Accepts what Envoy's JSON reader accepts: both spellings of a field name, enums in any case or by
//! number, numbers as strings, one element in place of a list, wrappers written out.

use std::fmt;

use smallvec::SmallVec;

use crate::codes::Code;
use crate::excerpt::Secret;
use crate::extension::{self, ExtensionTypes};
use crate::finding::{Finding, Findings, Path, Severity};
use crate::forms;
use crate::hint;
use crate::scalar::{self, Scalar};
use crate::schema::{self, Enum, Field, FieldKind, Form, Message, Shape};
use crate::tree::{Kind, Node};
use crate::wire::{WireType, Writer, delimited};

/// Reads `node` as a message of type `message`; what cannot be read is left out and reported.
pub(crate) fn read(
    node: Node<'_>,
    message: &'static Message,
    extensions: &ExtensionTypes,
    findings: &mut Findings,
) -> Vec<u8> {
    let mut reader = Reader { out: Writer::default(), findings, extensions, secret: false };
    if node.kind() == Kind::Null {
        reader.mismatch(node, &Path::root(), format_args!("a mapping ({})", message.name));
    }
    reader.message(node, message, &Path::root());
    reader.out.bytes
}

pub(crate) struct Reader<'f> {
    pub(crate) out: Writer,
    findings: &'f mut Findings,
    extensions: &'f ExtensionTypes,
    /// Inside a sensitive field: no value may be shown.
    secret: bool,
}

impl AsMut<Writer> for Reader<'_> {
    fn as_mut(&mut self) -> &mut Writer {
        &mut self.out
    }
}

impl Reader<'_> {
    /// Writes the fields of `message`, in whatever form the node has.
    pub(crate) fn message(&mut self, node: Node<'_>, message: &'static Message, path: &Path<'_>) {
        match message.form {
            Form::Plain => self.plain(node, message, path, false),
            Form::Any => self.any(node, path),
            _ => forms::read(self, node, message, path),
        }
    }

    /// The fields of a message from a mapping; `typed` if `@type` stands among them.
    pub(crate) fn plain(&mut self, node: Node<'_>, message: &'static Message, path: &Path<'_>, typed: bool) {
        match node.kind() {
            Kind::Mapping => {}
            Kind::Null => return,
            _ => {
                let text = format_args!("expected a mapping ({}), found {}", message.name, node.describe());
                return self.hinted(node, path, Code::TYPE_MISMATCH, text, hint::mapping(message));
            }
        }
        let mut seen: SmallVec<[(usize, Node<'_>); 8]> = SmallVec::new();
        // A field for a message, with nothing in it: what follows may have been meant to be that.
        let mut empty: Option<&'static Field> = None;
        for (key, value) in node.entries() {
            let name = key.text();
            // A key that is no scalar was reported with the tree.
            let scalar = !matches!(key.kind(), Kind::Sequence | Kind::Mapping);
            if !scalar || (typed && name == "@type") {
                continue;
            }
            let Some((index, field)) = message.field(name) else {
                let outside = empty.filter(|empty| empty.may_hold(name));
                self.unknown_field(key, message, path, outside);
                self.hide(value);
                continue;
            };
            empty = (value.kind() == Kind::Null).then_some(field);
            if value.kind() == Kind::Null
                && !matches!(&field.kind, FieldKind::Message(to) if to.follow().form == Form::Value)
            {
                continue;
            }
            let here = path.field(&field.name);
            self.check_repetition(key, index, message, &seen, &here);
            seen.push((index, key));
            let outside = self.secret;
            self.secret |= field.sensitive;
            if self.secret && !outside {
                self.hide(value);
            }
            self.field(value, field, &here);
            self.secret = outside;
        }
    }

    /// `outside`: the field that the key seems to belong into.
    fn unknown_field(
        &mut self,
        key: Node<'_>,
        message: &'static Message,
        path: &Path<'_>,
        outside: Option<&Field>,
    ) {
        let shown: String = key.text().chars().take(MAX_SHOWN).collect();
        if self.secret {
            // Who puts text where a mapping belongs may have written a secret for a name.
            let text = format_args!("{} has no such field", message.name);
            return self.hinted(key, path, Code::UNKNOWN_FIELD, text, hint::field(message, key.text()));
        }
        let text = format_args!("{} has no field `{shown}`", message.name);
        if let Some(outside) = outside {
            let hint = format!("`{}` above is empty: indent what belongs into it", outside.name);
            return self.hinted(key, &path.field(&shown), Code::UNKNOWN_FIELD, text, Some(hint));
        }
        let (code, hint) = match hint::successor(message, key.text()) {
            Some(hint) => (Code::REMOVED_FIELD, Some(hint.to_owned())),
            None => (Code::UNKNOWN_FIELD, hint::field(message, key.text())),
        };
        self.hinted(key, &path.field(&shown), code, text, hint);
    }

    /// The text of this node is not to be shown.
    fn hide(&mut self, node: Node<'_>) {
        let (from, to) = node.span();
        self.findings.hide(Secret { file: node.file().clone(), from, to });
    }

    /// A field under two spellings, or two members of a oneof.
    fn check_repetition(
        &mut self,
        key: Node<'_>,
        index: usize,
        message: &Message,
        seen: &[(usize, Node<'_>)],
        here: &Path<'_>,
    ) {
        let field = &message.fields[index];
        for (other, first) in seen {
            if *other == index && first.text() != key.text() {
                let (first, at) = (first.text(), first.place());
                let message = format_args!(
                    "`{}` and `{first}` (line {}, column {}) are the same field",
                    key.text(),
                    at.line,
                    at.column
                );
                self.error(key, here, Code::CONFLICT, message);
            } else if *other != index && field.oneof.is_some() && message.fields[*other].oneof == field.oneof
            {
                let oneof = field.oneof.map_or("", |oneof| &message.oneofs[usize::from(oneof)].name);
                let (first, at) = (first.text(), first.place());
                let message = format_args!(
                    "`{}` cannot be set beside `{first}` (line {}, column {}): only one `{oneof}` may be given",
                    key.text(),
                    at.line,
                    at.column
                );
                self.error(key, here, Code::CONFLICT, message);
            }
        }
    }

    fn field(&mut self, node: Node<'_>, field: &Field, path: &Path<'_>) {
        match field.shape {
            Shape::Single => self.value(node, field, path),
            Shape::Repeated if node.kind() == Kind::Sequence => {
                for (index, item) in node.children().enumerate() {
                    self.value(item, field, &path.index(index));
                }
            }
            // Envoy's reader takes a single element for a list of one.
            Shape::Repeated => self.value(node, field, &path.index(0)),
            Shape::Map => self.map(node, field, path),
        }
    }

    fn map(&mut self, node: Node<'_>, field: &Field, path: &Path<'_>) {
        let FieldKind::Message(entry) = &field.kind else { return };
        let (Some((_, key_field)), Some((_, value_field))) =
            (entry.follow().numbered(1), entry.follow().numbered(2))
        else {
            return;
        };
        if node.kind() != Kind::Mapping {
            return self.mismatch(node, path, "a mapping");
        }
        for (key, value) in node.entries() {
            let here = path.key(key.text());
            delimited(self, field.number, |reader| {
                match key_field.kind {
                    // A key is text whatever it looks like.
                    FieldKind::String => reader.out.slice(1, key.text().as_bytes()),
                    _ => reader.value(key, key_field, &here),
                }
                reader.value(value, value_field, &here);
            });
        }
    }

    /// One value with its key.
    pub(crate) fn value(&mut self, node: Node<'_>, field: &Field, path: &Path<'_>) {
        let number = field.number;
        match &field.kind {
            FieldKind::Message(to) => {
                delimited(self, number, |reader| reader.message(node, to.follow(), path));
            }
            FieldKind::String => {
                if let Some(text) = self.string(node, path)
                    && (!text.is_empty() || field.written_if_default())
                {
                    self.out.slice(number, text.as_bytes());
                }
            }
            FieldKind::Bytes => {
                let Some(text) = self.string(node, path) else { return };
                match forms::base64(text) {
                    Some(bytes) if bytes.is_empty() && !field.written_if_default() => {}
                    Some(bytes) => self.out.slice(number, &bytes),
                    None => self.error(node, path, Code::BAD_BASE64, "expected bytes in base64"),
                }
            }
            kind => {
                let Some(raw) = self.number(node, kind, path) else { return };
                if raw != 0 || field.written_if_default() {
                    self.out.number(number, kind, raw);
                }
            }
        }
    }

    /// Any numeric kind as the bits that go on the wire.
    fn number(&mut self, node: Node<'_>, kind: &FieldKind, path: &Path<'_>) -> Option<u64> {
        match kind {
            FieldKind::Bool => match Scalar::of(node) {
                Scalar::Bool(value) => Some(u64::from(value)),
                Scalar::Text(text) if let Some(value) = scalar::quoted_boolean(text) => {
                    Some(u64::from(value))
                }
                _ => {
                    self.mismatch(node, path, "true or false");
                    None
                }
            },
            FieldKind::Double => self.float(node, path).map(f64::to_bits),
            FieldKind::Float => {
                let value = self.float(node, path)?;
                let narrow = value as f32;
                if value.is_finite() && !narrow.is_finite() {
                    self.error(node, path, Code::OUT_OF_RANGE, "does not fit a 32-bit float");
                    return None;
                }
                Some(u64::from(narrow.to_bits()))
            }
            FieldKind::Enum(to) => self.enumeration(node, to, path).map(|number| i64::from(number) as u64),
            FieldKind::Int32 | FieldKind::Sfixed32 => {
                self.integer(node, path, i32::MIN.into(), i32::MAX.into())
            }
            FieldKind::Int64 | FieldKind::Sfixed64 => {
                self.integer(node, path, i64::MIN.into(), i64::MAX.into())
            }
            FieldKind::Uint32 | FieldKind::Fixed32 => self.integer(node, path, 0, u32::MAX.into()),
            FieldKind::Uint64 | FieldKind::Fixed64 => self.integer(node, path, 0, u64::MAX.into()),
            FieldKind::Sint32 => self.integer(node, path, i32::MIN.into(), i32::MAX.into()).map(zigzag),
            FieldKind::Sint64 => self.integer(node, path, i64::MIN.into(), i64::MAX.into()).map(zigzag),
            FieldKind::String | FieldKind::Bytes | FieldKind::Message(_) => None,
        }
    }

    /// An integer within bounds, as its two's complement.
    fn integer(&mut self, node: Node<'_>, path: &Path<'_>, least: i128, most: i128) -> Option<u64> {
        let value = match Scalar::of(node) {
            Scalar::Integer(value) => Some(i128::from(value)),
            Scalar::Number(text) => whole(text),
            Scalar::Text(text) if !matches!(node.kind(), Kind::Sequence | Kind::Mapping) => whole(text),
            _ => None,
        };
        match value {
            Some(value) if (least..=most).contains(&value) => Some(value as u64),
            Some(_) if self.secret => {
                self.error(
                    node,
                    path,
                    Code::OUT_OF_RANGE,
                    format_args!("must lie between {least} and {most}"),
                );
                None
            }
            Some(value) => {
                let message = format_args!("must lie between {least} and {most}, is {value}");
                self.error(node, path, Code::OUT_OF_RANGE, message);
                None
            }
            None => {
                self.mismatch(node, path, "a whole number");
                None
            }
        }
    }

    fn float(&mut self, node: Node<'_>, path: &Path<'_>) -> Option<f64> {
        let value = match Scalar::of(node) {
            Scalar::Integer(value) => Some(value as f64),
            Scalar::Number(text) => scalar::number(text),
            Scalar::Text("NaN") => Some(f64::NAN),
            Scalar::Text("Infinity") => Some(f64::INFINITY),
            Scalar::Text("-Infinity") => Some(f64::NEG_INFINITY),
            Scalar::Text(text) => scalar::number(text),
            Scalar::Bool(_) => None,
        };
        if value.is_none() {
            self.mismatch(node, path, "a number");
        }
        value
    }

    fn enumeration(&mut self, node: Node<'_>, to: &Enum, path: &Path<'_>) -> Option<i32> {
        let text = match node.kind() {
            Kind::Plain | Kind::Quoted => node.text(),
            _ => {
                self.mismatch(node, path, format_args!("a value of {}", to.name));
                return None;
            }
        };
        if let Some((_, number)) = to.values.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
            return Some(*number);
        }
        if text.parse::<i128>().is_ok() || matches!(Scalar::of(node), Scalar::Integer(_)) {
            return self.integer(node, path, i32::MIN.into(), i32::MAX.into()).map(|number| number as i32);
        }
        if self.secret {
            self.error(node, path, Code::UNKNOWN_ENUM_VALUE, format_args!("not a value of {}", to.name));
        } else {
            let shown: String = text.chars().take(MAX_SHOWN).collect();
            let known: Vec<&str> = to.values.iter().take(20).map(|(name, _)| name.as_str()).collect();
            let message = format_args!("{} has no value `{shown}`, it has {}", to.name, known.join(", "));
            let names = || to.values.iter().map(|(name, _)| name.as_str());
            let hint = hint::synonym(text, names()).or_else(|| hint::closest(text, names()));
            let hint = hint.map(|name| format!("did you mean `{name}`?"));
            self.hinted(node, path, Code::UNKNOWN_ENUM_VALUE, message, hint);
        }
        None
    }

    /// A string. In YAML, what is neither boolean nor small integer is one without quotes, as in Envoy.
    pub(crate) fn string<'t>(&mut self, node: Node<'t>, path: &Path<'_>) -> Option<&'t str> {
        match (node.kind(), Scalar::of(node)) {
            (Kind::Quoted, _) => Some(node.text()),
            (Kind::Plain, Scalar::Text(text)) => Some(text),
            (Kind::Plain, Scalar::Number(text)) if node.is_yaml() => Some(text),
            (Kind::Plain, Scalar::Integer(value)) if node.is_yaml() && i32::try_from(value).is_err() => {
                Some(node.text())
            }
            (Kind::Plain, _) => {
                let message = format_args!("expected a string, found {}: put it in quotes", node.describe());
                let hint = (!self.secret).then(|| format!("write \"{}\"", node.text()));
                self.hinted(node, path, Code::NEEDS_QUOTES, message, hint);
                None
            }
            _ => {
                self.mismatch(node, path, "a string");
                None
            }
        }
    }

    /// `google.protobuf.Any`: a mapping with `@type` and the fields of that type.
    fn any(&mut self, node: Node<'_>, path: &Path<'_>) {
        match node.kind() {
            Kind::Mapping => {}
            Kind::Null => return,
            _ => return self.mismatch(node, path, "a mapping with `@type`"),
        }
        let Some((_, url)) = node.entries().find(|(key, _)| key.text() == "@type") else {
            if node.entries().next().is_some() {
                let keys: Vec<&str> = node.entries().map(|(key, _)| key.text()).collect();
                let hint = hint::type_of_fields(keys.into_iter());
                let hint = hint.unwrap_or_else(|| {
                    "add \"@type\": type.googleapis.com/NAME, with the full name of its message".to_owned()
                });
                let text = "`@type` is missing: what type the other fields belong to";
                self.hinted(node, path, Code::MISSING_TYPE, text, Some(hint));
            }
            return;
        };
        if extension::is_typed_struct(url.text()) {
            return self.typed_struct(node, path);
        }
        if self.extensions.knows(extension::name_of(url.text())) {
            return self.extension(url.text(), |reader| forms::structure(reader, node, path, true));
        }
        let Some((url_text, message)) = self.type_of(url, &path.field("@type")) else { return };
        self.out.slice(1, url_text.as_bytes());
        delimited(self, 2, |reader| match message.form {
            Form::Plain => reader.plain(node, message, path, true),
            // A type with a JSON form of its own lies under `value`.
            _ => {
                for (key, value) in node.entries() {
                    match key.text() {
                        "value" => reader.message(value, message, &path.field("value")),
                        "@type" => {}
                        _ => reader.hinted(
                            key,
                            &path.field(key.text()),
                            Code::UNKNOWN_FIELD,
                            format_args!("{} stands under `value` here", message.name),
                            None,
                        ),
                    }
                }
            }
        });
    }

    /// The message type that a type URL names.
    fn type_of<'t>(&mut self, url: Node<'t>, path: &Path<'_>) -> Option<(&'t str, &'static Message)> {
        let text = self.string(url, path)?;
        let Some((_, name)) = text.rsplit_once('/').filter(|(host, _)| !host.is_empty()) else {
            let message = "a type URL has the form type.googleapis.com/NAME";
            let named = schema::message(text);
            let hint = named.map(|_| format!("write type.googleapis.com/{text}"));
            self.hinted(url, path, Code::BAD_TYPE_URL, message, hint);
            // What stands beside it can be looked at all the same.
            return named.map(|message| (text, message));
        };
        let found = schema::message(name);
        if found.is_none() {
            let shown: String = name.chars().take(200).collect();
            let v2 = ["envoy.api.v2.", "envoy.config.filter."].iter().any(|old| name.starts_with(old))
                || name.contains(".v2.")
                || name.contains(".v2alpha");
            let why = if v2 { ": it is of the v2 API, which Envoy has removed" } else { "" };
            let code = if v2 { Code::REMOVED_TYPE } else { Code::UNKNOWN_TYPE };
            let hint = hint::type_name(&shown);
            self.hinted(url, path, code, format_args!("unknown type `{shown}`{why}"), hint);
        }
        Some((text, found?))
    }

    /// A TypedStruct in an Any stands for the type it names, as Envoy's extension factories take it. Its
    /// own type is not among the API's descriptors.
    fn typed_struct(&mut self, node: Node<'_>, path: &Path<'_>) {
        let (mut url, mut value) = (None, None);
        for (key, node) in node.entries() {
            match key.text() {
                "@type" => {}
                "type_url" | "typeUrl" => url = Some(node),
                "value" => value = Some(node),
                _ => {
                    let text = format_args!("a TypedStruct has no field `{}`", key.text());
                    let hint = Some("it has type_url and value".to_owned());
                    self.hinted(key, &path.field(key.text()), Code::UNKNOWN_FIELD, text, hint);
                }
            }
        }
        let Some(url) = url else {
            return self.error(node, path, Code::MISSING_TYPE, "`type_url` is missing");
        };
        if self.extensions.knows(extension::name_of(url.text())) {
            return self.extension(url.text(), |reader| {
                if let Some(value) = value {
                    forms::structure(reader, value, &path.field("value"), false);
                }
            });
        }
        let Some((text, inner)) = self.type_of(url, &path.field("type_url")) else { return };
        self.out.slice(1, text.as_bytes());
        if let Some(value) = value {
            delimited(self, 2, |reader| reader.message(value, inner, &path.field("value")));
        }
    }

    /// An Any with settings of a type that is not Envoy's.
    fn extension(&mut self, url: &str, fields: impl FnOnce(&mut Self)) {
        self.out.slice(1, extension::TYPED_STRUCT.as_bytes());
        delimited(self, 2, |reader| {
            reader.out.slice(1, url.as_bytes());
            delimited(reader, 2, fields);
        });
    }

    pub(crate) fn mismatch(&mut self, node: Node<'_>, path: &Path<'_>, expected: impl fmt::Display) {
        let message = format_args!("expected {expected}, found {}", node.describe());
        self.error(node, path, Code::TYPE_MISMATCH, message);
    }

    pub(crate) fn error(&mut self, node: Node<'_>, path: &Path<'_>, code: Code, message: impl fmt::Display) {
        self.hinted(node, path, code, message, None);
    }

    /// An error with what to write instead.
    pub(crate) fn hinted(
        &mut self,
        node: Node<'_>,
        path: &Path<'_>,
        code: Code,
        message: impl fmt::Display,
        hint: Option<String>,
    ) {
        let place = Some(node.place());
        let plain = Finding::new(Severity::Error, code, path.to_string(), place, message.to_string());
        self.findings.push(Finding { hint, ..plain });
    }
}

impl Field {
    /// Whether it takes a mapping that may have this key.
    fn may_hold(&self, key: &str) -> bool {
        match &self.kind {
            FieldKind::Message(to) if self.shape != Shape::Map => {
                let message = to.follow();
                message.form == Form::Any || message.field(key).is_some()
            }
            _ => false,
        }
    }

    /// Whether a default value must be written: where unset means something else, and in lists.
    fn written_if_default(&self) -> bool {
        self.presence || self.shape != Shape::Single
    }
}

impl Writer {
    /// A number of any kind from its bits.
    pub(crate) fn number(&mut self, number: u32, kind: &FieldKind, raw: u64) {
        let wire_type = kind.numeric().unwrap_or(WireType::Varint);
        self.key(number, wire_type);
        match wire_type {
            WireType::Fixed64 => self.bytes.extend_from_slice(&raw.to_le_bytes()),
            WireType::Fixed32 => self.bytes.extend_from_slice(&(raw as u32).to_le_bytes()),
            _ => self.varint(raw),
        }
    }
}

fn zigzag(raw: u64) -> u64 {
    let value = raw as i64;
    ((value << 1) ^ (value >> 63)) as u64
}

/// A whole number in text, also written as `1.0`, `1e3` or `0x10`.
fn whole(text: &str) -> Option<i128> {
    if let Ok(value) = text.parse::<i128>() {
        return Some(value);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        return plain.then(|| u64::from_str_radix(digits, 16).ok().map(i128::from))?;
    }
    let value = scalar::number(text)?;
    (value.fract() == 0.0 && value.abs() < 1e19).then_some(value as i128)
}

/// Characters of a name or value shown in a message.
const MAX_SHOWN: usize = 60;
