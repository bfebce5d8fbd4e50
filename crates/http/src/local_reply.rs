//! How an answer of the proxy's own is put into words: what `local_reply_config` makes of it, and the form in which gRPC clients
//! are told. Done once, after the route's header mutations and before any filter sees the response.

use proxy_config::settings::{BodyFormat, LineKind, LocalReplyConfig};
use proxy_net::buffer::Chunk;

use crate::access_log::{FormatContext, passes, write_line};
use crate::body::Body;
use crate::h1::write::set_content_length;
use crate::message::{LocalAnswer, Request, Response};
use crate::mutation::{ContextSource, mutate_response};
use crate::name::HeaderId;
use crate::reply::{grpc_status_of, percent_encode};
use crate::stream::StreamInfo;

/// Completes `response` if it is the proxy's own and not complete. `request` is what it answers, as far as that is known.
pub fn complete(
    response: &mut Response,
    config: Option<&LocalReplyConfig>,
    stream: &StreamInfo,
    request: Option<&Request>,
    source: ContextSource<'_>,
) {
    let Some(local) = response.local.take() else { return };
    let Rewritten { format, retyped } =
        config.map(|config| rewrite(response, config, stream, request, source)).unwrap_or_default();
    if response.status == 204 {
        // RFC 9110, section 15.3.5: it has no content, whatever a format makes.
        response.body = Body::Empty;
    }
    if stream.is_grpc() {
        return tell_grpc(response, local, format);
    }
    let headers = &mut response.headers;
    match &response.body {
        Body::Empty => {
            headers.remove(HeaderId::CONTENT_LENGTH);
            headers.remove(HeaderId::CONTENT_TYPE);
        }
        Body::Full(text) => {
            set_content_length(headers, text.len() as u64);
            if retyped || !headers.contains(HeaderId::CONTENT_TYPE) {
                let content_type = format.map_or(&b"text/plain"[..], |format| &format.content_type);
                headers.set(HeaderId::CONTENT_TYPE, content_type);
            }
        }
        Body::Stream(_) => {}
    }
}

#[derive(Default)]
struct Rewritten<'c> {
    /// What the body was made with.
    format: Option<&'c BodyFormat>,
    /// Its text is another one, and no mapper says of what type: the type that a route asked for was not for this.
    retyped: bool,
}

/// Applies the first mapper whose filter lets the answer pass, and the format that is in force then.
fn rewrite<'c>(
    response: &mut Response,
    config: &'c LocalReplyConfig,
    stream: &StreamInfo,
    request: Option<&Request>,
    source: ContextSource<'_>,
) -> Rewritten<'c> {
    let text = |response: &Response| match &response.body {
        Body::Full(text) => text.as_slice().to_vec(),
        Body::Empty | Body::Stream(_) => Vec::new(),
    };
    let content_type =
        |response: &Response| response.headers.value(HeaderId::CONTENT_TYPE).map(<[u8]>::to_vec);
    let before = (text(response), content_type(response));
    stream.record.status.set(response.status);
    let mut format = config.body_format.as_ref();
    let mapper = config.mappers.iter().find(|mapper| {
        let told = FormatContext {
            request,
            response: Some(&response.headers),
            response_status: response.status,
            ..source()
        };
        passes(&mapper.filter, &told)
    });
    if let Some(mapper) = mapper {
        if let Some(body) = &mapper.body {
            response.body = Body::full(body.clone());
        }
        mutate_response(&mapper.headers, response, request, source);
        if let Some(status) = mapper.status {
            response.status = status;
            stream.record.status.set(status);
        }
        format = mapper.body_format.as_ref().or(format);
    }
    if let Some(format) = format {
        fill_in(response, format, request, source);
    }
    let retyped = text(response) != before.0 && content_type(response) == before.1;
    Rewritten { format, retyped }
}

fn fill_in(
    response: &mut Response,
    format: &BodyFormat,
    request: Option<&Request>,
    source: ContextSource<'_>,
) {
    let text = match std::mem::replace(&mut response.body, Body::Empty) {
        Body::Empty => Chunk::empty(),
        Body::Full(text) => text,
        // Who answers with one has more to say than a text.
        stream @ Body::Stream(_) => {
            response.body = stream;
            return;
        }
    };
    let mut filled = Vec::new();
    let context = FormatContext {
        request,
        response: Some(&response.headers),
        response_status: response.status,
        local_reply_body: text.as_slice(),
        ..source()
    };
    write_line(&format.format, &context, &mut filled);
    response.body = Body::full(filled);
}

/// 200 without a body, the status in headers.
fn tell_grpc(response: &mut Response, local: LocalAnswer, format: Option<&BodyFormat>) {
    let status = local.grpc_status.unwrap_or_else(|| grpc_status_of(response.status).into());
    response.status = 200;
    let headers = &mut response.headers;
    headers.set(HeaderId::CONTENT_TYPE, b"application/grpc");
    if !headers.contains(HeaderId::GRPC_STATUS) {
        headers.append(HeaderId::GRPC_STATUS, itoa::Buffer::new().format(status).as_bytes());
    }
    if let Body::Full(text) = std::mem::replace(&mut response.body, Body::Empty) {
        let text = text.as_slice();
        let is_json = format.is_some_and(|format| matches!(format.format.kind, LineKind::Json(_)));
        let message = if is_json { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
        let mut encoded = Vec::new();
        percent_encode(message, &mut encoded);
        headers.set(HeaderId::GRPC_MESSAGE, &encoded);
    }
    headers.remove(HeaderId::CONTENT_LENGTH);
}
