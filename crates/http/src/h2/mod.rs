//! HTTP/2 for both sides, over the `h2` crate: what client and server have in common.
//!
//! [`convert`] turns `http`'s messages into flat ones and back, [`wire`] is the socket as `h2` sees it, [`send`] and
//! [`receive`] move bodies under flow control, [`keepalive`] pings, [`metadata`] passes Envoy's own frames, [`farewell`] loses no request to a GOAWAY. Who opens
//! streams and when is not known here.

pub mod convert;
mod farewell;
pub mod flood;
mod frame;
pub mod keepalive;
pub mod metadata;
pub mod receive;
pub mod send;
pub mod stats;
#[cfg(test)]
mod tests;
pub mod wire;

pub use flood::{FloodGuard, Side};
pub use keepalive::Keepalive;
pub use metadata::StreamMetadata;
pub use receive::BodyReceiver;
pub use send::{BodySender, Queued, SendError, SendQueue};
pub use stats::Http2Stats;
pub use wire::Wire;

/// What a connection's peer may make it keep: resets that nobody has seen yet, before the connection is ended
/// (CVE-2023-44487 and its kin). Streams.
pub const MAX_PENDING_RESETS: usize = 100;

/// How many of a peer's stream errors end its connection. Streams.
pub const MAX_ERROR_RESETS: usize = 1024;

/// How many streams that were reset here are remembered, and may still be spoken of. Streams.
pub const MAX_REMEMBERED_RESETS: usize = 64;

/// How much of a body one stream may have queued. Bytes.
pub const STREAM_QUEUE: usize = 128 << 10;

/// How much memory a connection's bodies may hold in its queue: Envoy's default `per_connection_buffer_limit_bytes`.
pub const CONNECTION_QUEUE: usize = 1 << 20;
