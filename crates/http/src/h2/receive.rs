//! Bodies that arrive through `h2`, at the pace of those who consume them.

use std::task::{Context, Poll, ready};

use h2::RecvStream;
use http::header::CONTENT_LENGTH;
use proxy_net::buffer::Chunk;

use super::convert::headers_from_map;
use crate::body::{BodyError, Frame};

/// The receiving half of a stream. A chunk's flow-control window opens again when the next one is asked for: by then it
/// has gone where it was to go.
pub struct BodyReceiver {
    stream: RecvStream,
    unreleased: usize,
    /// What `content-length` leaves to come.
    left: Option<u64>,
    ended: bool,
}

impl BodyReceiver {
    /// `length` is what `content-length` says; `h2` holds the peer to it.
    pub fn new(stream: RecvStream, length: Option<u64>) -> BodyReceiver {
        BodyReceiver { stream, unreleased: 0, left: length, ended: false }
    }

    /// See [`crate::body::BodyStream::poll_frame`].
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if self.unreleased > 0 {
            // Fails only where the stream is gone already, which the next poll tells.
            let _ = self.stream.flow_control().release_capacity(std::mem::take(&mut self.unreleased));
        }
        if !self.ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    self.unreleased = data.len();
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::Data(Chunk::from(data)))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(body_error(error)))),
                None => self.ended = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(Some(trailers)) if trailers.contains_key(CONTENT_LENGTH) => {
                Poll::Ready(Some(Err(BodyError::Malformed("content-length in trailers"))))
            }
            Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::Trailers(headers_from_map(&trailers))))),
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(body_error(error)))),
        }
    }

    /// Whether the peer has sent all of it and all of it was taken.
    pub fn is_ended(&self) -> bool {
        self.ended || self.stream.is_end_stream()
    }

    /// Bytes still to come, where known. 0 only when nothing comes any more, trailers neither.
    pub fn remaining(&self) -> Option<u64> {
        if self.stream.is_end_stream() { Some(0) } else { self.left.filter(|left| *left > 0) }
    }
}

/// Sorts an error of `h2` by what became of the body.
pub fn body_error(error: h2::Error) -> BodyError {
    if error.is_io() {
        return BodyError::Closed;
    }
    match error.reason() {
        Some(reason) if error.is_go_away() && error.is_remote() => BodyError::Reset(reason),
        Some(_) if error.is_library() => BodyError::Malformed("HTTP/2"),
        Some(reason) => BodyError::Reset(reason),
        None => BodyError::Closed,
    }
}
