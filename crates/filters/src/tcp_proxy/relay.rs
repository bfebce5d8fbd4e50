//! Two streams joined: bytes both ways, and each end learns when the other is done or fails.
//!
//! A state machine without a future of its own. Between two polls, which is between two system calls, everything about
//! the relay is in the struct, so that it can be taken out of its task and moved to another process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll, ready};

use proxy_net::Io;
use proxy_net::buffer::{ReadBuffer, SMALL};

use super::direction::{Counts, Direction, Fault};

/// A downstream and an upstream stream, joined.
#[derive(Debug)]
pub(super) struct Relay {
    downstream: Io,
    upstream: Io,
    up: Direction,
    down: Direction,
    /// A side that cannot be written to any more; what came from it is still being passed on.
    gone: Option<(Side, io::Error)>,
}

/// One of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Downstream,
    Upstream,
}

/// How a relay came to its end.
#[derive(Debug)]
pub(super) enum End {
    /// Both ways have ended; this side was the last to say so.
    Finished { last: Side },
    /// This side failed.
    Failed { side: Side, error: io::Error },
}

/// What a relay has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// From downstream to upstream.
    pub(super) up: Counts,
    /// From upstream to downstream.
    pub(super) down: Counts,
}

impl Relay {
    /// `prefix` was read from downstream earlier and goes first.
    pub(super) fn new(downstream: Io, prefix: ReadBuffer, upstream: Io) -> Self {
        let (up, down) = (Direction::new(prefix), Direction::new(ReadBuffer::new()));
        Self { downstream, upstream, up, down, gone: None }
    }

    /// As another process left it between two polls.
    pub(super) fn resumed(downstream: Io, upstream: Io, up: Direction, down: Direction) -> Self {
        Self { downstream, upstream, up, down, gone: None }
    }

    /// From downstream to upstream.
    pub(super) fn up(&self) -> &Direction {
        &self.up
    }

    /// From upstream to downstream.
    pub(super) fn down(&self) -> &Direction {
        &self.down
    }

    /// Whether another process could go on with it now: nothing has failed, and what is held fits a message.
    pub(super) fn is_movable(&self) -> bool {
        self.gone.is_none() && self.up.held().len() <= SMALL && self.down.held().len() <= SMALL
    }

    /// Both streams, and the ends of pipes that have bytes in them.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut descriptors = vec![self.downstream.as_fd(), self.upstream.as_fd()];
        for pipe in [&self.up, &self.down].into_iter().filter_map(|direction| direction.pipe()) {
            descriptors.extend(pipe.ends().into_iter().flatten());
        }
        descriptors
    }

    /// Moves all it can. After `Ready` the relay is to be dropped, which closes both streams.
    ///
    /// As Envoy does it: a reset on one side resets the other at once, whatever is under way. A side that is merely
    /// gone (written to after it closed) lets the other have what it had sent, then the other is closed too.
    pub(super) fn poll_relay(&mut self, context: &mut Context<'_>) -> Poll<End> {
        if self.gone.is_none() {
            let (up_was_done, down_was_done) = (self.up.is_done(), self.down.is_done());
            let up = self.up.poll_move(&mut self.downstream, &mut self.upstream, context);
            if let Poll::Ready(Err(fault)) = up {
                self.fail(fault, Side::Downstream, Side::Upstream);
            }
            let down = self.down.poll_move(&mut self.upstream, &mut self.downstream, context);
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
        self.poll_farewell(context)
    }

    /// Whether a side is not being read, so that its failure would go unnoticed.
    pub(super) fn is_paused(&self) -> bool {
        self.gone.is_none() && (self.up.is_paused() || self.down.is_paused())
    }

    /// Looks for failures of sides that are not being read. A system call each; the next poll acts on what is found.
    pub(super) fn probe(&mut self) {
        if self.up.is_paused()
            && let Ok(Some(error)) = self.downstream.take_error()
        {
            self.gone.get_or_insert((Side::Downstream, error));
        }
        if self.down.is_paused()
            && let Ok(Some(error)) = self.upstream.take_error()
        {
            self.gone.get_or_insert((Side::Upstream, error));
        }
    }

    /// Bytes read and not yet written: from downstream, from upstream.
    pub(super) fn pending(&self) -> (usize, usize) {
        (self.up.pending(), self.down.pending())
    }

    /// Downstream is gone, and upstream is still to get what it had sent.
    pub(super) fn is_flushing_upstream(&self) -> bool {
        matches!(self.gone, Some((Side::Downstream, _)))
    }

    /// What has been done so far.
    pub(super) fn totals(&self) -> Totals {
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

    fn poll_farewell(&mut self, context: &mut Context<'_>) -> Poll<End> {
        let Some((side, error)) = &self.gone else { return Poll::Pending };
        let (direction, other) = match side {
            Side::Downstream => (&mut self.up, &mut self.upstream),
            Side::Upstream => (&mut self.down, &mut self.downstream),
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
#[path = "relay_tests.rs"]
mod tests;
