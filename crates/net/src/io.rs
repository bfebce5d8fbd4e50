//! The stream under a connection. One enum and not a trait object: the data path calls it for every read and write.
//!
//! The seam for TLS and for pipes inside the process.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::address::Address;

/// A connected stream, readable and writable from one task.
#[derive(Debug)]
pub enum Io {
    /// TCP over IPv4 or IPv6.
    Tcp(TcpStream),
    /// A UNIX stream socket.
    Unix(UnixStream),
}

macro_rules! on_stream {
    ($io:expr, $stream:ident => $call:expr) => {
        match $io {
            Io::Tcp($stream) => $call,
            Io::Unix($stream) => $call,
        }
    };
}

impl Io {
    /// Takes over a connected stream socket from another process. Within a worker's loop.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_descriptor(descriptor: OwnedFd) -> io::Result<Self> {
        let socket = socket2::Socket::from(descriptor);
        socket.set_nonblocking(true)?;
        match socket.local_addr()?.as_socket() {
            Some(_) => Ok(Self::Tcp(TcpStream::from_std(socket.into())?)),
            None => Ok(Self::Unix(UnixStream::from_std(OwnedFd::from(socket).into())?)),
        }
    }

    /// Gives the stream up, for another worker's loop ([`Io::from_descriptor`]).
    ///
    /// # Errors
    /// When the event loop is going away.
    pub fn into_descriptor(self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(stream) => Ok(stream.into_std()?.into()),
            Self::Unix(stream) => Ok(stream.into_std()?.into()),
        }
    }

    /// Reads what is there; nothing added means end of file. A short read tells the system's readiness by itself, so
    /// a caller that polls until pending pays no second call to learn that nothing is left.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => Pin::new(stream).poll_read(context, buffer))
    }

    /// Ready when a read would not wait: for bytes, end of file or an error.
    ///
    /// # Errors
    /// When the event loop is going away.
    pub fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_read_ready(context))
    }

    /// Ready when a write would not wait: for room or an error.
    ///
    /// # Errors
    /// When the event loop is going away.
    pub fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_write_ready(context))
    }

    /// Runs a system call of the caller's on this stream's descriptor (see [`AsFd`]), such as `splice(2)`. Its
    /// `WouldBlock` clears the readiness named by `interest`, so that the next `poll_*_ready` waits.
    ///
    /// # Errors
    /// The call's; `WouldBlock` also, without calling, when the stream is not ready.
    pub fn try_io<T>(&self, interest: Interest, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        on_stream!(self, stream => stream.try_io(interest, call))
    }

    /// Writes some of `bytes`; the count may be less.
    ///
    /// # Errors
    /// As `send(2)`; never raises SIGPIPE.
    pub fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => Pin::new(stream).poll_write(context, bytes))
    }

    /// Writes some of several buffers in one call.
    ///
    /// # Errors
    /// As [`Io::poll_write`].
    pub fn poll_write_vectored(
        &mut self,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => Pin::new(stream).poll_write_vectored(context, buffers))
    }

    /// Pushes out what lower layers hold back; sockets hold nothing.
    ///
    /// # Errors
    /// As [`Io::poll_write`].
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => Pin::new(stream).poll_flush(context))
    }

    /// Ends the writing direction: the peer reads end of file.
    ///
    /// # Errors
    /// As `shutdown(2)`; the peer may be gone.
    pub fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => Pin::new(stream).poll_shutdown(context))
    }

    /// Turns Nagle's algorithm off (`TCP_NODELAY`); nothing to do for UNIX sockets.
    ///
    /// # Errors
    /// When the peer is gone already.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(nodelay),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Makes closing send a reset at once and drop what is unsent (`SO_LINGER` 0), as Envoy's abortive close.
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    pub fn reset_on_close(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_zero_linger(),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Takes the error that the system holds for this stream (`SO_ERROR`), such as a reset that came while nobody was
    /// reading.
    ///
    /// # Errors
    /// As `getsockopt(2)`.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        on_stream!(self, stream => stream.take_error())
    }

    /// This end's address; a system call.
    ///
    /// # Errors
    /// As `getsockname(2)`.
    pub fn local_address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(stream) => stream.local_addr().map(Address::from),
            Self::Unix(stream) => {
                Ok(Address::from(&std::os::unix::net::SocketAddr::from(stream.local_addr()?)))
            }
        }
    }

    /// The peer's address; a system call.
    ///
    /// # Errors
    /// As `getpeername(2)`: the peer may be gone already.
    pub fn peer_address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map(Address::from),
            Self::Unix(stream) => {
                Ok(Address::from(&std::os::unix::net::SocketAddr::from(stream.peer_addr()?)))
            }
        }
    }
}

impl AsFd for Io {
    fn as_fd(&self) -> BorrowedFd<'_> {
        on_stream!(self, stream => stream.as_fd())
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Io::poll_read(self.get_mut(), context, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Io::poll_write(self.get_mut(), context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Io::poll_write_vectored(self.get_mut(), context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Io::poll_flush(self.get_mut(), context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Io::poll_shutdown(self.get_mut(), context)
    }
}
