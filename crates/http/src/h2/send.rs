//! Bodies on their way into `h2`, in bounded memory.
//!
//! A piece is handed to `h2` only when its flow-control window is open, so that nothing waits there for the peer's
//! consent; what it then waits for is the socket. How much waits is counted per connection by the memory it keeps.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Buf;
use h2::{Reason, SendStream};
use proxy_net::buffer::Chunk;
use proxy_stats::Gauge;

use super::CONNECTION_QUEUE;
use super::convert::trailers_to_map;
use crate::body::{Body, BodyError, Frame};

/// How much one connection's streams have given to `h2` and the socket has not taken yet.
pub struct SendQueue {
    held: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
    pending: Gauge,
}

/// A piece of body in `h2`'s queue; counts while it is there.
pub struct Queued {
    chunk: Chunk,
    held: usize,
    queue: Option<Rc<SendQueue>>,
}

/// Why a body did not go out whole.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The peer reset the stream, or the connection is gone.
    #[error("the peer no longer takes the body: {0}")]
    Peer(h2::Error),
    /// The body itself failed.
    #[error("body: {0}")]
    Body(BodyError),
}

/// The sending half of a stream.
pub struct BodySender {
    stream: SendStream<Queued>,
    queue: Rc<SendQueue>,
    chunk: Chunk,
    /// What comes after `chunk`, where it was asked for before its turn.
    ahead: Option<Box<Option<Result<Frame, BodyError>>>>,
    last: bool,
    finished: bool,
}

impl SendQueue {
    pub fn new(pending: Gauge) -> Rc<SendQueue> {
        Rc::new(SendQueue { held: Cell::new(0), waiting: RefCell::default(), pending })
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.held.get() < CONNECTION_QUEUE {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn release(&self, held: usize) {
        self.held.set(self.held.get() - held);
        self.pending.sub(held as i64);
        if self.held.get() < CONNECTION_QUEUE {
            let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
            waiting.into_iter().for_each(Waker::wake);
        }
    }
}

impl Queued {
    fn new(mut chunk: Chunk, queue: &Rc<SendQueue>) -> Queued {
        chunk.compact();
        let held = chunk.retained();
        if held == 0 {
            return Queued { chunk, held, queue: None };
        }
        queue.held.set(queue.held.get() + held);
        queue.pending.add(held as i64);
        Queued { chunk, held, queue: Some(Rc::clone(queue)) }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.release(self.held);
        }
    }
}

impl Buf for Queued {
    fn remaining(&self) -> usize {
        self.chunk.len()
    }

    fn chunk(&self) -> &[u8] {
        self.chunk.as_slice()
    }

    fn advance(&mut self, count: usize) {
        self.chunk.advance(count);
    }
}

impl BodySender {
    /// `finished`: the head ended the stream.
    pub fn new(stream: SendStream<Queued>, queue: &Rc<SendQueue>, finished: bool) -> BodySender {
        let (queue, chunk) = (Rc::clone(queue), Chunk::empty());
        BodySender { stream, queue, chunk, ahead: None, last: false, finished }
    }

    /// Whether `h2` has all of the message.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Gives `body` to `h2` as far as it comes and the peer lets it; ready when the message is whole.
    /// `moved` hears how many bytes each step took.
    ///
    /// # Errors
    /// The stream is then of no more use; after an error of the body's it is for the caller to reset it.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Body,
        mut moved: impl FnMut(usize),
    ) -> Poll<Result<(), SendError>> {
        while !self.finished {
            if !self.chunk.is_empty() {
                let count = ready!(self.poll_chunk(cx))?;
                moved(count);
                continue;
            }
            let frame = match self.ahead.take() {
                Some(frame) => *frame,
                None => ready!(body.poll_frame(cx)),
            };
            match frame {
                Some(Ok(Frame::Data(chunk))) => {
                    self.chunk = chunk;
                    self.last = body.remaining() == Some(0);
                    if self.chunk.is_empty() && self.last {
                        self.end()?;
                    }
                }
                Some(Ok(Frame::Trailers(trailers))) => {
                    self.finished = true;
                    self.stream.send_trailers(trailers_to_map(&trailers)).map_err(SendError::Peer)?;
                    return Poll::Ready(Ok(()));
                }
                Some(Err(error)) => return Poll::Ready(Err(SendError::Body(error))),
                None => self.end()?,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether what is left of the message is known to be here, and waits for the peer alone.
    pub fn holds_last(&self) -> bool {
        !self.chunk.is_empty() && self.last
    }

    /// As [`BodySender::holds_last`], also where only the next frame of `body` tells that there is no more.
    pub fn finds_last(&mut self, cx: &mut Context<'_>, body: &mut Body) -> bool {
        if self.chunk.is_empty() || self.last {
            return self.holds_last();
        }
        if self.ahead.is_none()
            && let Poll::Ready(frame) = body.poll_frame(cx)
        {
            self.ahead = Some(Box::new(frame));
        }
        matches!(self.ahead.as_deref(), Some(None | Some(Ok(Frame::Trailers(_)))))
    }

    fn end(&mut self) -> Result<(), SendError> {
        self.finished = true;
        self.stream.send_data(Queued::new(Chunk::empty(), &self.queue), true).map_err(SendError::Peer)
    }

    /// Sends what the peer's window lets pass of the chunk.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, SendError>> {
        ready!(self.queue.poll_room(cx));
        self.stream.reserve_capacity(self.chunk.len());
        let mut capacity = self.stream.capacity();
        while capacity == 0 {
            capacity = match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(capacity)) => capacity,
                Some(Err(error)) => return Poll::Ready(Err(SendError::Peer(error))),
                None => return Poll::Ready(Err(SendError::Peer(Reason::CANCEL.into()))),
            };
        }
        let piece = self.chunk.split_to(capacity);
        let count = piece.len();
        let end = self.last && self.chunk.is_empty();
        self.finished = end;
        self.stream.send_data(Queued::new(piece, &self.queue), end).map_err(SendError::Peer)?;
        Poll::Ready(Ok(count))
    }

    /// Ready when the peer has reset the stream or the connection is gone.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reason, h2::Error>> {
        self.stream.poll_reset(cx)
    }

    /// Resets the stream.
    pub fn reset(&mut self, reason: Reason) {
        self.finished = true;
        self.stream.send_reset(reason);
    }
}
