//! `envoy.filters.http.grpc_web`: lets browsers, which know no trailers, call gRPC services.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proxy_http::filter::{FilterIndex, Filtered, Flow, HttpFilter, Reset};
use proxy_http::h1::write::set_content_length;
use proxy_http::reply::{grpc_status_of, is_grpc_content, percent_encode};
use proxy_http::{Body, BodyError, BodyStream, Frame, HeaderId, Headers, Request, Response, StreamInfo};
use proxy_net::buffer::Chunk;

use super::{FilterContext, FilterWorker, HttpFilterPlan};

/// The filter, on main and on each worker.
#[derive(Clone)]
pub(super) struct GrpcWeb {
    index: FilterIndex,
}

/// The stream is a call of a browser.
struct Call {
    /// The response is to be in base64.
    text: bool,
}

/// A request's body of which no length is told: its frames tell.
struct OfFrames(Body);

/// A request's body out of base64.
struct FromText {
    body: Body,
    /// Fewer than four characters.
    rest: Vec<u8>,
}

/// A response's body with its trailers as a last frame.
struct WithTrailers {
    body: Body,
    encoder: Option<TextEncoder>,
}

/// Puts each frame of gRPC (a byte of flags, four of length, a message) into base64 of its own, as it comes.
#[derive(Default)]
struct TextEncoder {
    /// Of the current frame.
    head: Vec<u8>,
    /// Bytes of its message to come.
    left: u32,
    /// Fewer than three bytes of it that are not encoded yet.
    rest: Vec<u8>,
}

impl GrpcWeb {
    pub(super) fn new(context: &FilterContext<'_>) -> GrpcWeb {
        GrpcWeb { index: context.index }
    }
}

impl HttpFilterPlan for GrpcWeb {
    fn build(&self, _: &FilterWorker) -> Box<dyn HttpFilter> {
        Box::new(self.clone())
    }
}

fn is_text(value: Option<&[u8]>) -> bool {
    matches!(value, Some(b"application/grpc-web-text" | b"application/grpc-web-text+proto"))
}

fn is_binary(value: Option<&[u8]>) -> bool {
    matches!(value, Some(b"application/grpc-web" | b"application/grpc-web+proto"))
}

/// Whether a response is one of gRPC, or of gRPC-Web already.
fn is_grpc_response(response: &Response) -> bool {
    let content = response.headers.joined(HeaderId::CONTENT_TYPE).unwrap_or_default();
    if response.body.is_empty() {
        return response.headers.contains(HeaderId::GRPC_STATUS);
    }
    let media = content.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    response.status == 200 && (is_grpc_content(&content) || is_binary(Some(&media.to_ascii_lowercase())))
}

/// Makes a response that is none of gRPC one: its text is the message.
async fn translate(response: &mut Response) -> Result<(), Reset> {
    let mut text = Vec::new();
    while let Some(frame) = poll_fn(|cx| response.body.poll_frame(cx)).await {
        if let Frame::Data(chunk) = frame.map_err(|_| Reset)? {
            let room = MOST_TEXT - text.len();
            text.extend_from_slice(&chunk.as_slice()[..chunk.len().min(room)]);
        }
    }
    response.body = Body::Empty;
    let headers = &mut response.headers;
    headers.remove(HeaderId::GRPC_MESSAGE);
    headers.append_with(HeaderId::GRPC_MESSAGE, |out| percent_encode(&text, out));
    headers.set(HeaderId::GRPC_STATUS, grpc_status_of(response.status).to_string().as_bytes());
    set_content_length(headers, 0);
    Ok(())
}

impl HttpFilter for GrpcWeb {
    fn request<'a>(
        &'a self,
        stream: &'a Rc<StreamInfo>,
        request: &'a mut Request,
    ) -> Filtered<'a, Result<Flow, Reset>> {
        let headers = &mut request.headers;
        let content = headers.joined(HeaderId::CONTENT_TYPE);
        let from_text = is_text(content.as_deref());
        if !from_text && !is_binary(content.as_deref()) {
            return Filtered::Now(Ok(Flow::Continue));
        }
        let text = is_text(headers.joined(HeaderId::ACCEPT).as_deref());
        stream.set_filter_local(self.index, Call { text });
        headers.remove(HeaderId::CONTENT_LENGTH);
        headers.set(HeaderId::CONTENT_TYPE, b"application/grpc");
        headers.set(HeaderId::TE, b"trailers");
        if !headers.contains(ACCEPT_ENCODING) {
            headers.append(ACCEPT_ENCODING, b"identity");
        }
        let body = std::mem::replace(&mut request.body, Body::Empty);
        request.body = match body {
            Body::Empty => Body::Empty,
            body if from_text => Body::Stream(Box::new(FromText { body, rest: Vec::new() })),
            body => Body::Stream(Box::new(OfFrames(body))),
        };
        Filtered::Now(Ok(Flow::Continue))
    }

    fn response<'a>(
        &'a self,
        stream: &'a Rc<StreamInfo>,
        response: &'a mut Response,
    ) -> Filtered<'a, Result<(), Reset>> {
        let Some(call) = stream.filter_local::<Call>(self.index) else { return Filtered::Now(Ok(())) };
        let translated = !is_grpc_response(response);
        let content: &[u8] =
            if call.text { b"application/grpc-web-text+proto" } else { b"application/grpc-web+proto" };
        response.headers.remove(HeaderId::CONTENT_LENGTH);
        response.headers.set(HeaderId::CONTENT_TYPE, content);
        if response.body.is_empty() {
            return Filtered::Now(Ok(()));
        }
        if translated {
            return Filtered::Later(Box::pin(translate(response)));
        }
        let body = std::mem::replace(&mut response.body, Body::Empty);
        let encoder = call.text.then(TextEncoder::default);
        response.body = Body::Stream(Box::new(WithTrailers { body, encoder }));
        Filtered::Now(Ok(()))
    }
}

impl BodyStream for OfFrames {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        self.0.poll_frame(cx)
    }

    fn remaining(&self) -> Option<u64> {
        None
    }
}

impl BodyStream for FromText {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        loop {
            match ready!(self.body.poll_frame(cx)) {
                Some(Ok(Frame::Data(chunk))) => {
                    self.rest.extend_from_slice(chunk.as_slice());
                    let whole = self.rest.len() / 4 * 4;
                    let mut decoded = Vec::with_capacity(whole / 4 * 3);
                    // What was put into base64 in several parts may have padding in its midst.
                    for part in padded_parts(&self.rest[..whole]) {
                        if STANDARD.decode_vec(part, &mut decoded).is_err() {
                            return Poll::Ready(Some(Err(broken("grpc_base_64_decode_failed"))));
                        }
                    }
                    self.rest.drain(..whole);
                    if !decoded.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::Data(Chunk::from(bytes::Bytes::from(decoded))))));
                    }
                }
                None if !self.rest.is_empty() => {
                    return Poll::Ready(Some(Err(broken("grpc_base_64_decode_failed_bad_size"))));
                }
                other => return Poll::Ready(other),
            }
        }
    }

    fn remaining(&self) -> Option<u64> {
        None
    }
}

fn broken(details: &'static str) -> BodyError {
    BodyError::Unreadable { text: "Bad gRPC-web request, invalid base64 data.", details }
}

/// Splits after each group of four that ends in padding. `text` has whole groups.
fn padded_parts(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut left = text;
    std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        let padded = left.chunks(4).position(|group| group.ends_with(b"="));
        let (part, rest) = left.split_at(padded.map_or(left.len(), |group| (group + 1) * 4));
        left = rest;
        Some(part)
    })
}

impl TextEncoder {
    /// Whether the last frame is whole.
    fn may_end(&self) -> bool {
        self.head.is_empty()
    }

    fn encode(&mut self, mut input: &[u8]) -> Vec<u8> {
        let mut out = String::with_capacity(input.len() / 3 * 4 + 8);
        while !input.is_empty() {
            let wanted = if self.head.len() < HEAD { HEAD - self.head.len() } else { self.left as usize };
            let (part, rest) = input.split_at(wanted.min(input.len()));
            input = rest;
            self.rest.extend_from_slice(part);
            if self.head.len() < HEAD {
                self.head.extend_from_slice(part);
                if let [_, length @ ..] = &self.head[..]
                    && let Ok(length) = length.try_into()
                {
                    self.left = u32::from_be_bytes(length);
                }
            } else {
                self.left -= part.len() as u32;
            }
            if self.head.len() == HEAD && self.left == 0 {
                STANDARD.encode_string(&self.rest, &mut out);
                self.rest.clear();
                self.head.clear();
            } else {
                let whole = self.rest.len() / 3 * 3;
                STANDARD.encode_string(&self.rest[..whole], &mut out);
                self.rest.drain(..whole);
            }
        }
        out.into_bytes()
    }
}

/// Trailers as a frame: lines of `name:value`.
fn trailers_frame(trailers: &Headers) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in trailers.iter() {
        lines.extend_from_slice(name);
        lines.push(b':');
        lines.extend_from_slice(value);
        lines.extend_from_slice(b"\r\n");
    }
    let mut frame = vec![0x80];
    frame.extend_from_slice(&(lines.len() as u32).to_be_bytes());
    frame.extend_from_slice(&lines);
    frame
}

impl BodyStream for WithTrailers {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        loop {
            let frame = ready!(self.body.poll_frame(cx));
            // Of a frame that breaks off, a part is out already: what follows would be taken for the rest of it.
            if matches!(frame, None | Some(Ok(Frame::Trailers(_))))
                && self.encoder.as_ref().is_some_and(|encoder| !encoder.may_end())
            {
                return Poll::Ready(Some(Err(BodyError::Malformed("frame of gRPC"))));
            }
            let data = match frame {
                Some(Ok(Frame::Data(chunk))) => match &mut self.encoder {
                    None => return Poll::Ready(Some(Ok(Frame::Data(chunk)))),
                    Some(encoder) => encoder.encode(chunk.as_slice()),
                },
                Some(Ok(Frame::Trailers(trailers))) => {
                    let frame = trailers_frame(&trailers);
                    if self.encoder.is_some() { STANDARD.encode(frame).into_bytes() } else { frame }
                }
                other => return Poll::Ready(other),
            };
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::Data(Chunk::from(bytes::Bytes::from(data))))));
            }
        }
    }

    fn remaining(&self) -> Option<u64> {
        None
    }
}

const ACCEPT_ENCODING: &str = "grpc-accept-encoding";
/// Bytes of a frame before its message.
const HEAD: usize = 5;
/// Bytes of a text that becomes a `grpc-message`.
const MOST_TEXT: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_frame_is_base64_of_its_own_however_it_arrives() {
        let frames: [&[u8]; 3] = [b"\0\0\0\0\x05hello", b"\0\0\0\0\0", b"\0\0\0\0\x01!"];
        let expected: String = frames.iter().map(|frame| STANDARD.encode(frame)).collect();
        let whole = frames.concat();
        for size in 1..=whole.len() {
            let mut encoder = TextEncoder::default();
            let encoded: Vec<u8> = whole.chunks(size).flat_map(|part| encoder.encode(part)).collect();
            assert_eq!(String::from_utf8(encoded).unwrap(), expected, "{size}");
        }
    }

    #[test]
    fn padding_splits_what_was_encoded_in_parts() {
        let parts: Vec<_> = padded_parts(b"aGk=aGVsbG8=YWJj").collect();
        assert_eq!(parts, [&b"aGk="[..], b"aGVsbG8=", b"YWJj"]);
    }
}
