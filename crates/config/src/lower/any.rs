//! Typed configs: what an `Any` holds, by its type URL.

use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};

use super::Context;
use crate::extension::{self, TypedStruct};
use crate::{Code, Extension, ExtensionKind, Path};

/// The full name of the message in `any`.
pub(super) fn type_name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

pub(super) fn holds<M: Name>(any: &Any) -> bool {
    let name = type_name(any);
    name.strip_suffix(M::NAME)
        .and_then(|rest| rest.strip_suffix('.'))
        .is_some_and(|package| package == M::PACKAGE)
}

/// The message in `any`, which is one of this type.
pub(super) fn decode<M: Message + Default>(
    context: &mut Context<'_>,
    path: &Path<'_>,
    any: &Any,
) -> Option<M> {
    match M::decode(any.value.as_slice()) {
        Ok(message) => Some(message),
        Err(error) => {
            let name = type_name(any);
            context.error(path, Code::SYNTAX, format_args!("this is no encoded {name}: {error}"));
            None
        }
    }
}

/// The settings in `any`, if they are of a type that the program added to Envoy's for this kind of filter. `Some(None)`: of
/// such a type, but wrong.
pub(super) fn extension(
    context: &mut Context<'_>,
    path: &Path<'_>,
    any: &Any,
    kind: ExtensionKind,
) -> Option<Option<Extension>> {
    if !extension::is_typed_struct(&any.type_url) {
        return None;
    }
    let settings = TypedStruct::decode(any.value.as_slice()).ok()?;
    let extensions = std::sync::Arc::clone(&context.options.extensions);
    let name = extension::name_of(&settings.type_url);
    extensions.read(kind, name, &settings.json(), path, |path, message| {
        context.error(path, Code::INVALID, message);
    })
}
