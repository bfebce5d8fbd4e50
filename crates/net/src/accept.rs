//! Accepting connections on one worker, through whatever the system answers.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use nix::errno::Errno;
use proxy_runtime::{DrainGuard, TICK, Timer, clock};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::address::Address;
use crate::io::Io;
use crate::listen::ListenSocket;

/// How to accept.
#[derive(Debug)]
pub struct AcceptOptions {
    /// After this many connections the worker sees to others before it accepts more (Envoy's field of this name).
    /// Unset means all that are pending, as in Envoy 1.40: `u32::MAX`; the task's budget still shares the worker.
    /// 0 counts as 1.
    pub max_connections_to_accept_per_socket_event: u32,
    /// Descriptors from this number on are left to others. The system gives the lowest one that is free, so while all
    /// below are taken the loop waits, and clients with it.
    pub descriptor_limit: RawFd,
    /// Ends the loop.
    pub drain: DrainGuard,
    /// What becomes of connections that are queued when the loop ends.
    pub queue_at_end: Rc<Cell<QueueAtEnd>>,
}

/// What becomes of connections that nobody has accepted yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueueAtEnd {
    /// They are accepted before the loop ends: closing the socket would reset them.
    #[default]
    Accepted,
    /// They stay for another process that shares the socket.
    Left,
}

/// What the loop tells besides connections.
pub trait AcceptHooks {
    /// The system refused; for exhausted descriptors or memory, the loop now waits a tick.
    fn failed(&mut self, _error: &io::Error) {}

    /// This many connections came in one socket event (`connections_accepted_per_socket_event`).
    fn accepted(&mut self, _count: u32) {}
}

impl AcceptHooks for () {}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What an error of `accept(2)` means for the loop.
#[derive(Debug, PartialEq, Eq)]
enum Failure {
    /// One connection died before it was accepted; the next may be fine.
    Connection,
    /// Descriptors or memory are short; asking again at once would spin.
    Exhausted,
    /// This socket will never accept.
    Socket,
}

/// Accepts until told to drain, and gives the socket back, still listening. `on_accept` gets each connection with the
/// peer's address and must not wait: it spawns.
///
/// # Errors
/// When the socket cannot be polled, or is none that accepts. Nothing that the network does ends the loop.
pub async fn accept_loop(
    socket: ListenSocket,
    options: AcceptOptions,
    mut on_accept: impl FnMut(Io, Address),
    mut hooks: impl AcceptHooks,
) -> io::Result<ListenSocket> {
    let (descriptor, address) = socket.into_parts();
    let listener = match &address {
        Address::Ip(_) => Listener::Tcp(TcpListener::from_std(descriptor.into())?),
        Address::Pipe(_) => Listener::Unix(UnixListener::from_std(descriptor.into())?),
    };
    let pause = Timer::new();
    let mut scarce = false;
    std::future::poll_fn(|context| {
        if options.drain.poll_draining(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if pause.is_set() {
            ready!(pause.poll_expired(context));
        }
        while scarce && lowest_free(&listener).is_none_or(|free| free >= options.descriptor_limit) {
            pause.set(clock::refresh() + TICK);
            ready!(pause.poll_expired(context));
        }
        scarce = false;
        poll_event(&listener, &options, (&pause, &mut scarce), &mut on_accept, &mut hooks, context)
    })
    .await?;
    let descriptor = match listener {
        Listener::Tcp(listener) => {
            let listener = listener.into_std()?;
            if options.queue_at_end.get() == QueueAtEnd::Accepted {
                empty_queue(|| from_tcp(listener.accept()?), &mut on_accept);
            }
            listener.into()
        }
        Listener::Unix(listener) => {
            let listener = listener.into_std()?;
            if options.queue_at_end.get() == QueueAtEnd::Accepted {
                empty_queue(|| from_unix(listener.accept()?), &mut on_accept);
            }
            listener.into()
        }
    };
    Ok(ListenSocket::from_parts(descriptor, address))
}

/// One socket event: up to the configured number of connections, then the others' turn.
fn poll_event(
    listener: &Listener,
    options: &AcceptOptions,
    (pause, scarce): (&Timer, &mut bool),
    on_accept: &mut impl FnMut(Io, Address),
    hooks: &mut impl AcceptHooks,
    context: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let mut accepted = 0;
    for _ in 0..options.max_connections_to_accept_per_socket_event.max(1) {
        match listener.poll_accept(context) {
            Poll::Pending => {
                if accepted > 0 {
                    hooks.accepted(accepted);
                }
                return Poll::Pending;
            }
            Poll::Ready(Ok((io, peer))) => {
                if accepted == 0 {
                    clock::refresh();
                }
                accepted += 1;
                *scarce = io.as_fd().as_raw_fd() >= options.descriptor_limit;
                on_accept(io, peer);
                if *scarce {
                    hooks.failed(&Errno::EMFILE.into());
                    break;
                }
            }
            Poll::Ready(Err(error)) => {
                hooks.failed(&error);
                match classify(&error) {
                    Failure::Connection => {}
                    Failure::Exhausted => {
                        pause.set(clock::refresh() + TICK);
                        break;
                    }
                    Failure::Socket => return Poll::Ready(Err(error)),
                }
            }
        }
    }
    if accepted > 0 {
        hooks.accepted(accepted);
    }
    if pause.is_set() && pause.poll_expired(context).is_pending() {
        return Poll::Pending;
    }
    context.waker().wake_by_ref();
    Poll::Pending
}

/// Takes what is queued now, asking the system itself: the event loop may not have heard of the last ones yet, and
/// closing would reset them. The count is bounded, so that clients who go on connecting do not hold the end up.
fn empty_queue(
    mut accept: impl FnMut() -> io::Result<(Io, Address)>,
    on_accept: &mut impl FnMut(Io, Address),
) {
    for _ in 0..LAST_ACCEPTS {
        match accept() {
            Ok((io, peer)) => on_accept(io, peer),
            Err(error) if classify(&error) == Failure::Connection => {}
            Err(_) => return,
        }
    }
}

fn from_tcp((stream, peer): (std::net::TcpStream, std::net::SocketAddr)) -> io::Result<(Io, Address)> {
    stream.set_nonblocking(true)?;
    Ok((Io::Tcp(TcpStream::from_std(stream)?), Address::from(peer)))
}

fn from_unix(
    (stream, peer): (std::os::unix::net::UnixStream, std::os::unix::net::SocketAddr),
) -> io::Result<(Io, Address)> {
    stream.set_nonblocking(true)?;
    Ok((Io::Unix(UnixStream::from_std(stream)?), Address::from(&peer)))
}

/// As long as the longest queue that `listen` makes by default.
const LAST_ACCEPTS: usize = 4096;

impl Listener {
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<(Io, Address)>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = ready!(listener.poll_accept(context))?;
                Poll::Ready(Ok((Io::Tcp(stream), Address::from(peer))))
            }
            Self::Unix(listener) => {
                let (stream, peer) = ready!(listener.poll_accept(context))?;
                Poll::Ready(Ok((
                    Io::Unix(stream),
                    Address::from(&std::os::unix::net::SocketAddr::from(peer)),
                )))
            }
        }
    }
}

/// The number that the next descriptor would have.
fn lowest_free(listener: &Listener) -> Option<RawFd> {
    let next = match listener {
        Listener::Tcp(listener) => nix::unistd::dup(listener),
        Listener::Unix(listener) => nix::unistd::dup(listener),
    };
    next.ok().map(|next| next.as_raw_fd())
}

fn classify(error: &io::Error) -> Failure {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBADF | Errno::EINVAL | Errno::ENOTSOCK | Errno::EOPNOTSUPP | Errno::EFAULT) => {
            Failure::Socket
        }
        // accept(2): errors that are pending on the new socket are passed to the caller.
        Some(
            Errno::ECONNABORTED
            | Errno::EINTR
            | Errno::EPROTO
            | Errno::EPERM
            | Errno::ENETDOWN
            | Errno::ENOPROTOOPT
            | Errno::EHOSTDOWN
            | Errno::ENONET
            | Errno::EHOSTUNREACH
            | Errno::ENETUNREACH
            | Errno::ETIMEDOUT
            | Errno::ECONNRESET,
        ) => Failure::Connection,
        _ => Failure::Exhausted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_one_connection_of_the_process_and_of_the_socket_are_told_apart() {
        let of = |errno: Errno| classify(&io::Error::from_raw_os_error(errno as i32));
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM] {
            assert_eq!(of(errno), Failure::Exhausted);
        }
        assert_eq!(of(Errno::ECONNABORTED), Failure::Connection);
        assert_eq!(of(Errno::EINVAL), Failure::Socket);
    }
}
