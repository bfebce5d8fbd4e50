//! Message bodies: something to poll for chunks of bytes and, at the end, trailers.
//!
//! Dropping a body before its end cancels it: an HTTP/1 connection below it is not reused, an HTTP/2 stream is
//! reset. A filter that changes a body wraps it; trailers pass through the same wrapper.

use std::task::{Context, Poll};

use proxy_net::buffer::Chunk;
use proxy_net::pipe::Pipe;

use crate::headers::Headers;

pub enum Body {
    Empty,
    /// The whole of it is at hand.
    Full(Chunk),
    Stream(Box<dyn BodyStream>),
}

/// What a body yields: any number of data frames, then at most one of trailers.
pub enum Frame {
    Data(Chunk),
    Trailers(Headers),
}

/// Why a body ended before its end, by who is at fault.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the connection was closed in the middle of a body")]
    Closed,
    #[error("connection error: {0}")]
    Io(std::io::Error),
    #[error("malformed body: {0}")]
    Malformed(&'static str),
    #[error("the peer reset the stream ({0})")]
    Reset(h2::Reason),
    /// A filter cannot read what came: what the client of a request is told, and `%RESPONSE_CODE_DETAILS%`.
    #[error("unreadable content: {details}")]
    Unreadable { text: &'static str, details: &'static str },
    #[error("a time limit passed")]
    TimedOut,
    #[error("a body grew over its limit")]
    TooLarge,
}

impl From<std::io::Error> for BodyError {
    fn from(error: std::io::Error) -> Self {
        BodyError::Io(error)
    }
}

/// A body that arrives over time.
pub trait BodyStream {
    /// Next frame; `None` after the last one. Not to be polled again after `None` or an error.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>>;

    /// Bytes still to come, where the sender has said so.
    fn remaining(&self) -> Option<u64>;

    /// Whether it is the bytes of a socket as they come, of a stream that has become a tunnel. A wrapper is not.
    fn is_raw(&self) -> bool {
        false
    }

    /// Moves the next bytes into an empty `pipe` instead, without a copy, where they come from a socket as they are.
    /// `None`: not from here, or not now; poll for a frame.
    fn poll_splice(
        &mut self,
        _cx: &mut Context<'_>,
        _pipe: &mut Pipe,
    ) -> Option<Poll<Result<usize, BodyError>>> {
        None
    }
}

impl Body {
    pub fn full(bytes: impl Into<bytes::Bytes>) -> Body {
        let bytes = bytes.into();
        if bytes.is_empty() { Body::Empty } else { Body::Full(Chunk::from(bytes)) }
    }

    /// A body that begins with `first` and goes on with `rest`.
    pub fn chained(first: Chunk, rest: Body) -> Body {
        match (first.is_empty(), rest) {
            (true, rest) => rest,
            (false, Body::Empty) => Body::Full(first),
            (false, rest) => Body::Stream(Box::new(Chained { first: Some(first), next: None, rest })),
        }
    }

    /// A body that begins with `first`, goes on with the frame or error `next` and, after data, with what is left of
    /// this one: what was polled put back.
    pub fn put_back(&mut self, first: Chunk, next: Option<Result<Frame, BodyError>>) {
        let rest = std::mem::replace(self, Body::Empty);
        *self = match next {
            None => Body::chained(first, rest),
            next => Body::Stream(Box::new(Chained { first: Some(first), next, rest })),
        };
    }

    pub fn is_empty(&self) -> bool {
        matches!(self, Body::Empty)
    }

    /// See [`BodyStream::poll_frame`]; a [`Body`] may be polled after its end and stays at it.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        match self {
            Body::Empty => Poll::Ready(None),
            Body::Full(_) => match std::mem::replace(self, Body::Empty) {
                Body::Full(chunk) => Poll::Ready(Some(Ok(Frame::Data(chunk)))),
                Body::Empty | Body::Stream(_) => Poll::Ready(None),
            },
            Body::Stream(stream) => {
                let frame = std::task::ready!(stream.poll_frame(cx));
                if !matches!(frame, Some(Ok(Frame::Data(_)))) {
                    *self = Body::Empty;
                }
                Poll::Ready(frame)
            }
        }
    }

    /// See [`BodyStream::is_raw`].
    pub fn is_raw(&self) -> bool {
        matches!(self, Body::Stream(stream) if stream.is_raw())
    }

    /// See [`BodyStream::poll_splice`].
    pub fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Option<Poll<Result<usize, BodyError>>> {
        match self {
            Body::Empty | Body::Full(_) => None,
            Body::Stream(stream) => stream.poll_splice(cx, pipe),
        }
    }

    /// Bytes still to come, where known.
    pub fn remaining(&self) -> Option<u64> {
        match self {
            Body::Empty => Some(0),
            Body::Full(chunk) => Some(chunk.len() as u64),
            Body::Stream(stream) => stream.remaining(),
        }
    }
}

struct Chained {
    first: Option<Chunk>,
    next: Option<Result<Frame, BodyError>>,
    rest: Body,
}

impl BodyStream for Chained {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::Data(first))));
        }
        match self.next.take() {
            Some(next) => Poll::Ready(Some(next)),
            None => self.rest.poll_frame(cx),
        }
    }

    fn remaining(&self) -> Option<u64> {
        let first = self.first.as_ref().map_or(0, |first| first.len() as u64);
        match &self.next {
            None => self.rest.remaining().map(|rest| rest + first),
            Some(_) => None,
        }
    }
}
