//! `buffer`.

use envoy_types::pb::envoy::extensions::filters::http::buffer::v3 as buffer_v3;

use crate::Path;
use crate::lower::Context;
use crate::settings::{Buffer, BufferPerRoute};

pub(super) fn lower(context: &mut Context<'_>, path: &Path<'_>, message: &buffer_v3::Buffer) -> Buffer {
    let limit = message.max_request_bytes.as_ref().map_or(0, |limit| limit.value);
    if limit == 0 {
        context.missing(&path.field("max_request_bytes"), "a limit greater than 0 is required");
    }
    Buffer { max_request_bytes: limit }
}

pub(super) fn lower_route(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &buffer_v3::BufferPerRoute,
) -> Option<BufferPerRoute> {
    use buffer_v3::buffer_per_route::Override;
    match &message.r#override {
        // Envoy's rule on `disabled` is that it is true if set.
        Some(Override::Disabled(_)) => Some(BufferPerRoute::Disabled),
        Some(Override::Buffer(message)) => {
            Some(BufferPerRoute::Buffer(lower(context, &path.field("buffer"), message)))
        }
        None => {
            context.missing(path, "disabled or buffer is required");
            None
        }
    }
}
