//! Kernel pipes for `splice(2)`: what moves through one is never copied to this process.
//!
//! Pipes are pooled per thread and held only while bytes are in them, as buffers are. Their number is limited, because
//! each costs two descriptors and, when full, a quarter of a megabyte of kernel memory; who gets none uses buffers.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use tokio::io::Interest;

use crate::io::Io;

/// A pipe of this thread's; goes back to the pool when dropped empty.
#[derive(Debug)]
pub struct Pipe {
    ends: Option<Ends>,
    /// Bytes inside.
    filled: u32,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Ends>,
    /// All pipes of this thread, in use or not.
    total: usize,
}

/// What is asked of the system per pipe, in bytes; it may grant less, down to a page.
pub const PIPE_SIZE: usize = 256 * 1024;

/// Pipes per thread, in use or not.
const PIPES: usize = 256;

/// Pipes per thread that are kept although nobody uses them.
const IDLE_PIPES: usize = 32;

impl Pipe {
    /// An empty pipe. `None` when the thread has its share already or descriptors have run out.
    pub fn take() -> Option<Self> {
        let ends = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if let Some(ends) = pool.idle.pop() {
                return Some(ends);
            }
            if pool.total >= PIPES {
                return None;
            }
            let ends = Ends::open().ok()?;
            pool.total += 1;
            Some(ends)
        });
        Some(Self { ends: ends.ok().flatten(), filled: 0 }).filter(|pipe| pipe.ends.is_some())
    }

    /// A pipe of another process, with `filled` bytes inside. It counts as one of this thread's.
    pub fn from_ends(read: OwnedFd, write: OwnedFd, filled: u32) -> Self {
        // Without a pool the thread is ending, and nobody counts.
        let _ = POOL.try_with(|pool| pool.borrow_mut().total += 1);
        Self { ends: Some(Ends { read, write }), filled }
    }

    /// Where bytes come out and go in, for another process to duplicate.
    pub fn ends(&self) -> Option<[BorrowedFd<'_>; 2]> {
        self.ends.as_ref().map(|ends| [ends.read.as_fd(), ends.write.as_fd()])
    }

    /// Bytes inside.
    pub fn len(&self) -> usize {
        self.filled as usize
    }

    /// Whether nothing is inside.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Moves what `source` has, at most `limit` bytes, into the empty pipe. `Ready(Ok(0))` is end of file.
    ///
    /// # Errors
    /// As `splice(2)`.
    pub fn poll_fill(
        &mut self,
        source: &Io,
        context: &mut Context<'_>,
        limit: usize,
    ) -> Poll<io::Result<usize>> {
        // With bytes inside, a full pipe and an idle source could not be told apart.
        debug_assert_eq!(self.filled, 0);
        let Some(ends) = &self.ends else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        loop {
            ready!(source.poll_read_ready(context))?;
            let moved = source.try_io(Interest::READABLE, || {
                Ok(splice(source, None, &ends.write, None, limit.min(PIPE_SIZE), flags())?)
            });
            match moved {
                Ok(count) => {
                    // A splice moves at most what it was asked for.
                    self.filled = u32::try_from(count).unwrap_or(u32::MAX);
                    return Poll::Ready(Ok(count));
                }
                Err(error) if is_transient(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Moves bytes on to `sink`; the count may be less than there are, never 0.
    ///
    /// # Errors
    /// As `splice(2)`.
    pub fn poll_drain(&mut self, sink: &Io, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let held = self.filled as usize;
        loop {
            ready!(sink.poll_write_ready(context))?;
            // A short count is no proof that the sink is full: a signal makes one too.
            let moved =
                sink.try_io(Interest::WRITABLE, || Ok(splice(&ends.read, None, sink, None, held, flags())?));
            match moved {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.filled = self.filled.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
                    return Poll::Ready(Ok(count));
                }
                Err(error) if is_transient(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        let empty = self.filled == 0;
        // What is not kept is closed after the borrow.
        let _surplus = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if empty && pool.idle.len() < IDLE_PIPES {
                pool.idle.push(ends);
                return None;
            }
            pool.total -= 1;
            Some(ends)
        });
    }
}

impl Ends {
    fn open() -> io::Result<Self> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // A smaller pipe works too, in more steps.
        let _granted = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE as i32));
        Ok(Self { read, write })
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Pipes of this thread: in existence, and idle among them.
pub fn pooled() -> (usize, usize) {
    POOL.with(|pool| (pool.borrow().total, pool.borrow().idle.len()))
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::new(Pool::default());
}
