//! What has been read from a connection and not yet used.

use std::fmt;
use std::io;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;

use super::{Chunk, LARGE, Lease};
use crate::io::Io;

/// Unused bytes of a connection. It holds a lease exactly while it holds bytes.
#[derive(Default)]
pub struct ReadBuffer {
    lease: Option<Lease>,
    /// Offsets are 32 bits wide to keep an idle connection small; no lease is larger.
    start: u32,
    end: u32,
    /// Bytes ever read from the wire.
    total: u64,
}

impl ReadBuffer {
    /// Empty, without memory.
    pub const fn new() -> Self {
        Self { lease: None, start: 0, end: 0, total: 0 }
    }

    /// Bytes read earlier, by someone else or in another process.
    pub fn from_slice(bytes: &[u8]) -> Self {
        let mut buffer = Self::new();
        buffer.store(bytes);
        buffer
    }

    /// The unused bytes.
    pub fn data(&self) -> &[u8] {
        self.lease.as_ref().map_or(&[], |lease| &lease[self.start as usize..self.end as usize])
    }

    /// The same, to be changed in place.
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.lease.as_mut().map_or(&mut [], |lease| &mut lease[self.start as usize..self.end as usize])
    }

    /// How many unused bytes there are.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether there are none, and so no lease either.
    pub fn is_empty(&self) -> bool {
        self.lease.is_none()
    }

    /// Whether a large buffer is full to the last byte, so that [`ReadBuffer::poll_fill`] would refuse.
    pub fn is_full(&self) -> bool {
        self.len() >= LARGE
    }

    /// Drops the first `count` bytes, at most all; the last one takes the lease with it.
    pub fn consume(&mut self, count: usize) {
        self.start += offset(count.min(self.len()));
        if self.start == self.end {
            self.clear();
        }
    }

    /// Keeps the first `count` bytes, drops what lies behind them.
    pub fn truncate(&mut self, count: usize) {
        self.end = self.start + offset(count.min(self.len()));
        if self.start == self.end {
            self.clear();
        }
    }

    /// How many bytes [`ReadBuffer::poll_fill`] has ever read, for counters.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.lease = None;
        (self.start, self.end) = (0, 0);
    }

    /// Reads once from `io`, behind what is there. `Ready(Ok(0))` is end of file. An empty buffer takes a lease for the
    /// read only, a large one if `want_large`; if nothing comes it goes back before this returns. A full buffer makes
    /// room by moving its bytes to the front, or to a large lease.
    ///
    /// # Errors
    /// Those of the read; `StorageFull` when a large buffer is full, which the caller's own limits should preclude (or
    /// see [`ReadBuffer::reserve`]).
    pub fn poll_fill(
        &mut self,
        io: &mut Io,
        context: &mut Context<'_>,
        want_large: bool,
    ) -> Poll<io::Result<usize>> {
        self.poll_fill_at_most(io, context, want_large, usize::MAX)
    }

    /// As [`ReadBuffer::poll_fill`], and reads no more than `most` bytes, which is not 0.
    ///
    /// # Errors
    /// As [`ReadBuffer::poll_fill`].
    pub fn poll_fill_at_most(
        &mut self,
        io: &mut Io,
        context: &mut Context<'_>,
        want_large: bool,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        self.make_room(want_large)?;
        let end = self.end as usize;
        let Some(lease) = &mut self.lease else { return Poll::Ready(Err(full())) };
        let room = lease.len() - end;
        let mut free = ReadBuf::new(&mut lease[end..end + room.min(most)]);
        let polled = io.poll_read(context, &mut free);
        let count = free.filled().len();
        self.end += offset(count);
        self.total += count as u64;
        if self.start == self.end {
            self.clear();
        }
        ready!(polled)?;
        Poll::Ready(Ok(count))
    }

    /// Makes room for `count` more bytes, beyond the large size if need be: for the few who configure message heads
    /// larger than that. The caller has checked its limit.
    pub fn reserve(&mut self, count: usize) {
        let free = self.lease.as_ref().map_or(0, |lease| lease.len() - self.end as usize);
        if free < count && !self.is_empty() {
            self.move_to(Lease::at_least(self.len() + count));
        }
    }

    /// Hands out the first `count` bytes, at most all, with the memory they lie in. Bytes left over, or those asked
    /// for if they are fewer, are copied to a lease of their own.
    pub fn take_chunk(&mut self, count: usize) -> Chunk {
        let length = self.len();
        let count = count.min(length);
        if count < length && count <= length / 2 {
            let chunk = Chunk::copied(&self.data()[..count]);
            self.consume(count);
            return chunk;
        }
        let Some(lease) = self.lease.take() else { return Chunk::empty() };
        let (start, end) = (self.start as usize, self.end as usize);
        (self.start, self.end) = (0, 0);
        self.store(&lease[start + count..end]);
        Chunk::leased(lease, start, start + count)
    }

    fn store(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut lease = Lease::at_least(bytes.len());
        lease[..bytes.len()].copy_from_slice(bytes);
        self.lease = Some(lease);
        (self.start, self.end) = (0, offset(bytes.len()));
    }

    fn make_room(&mut self, want_large: bool) -> io::Result<()> {
        let Some(lease) = &mut self.lease else {
            self.lease = Some(if want_large { Lease::large() } else { Lease::small() });
            return Ok(());
        };
        let (start, end, size) = (self.start as usize, self.end as usize, lease.len());
        if end < size {
            return Ok(());
        }
        if start >= size / 2 || (start > 0 && size >= LARGE) {
            lease.copy_within(start..end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        } else if size < LARGE {
            self.move_to(Lease::large());
        } else {
            return Err(full());
        }
        Ok(())
    }

    fn move_to(&mut self, mut lease: Lease) {
        let length = self.len();
        lease[..length].copy_from_slice(self.data());
        self.lease = Some(lease);
        (self.start, self.end) = (0, offset(length));
    }
}

impl fmt::Debug for ReadBuffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ReadBuffer").field("length", &self.len()).field("lease", &self.lease).finish()
    }
}

/// # Panics
/// Never: callers limit what a buffer holds to far less than 4 GiB.
fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("a lease is smaller than 4 GiB")
}

fn full() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "the read buffer is full")
}

#[cfg(test)]
mod tests {
    use super::super::{SMALL, pooled};
    use super::*;
    use std::io::Write;
    use std::task::Waker;
    use tokio::net::UnixStream;

    fn pair() -> (Io, std::os::unix::net::UnixStream) {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (Io::Unix(UnixStream::from_std(ours).unwrap()), theirs)
    }

    async fn fill(buffer: &mut ReadBuffer, io: &mut Io, want_large: bool) -> io::Result<usize> {
        std::future::poll_fn(|context| buffer.poll_fill(io, context, want_large)).await
    }

    #[tokio::test]
    async fn a_pending_read_on_an_empty_buffer_holds_no_memory() {
        let (mut io, mut peer) = pair();
        let mut buffer = ReadBuffer::new();
        let mut context = Context::from_waker(Waker::noop());
        assert!(buffer.poll_fill(&mut io, &mut context, false).is_pending());
        assert!(buffer.lease.is_none());
        assert_eq!(pooled().small, SMALL);
        peer.write_all(b"hello").unwrap();
        assert_eq!(fill(&mut buffer, &mut io, false).await.unwrap(), 5);
        assert_eq!((buffer.data(), pooled().small), (b"hello".as_slice(), 0));
        assert!(buffer.poll_fill(&mut io, &mut context, false).is_pending());
        assert_eq!(buffer.data(), b"hello");
        buffer.consume(5);
        assert!(buffer.is_empty());
        assert_eq!(pooled().small, SMALL);
        drop(peer);
        assert_eq!(fill(&mut buffer, &mut io, true).await.unwrap(), 0);
        assert!(buffer.lease.is_none());
    }

    #[tokio::test]
    async fn no_more_is_read_than_is_wanted() {
        let (mut io, mut peer) = pair();
        peer.write_all(&[7; 100]).unwrap();
        let mut buffer = ReadBuffer::new();
        for expected in [60, 40] {
            let filled = std::future::poll_fn(|context| buffer.poll_fill_at_most(&mut io, context, true, 60));
            assert_eq!(filled.await.unwrap(), expected);
        }
        assert_eq!(buffer.data(), [7; 100]);
    }

    #[tokio::test]
    async fn a_head_that_outgrows_a_small_lease_moves_to_a_large_one_and_then_is_refused() {
        let (mut io, mut peer) = pair();
        let writer = std::thread::spawn(move || {
            let bytes: Vec<u8> = (0..LARGE + 100).map(|index| (index % 251) as u8).collect();
            peer.write_all(&bytes).unwrap();
            (peer, bytes)
        });
        let mut buffer = ReadBuffer::new();
        while !buffer.is_full() {
            assert_ne!(fill(&mut buffer, &mut io, false).await.unwrap(), 0);
        }
        let error = fill(&mut buffer, &mut io, false).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        buffer.consume(10);
        assert_eq!(fill(&mut buffer, &mut io, false).await.unwrap(), 10);
        buffer.reserve(1000);
        assert_eq!(fill(&mut buffer, &mut io, false).await.unwrap(), 90);
        let (_peer, bytes) = writer.join().unwrap();
        assert_eq!(buffer.data(), &bytes[10..]);
        buffer.clear();
        assert_eq!(pooled().large, LARGE, "the oversized lease is not kept");
    }

    #[test]
    fn chunks_take_the_memory_along_and_leave_the_rest() {
        let bytes: Vec<u8> = (0..200).collect();
        for count in [0, 1, 99, 100, 101, 199, 200, 500] {
            let mut buffer = ReadBuffer::from_slice(&bytes);
            buffer.consume(10);
            let chunk = buffer.take_chunk(count);
            let cut = 10 + count.min(190);
            assert_eq!(chunk.as_slice(), &bytes[10..cut]);
            assert_eq!(buffer.data(), &bytes[cut..]);
            assert_eq!(buffer.is_empty(), cut == 200);
        }
        let mut buffer = ReadBuffer::from_slice(&bytes);
        let memory = buffer.data().as_ptr();
        assert_eq!(buffer.take_chunk(200).as_slice().as_ptr(), memory);
        assert!(buffer.take_chunk(1).is_empty());
        assert!(size_of::<ReadBuffer>() <= 32);
    }
}
