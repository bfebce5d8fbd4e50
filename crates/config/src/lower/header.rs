//! Headers to add and to remove.

use bytes::Bytes;
use envoy_types::pb::envoy::config::common::mutation_rules::v3 as rules_v3;
use envoy_types::pb::envoy::config::core::v3 as core_v3;

use super::{Context, access_log, value};
use crate::settings::{AppendAction, HeaderAddition, HeaderMutations, HeaderValue, Piece};
use crate::{Code, Path};

/// The lists of one level, under the names they have in every message: `request_headers_to_add` and so on.
pub(super) fn request(
    context: &mut Context<'_>,
    path: &Path<'_>,
    add: &[core_v3::HeaderValueOption],
    remove: &[String],
) -> HeaderMutations {
    HeaderMutations {
        add: additions(context, &path.field("request_headers_to_add"), add),
        remove: removals(context, &path.field("request_headers_to_remove"), remove),
    }
}

pub(super) fn response(
    context: &mut Context<'_>,
    path: &Path<'_>,
    add: &[core_v3::HeaderValueOption],
    remove: &[String],
) -> HeaderMutations {
    HeaderMutations {
        add: additions(context, &path.field("response_headers_to_add"), add),
        remove: removals(context, &path.field("response_headers_to_remove"), remove),
    }
}

fn removals(context: &mut Context<'_>, path: &Path<'_>, names: &[String]) -> Vec<Box<str>> {
    let each = names.iter().enumerate();
    each.filter_map(|(index, name)| modifiable(context, &path.index(index), name)).collect()
}

pub(super) fn additions(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[core_v3::HeaderValueOption],
) -> Vec<HeaderAddition> {
    let each = messages.iter().enumerate();
    each.filter_map(|(index, message)| addition(context, &path.index(index), message)).collect()
}

/// `envoy.config.common.mutation_rules.v3.HeaderMutation`s, which are applied one after the other.
pub(super) fn mutations(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[rules_v3::HeaderMutation],
) -> Vec<HeaderMutations> {
    use rules_v3::header_mutation::Action;
    let mut lowered = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let here = path.index(index);
        let mut mutation = HeaderMutations::default();
        match &message.action {
            Some(Action::Remove(name)) => {
                mutation.remove.extend(modifiable(context, &here.field("remove"), name));
            }
            Some(Action::Append(message)) => {
                mutation.add.extend(addition(context, &here.field("append"), message));
            }
            Some(Action::RemoveOnMatch(_)) => {
                context.unsupported(&here.field("remove_on_match"), "removal by matcher");
            }
            None => context.missing(&here, "remove or append is required"),
        }
        lowered.push(mutation);
    }
    lowered
}

pub(super) fn addition(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &core_v3::HeaderValueOption,
) -> Option<HeaderAddition> {
    use core_v3::header_value_option::HeaderAppendAction as Action;
    let here = path.field("header");
    let Some(header) = &message.header else {
        context.missing(&here, "a header is required");
        return None;
    };
    let action_path = path.field("append_action");
    let action = value::enumeration(context, &action_path, message.append_action);
    #[expect(deprecated, reason = "the older spelling is part of the v3 API")]
    let append = message.append.as_ref();
    let action = match (append, action) {
        (None, Action::AppendIfExistsOrAdd) => AppendAction::AppendIfExistsOrAdd,
        (None, Action::AddIfAbsent) => AppendAction::AddIfAbsent,
        (None, Action::OverwriteIfExistsOrAdd) => AppendAction::OverwriteIfExistsOrAdd,
        (None, Action::OverwriteIfExists) => AppendAction::OverwriteIfExists,
        (Some(append), Action::AppendIfExistsOrAdd) if append.value => AppendAction::AppendIfExistsOrAdd,
        (Some(_), Action::AppendIfExistsOrAdd) => AppendAction::OverwriteIfExistsOrAdd,
        (Some(_), _) => {
            context.error(
                &path.field("append"),
                Code::CONFLICT,
                "append and append_action exclude each other",
            );
            AppendAction::AppendIfExistsOrAdd
        }
    };
    let name = modifiable(context, &here.field("key"), &header.key);
    let value = formatted(context, &here.field("value"), &header.value);
    Some(HeaderAddition { name: name?, value: value?, action, keep_empty: message.keep_empty_value })
}

/// A header name in lower case that configuration may add or remove.
pub(super) fn modifiable(context: &mut Context<'_>, path: &Path<'_>, name: &str) -> Option<Box<str>> {
    let lower = name.to_ascii_lowercase();
    if lower.starts_with(':') || lower == "host" {
        context.error(path, Code::BAD_HEADER_NAME, "pseudo-headers and host cannot be changed here");
        return None;
    }
    header_name(context, path, &lower)
}

/// A header name in lower case (RFC 9110, section 5.1); it may be a pseudo-header.
pub(super) fn header_name(context: &mut Context<'_>, path: &Path<'_>, name: &str) -> Option<Box<str>> {
    if !is_header_name(name) {
        context.error(path, Code::BAD_HEADER_NAME, format_args!("{name:?} is no header name"));
        return None;
    }
    Some(name.to_ascii_lowercase().into_boxed_str())
}

/// Whether `name` can be the name of a header, or of a pseudo-header.
pub(super) fn is_header_name(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let plain = name.strip_prefix(':').unwrap_or(name);
    !plain.is_empty() && plain.bytes().all(token)
}

/// A header value that is sent as it is.
pub(super) fn header_value(context: &mut Context<'_>, path: &Path<'_>, text: &str) -> Bytes {
    if text.contains(['\0', '\r', '\n']) {
        context.error(
            path,
            Code::BAD_HEADER_VALUE,
            "a header value has no NUL, carriage return or line feed",
        );
    }
    Bytes::copy_from_slice(text.as_bytes())
}

/// A header value with operators in it.
pub(super) fn formatted(context: &mut Context<'_>, path: &Path<'_>, text: &str) -> Option<HeaderValue> {
    if !text.contains('%') {
        return Some(HeaderValue::Constant(header_value(context, path, text)));
    }
    let format = access_log::compiled(context, path, text)?;
    for piece in &format.pieces {
        if let Piece::Text(text) = piece {
            header_value(context, path, text);
        }
    }
    Some(match &*format.pieces {
        [] => HeaderValue::Constant(Bytes::new()),
        [Piece::Text(text)] => HeaderValue::Constant(Bytes::copy_from_slice(text.as_bytes())),
        _ => HeaderValue::Format(format),
    })
}
