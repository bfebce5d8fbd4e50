//! Two streams joined: bytes both ways, and each end learns when the other is done or fails.
//!
//! A state machine without a future of its own. Between two polls, which is between two system calls, everything about
//! the relay is in the struct, so that it can be taken out of its task and moved to another process.

pub(crate) mod attempt;
mod direction;
pub(crate) mod moving;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, ready};

use proxy_net::Io;
use proxy_net::buffer::{ReadBuffer, SMALL};

use direction::Fault;
pub(crate) use direction::{Counts, Direction, Stage};

/// A downstream and an upstream stream, joined.
#[derive(Debug)]
pub(crate) struct Relay {
    downstream: Io,
    upstream: Io,
    flow: Flow,
}

/// Both ways between two streams that somebody else holds.
#[derive(Debug)]
pub(crate) struct Flow {
    up: Direction,
    down: Direction,
    /// A side that cannot be written to any more; what came from it is still being passed on.
    gone: Option<(Side, io::Error)>,
}

/// One of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Downstream,
    Upstream,
}

/// How a relay came to its end.
#[derive(Debug)]
pub(crate) enum End {
    /// Both ways have ended; this side was the last to say so.
    Finished { last: Side },
    /// This side failed.
    Failed { side: Side, error: io::Error },
}

/// What a relay has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// From downstream to upstream.
    pub(crate) up: Counts,
    /// From upstream to downstream.
    pub(crate) down: Counts,
}

impl Relay {
    /// `prefix` was read from downstream earlier and goes first.
    pub(crate) fn new(downstream: Io, prefix: ReadBuffer, upstream: Io) -> Self {
        let (up, down) = (Direction::new(prefix), Direction::new(ReadBuffer::new()));
        Self::between(downstream, upstream, Flow::between(up, down))
    }

    /// As it is between two polls.
    pub(crate) fn between(downstream: Io, upstream: Io, flow: Flow) -> Self {
        Self { downstream, upstream, flow }
    }

    pub(crate) fn flow(&self) -> &Flow {
        &self.flow
    }

    /// See [`Flow::limited`].
    pub(crate) fn limited(self, up: u32, down: u32) -> Self {
        Self { flow: self.flow.limited(up, down), ..self }
    }

    /// Both streams, and the ends of pipes that have bytes in them.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.flow.descriptors(&self.downstream, &self.upstream)
    }

    /// See [`Flow::poll`]. After `Ready` the relay is to be dropped, which closes both streams.
    pub(crate) fn poll_relay(&mut self, context: &mut Context<'_>) -> Poll<End> {
        self.flow.poll(&mut self.downstream, &mut self.upstream, context)
    }

    /// See [`Flow::probe`].
    pub(crate) fn probe(&mut self) {
        self.flow.probe(&self.downstream, &self.upstream);
    }
}

impl Flow {
    /// As it is between two polls.
    pub(crate) fn between(up: Direction, down: Direction) -> Self {
        Self { up, down, gone: None }
    }

    /// See [`Direction::set_limit`]: what is held for the upstream side, and for the downstream side.
    pub(crate) fn limited(mut self, up: u32, down: u32) -> Self {
        self.up.set_limit(up);
        self.down.set_limit(down);
        self
    }

    /// Whether all has been read from downstream that will ever come.
    pub(crate) fn has_client_ended(&self) -> bool {
        self.up.stage() != Stage::Open
    }

    /// Whether another process could go on with it now: nothing has failed, and what is held fits a message.
    pub(crate) fn is_movable(&self) -> bool {
        self.gone.is_none() && self.up.held().len() <= SMALL && self.down.held().len() <= SMALL
    }

    /// Both streams, and the ends of pipes that have bytes in them.
    pub(crate) fn descriptors<'a>(&'a self, downstream: &'a Io, upstream: &'a Io) -> Vec<BorrowedFd<'a>> {
        let mut descriptors = vec![downstream.as_fd(), upstream.as_fd()];
        for pipe in [&self.up, &self.down].into_iter().filter_map(|direction| direction.pipe()) {
            descriptors.extend(pipe.ends().into_iter().flatten());
        }
        descriptors
    }

    /// Moves all it can. After `Ready` both streams are to be closed.
    ///
    /// As Envoy does it: a reset on one side resets the other at once, whatever is under way. A side that is merely
    /// gone (written to after it closed) lets the other have what it had sent, then the other is closed too.
    pub(crate) fn poll(
        &mut self,
        downstream: &mut Io,
        upstream: &mut Io,
        context: &mut Context<'_>,
    ) -> Poll<End> {
        if self.gone.is_none() {
            let (up_was_done, down_was_done) = (self.up.is_done(), self.down.is_done());
            let up = self.up.poll_move(downstream, upstream, context);
            if let Poll::Ready(Err(fault)) = up {
                self.fail(fault, Side::Downstream, Side::Upstream);
            }
            let down = self.down.poll_move(upstream, downstream, context);
            if let Poll::Ready(Err(fault)) = down {
                self.fail(fault, Side::Upstream, Side::Downstream);
            }
            if self.gone.is_none() {
                if self.up.is_done() && self.down.is_done() {
                    let last = if up_was_done || !down_was_done { Side::Upstream } else { Side::Downstream };
                    return Poll::Ready(End::Finished { last });
                }
                return Poll::Pending;
            }
        }
        self.poll_farewell(downstream, upstream, context)
    }

    /// Whether a side is not being read, so that its failure would go unnoticed.
    pub(crate) fn is_paused(&self) -> bool {
        self.gone.is_none() && (self.up.is_paused() || self.down.is_paused())
    }

    /// Looks for failures of sides that are not being read. A system call each; the next poll acts on what is found.
    pub(crate) fn probe(&mut self, downstream: &Io, upstream: &Io) {
        if self.up.is_paused()
            && let Ok(Some(error)) = downstream.take_error()
        {
            self.gone.get_or_insert((Side::Downstream, error));
        }
        if self.down.is_paused()
            && let Ok(Some(error)) = upstream.take_error()
        {
            self.gone.get_or_insert((Side::Upstream, error));
        }
    }

    /// Bytes read and not yet written: from downstream, from upstream.
    pub(crate) fn pending(&self) -> (usize, usize) {
        (self.up.pending(), self.down.pending())
    }

    /// Downstream is gone, and upstream is still to get what it had sent.
    pub(crate) fn is_flushing_upstream(&self) -> bool {
        matches!(self.gone, Some((Side::Downstream, _)))
    }

    /// What has been done so far.
    pub(crate) fn totals(&self) -> Totals {
        Totals { up: self.up.counts, down: self.down.counts }
    }

    /// Notes the first failure; later ones follow from it.
    fn fail(&mut self, fault: Fault, source: Side, sink: Side) {
        let (side, error) = match fault {
            Fault::Source(error) => (source, error),
            Fault::Sink(error) => (sink, error),
        };
        self.gone.get_or_insert((side, error));
    }

    fn poll_farewell(
        &mut self,
        downstream: &mut Io,
        upstream: &mut Io,
        context: &mut Context<'_>,
    ) -> Poll<End> {
        let Some((side, error)) = &self.gone else { return Poll::Pending };
        let (direction, other) = match side {
            Side::Downstream => (&mut self.up, upstream),
            Side::Upstream => (&mut self.down, downstream),
        };
        if error.kind() == io::ErrorKind::ConnectionReset {
            // It fails only if that side is gone as well.
            let _ = other.reset_on_close();
        } else {
            // If this side fails too, the first failure is the one to tell.
            let _ = ready!(direction.poll_flush(other, context));
        }
        match self.gone.take() {
            Some((side, error)) => Poll::Ready(End::Failed { side, error }),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests;
