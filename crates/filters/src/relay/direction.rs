//! One way of a relay: from a source to a sink, at most one buffer or pipe full at a time.
//!
//! Nothing is read before all that was read is written, which bounds memory and lets a slow sink hold its source back.
//! Small traffic goes through a leased buffer in two system calls. A direction that fills its buffer several times in
//! a row is carrying bulk and goes through a pipe, without a copy, until it trickles again.

use std::io;
use std::task::{Context, Poll, ready};

use proxy_net::Io;
use proxy_net::buffer::{LARGE, ReadBuffer, SMALL};
use proxy_net::pipe::Pipe;

/// State of one way; between two system calls it is all here.
#[derive(Debug)]
pub(crate) struct Direction {
    held: ReadBuffer,
    pipe: Option<Pipe>,
    /// Full reads in a row, as far as they matter.
    full_reads: u8,
    /// Bytes that may be held at a time.
    limit: u32,
    stage: Stage,
    /// The sink is full; the source is not being read.
    paused: bool,
    pub(crate) counts: Counts,
}

/// What a direction has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Bytes read from the source.
    pub(crate) read: u64,
    /// Bytes written to the sink.
    pub(crate) written: u64,
    /// Times that a full sink held the source back.
    pub(crate) paused: u64,
    /// Times that it went on.
    pub(crate) resumed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The source may have more.
    Open,
    /// The source has ended, the sink does not know yet.
    Ended,
    /// The sink has been told.
    Done,
}

/// Which end failed.
#[derive(Debug)]
pub(crate) enum Fault {
    Source(io::Error),
    Sink(io::Error),
}

/// This many full reads make bulk.
const BULK: u8 = 2;

/// A splice that moves less says that the bulk may be over, in bytes.
const TRICKLE: usize = SMALL / 4;

impl Direction {
    /// `prefix` goes first; it was read earlier.
    pub(crate) fn new(prefix: ReadBuffer) -> Self {
        let counts = Counts { read: prefix.len() as u64, ..Counts::default() };
        Self::between(prefix, None, Stage::Open, counts)
    }

    /// As another process left it between two polls.
    pub(crate) fn between(held: ReadBuffer, pipe: Option<Pipe>, stage: Stage, counts: Counts) -> Self {
        Self { held, pipe, full_reads: 0, limit: u32::MAX, stage, paused: false, counts }
    }

    /// No more than so many bytes are read ahead of the sink (`per_connection_buffer_limit_bytes`); 0 is no limit.
    pub(crate) fn set_limit(&mut self, limit: u32) {
        self.limit = if limit == 0 { u32::MAX } else { limit };
    }

    pub(crate) fn held(&self) -> &[u8] {
        self.held.data()
    }

    /// A pipe with bytes in it.
    pub(crate) fn pipe(&self) -> Option<&Pipe> {
        self.pipe.as_ref().filter(|pipe| !pipe.is_empty())
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// Bytes read and not yet written.
    pub(crate) fn pending(&self) -> usize {
        self.held.len() + self.pipe.as_ref().map_or(0, Pipe::len)
    }

    /// Whether the end of the source has reached the sink.
    pub(crate) fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Whether a full sink holds the source back.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Moves all it can. Ready when the source has ended and the sink been told so.
    pub(crate) fn poll_move(
        &mut self,
        source: &mut Io,
        sink: &mut Io,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        loop {
            ready!(self.poll_flush(sink, context)).map_err(Fault::Sink)?;
            match self.stage {
                Stage::Open => {
                    let count = ready!(self.poll_take(source, context)).map_err(Fault::Source)?;
                    if count == 0 {
                        self.stage = Stage::Ended;
                    }
                    self.counts.read += count as u64;
                }
                Stage::Ended => {
                    ready!(sink.poll_shutdown(context)).map_err(Fault::Sink)?;
                    self.stage = Stage::Done;
                }
                Stage::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Writes what has been read, and reads nothing. Ready when nothing is left.
    ///
    /// # Errors
    /// Those of the sink.
    pub(crate) fn poll_flush(&mut self, sink: &mut Io, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.pending() > 0 {
            let polled = match &mut self.pipe {
                Some(pipe) if self.held.is_empty() => pipe.poll_drain(sink, context),
                _ => sink.poll_write(context, self.held.data()),
            };
            if polled.is_pending() {
                self.counts.paused += u64::from(!self.paused);
                self.paused = true;
            }
            let count = ready!(polled)?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            // A pipe has noted it by itself.
            self.held.consume(count);
            self.counts.written += count as u64;
        }
        self.counts.resumed += u64::from(self.paused);
        self.paused = false;
        Poll::Ready(Ok(()))
    }

    /// Reads once. Whatever it is read into is given back if nothing comes.
    fn poll_take(&mut self, source: &mut Io, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let bulk = self.full_reads >= BULK;
        if bulk {
            self.pipe = self.pipe.take().or_else(Pipe::take);
        }
        let Some(pipe) = &mut self.pipe else {
            let (limit, large) = (self.limit as usize, bulk && self.limit as usize >= LARGE);
            let count = ready!(self.held.poll_fill_at_most(source, context, large, limit))?;
            self.full_reads = if count < SMALL { 0 } else { BULK.min(self.full_reads + 1) };
            return Poll::Ready(Ok(count));
        };
        let polled = pipe.poll_fill(source, context, self.limit as usize);
        if pipe.len() < TRICKLE {
            self.full_reads = self.full_reads.saturating_sub(u8::from(polled.is_ready()));
        }
        if pipe.is_empty() {
            self.pipe = None;
        }
        polled
    }
}
