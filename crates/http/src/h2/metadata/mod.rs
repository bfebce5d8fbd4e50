//! METADATA: Envoy's own frames, which say something about a stream beside its message (`allow_metadata`; Envoy's
//! `source/docs/h2_metadata.md`).
//!
//! `h2` drops frames it does not know. So [`MetadataFrames`] sees what the wire reads on its way to `h2`, and has frames of
//! its own written between those of `h2`. A block is taken as a whole, read, and passed on to the stream that its stream is
//! joined with; where that takes none it is dropped. Blocks keep their order among each other and come after the head that
//! they came after; past bytes of a body that still wait they go.

pub mod hpack;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};

use proxy_config::settings::Http2Options;
use proxy_stats::Counter;

use super::frame::{
    CLIENT_PREFACE, CONTINUATION, DATA, END_HEADERS, END_METADATA, END_STREAM, FrameHead, Frames, HEADERS,
    METADATA, RST_STREAM,
};
use super::{Http2Stats, Side};

/// METADATA of one connection.
pub(super) struct MetadataFrames {
    side: Side,
    /// Of the blocks of a stream together, as they come and as they read. Bytes.
    max_size: usize,
    empty: Counter,
    inbound: RefCell<Inbound>,
    outbound: RefCell<Outbound>,
    streams: RefCell<BTreeMap<u32, Rc<Stream>>>,
    /// Streams were opened since [`MetadataFrames::forget_unclaimed`].
    opened: Cell<bool>,
    line: Rc<Line>,
}

/// What was found to break a rule: the connection is to end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken;

struct Inbound {
    frames: Frames,
    /// The METADATA frame under way, if its stream takes it.
    under_way: Option<(Rc<Stream>, FrameHead)>,
    /// The latest stream that the peer has opened.
    last_opened: u32,
}

struct Outbound {
    frames: Frames,
    /// A header block has begun and not ended: nothing may come between.
    in_block: bool,
}

/// What is to be written.
#[derive(Default)]
struct Line {
    /// Streams that have blocks.
    streams: RefCell<Vec<Rc<Stream>>>,
    /// Who drives the connection.
    driver: RefCell<Option<Waker>>,
}

#[derive(Default)]
struct Stream {
    id: u32,
    served: Cell<Served>,
    inbound: Half,
    outbound: Half,
    /// Bytes that came so far.
    received: Cell<usize>,
    /// The block under way.
    partial: RefCell<Vec<u8>>,
    /// Blocks that came before it was known where they go.
    kept: RefCell<Vec<Block>>,
    onward: RefCell<Onward>,
    to_write: RefCell<VecDeque<Block>>,
    line: Rc<Line>,
}

/// Whether somebody serves a stream.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Served {
    #[default]
    NotYet,
    Now,
    /// Who did is done; `h2` may still have some of it to write.
    NoMore,
}

/// How far a stream has come in one direction.
#[derive(Default)]
struct Half {
    begun: Cell<bool>,
    ended: Cell<bool>,
}

#[derive(Default)]
enum Onward {
    #[default]
    Unknown,
    To(Weak<Stream>),
    Nowhere,
}

/// A block as it is written.
struct Block {
    payload: Vec<u8>,
    /// It came behind the head of its message.
    behind_head: bool,
}

/// METADATA of one stream, both ways, for as long as it is served.
pub struct StreamMetadata {
    stream: Rc<Stream>,
    frames: Rc<MetadataFrames>,
}

impl MetadataFrames {
    /// `None` unless `allow_metadata`.
    pub(super) fn new(side: Side, options: &Http2Options, stats: &Http2Stats) -> Option<Rc<MetadataFrames>> {
        let max_size = options.max_metadata_size?;
        let preface = |has: bool| if has { CLIENT_PREFACE } else { 0 };
        Some(Rc::new(MetadataFrames {
            side,
            max_size: usize::try_from(max_size).unwrap_or(usize::MAX),
            empty: stats.metadata_empty_frames,
            inbound: RefCell::new(Inbound {
                frames: Frames::new(preface(side == Side::Server)),
                under_way: None,
                last_opened: 0,
            }),
            outbound: RefCell::new(Outbound {
                frames: Frames::new(preface(side == Side::Client)),
                in_block: false,
            }),
            streams: RefCell::default(),
            opened: Cell::new(false),
            line: Rc::default(),
        }))
    }

    /// What there is of stream `id`, which is served from now on.
    pub(super) fn claim(self: &Rc<Self>, id: u32) -> StreamMetadata {
        let stream = Rc::clone(self.streams.borrow_mut().entry(id).or_insert_with(|| self.stream(id)));
        stream.served.set(Served::Now);
        StreamMetadata { stream, frames: Rc::clone(self) }
    }

    /// All streams that are to be served are claimed.
    pub(super) fn forget_unclaimed(&self) {
        if self.opened.take() {
            self.streams.borrow_mut().retain(|_, stream| stream.served.get() != Served::NotYet);
        }
    }

    fn stream(&self, id: u32) -> Rc<Stream> {
        Rc::new(Stream { id, line: Rc::clone(&self.line), ..Stream::default() })
    }

    fn find(&self, id: u32) -> Option<Rc<Stream>> {
        self.streams.borrow().get(&id).map(Rc::clone)
    }

    /// Looks at what was read, before `h2` does.
    pub(super) fn received(&self, bytes: &[u8]) -> Result<(), Broken> {
        let mut inbound = self.inbound.borrow_mut();
        let Inbound { frames, under_way, last_opened } = &mut *inbound;
        frames.scan_payload(bytes, |head, payload, rest| {
            if let Some(head) = head {
                *under_way = self.begin(head, last_opened);
            }
            let Some((stream, head)) = under_way else { return Ok(()) };
            self.take(stream, payload)?;
            if rest == 0 {
                let ends = head.has(END_METADATA).then(|| std::mem::take(&mut *stream.partial.borrow_mut()));
                let stream = under_way.take();
                if let (Some((stream, _)), Some(block)) = (stream, ends) {
                    self.pass_on(&stream, &block)?;
                }
            }
            Ok(())
        })
    }

    /// A frame begins. `Some`: its payload is wanted.
    fn begin(&self, head: FrameHead, last_opened: &mut u32) -> Option<(Rc<Stream>, FrameHead)> {
        match head.kind {
            HEADERS | DATA | RST_STREAM => {
                if head.kind == HEADERS && self.side == Side::Server && head.stream > *last_opened {
                    *last_opened = head.stream;
                    self.opened.set(true);
                    self.streams.borrow_mut().insert(head.stream, self.stream(head.stream));
                }
                let stream = self.find(head.stream)?;
                stream.inbound.note(head);
                if head.kind == RST_STREAM {
                    self.end_outbound(&stream);
                }
                None
            }
            METADATA => {
                let stream = self.find(head.stream)?;
                (!stream.inbound.ended.get()).then_some((stream, head))
            }
            _ => None,
        }
    }

    /// Takes a piece of a block.
    fn take(&self, stream: &Stream, payload: &[u8]) -> Result<(), Broken> {
        stream.received.set(stream.received.get() + payload.len());
        if stream.received.get() > self.max_size {
            return Err(Broken);
        }
        stream.partial.borrow_mut().extend_from_slice(payload);
        Ok(())
    }

    /// A block is whole.
    fn pass_on(&self, stream: &Stream, block: &[u8]) -> Result<(), Broken> {
        let lines = hpack::decode(block, self.max_size).map_err(|_| Broken)?;
        if lines.is_empty() {
            self.empty.inc();
            return Ok(());
        }
        let block = Block { payload: hpack::encode(&lines), behind_head: stream.inbound.begun.get() };
        match &*stream.onward.borrow() {
            Onward::Unknown => stream.kept.borrow_mut().push(block),
            Onward::To(other) => {
                if let Some(other) = other.upgrade() {
                    other.write(block);
                }
            }
            Onward::Nowhere => {}
        }
        Ok(())
    }

    /// Looks at what `h2` writes.
    pub(super) fn sent(&self, bytes: &[u8]) {
        let Outbound { frames, in_block } = &mut *self.outbound.borrow_mut();
        frames.scan(bytes, |head| {
            if matches!(head.kind, HEADERS | CONTINUATION) {
                *in_block = !head.has(END_HEADERS);
            }
            if matches!(head.kind, HEADERS | DATA | RST_STREAM)
                && let Some(stream) = self.find(head.stream)
            {
                stream.outbound.note(head);
                if stream.outbound.ended.get() {
                    self.end_outbound(&stream);
                }
            }
        });
    }

    /// Nothing more is written of a stream.
    fn end_outbound(&self, stream: &Stream) {
        stream.outbound.ended.set(true);
        stream.to_write.borrow_mut().clear();
        if stream.served.get() == Served::NoMore {
            self.streams.borrow_mut().remove(&stream.id);
        }
    }

    /// Whether some blocks wait for their turn.
    pub(super) fn is_waiting(&self) -> bool {
        !self.line.streams.borrow().is_empty()
    }

    /// The frames that may be written where `h2` has come to; none within one of its frames.
    pub(super) fn take_frames(&self) -> Vec<u8> {
        let mut frames = Vec::new();
        let outbound = self.outbound.borrow();
        if outbound.in_block || outbound.frames.until_next() != Some(0) {
            return frames;
        }
        self.line.streams.borrow_mut().retain(|stream| {
            let mut blocks = stream.to_write.borrow_mut();
            while let Some(block) =
                blocks.pop_front_if(|block| !block.behind_head || stream.outbound.begun.get())
            {
                put_frames(&mut frames, stream.id, &block.payload);
            }
            !blocks.is_empty()
        });
        frames
    }

    /// How much of `bytes` belongs to the frame under way, or else to the first one.
    pub(super) fn until_next_frame<'a>(&self, bytes: impl Iterator<Item = &'a [u8]>) -> usize {
        let mut frames = self.outbound.borrow().frames;
        let mut count = 0;
        for bytes in bytes {
            for byte in bytes.chunks(1) {
                count += 1;
                frames.scan(byte, |_| {});
                match frames.until_next() {
                    Some(rest) if rest > 0 => return count + rest,
                    Some(_) => return count,
                    None => {}
                }
            }
        }
        count
    }

    /// Has the connection's task come by when there is something to write.
    pub(super) fn set_driver(&self, cx: &Context<'_>) {
        let mut driver = self.line.driver.borrow_mut();
        match &mut *driver {
            Some(driver) => driver.clone_from(cx.waker()),
            None => *driver = Some(cx.waker().clone()),
        }
    }
}

impl Half {
    fn note(&self, head: FrameHead) {
        self.begun.set(self.begun.get() || head.kind == HEADERS);
        self.ended.set(self.ended.get() || head.kind == RST_STREAM || head.has(END_STREAM));
    }
}

impl Stream {
    fn write(self: &Rc<Self>, block: Block) {
        if self.outbound.ended.get() {
            return;
        }
        let mut blocks = self.to_write.borrow_mut();
        if blocks.is_empty() {
            self.line.streams.borrow_mut().push(Rc::clone(self));
        }
        blocks.push_back(block);
        if let Some(driver) = &*self.line.driver.borrow() {
            driver.wake_by_ref();
        }
    }
}

impl StreamMetadata {
    /// What comes on this stream goes out on `other`, if there is one.
    pub fn forward_to(&self, other: Option<&StreamMetadata>) {
        let kept = std::mem::take(&mut *self.stream.kept.borrow_mut());
        let onward = match other {
            Some(other) => {
                kept.into_iter().for_each(|block| other.stream.write(block));
                Onward::To(Rc::downgrade(&other.stream))
            }
            None => Onward::Nowhere,
        };
        *self.stream.onward.borrow_mut() = onward;
    }

    /// Whether something came that is still to go on: the message on which it goes must not end with its head.
    pub fn has_come(&self) -> bool {
        !self.stream.kept.borrow().is_empty()
    }

    /// Whether something waits for the head to be sent: that must not end the stream.
    pub fn is_to_go(&self) -> bool {
        !self.stream.to_write.borrow().is_empty()
    }
}

impl Drop for StreamMetadata {
    fn drop(&mut self) {
        self.stream.served.set(Served::NoMore);
        // A response may have been given to `h2` as a whole. A request that nobody waits for any more is not worth it.
        if self.frames.side == Side::Client || !self.is_to_go() {
            self.frames.end_outbound(&self.stream);
        }
    }
}

/// Writes a block as frames.
fn put_frames(frames: &mut Vec<u8>, stream: u32, payload: &[u8]) {
    let mut pieces = payload.chunks(MAX_PAYLOAD).peekable();
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() { END_METADATA } else { 0 };
        let head = FrameHead { length: piece.len(), kind: METADATA, flags, stream };
        frames.extend_from_slice(&head.to_bytes());
        frames.extend_from_slice(piece);
    }
}

/// What every peer takes (RFC 9113, section 4.2). Bytes.
const MAX_PAYLOAD: usize = 16 << 10;
