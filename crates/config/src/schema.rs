//! The v3 API as the reader, the rules and the redactor want it: per message a table of fields with
//! everything their options say, compiled from the embedded descriptors when first asked for.

use std::collections::{HashMap, HashSet};
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

use prost_reflect::{
    Cardinality, DescriptorPool, EnumDescriptor, ExtensionDescriptor, FieldDescriptor, Kind,
    MessageDescriptor, Value,
};

use crate::constraint::Constraint;
use crate::supported::{self, Support};

/// A message type. There are as many as the API has; they live as long as the program.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) name: String,
    pub(crate) form: Form,
    /// Ordered by number.
    pub(crate) fields: Vec<Field>,
    by_name: HashMap<String, u16>,
    pub(crate) oneofs: Vec<Oneof>,
    /// Message rules do not apply (`validate.disabled`).
    pub(crate) unchecked: bool,
    pub(crate) support: Option<&'static Support>,
}

/// Messages with a JSON form of their own (proto3 JSON mapping).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Any,
    Duration,
    Timestamp,
    FieldMask,
    Wrapper,
    Struct,
    Value,
    ListValue,
}

#[derive(Debug)]
pub(crate) struct Oneof {
    pub(crate) name: String,
    pub(crate) required: bool,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) json_name: String,
    pub(crate) number: u32,
    pub(crate) shape: Shape,
    pub(crate) kind: FieldKind,
    /// Index into the message's oneofs.
    pub(crate) oneof: Option<u16>,
    /// Unset and default differ.
    pub(crate) presence: bool,
    pub(crate) sensitive: bool,
    pub(crate) deprecated: bool,
    pub(crate) constraint: Option<Constraint>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Single,
    Repeated,
    /// The kind is the entry message with its fields `key` and `value`.
    Map,
}

#[derive(Debug)]
pub(crate) enum FieldKind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(Enum),
    Message(MessageLink),
}

/// The values of an enum as (name, number).
#[derive(Debug)]
pub(crate) struct Enum {
    pub(crate) name: String,
    pub(crate) values: Vec<(String, i32)>,
}

/// A message type that is compiled when first followed: types refer to each other in circles.
#[derive(Debug)]
pub(crate) struct MessageLink {
    descriptor: MessageDescriptor,
    target: OnceLock<&'static Message>,
}

impl MessageLink {
    pub(crate) fn follow(&self) -> &'static Message {
        self.target.get_or_init(|| compiled(&self.descriptor))
    }
}

impl Message {
    /// The field with this proto name or JSON (camelCase) name.
    pub(crate) fn field(&self, name: &str) -> Option<(usize, &Field)> {
        let index = usize::from(*self.by_name.get(name)?);
        Some((index, &self.fields[index]))
    }

    /// The field with this number.
    pub(crate) fn numbered(&self, number: u32) -> Option<(usize, &Field)> {
        // Numbers are mostly dense from 1, which makes the first guess right.
        let guess = (number as usize).wrapping_sub(1);
        if self.fields.get(guess).is_some_and(|field| field.number == number) {
            return Some((guess, &self.fields[guess]));
        }
        let index = self.fields.binary_search_by_key(&number, |field| field.number).ok()?;
        Some((index, &self.fields[index]))
    }
}

impl Enum {
    pub(crate) fn by_number(&self, number: i32) -> Option<&str> {
        self.values.iter().find(|(_, value)| *value == number).map(|(name, _)| name.as_str())
    }
}

/// The message type with this full name, or None if the v3 API has none.
pub(crate) fn message(full_name: &str) -> Option<&'static Message> {
    if let Some(message) = lock_types().get(full_name) {
        return Some(message);
    }
    Some(compiled(&POOL.get_message_by_name(full_name)?))
}

/// The full names of all messages of the v3 API.
pub(crate) fn type_names() -> &'static [String] {
    static NAMES: LazyLock<Vec<String>> =
        LazyLock::new(|| POOL.all_messages().map(|message| message.full_name().to_owned()).collect());
    &NAMES
}

/// Whether some message of the v3 API has a field of this name, in either spelling.
pub(crate) fn is_field_name(word: &str) -> bool {
    static NAMES: LazyLock<HashSet<String>> = LazyLock::new(|| {
        let fields = POOL.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>());
        fields.flat_map(|field| [field.name().to_owned(), field.json_name().to_owned()]).collect()
    });
    NAMES.contains(word)
}

fn compiled(descriptor: &MessageDescriptor) -> &'static Message {
    if let Some(message) = lock_types().get(descriptor.full_name()) {
        return message;
    }
    let message = Box::leak(Box::new(compile(descriptor)));
    lock_types().entry(message.name.clone()).or_insert(message)
}

fn lock_types() -> std::sync::MutexGuard<'static, HashMap<String, &'static Message>> {
    // The map is whole between any two operations on it.
    TYPES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn compile(descriptor: &MessageDescriptor) -> Message {
    let mut fields: Vec<Field> = descriptor.fields().map(|field| compile_field(&field)).collect();
    fields.sort_by_key(|field| field.number);
    let mut by_name = HashMap::with_capacity(fields.len() * 2);
    for (index, field) in fields.iter().enumerate() {
        by_name.insert(field.name.clone(), index as u16);
        by_name.insert(field.json_name.clone(), index as u16);
    }
    let oneofs = descriptor.oneofs().map(|oneof| Oneof {
        name: oneof.name().to_owned(),
        required: flag(&oneof.options(), &EXTENSIONS.oneof_required),
    });
    let options = descriptor.options();
    let name = descriptor.full_name().to_owned();
    Message {
        form: form(&name),
        oneofs: oneofs.collect(),
        unchecked: flag(&options, &EXTENSIONS.disabled) || flag(&options, &EXTENSIONS.ignored),
        support: supported::of(&name),
        fields,
        by_name,
        name,
    }
}

fn compile_field(field: &FieldDescriptor) -> Field {
    let options = field.options();
    let constraint = match EXTENSIONS.rules.as_ref().map(|rules| (options.has_extension(rules), rules)) {
        Some((true, rules)) => Constraint::read(&options.get_extension(rules)),
        _ => None,
    };
    let shape = if field.is_map() {
        Shape::Map
    } else if field.cardinality() == Cardinality::Repeated {
        Shape::Repeated
    } else {
        Shape::Single
    };
    let parent = field.parent_message().clone();
    let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
    let oneof = oneof.and_then(|oneof| parent.oneofs().position(|other| other.name() == oneof.name()));
    Field {
        name: field.name().to_owned(),
        json_name: field.json_name().to_owned(),
        number: field.number(),
        shape,
        kind: compile_kind(&field.kind()),
        oneof: oneof.map(|index| index as u16),
        presence: field.supports_presence(),
        sensitive: flag(&options, &EXTENSIONS.sensitive),
        deprecated: field
            .field_descriptor_proto()
            .options
            .as_ref()
            .is_some_and(|options| options.deprecated()),
        constraint,
    }
}

fn compile_kind(kind: &Kind) -> FieldKind {
    match kind {
        Kind::Double => FieldKind::Double,
        Kind::Float => FieldKind::Float,
        Kind::Int32 => FieldKind::Int32,
        Kind::Int64 => FieldKind::Int64,
        Kind::Uint32 => FieldKind::Uint32,
        Kind::Uint64 => FieldKind::Uint64,
        Kind::Sint32 => FieldKind::Sint32,
        Kind::Sint64 => FieldKind::Sint64,
        Kind::Fixed32 => FieldKind::Fixed32,
        Kind::Fixed64 => FieldKind::Fixed64,
        Kind::Sfixed32 => FieldKind::Sfixed32,
        Kind::Sfixed64 => FieldKind::Sfixed64,
        Kind::Bool => FieldKind::Bool,
        Kind::String => FieldKind::String,
        Kind::Bytes => FieldKind::Bytes,
        Kind::Enum(descriptor) => FieldKind::Enum(compile_enum(descriptor)),
        Kind::Message(descriptor) => {
            FieldKind::Message(MessageLink { descriptor: descriptor.clone(), target: OnceLock::new() })
        }
    }
}

fn compile_enum(descriptor: &EnumDescriptor) -> Enum {
    let values = descriptor.values().map(|value| (value.name().to_owned(), value.number()));
    Enum { name: descriptor.full_name().to_owned(), values: values.collect() }
}

fn form(name: &str) -> Form {
    match name.strip_prefix("google.protobuf.") {
        Some("Any") => Form::Any,
        Some("Duration") => Form::Duration,
        Some("Timestamp") => Form::Timestamp,
        Some("FieldMask") => Form::FieldMask,
        Some("Struct") => Form::Struct,
        Some("Value") => Form::Value,
        Some("ListValue") => Form::ListValue,
        Some(
            "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value"
            | "BoolValue" | "StringValue" | "BytesValue",
        ) => Form::Wrapper,
        _ => Form::Plain,
    }
}

/// The extensions of descriptor options that say something about a message.
struct Extensions {
    rules: Option<ExtensionDescriptor>,
    oneof_required: Option<ExtensionDescriptor>,
    disabled: Option<ExtensionDescriptor>,
    ignored: Option<ExtensionDescriptor>,
    sensitive: Option<ExtensionDescriptor>,
}

fn flag(options: &prost_reflect::DynamicMessage, extension: &Option<ExtensionDescriptor>) -> bool {
    extension.as_ref().is_some_and(|extension| matches!(*options.get_extension(extension), Value::Bool(true)))
}

static EXTENSIONS: LazyLock<Extensions> = LazyLock::new(|| Extensions {
    rules: POOL.get_extension_by_name("validate.rules"),
    oneof_required: POOL.get_extension_by_name("validate.required"),
    disabled: POOL.get_extension_by_name("validate.disabled"),
    ignored: POOL.get_extension_by_name("validate.ignored"),
    sensitive: POOL.get_extension_by_name("udpa.annotations.sensitive"),
});

static TYPES: LazyLock<Mutex<HashMap<String, &'static Message>>> = LazyLock::new(Mutex::default);

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(&include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"))[..])
        .expect("the build writes a complete descriptor set, a test loads it")
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_the_descriptors_survive_the_build() {
        let port = message("envoy.config.core.v3.SocketAddress").unwrap();
        let (_, port) = port.field("portValue").unwrap();
        assert!(port.constraint.is_some());
        let key = message("envoy.extensions.transport_sockets.tls.v3.TlsCertificate").unwrap();
        assert!(key.field("private_key").unwrap().1.sensitive);
        let address = message("envoy.config.core.v3.Address").unwrap();
        assert!(address.oneofs[0].required);
    }

    #[test]
    fn every_message_of_the_api_compiles() {
        let mut count = 0;
        for descriptor in POOL.all_messages() {
            count += usize::from(!compiled(&descriptor).fields.is_empty());
        }
        assert!(count > 1000, "{count}");
    }
}
