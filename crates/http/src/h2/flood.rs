//! Limits on what a peer may send beside what is asked for (frames without content, priorities, windows opened byte by
//! byte), and on the answers that wait for it. `h2` takes them all; here their heads are counted on the way to it and
//! from it, at a cost per frame and not per byte.

use std::cell::{Cell, RefCell};

use proxy_config::settings::Http2Options;
use proxy_stats::{Counter, GaugeShare};

use super::Http2Stats;
use super::frame::{
    CLIENT_PREFACE, CONTINUATION, DATA, END_STREAM, FrameHead, Frames, HEADERS, PING, PRIORITY, RST_STREAM,
    SETTINGS, WINDOW_UPDATE,
};

/// Counts the frames of a connection and tells when there are too many of a kind.
pub struct FloodGuard {
    inbound: RefCell<Frames>,
    outbound: RefCell<Frames>,
    empty: Cell<u32>,
    priorities: Cell<u64>,
    window_updates: Cell<u64>,
    streams: Cell<u64>,
    data_sent: Cell<u64>,
    waiting: Waiting,
    limits: Limits,
    counters: Counters,
}

/// Frames that wait for the socket.
struct Waiting {
    /// As far as the socket has taken them; all, unless `some`.
    taken: RefCell<Frames>,
    some: Cell<bool>,
    frames: Cell<u32>,
    /// Of these, pings, SETTINGS and resets: what a peer can ask for without end.
    control: Cell<u32>,
    frames_active: GaugeShare,
    control_active: GaugeShare,
}

#[derive(Clone, Copy)]
struct Limits {
    outbound: u32,
    outbound_control: u32,
    empty: u32,
    priorities: u64,
    window_updates: u64,
}

#[derive(Clone, Copy)]
struct Counters {
    outbound: Counter,
    outbound_control: Counter,
    empty: Counter,
    priorities: Counter,
    window_updates: Counter,
    /// Not a flood: `h2` resets streams without telling.
    resets: Counter,
}

/// Which side of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What comes begins with the client's preface.
    Server,
    Client,
}

impl FloodGuard {
    /// Bytes that the peer has still to send of the frame under way; `None` within a frame's head.
    pub(super) fn until_next_frame(&self) -> Option<usize> {
        self.inbound.borrow().until_next()
    }

    pub fn new(side: Side, options: &Http2Options, stats: &Http2Stats) -> FloodGuard {
        let preface = |has: bool| if has { CLIENT_PREFACE } else { 0 };
        FloodGuard {
            inbound: RefCell::new(Frames::new(preface(side == Side::Server))),
            outbound: RefCell::new(Frames::new(preface(side == Side::Client))),
            waiting: Waiting {
                taken: RefCell::new(Frames::new(preface(side == Side::Client))),
                some: Cell::new(false),
                frames: Cell::new(0),
                control: Cell::new(0),
                frames_active: GaugeShare::new(stats.outbound_frames_active),
                control_active: GaugeShare::new(stats.outbound_control_frames_active),
            },
            empty: Cell::new(0),
            priorities: Cell::new(0),
            window_updates: Cell::new(0),
            streams: Cell::new(0),
            data_sent: Cell::new(0),
            limits: Limits {
                outbound: options.max_outbound_frames,
                outbound_control: options.max_outbound_control_frames,
                empty: options.max_empty_frames,
                priorities: options.max_priority_frames.into(),
                window_updates: options.max_window_updates.into(),
            },
            counters: Counters {
                outbound: stats.outbound_flood,
                outbound_control: stats.outbound_control_flood,
                empty: stats.inbound_empty_frames_flood,
                priorities: stats.inbound_priority_frames_flood,
                window_updates: stats.inbound_window_update_frames_flood,
                resets: stats.tx_reset,
            },
        }
    }

    /// Looks at what was read. True: it is too much of something, which has been counted.
    pub(super) fn received(&self, bytes: &[u8]) -> bool {
        let mut flooded = false;
        self.inbound.borrow_mut().scan(bytes, |head| {
            if !flooded && let Some(counter) = self.count_received(head) {
                counter.inc();
                flooded = true;
            }
        });
        flooded
    }

    /// Looks at what `h2` writes. True: more waits for the peer to read than may, which has been counted.
    pub(super) fn sent(&self, bytes: &[u8]) -> bool {
        let Waiting { some, frames, control, .. } = &self.waiting;
        some.set(true);
        self.outbound.borrow_mut().scan(bytes, |head| {
            frames.set(frames.get() + 1);
            match head.kind {
                DATA => self.data_sent.set(self.data_sent.get() + 1),
                HEADERS => self.streams.set(self.streams.get() + 1),
                PING | SETTINGS | RST_STREAM => {
                    control.set(control.get() + 1);
                    if head.kind == RST_STREAM {
                        self.counters.resets.inc();
                    }
                }
                _ => {}
            }
        });
        let counter = if control.get() > self.limits.outbound_control {
            self.counters.outbound_control
        } else if frames.get() > self.limits.outbound {
            self.counters.outbound
        } else {
            return false;
        };
        counter.inc();
        true
    }

    /// The socket has taken `bytes`, and will take no more for now.
    pub(super) fn taken(&self, bytes: &[u8]) {
        let Waiting { taken, frames, control, .. } = &self.waiting;
        taken.borrow_mut().scan(bytes, |head| {
            frames.set(frames.get().saturating_sub(1));
            if matches!(head.kind, PING | SETTINGS | RST_STREAM) {
                control.set(control.get().saturating_sub(1));
            }
        });
    }

    /// The socket takes no more for now.
    pub(super) fn blocked(&self) {
        self.waiting.frames_active.set(self.waiting.frames.get() as usize);
        self.waiting.control_active.set(self.waiting.control.get() as usize);
    }

    /// The socket has taken all that was written.
    pub(super) fn all_taken(&self) {
        if self.waiting.some.replace(false) {
            *self.waiting.taken.borrow_mut() = *self.outbound.borrow();
            self.waiting.frames.set(0);
            self.waiting.control.set(0);
            self.blocked();
        }
    }

    /// The counter of the flood that this frame makes; the limits are Envoy's.
    fn count_received(&self, head: FrameHead) -> Option<Counter> {
        match head.kind {
            DATA | HEADERS | CONTINUATION => {
                if head.kind == HEADERS {
                    self.streams.set(self.streams.get() + 1);
                }
                let ends = head.kind != CONTINUATION && head.has(END_STREAM);
                self.empty.set(if head.length == 0 && !ends { self.empty.get() + 1 } else { 0 });
                (self.empty.get() > self.limits.empty).then_some(self.counters.empty)
            }
            PRIORITY => {
                self.priorities.set(self.priorities.get() + 1);
                let allowed = self.limits.priorities.saturating_mul(1 + self.streams.get());
                (self.priorities.get() > allowed).then_some(self.counters.priorities)
            }
            WINDOW_UPDATE => {
                self.window_updates.set(self.window_updates.get() + 1);
                let for_data = self.limits.window_updates.saturating_mul(self.data_sent.get());
                let allowed =
                    5u64.saturating_add(self.streams.get().saturating_add(for_data).saturating_mul(2));
                (self.window_updates.get() > allowed).then_some(self.counters.window_updates)
            }
            _ => None,
        }
    }
}
