//! The socket as `h2` sees it: many small writes become few large ones.
//!
//! `h2` writes and flushes once per frame of a body. Here a write lands in a lease, and what is there goes out when the
//! lease is full or when the connection's task, having polled `h2` to its end, calls [`Wire::poll_flush_out`].

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use proxy_config::settings::Http2Options;
use proxy_net::Io;
use proxy_net::buffer::{Lease, ReadBuffer, SMALL};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frame::{ACK, CLIENT_PREFACE, FrameHead, HEAD, SETTINGS};
use super::metadata::{MetadataFrames, StreamMetadata};
use super::{FloodGuard, Http2Stats, Side, farewell};

/// A handle; `h2` has one, the connection's task another.
#[derive(Clone)]
pub struct Wire(Rc<Shared>);

struct Shared {
    io: RefCell<Io>,
    prefix: RefCell<ReadBuffer>,
    out: RefCell<Out>,
    guard: Option<FloodGuard>,
    metadata: Option<Rc<MetadataFrames>>,
    /// METADATA under way.
    own_frames: RefCell<Vec<u8>>,
    read: Cell<u64>,
    written: Cell<u64>,
    at_end: Cell<bool>,
    flooded: Cell<bool>,
    broken: Cell<Option<&'static str>>,
    preface: Preface,
    discarded: Cell<usize>,
    leaving: Cell<bool>,
    /// To go into the first SETTINGS that is sent, in their form there.
    custom_settings: RefCell<Vec<u8>>,
}

/// Watches that the first frame is the SETTINGS of the peer's preface (RFC 9113, section 3.4), which `h2` does not.
struct Preface {
    /// Bytes to come until the type of that frame, and the flags behind it.
    ahead: Cell<usize>,
    /// Of these two, how many have come.
    seen: Cell<usize>,
}

impl Preface {
    fn of(side: Side) -> Preface {
        let text = if side == Side::Server { CLIENT_PREFACE } else { 0 };
        Preface { ahead: Cell::new(text + FRAME_LENGTH), seen: Cell::new(0) }
    }

    /// Takes in what has come. False: it is not what has to come first.
    fn accepts(&self, bytes: &[u8]) -> bool {
        if self.seen.get() == 2 {
            return true;
        }
        let passed = self.ahead.get().min(bytes.len());
        self.ahead.set(self.ahead.get() - passed);
        for byte in bytes[passed..].iter().take(2 - self.seen.get()) {
            let as_must_be = if self.seen.get() == 0 { *byte == SETTINGS } else { byte & ACK == 0 };
            if !as_must_be {
                return false;
            }
            self.seen.set(self.seen.get() + 1);
        }
        true
    }
}

/// What stands before the type in a frame's header. Bytes.
const FRAME_LENGTH: usize = 3;
/// With PROTOCOL_ERROR, no stream having been processed.
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Bytes `start..end` of the lease are to be written.
#[derive(Default)]
struct Out {
    lease: Option<Lease>,
    start: usize,
    end: usize,
}

/// A write up to this size is copied behind what waits. Bytes.
const COPIED: usize = 8 << 10;
/// How much [`Wire::poll_discard`] reads. Bytes.
const DISCARDED: usize = 256 << 10;

impl Wire {
    /// `prefix` is what was read from `io` before. With `options`, reading and writing fail where a [`FloodGuard`] finds a
    /// flood, and SETTINGS and METADATA are added as they say.
    pub fn new(
        io: Io,
        prefix: ReadBuffer,
        side: Side,
        options: Option<(&Http2Options, &Http2Stats)>,
    ) -> Wire {
        let custom_settings = options.map_or(&[][..], |(options, _)| &options.custom_settings);
        Wire(Rc::new(Shared {
            guard: options.map(|(options, stats)| FloodGuard::new(side, options, stats)),
            metadata: options.and_then(|(options, stats)| MetadataFrames::new(side, options, stats)),
            own_frames: RefCell::default(),
            flooded: Cell::new(false),
            broken: Cell::new(None),
            io: RefCell::new(io),
            read: Cell::new(prefix.len() as u64),
            prefix: RefCell::new(prefix),
            out: RefCell::default(),
            written: Cell::new(0),
            at_end: Cell::new(false),
            preface: Preface::of(side),
            discarded: Cell::new(0),
            leaving: Cell::new(false),
            custom_settings: RefCell::new(
                custom_settings
                    .iter()
                    .flat_map(|(id, value)| id.to_be_bytes().into_iter().chain(value.to_be_bytes()))
                    .collect(),
            ),
        }))
    }

    /// GOAWAY is being said: from now on [`farewell`] has its say on what is read.
    pub fn leave(&self) {
        self.0.leaving.set(true);
    }

    /// Bytes read since this was last asked.
    pub fn take_read(&self) -> u64 {
        self.0.read.take()
    }

    /// Bytes written since this was last asked.
    pub fn take_written(&self) -> u64 {
        self.0.written.take()
    }

    /// Bytes that wait for the socket.
    pub fn waiting(&self) -> usize {
        self.0.out.borrow().waiting().len()
    }

    /// Whether the peer sent too much of something.
    pub fn is_flooded(&self) -> bool {
        self.0.flooded.get()
    }

    /// What the peer sent that `h2` would have taken, and no peer may send.
    pub fn broken(&self) -> Option<&'static str> {
        self.0.broken.get()
    }

    /// METADATA of a stream that is served from now on; `None` where it is not allowed.
    pub fn metadata(&self, stream: h2::StreamId) -> Option<StreamMetadata> {
        self.0.metadata.as_ref().map(|metadata| metadata.claim(stream.as_u32()))
    }

    /// `h2` has told of all streams that it has read of: METADATA of others is dropped.
    pub fn all_streams_told(&self) {
        if let Some(metadata) = &self.0.metadata {
            metadata.forget_unclaimed();
        }
    }

    /// Looks at what was read.
    fn check(&self, bytes: &[u8]) -> io::Result<()> {
        if self.0.guard.as_ref().is_some_and(|guard| guard.received(bytes)) {
            self.0.flooded.set(true);
            return Err(io::Error::other("a flood of frames"));
        }
        match &self.0.metadata {
            Some(metadata) => metadata.received(bytes).map_err(|_| self.breaks("HTTP/2 METADATA")),
            None => Ok(()),
        }
    }

    /// To `h2` it is a read that failed; no socket fails so.
    fn breaks(&self, what: &'static str) -> io::Error {
        self.0.broken.set(Some(what));
        io::Error::new(io::ErrorKind::InvalidData, what)
    }

    /// Whether the peer has ended its side.
    pub fn is_at_end(&self) -> bool {
        self.0.at_end.get()
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_flush_out(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(metadata) = &self.0.metadata {
            metadata.set_driver(cx);
            ready!(self.poll_put_metadata(cx, metadata))?;
        }
        let mut out = self.0.out.borrow_mut();
        while out.start < out.end {
            let polled = self.0.io.borrow_mut().poll_write(cx, out.waiting());
            if polled.is_pending()
                && let Some(guard) = &self.0.guard
            {
                guard.blocked();
            }
            self.advance(&mut out, ready!(polled)?)?;
        }
        if let Some(guard) = &self.0.guard {
            guard.all_taken();
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and drops what comes until the peer ends its side: a close with bytes unread would reset the connection
    /// and take from the peer what was sent last. Of a peer that goes on sending, no more than a little is read.
    pub fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut buffer = ReadBuffer::new();
        while self.0.discarded.get() < DISCARDED {
            match ready!(buffer.poll_fill(&mut self.0.io.borrow_mut(), cx, false)) {
                Ok(count) if count > 0 => {
                    self.0.discarded.set(self.0.discarded.get() + count);
                    buffer.clear();
                }
                Ok(_) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Says GOAWAY.
    fn refuse_preface(&self) -> io::Error {
        let _ = self.0.out.borrow_mut().take(&[IoSlice::new(&GOAWAY)]);
        self.breaks("HTTP/2 preface")
    }

    /// Notes that `count` bytes of those waiting, and none else, were written.
    fn advance(&self, out: &mut Out, count: usize) -> io::Result<()> {
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.0.written.set(self.0.written.get() + count as u64);
        if out.start + count >= out.end {
            *out = Out::default();
            return Ok(());
        }
        if let Some(guard) = &self.0.guard {
            guard.taken(&out.waiting()[..count]);
        }
        out.start += count;
        Ok(())
    }

    /// Takes the first frame of `buffers`, if that is `h2`'s SETTINGS, and adds the custom ones.
    fn take_settings(&self, buffers: &[IoSlice<'_>]) -> Option<usize> {
        let mut custom = self.0.custom_settings.borrow_mut();
        if custom.is_empty() {
            return None;
        }
        let bytes = &**buffers.first()?;
        let head = FrameHead::first_of(bytes).filter(|head| (head.kind, head.flags) == (SETTINGS, 0))?;
        let payload = bytes.get(HEAD..)?.get(..head.length)?;
        let whole = FrameHead { length: payload.len() + custom.len(), ..head };
        let frame = [&whole.to_bytes(), payload, &custom].concat();
        let frame = [IoSlice::new(&frame)];
        self.0.out.borrow_mut().take(&frame)?;
        self.sent(&frame, frame[0].len());
        *custom = Vec::new();
        Some(HEAD + payload.len())
    }

    /// Looks at what `h2` has written, the first `count` bytes of `buffers`. False: too much waits for the peer.
    fn sent(&self, buffers: &[IoSlice<'_>], count: usize) -> bool {
        let Some(guard) = &self.0.guard else { return true };
        if parts(buffers, count).any(|part| guard.sent(&part)) {
            self.0.flooded.set(true);
            return false;
        }
        if self.0.out.borrow().waiting().is_empty() {
            guard.all_taken();
        }
        true
    }

    /// Takes `buffers`, or some of them, to be written.
    fn poll_put(&self, cx: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let taken = self.0.out.borrow_mut().take(buffers);
        let count = match taken {
            Some(count) => count,
            None => match self.poll_write_through(cx, buffers) {
                Poll::Ready(written) => written?,
                // What waits is counted only when it is here.
                Poll::Pending => match self.0.out.borrow_mut().take_some(buffers) {
                    0 => return Poll::Pending,
                    count => count,
                },
            },
        };
        if !self.sent(buffers, count) {
            return Poll::Ready(Err(io::Error::other("too many frames wait for the peer")));
        }
        Poll::Ready(Ok(count))
    }

    /// Takes the METADATA that may be written here; ready when nothing of it is left.
    fn poll_put_metadata(&self, cx: &mut Context<'_>, metadata: &MetadataFrames) -> Poll<io::Result<()>> {
        let mut frames = self.0.own_frames.borrow_mut();
        loop {
            if frames.is_empty() && metadata.is_waiting() {
                *frames = metadata.take_frames();
            }
            if frames.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let count = ready!(self.poll_put(cx, &[IoSlice::new(&frames)]))?;
            frames.drain(..count);
        }
    }

    /// Writes what waits and `buffers` behind it.
    fn poll_write_through(&self, cx: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut out = self.0.out.borrow_mut();
        loop {
            let waiting = out.end - out.start;
            let count = {
                let mut parts: SmallVec<[IoSlice<'_>; 8]> = SmallVec::new();
                if waiting > 0 {
                    parts.push(IoSlice::new(out.waiting()));
                }
                parts.extend(buffers.iter().take(MAX_PARTS).map(|buffer| IoSlice::new(buffer)));
                ready!(self.0.io.borrow_mut().poll_write_vectored(cx, &parts))?
            };
            if count > waiting {
                self.0.written.set(self.0.written.get() + count as u64);
                *out = Out::default();
                return Poll::Ready(Ok(count - waiting));
            }
            self.advance(&mut out, count)?;
        }
    }
}

const MAX_PARTS: usize = 16;

/// The first `count` bytes of `buffers`.
fn parts<'a>(buffers: &'a [IoSlice<'_>], mut count: usize) -> impl Iterator<Item = IoSlice<'a>> {
    buffers.iter().map(move |buffer| {
        let part = count.min(buffer.len());
        count -= part;
        IoSlice::new(&buffer[..part])
    })
}

impl Out {
    fn waiting(&self) -> &[u8] {
        self.lease.as_ref().map_or(&[], |lease| &lease[self.start..self.end])
    }

    /// Takes all of `buffers`, or nothing.
    fn take(&mut self, buffers: &[IoSlice<'_>]) -> Option<usize> {
        let total: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        (total <= COPIED && self.end + total <= SMALL).then(|| self.take_some(buffers))
    }

    /// Takes as much of `buffers` as there is room for. Bytes.
    fn take_some(&mut self, buffers: &[IoSlice<'_>]) -> usize {
        let lease = self.lease.get_or_insert_with(Lease::small);
        if self.start > 0 {
            lease.copy_within(self.start..self.end, 0);
            self.end -= std::mem::take(&mut self.start);
        }
        let before = self.end;
        for buffer in buffers {
            let count = buffer.len().min(SMALL - self.end);
            lease[self.end..self.end + count].copy_from_slice(&buffer[..count]);
            self.end += count;
        }
        self.end - before
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let shared = &self.0;
        let mut prefix = shared.prefix.borrow_mut();
        if !prefix.is_empty() {
            let count = prefix.len().min(buffer.remaining());
            let accepted = shared.preface.accepts(&prefix.data()[..count]);
            buffer.put_slice(&prefix.data()[..count]);
            let checked = self.check(&prefix.data()[..count]);
            prefix.consume(count);
            return Poll::Ready(if accepted { checked } else { Err(self.refuse_preface()) });
        }
        let before = buffer.filled().len();
        let polled = shared.io.borrow_mut().poll_read(cx, buffer);
        let count = buffer.filled().len() - before;
        shared.read.set(shared.read.get() + count as u64);
        if count == 0 && polled.is_ready() {
            shared.at_end.set(true);
        }
        if !shared.preface.accepts(&buffer.filled()[before..]) {
            return Poll::Ready(Err(self.refuse_preface()));
        }
        if count > 0 {
            if shared.leaving.get()
                && let Some(guard) = &shared.guard
                && let Some(rest) = guard.until_next_frame()
                && rest < count
            {
                farewell::put_pong_last(&mut buffer.filled_mut()[before + rest..]);
            }
            self.check(&buffer.filled()[before..])?;
        }
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(count) = self.take_settings(buffers) {
            return Poll::Ready(Ok(count));
        }
        let Some(metadata) = &self.0.metadata else { return self.poll_put(cx, buffers) };
        ready!(self.poll_put_metadata(cx, metadata))?;
        let count = if metadata.is_waiting() {
            // Some may go behind the next frame.
            let limit = metadata.until_next_frame(buffers.iter().map(|buffer| &**buffer));
            ready!(self.poll_put(cx, &parts(buffers, limit).collect::<SmallVec<[_; MAX_PARTS]>>()))?
        } else {
            ready!(self.poll_put(cx, buffers))?
        };
        parts(buffers, count).for_each(|part| metadata.sent(&part));
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's task does it, once for all that `h2` had to say.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush_out(cx))?;
        self.0.io.borrow_mut().poll_shutdown(cx)
    }
}
