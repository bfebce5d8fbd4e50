//! HTTP/1.1 for both sides, sans I/O: bytes in, messages out (RFC 9112).
//!
//! [`head`] parses message heads and decides their framing, [`body`] takes bodies out of a read buffer and
//! [`mod@write`] puts heads and chunks into bytes. Who reads and writes sockets is not known here.

pub mod body;
pub mod head;
pub mod outgoing;
pub mod stats;
pub(crate) mod target;
pub mod write;
