//! Leased buffers: memory that a stream holds only while bytes are in it.
//!
//! An idle connection holds nothing, because whoever finds a buffer empty gives it back in the same poll. What is
//! given back lies in a per-thread LIFO pool, so the next taker gets memory that is still in the cache.

mod chunk;
mod pool;
mod read;

pub use chunk::Chunk;
pub use pool::{Arena, Lease, Pooled, pooled};
pub use read::ReadBuffer;

/// The size of a small lease: a message head, or a body with no more than this to go.
pub const SMALL: usize = 32 * 1024;

/// The size of a large lease: bodies in bulk, and heads that outgrow a small one.
pub const LARGE: usize = 128 * 1024;
