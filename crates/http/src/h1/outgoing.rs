//! A message on its way into a socket: what is still to be written of head, body and framing.
//!
//! Small pieces are copied together so that a small message is one write; a large piece of a body goes out of the
//! memory it was read into, with `writev` when there is something ahead of it.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use proxy_net::Io;
use proxy_net::buffer::{Arena, Chunk};
use proxy_net::pipe::Pipe;
use smallvec::SmallVec;

use super::head::Framing;
use super::write::{write_chunk_size, write_last_chunk};
use crate::body::{Body, BodyError, Frame};
use crate::headers::Headers;

/// Bytes ahead, at most one piece of body, and what follows that piece.
pub struct Outgoing {
    ahead: Arena,
    written: usize,
    chunk: Chunk,
    /// Bytes of the body on their way past this process.
    pipe: Option<Pipe>,
    behind: &'static [u8],
    framing: Framing,
    trailers: bool,
    finished: bool,
    /// The body failed; what came before is still written.
    failed: Option<BodyError>,
    total: u64,
    header_bytes: u32,
    body_bytes: u64,
    /// Where pieces of the body stand in `ahead`; kept only until something has been written.
    copied: SmallVec<[(u32, u32); 2]>,
}

/// How far [`Outgoing::poll_send`] came.
#[derive(Debug)]
pub enum SendError {
    /// The socket failed.
    Io(io::Error),
    /// The body failed; what was written is not a whole message.
    Body(BodyError),
}

impl Default for Outgoing {
    fn default() -> Self {
        Outgoing {
            ahead: Arena::unallocated(),
            written: 0,
            chunk: Chunk::empty(),
            pipe: None,
            behind: &[],
            framing: Framing::None,
            trailers: false,
            finished: true,
            failed: None,
            total: 0,
            header_bytes: 0,
            body_bytes: 0,
            copied: SmallVec::new(),
        }
    }
}

impl Outgoing {
    /// Starts a message: `write_head` puts its head into the buffer; `framing` is that of the body that follows.
    /// Trailers are written only with `trailers` (`enable_trailers`).
    pub fn start(&mut self, framing: Framing, trailers: bool, write_head: impl FnOnce(&mut Vec<u8>)) {
        if self.ahead.capacity() == 0 {
            self.ahead = Arena::take();
        }
        write_head(&mut self.ahead);
        let start_line = memchr::memchr(b'\n', &self.ahead).map_or(0, |end| end + 1);
        self.header_bytes = self.ahead.len().saturating_sub(start_line + 2) as u32;
        self.framing = framing;
        self.trailers = trailers;
        self.finished = framing == Framing::None;
    }

    /// Whether everything given to it has been written, and the message is whole.
    pub fn is_done(&self) -> bool {
        self.finished && self.is_flushed()
    }

    /// What was taken from the body, as long as nothing has been written: to send it elsewhere. Trailers are not
    /// among it: `None` when the body has been taken to its end, or something was written.
    pub fn take_unsent(&mut self) -> Option<Chunk> {
        let whole_at_hand = self.finished && self.framing == Framing::Chunked;
        if self.total > 0 || whole_at_hand || self.failed.is_some() {
            return None;
        }
        let mut unsent = Vec::new();
        for (start, length) in self.copied.drain(..) {
            unsent.extend_from_slice(&self.ahead[start as usize..(start + length) as usize]);
        }
        unsent.extend_from_slice(self.chunk.as_slice());
        Some(Chunk::from(Bytes::from(unsent)))
    }

    /// Bytes ever written, for counters.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes that wait for the socket.
    pub fn waiting(&self) -> usize {
        let piped = self.pipe.as_ref().map_or(0, Pipe::len);
        self.ahead.len() - self.written + self.chunk.len() + self.behind.len() + piped
    }

    /// Bytes of the header lines of the head.
    pub fn header_bytes(&self) -> u64 {
        self.header_bytes.into()
    }

    /// Bytes taken from the body so far.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    fn is_flushed(&self) -> bool {
        self.written == self.ahead.len()
            && self.chunk.is_empty()
            && self.behind.is_empty()
            && self.pipe.is_none()
    }

    /// Pulls `body` and writes until the message is done.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Io,
        body: &mut Body,
    ) -> Poll<Result<(), SendError>> {
        loop {
            let filled = self.poll_fill(cx, body, |_| ());
            ready!(self.poll_flush(cx, io))?;
            ready!(filled);
            if self.finished {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Takes from `body` what can be written now; `Ready` when there is enough to write or the body has ended,
    /// `Pending` when more may come: what is there is to be flushed in both cases. Apart from [`Outgoing::poll_flush`]
    /// for those whose body reads from the very socket that is written to.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Body,
        mut moved: impl FnMut(usize),
    ) -> Poll<()> {
        while self.failed.is_none()
            && !self.finished
            && self.chunk.is_empty()
            && self.behind.is_empty()
            && self.ahead.len() < FULL
            && self.pipe.is_none()
        {
            if let Some(spliced) = self.poll_splice(cx, body) {
                return spliced.map(|count| {
                    self.body_bytes += count as u64;
                    moved(count);
                });
            }
            match body.poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(Frame::Data(chunk)))) => {
                    self.body_bytes += chunk.len() as u64;
                    moved(chunk.len());
                    self.push(chunk);
                }
                Poll::Ready(Some(Ok(Frame::Trailers(trailers)))) => self.finish(Some(&trailers)),
                Poll::Ready(None) => self.finish(None),
                Poll::Ready(Some(Err(error))) => self.failed = Some(error),
            }
        }
        Poll::Ready(())
    }

    /// Takes bulk past this process where body and framing allow it. `None`: take a frame.
    fn poll_splice(&mut self, cx: &mut Context<'_>, body: &mut Body) -> Option<Poll<usize>> {
        if !matches!(self.framing, Framing::Length(_)) || body.remaining()? < SPLICED_FROM {
            return None;
        }
        let mut pipe = Pipe::take()?;
        Some(match body.poll_splice(cx, &mut pipe)? {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(count)) => {
                self.pipe = Some(pipe);
                Poll::Ready(count)
            }
            Poll::Ready(Err(error)) => {
                self.failed = Some(error);
                Poll::Ready(0)
            }
        })
    }

    fn push(&mut self, chunk: Chunk) {
        if chunk.is_empty() {
            return;
        }
        if self.ahead.capacity() == 0 {
            self.ahead = Arena::take();
        }
        let chunked = self.framing == Framing::Chunked;
        if chunked {
            write_chunk_size(chunk.len(), &mut self.ahead);
        }
        if chunk.len() <= COPIED {
            if self.total == 0 {
                self.copied.push((self.ahead.len() as u32, chunk.len() as u32));
            }
            self.ahead.extend_from_slice(chunk.as_slice());
            if chunked {
                self.ahead.extend_from_slice(b"\r\n");
            }
        } else {
            self.chunk = chunk;
            self.behind = if chunked { b"\r\n" } else { b"" };
        }
    }

    fn finish(&mut self, trailers: Option<&Headers>) {
        if self.framing == Framing::Chunked {
            if self.ahead.capacity() == 0 {
                self.ahead = Arena::take();
            }
            write_last_chunk(trailers.filter(|_| self.trailers), &mut self.ahead);
        }
        self.finished = true;
    }

    /// Writes what is there. Fails with the body's error once what came before it has been written.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, io: &mut Io) -> Poll<Result<(), SendError>> {
        while !self.is_flushed() {
            let ahead = &self.ahead[self.written..];
            if let Some(pipe) = &mut self.pipe
                && ahead.is_empty()
                && self.chunk.is_empty()
            {
                self.total += ready!(pipe.poll_drain(io, cx)).map_err(SendError::Io)? as u64;
                if pipe.is_empty() {
                    self.pipe = None;
                }
                continue;
            }
            let count = if self.chunk.is_empty() && self.behind.is_empty() {
                ready!(io.poll_write(cx, ahead)).map_err(SendError::Io)?
            } else if ahead.is_empty() && self.behind.is_empty() {
                ready!(io.poll_write(cx, self.chunk.as_slice())).map_err(SendError::Io)?
            } else {
                let parts =
                    [IoSlice::new(ahead), IoSlice::new(self.chunk.as_slice()), IoSlice::new(self.behind)];
                ready!(io.poll_write_vectored(cx, &parts)).map_err(SendError::Io)?
            };
            if count == 0 {
                return Poll::Ready(Err(SendError::Io(io::ErrorKind::WriteZero.into())));
            }
            self.advance(count);
        }
        self.ahead = Arena::unallocated();
        self.written = 0;
        Poll::Ready(self.failed.take().map_or(Ok(()), |error| Err(SendError::Body(error))))
    }

    fn advance(&mut self, count: usize) {
        self.total += count as u64;
        let from_ahead = count.min(self.ahead.len() - self.written);
        self.written += from_ahead;
        let from_chunk = (count - from_ahead).min(self.chunk.len());
        self.chunk.advance(from_chunk);
        if self.chunk.is_empty() {
            self.chunk = Chunk::empty();
        }
        self.behind = &self.behind[count - from_ahead - from_chunk..];
    }
}

/// A piece of body up to this size is copied behind the head. Bytes.
const COPIED: usize = 1024;
/// From so many bytes to come, a pipe is worth its system calls.
const SPLICED_FROM: u64 = 256 << 10;
/// Small pieces are collected up to this before they are written. Bytes.
const FULL: usize = 16 << 10;
