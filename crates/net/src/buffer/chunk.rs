//! Bytes on their way from one side to the other, without a copy where it can be helped.

use bytes::{Buf, Bytes};

use super::Lease;

/// A piece of a body: a part of a lease that came off the wire, or shared bytes.
#[derive(Debug)]
pub enum Chunk {
    /// Bytes `start..end` of a lease.
    Leased {
        /// The memory.
        lease: Lease,
        /// Where the bytes begin.
        start: u32,
        /// Where they end.
        end: u32,
    },
    /// Bytes from HTTP/2, or made here.
    Bytes(Bytes),
}

impl Chunk {
    /// No bytes, no memory.
    pub const fn empty() -> Self {
        Self::Bytes(Bytes::new())
    }

    /// A copy of `bytes` in a lease of its own.
    pub fn copied(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self::empty();
        }
        let mut lease = Lease::at_least(bytes.len());
        lease[..bytes.len()].copy_from_slice(bytes);
        Self::leased(lease, 0, bytes.len())
    }

    pub(crate) fn leased(lease: Lease, start: usize, end: usize) -> Self {
        let offset = |at| u32::try_from(at).expect("a lease is at most as large as a message head may be");
        Self::Leased { lease, start: offset(start), end: offset(end) }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Leased { lease, start, end } => &lease[*start as usize..*end as usize],
            Self::Bytes(bytes) => bytes,
        }
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Leased { start, end, .. } => (*end - *start) as usize,
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops the first `count` bytes, at most all of them.
    pub fn advance(&mut self, count: usize) {
        let count = count.min(self.len());
        match self {
            // Not more than `end - start`, which fits.
            Self::Leased { start, .. } => *start += count as u32,
            Self::Bytes(bytes) => bytes.advance(count),
        }
    }

    /// Takes the first `count` bytes, at most all of them, off as a chunk of their own. Of a lease the shorter part
    /// is copied.
    #[must_use]
    pub fn split_to(&mut self, count: usize) -> Self {
        if count >= self.len() {
            return std::mem::take(self);
        }
        if let Self::Bytes(bytes) = self {
            return Self::Bytes(bytes.split_to(count));
        }
        if count <= self.len() / 2 {
            let head = Self::copied(&self.as_slice()[..count]);
            self.advance(count);
            return head;
        }
        let rest = Self::copied(&self.as_slice()[count..]);
        let mut head = std::mem::replace(self, rest);
        if let Self::Leased { start, end, .. } = &mut head {
            *end = *start + count as u32;
        }
        head
    }

    /// How much memory the chunk keeps from the pool: what a queue of chunks must count, since a few bytes may hold a
    /// whole lease.
    pub fn retained(&self) -> usize {
        match self {
            Self::Leased { lease, .. } => lease.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }

    /// Gives a lease back that is mostly unused, by copying the bytes out. For chunks that are going to wait.
    pub fn compact(&mut self) {
        if let Self::Leased { lease, .. } = self
            && lease.len() / 4 > self.len()
        {
            *self = Self::Bytes(Bytes::copy_from_slice(self.as_slice()));
        }
    }

    /// The bytes in shared form; copies what is leased, so that the lease goes back.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Leased { .. } => Bytes::copy_from_slice(self.as_slice()),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl Default for Chunk {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

/// For `h2` and others that send any `Buf`.
impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.len()
    }

    fn chunk(&self) -> &[u8] {
        self.as_slice()
    }

    fn advance(&mut self, count: usize) {
        Chunk::advance(self, count);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SMALL, pooled};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_add_up(bytes in prop::collection::vec(any::<u8>(), 0..300), cuts in prop::collection::vec(0_usize..80, 0..12)) {
            for mut chunk in [Chunk::copied(&bytes), Chunk::from(Bytes::from(bytes.clone()))] {
                let mut seen = Vec::new();
                for (index, cut) in cuts.iter().enumerate() {
                    if index % 3 == 2 {
                        seen.extend_from_slice(&chunk.as_slice()[..(*cut).min(chunk.len())]);
                        chunk.advance(*cut);
                    } else {
                        seen.extend_from_slice(chunk.split_to(*cut).as_slice());
                    }
                }
                seen.extend_from_slice(&chunk.into_bytes());
                prop_assert_eq!(&seen, &bytes);
            }
        }
    }

    #[test]
    fn a_chunk_that_waits_does_not_hold_a_lease_for_a_few_bytes() {
        let mut small = Chunk::copied(&[1; 100]);
        assert_eq!(small.retained(), SMALL);
        small.compact();
        assert_eq!((small.retained(), small.as_slice()), (100, [1; 100].as_slice()));
        assert_eq!(pooled().small, SMALL);
        let mut full = Chunk::copied(&[2; SMALL]);
        full.compact();
        assert!(matches!(full, Chunk::Leased { .. }));
    }

    #[test]
    fn dropping_the_last_byte_gives_the_lease_back() {
        let mut chunk = Chunk::copied(&[1; 100]);
        assert_eq!(pooled().small, 0);
        drop(chunk.split_to(100));
        assert_eq!(pooled().small, SMALL);
        assert!(chunk.is_empty());
        assert!(size_of::<Chunk>() <= 32);
    }
}
