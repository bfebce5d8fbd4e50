//! Answers and their bodies. A body is whole, or comes in pieces made on main, or in pieces from another thread. What comes in
//! pieces may be long, and is compressed for clients that take it so.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use hyper::body::{Body, Frame, SizeHint};
use serde::Serialize;
use serde_json::ser::PrettyFormatter;
use tokio::sync::mpsc;

use super::gzip::Gzip;
use super::rendering::{Render, Renderers};

/// What a handler returns.
pub(super) struct Answer {
    status: StatusCode,
    content_type: &'static str,
    content: Content,
}

/// A body that is still to be made.
enum Content {
    Whole(Bytes),
    Pieces(Box<dyn Pieces>),
    Rendered(Render),
    /// Lines as things happen: each is to be seen at once, so they are not compressed.
    Lines(mpsc::Receiver<Bytes>),
}

/// Makes a body piece by piece. Each call is one slice of main's time: to be kept well under a millisecond.
pub(super) trait Pieces {
    /// Appends the next piece; `false` when it was the last. An empty piece is allowed.
    fn next_piece(&mut self, piece: &mut Vec<u8>) -> bool;
}

pub(super) enum AnswerBody {
    Whole(Bytes),
    Pieces {
        source: Box<dyn Pieces>,
        /// Whether the last poll made a piece: then the next one lets others run first.
        yielding: bool,
        finished: bool,
    },
    Channel(mpsc::Receiver<Bytes>),
}

impl Answer {
    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        Self { status: StatusCode::OK, content_type: TEXT, content: Content::Whole(text.into()) }
    }

    pub(super) fn error(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Self { status, ..Self::text(text) }
    }

    pub(super) fn html(text: impl Into<Bytes>) -> Self {
        Self { content_type: HTML, ..Self::text(text) }
    }

    /// One message as Envoy prints it: one blank per level, a line end after it.
    pub(super) fn json(value: &impl Serialize) -> Self {
        let mut text = Vec::new();
        write_json(&mut text, value);
        text.push(b'\n');
        Self { content_type: JSON, ..Self::text(text) }
    }

    pub(super) fn text_pieces(source: impl Pieces + 'static) -> Self {
        Self { content: Content::Pieces(Box::new(source)), ..Self::text("") }
    }

    pub(super) fn json_pieces(source: impl Pieces + 'static) -> Self {
        Self { content_type: JSON, ..Self::text_pieces(source) }
    }

    /// What a thread of its own writes.
    pub(super) fn rendered(content_type: &'static str, render: Render) -> Self {
        Self { content_type, content: Content::Rendered(render), ..Self::text("") }
    }

    /// JSON objects, a line each.
    pub(super) fn json_lines(lines: mpsc::Receiver<Bytes>) -> Self {
        Self { content_type: JSON, content: Content::Lines(lines), ..Self::text("") }
    }

    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// With the headers that every answer of Envoy's admin port has. To be called on main.
    pub(super) fn into_response(self, renderers: &Renderers, gzip: bool) -> Response<AnswerBody> {
        let gzip = gzip && !matches!(self.content, Content::Whole(_) | Content::Lines(_));
        let body = match self.content {
            Content::Whole(bytes) => AnswerBody::Whole(bytes),
            Content::Pieces(source) if gzip => AnswerBody::pieces(Box::new(Gzip::new(source))),
            Content::Pieces(source) => AnswerBody::pieces(source),
            Content::Lines(lines) => AnswerBody::Channel(lines),
            Content::Rendered(render) => AnswerBody::Channel(renderers.run(render, gzip)),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::SERVER, HeaderValue::from_static("envoy"));
        if gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        response
    }
}

impl AnswerBody {
    fn pieces(source: Box<dyn Pieces>) -> Self {
        Self::Pieces { source, yielding: false, finished: false }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Pieces { finished: true, .. } => Poll::Ready(None),
            Self::Pieces { yielding: yielding @ true, .. } => {
                *yielding = false;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Self::Pieces { source, yielding, finished } => {
                let mut piece = Vec::new();
                *finished = !source.next_piece(&mut piece);
                *yielding = true;
                if piece.is_empty() && !*finished {
                    *yielding = false;
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                if piece.is_empty() {
                    return Poll::Ready(None);
                }
                Poll::Ready(Some(Ok(Frame::data(piece.into()))))
            }
            Self::Channel(pieces) => {
                pieces.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Pieces { finished, .. } => *finished,
            Self::Channel(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Pieces { .. } | Self::Channel(_) => SizeHint::default(),
        }
    }
}

/// A list of JSON messages inside an object: `{ "name": [ ... ] }` in Envoy's layout, or `{}` when there are none.
pub(super) struct JsonList<'a> {
    pub(super) field: &'a str,
    pub(super) written: usize,
}

impl JsonList<'_> {
    pub(super) fn item(&mut self, out: &mut Vec<u8>, item: &impl Serialize) {
        match self.written {
            0 => out.extend_from_slice(format!("{{\n \"{}\": [\n", self.field).as_bytes()),
            _ => out.extend_from_slice(b",\n"),
        }
        self.written += 1;
        let mut text = Vec::new();
        write_json(&mut text, item);
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            out.extend_from_slice(if index == 0 { b"  " } else { b"\n  " });
            out.extend_from_slice(line);
        }
    }

    pub(super) fn end(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.written == 0 { b"{}\n" } else { b"\n ]\n}\n" });
    }
}

pub(super) fn write_json(out: &mut Vec<u8>, value: &impl Serialize) {
    let mut serializer = serde_json::Serializer::with_formatter(out, PrettyFormatter::with_indent(b" "));
    value.serialize(&mut serializer).expect("values made of strings and numbers serialize into memory");
}

/// About how many bytes a piece has.
pub(super) const PIECE_BYTES: usize = 16 << 10;

pub(super) const TEXT: &str = "text/plain; charset=UTF-8";
pub(super) const HTML: &str = "text/html; charset=UTF-8";
pub(super) const JSON: &str = "application/json";
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
