//! `local_reply_config` of connection managers.

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core_v3;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as manager_v3;

use super::{Context, access_log, data_source, header, log_filter, value};
use crate::Path;
use crate::settings::{BodyFormat, HeaderMutations, LineKind, LocalReplyConfig, ReplyMapper};

/// A mapper or format that cannot be lowered is left out; its error is told.
pub(super) fn lower(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &manager_v3::LocalReplyConfig,
) -> LocalReplyConfig {
    let mappers = path.field("mappers");
    let each = message.mappers.iter().enumerate();
    LocalReplyConfig {
        mappers: each
            .filter_map(|(index, message)| mapper(context, &mappers.index(index), message))
            .collect(),
        body_format: body_format(context, &path.field("body_format"), message.body_format.as_ref()),
    }
}

fn mapper(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &manager_v3::ResponseMapper,
) -> Option<ReplyMapper> {
    let here = path.field("filter");
    let Some(filter) = &message.filter else {
        context.missing(&here, "a filter is required");
        return None;
    };
    let filter = log_filter::lower(context, &here, filter);
    let status = message.status_code.map(|_| {
        value::number(context, &path.field("status_code"), message.status_code.as_ref(), 200..=599, 200)
            as u16
    });
    let body = message
        .body
        .as_ref()
        .and_then(|body| data_source::bytes(context, &path.field("body"), body, MAX_BODY));
    let format = message.body_format_override.as_ref();
    let body_format = body_format(context, &path.field("body_format_override"), format);
    let add = header::additions(context, &path.field("headers_to_add"), &message.headers_to_add);
    Some(ReplyMapper {
        filter: filter?,
        status,
        body,
        body_format,
        headers: HeaderMutations { add, remove: Vec::new() },
    })
}

fn body_format(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&core_v3::SubstitutionFormatString>,
) -> Option<BodyFormat> {
    let message = message?;
    let format = access_log::substitution(context, path, message)?;
    let content_type = match (message.content_type.as_str(), &format.kind) {
        ("", LineKind::Text(_)) => Bytes::from_static(b"text/plain"),
        ("", LineKind::Json(_)) => Bytes::from_static(b"application/json"),
        (content_type, _) => header::header_value(context, &path.field("content_type"), content_type),
    };
    Some(BodyFormat { format, content_type })
}

/// As much as any answer of a route's own may have unless that is configured.
const MAX_BODY: data_source::Limit =
    data_source::Limit { bytes: 1 << 20, what: "the limit for bodies of local replies" };
