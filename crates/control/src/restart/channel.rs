//! A SOCK_SEQPACKET socket between two generations: whole messages, with descriptors.
#![allow(unsafe_code)] // descriptors that the kernel hands over become owned

use std::fs::{self, Permissions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, connect,
    getsockopt, listen, recvmsg, sendmsg, socket, sockopt,
};
use prost::Message;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::message::{Body, Envelope, Unknown};

/// One end of a connection between two generations.
#[derive(Debug)]
pub struct Channel {
    socket: AsyncFd<OwnedFd>,
}

/// Where a generation waits for its child.
#[derive(Debug)]
pub struct RestartSocket {
    socket: AsyncFd<OwnedFd>,
}

/// A second way into a [`Channel`], for another thread.
#[derive(Debug)]
pub struct Side(OwnedFd);

/// A message and its descriptors.
#[derive(Debug)]
pub struct Received {
    pub body: Body,
    pub descriptors: Vec<OwnedFd>,
}

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other side is gone, in good order or not.
    #[error("the other generation has closed the connection")]
    Closed,
    /// Some descriptors of a message did not fit this process's limit; those that did are closed.
    #[error("descriptors of a message were lost: the limit of open files is reached")]
    DescriptorsLost,
    /// Too many descriptors are on their way, unread: to be sent again when some have been answered for.
    #[error("too many descriptors are in flight")]
    DescriptorsInFlight,
    #[error("a message of {0} bytes is too large")]
    TooLarge(usize),
    #[error("a message cannot be read: {0}")]
    Malformed(#[from] prost::DecodeError),
    #[error("restart channel: {0}")]
    Io(#[from] io::Error),
}

impl RestartSocket {
    /// Binds `path`, mode 0600, and listens.
    ///
    /// # Errors
    /// Those of the system.
    pub fn bind(path: &Path) -> io::Result<RestartSocket> {
        let socket = seqpacket()?;
        bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        listen(&socket, Backlog::new(16)?)?;
        Ok(RestartSocket { socket: register(socket)? })
    }

    /// The next connection, and whose it is. Only our own user and root are let in, whatever the file's mode.
    ///
    /// # Errors
    /// Those of `accept(2)`.
    pub async fn accept(&self) -> io::Result<Channel> {
        loop {
            let accepted = self.socket.async_io(Interest::READABLE, |socket| {
                Ok(accept4(socket.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?)
            });
            let accepted = own(accepted.await?);
            let peer = getsockopt(&accepted, sockopt::PeerCredentials)?;
            if peer.uid() == 0 || peer.uid() == nix::unistd::geteuid().as_raw() {
                return Channel::new(accepted);
            }
        }
    }
}

impl Channel {
    fn new(socket: OwnedFd) -> io::Result<Channel> {
        Ok(Channel { socket: register(socket)? })
    }

    /// Connects to a generation. Does not wait: a UNIX socket takes a connection at once or refuses it.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(path: &Path) -> io::Result<Channel> {
        let socket = seqpacket()?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        Channel::new(socket)
    }

    /// Sends a message, which waits while the other side does not read. `descriptors` are lent: the other side gets
    /// duplicates.
    ///
    /// # Errors
    /// Nothing has been sent then.
    pub async fn send(&self, body: Body, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let bytes = Envelope { body: Some(body) }.encode_to_vec();
        if bytes.len() > MESSAGE_BYTES || descriptors.len() > DESCRIPTORS {
            return Err(ChannelError::TooLarge(bytes.len()));
        }
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights };
        let sent = self.socket.async_io(Interest::WRITABLE, |socket| {
            let slices = [IoSlice::new(&bytes)];
            Ok(sendmsg::<()>(socket.as_raw_fd(), &slices, control, MsgFlags::MSG_NOSIGNAL, None)?)
        });
        match sent.await {
            Ok(_) => Ok(()),
            Err(error) => Err(match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EPIPE | Errno::ECONNRESET) => ChannelError::Closed,
                Some(Errno::ETOOMANYREFS) => ChannelError::DescriptorsInFlight,
                _ => ChannelError::Io(error),
            }),
        }
    }

    /// The next message that is understood; others are answered with [`Unknown`]. May be dropped and asked again
    /// without losing one.
    ///
    /// # Errors
    /// After [`ChannelError::DescriptorsLost`] and [`ChannelError::Malformed`] the channel is still good.
    pub async fn receive(&self) -> Result<Received, ChannelError> {
        loop {
            let (body, descriptors) = self.receive_one().await?;
            match body {
                Some(body) => return Ok(Received { body, descriptors }),
                None => self.send(Body::Unknown(Unknown {}), &[]).await?,
            }
        }
    }

    /// See [`Side`].
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn side(&self) -> io::Result<Side> {
        Ok(Side(self.socket.get_ref().try_clone()?))
    }

    /// Whether the other side is known to be gone, with nothing left to read. Asks the system.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let mut byte = [0];
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match nix::sys::socket::recv(self.socket.get_ref().as_raw_fd(), &mut byte, flags) {
            Ok(length) => length == 0,
            Err(error) => !matches!(error, Errno::EAGAIN | Errno::EINTR),
        }
    }

    async fn receive_one(&self) -> Result<(Option<Body>, Vec<OwnedFd>), ChannelError> {
        let read = self.socket.async_io(Interest::READABLE, |socket| {
            let mut bytes = vec![0; MESSAGE_BYTES];
            // Zeroed: without descriptors the kernel leaves it as it is.
            let mut control = vec![0; nix::cmsg_space!([RawFd; DESCRIPTORS]).capacity()];
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
            let (length, flags) = (message.bytes, message.flags);
            let descriptors = rights(&control);
            bytes.truncate(length);
            Ok((bytes, descriptors, flags))
        });
        let (bytes, descriptors, flags) = match read.await {
            Ok(read) => read,
            Err(error) if error.raw_os_error() == Some(Errno::ECONNRESET as i32) => {
                return Err(ChannelError::Closed);
            }
            Err(error) => return Err(error.into()),
        };
        if bytes.is_empty() {
            // No message is empty: that is end of file.
            return Err(ChannelError::Closed);
        }
        if flags.contains(MsgFlags::MSG_CTRUNC) {
            return Err(ChannelError::DescriptorsLost);
        }
        Ok((Envelope::decode(&*bytes)?.body, descriptors))
    }
}

impl Side {
    /// Sends a message, unless that would take time or the other side is gone.
    pub fn say(&self, body: Body) {
        let bytes = Envelope { body: Some(body) }.encode_to_vec();
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let _ = nix::sys::socket::send(self.0.as_raw_fd(), &bytes, flags);
    }
}

fn seqpacket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?)
}

pub(crate) fn register(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor stays open, and the same, until the `AsyncFd` that holds it is gone.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

/// The descriptors of a control message that `recvmsg` has filled in, also of one that was cut: `nix` tells nothing of that, and
/// those that had room would stay open. There is one message at most, for nothing but rights is asked for.
fn rights(control: &[u8]) -> Vec<OwnedFd> {
    const HEAD: usize = size_of::<nix::libc::cmsghdr>();
    let word =
        |at: usize| control.get(at..at + 4).and_then(|word| word.try_into().ok()).map(i32::from_ne_bytes);
    let length = control.first_chunk().map_or(0, |length| usize::from_ne_bytes(*length));
    let is_rights =
        word(HEAD - 8) == Some(nix::libc::SOL_SOCKET) && word(HEAD - 4) == Some(nix::libc::SCM_RIGHTS);
    let all = control.get(HEAD..length).filter(|_| is_rights).unwrap_or_default();
    all.as_chunks().0.iter().map(|raw| own(RawFd::from_ne_bytes(*raw))).collect()
}

/// Takes a descriptor that the kernel has just made for this process.
fn own(descriptor: RawFd) -> OwnedFd {
    // SAFETY: from accept4 or SCM_RIGHTS, so it is open, new, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }
}

/// Largest message.
const MESSAGE_BYTES: usize = 128 << 10;
/// Most descriptors of a message.
pub const DESCRIPTORS: usize = 64;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::super::message::{Heartbeat, Offer};
    use super::*;

    /// Two ends of a channel.
    async fn pair() -> (Channel, Channel) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let socket = RestartSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let child = Channel::connect(&path).unwrap();
        (child, socket.accept().await.unwrap())
    }

    #[tokio::test]
    async fn descriptors_arrive_with_their_message() {
        let (one, other) = pair().await;
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let offer = Offer { id: 7, state: vec![1; 100_000] };
        one.send(Body::Offer(offer.clone()), &[theirs.as_fd(), theirs.as_fd()]).await.unwrap();
        drop(theirs);
        let received = other.receive().await.unwrap();
        assert_eq!(received.body, Body::Offer(offer));
        let mut streams: Vec<UnixStream> = received.descriptors.into_iter().map(UnixStream::from).collect();
        assert_eq!(streams.len(), 2);
        streams[1].write_all(b"x").unwrap();
        drop(streams);
        let mut read = String::new();
        ours.read_to_string(&mut read).unwrap();
        assert_eq!(read, "x");
    }

    #[tokio::test]
    async fn descriptors_of_a_message_that_was_cut_are_closed() {
        let (one, other) = pair().await;
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let many = vec![theirs.as_fd().as_raw_fd(); DESCRIPTORS + 1];
        let rights = [ControlMessage::ScmRights(&many)];
        let flags = MsgFlags::empty();
        sendmsg::<()>(one.as_fd().as_raw_fd(), &[IoSlice::new(b"x")], &rights, flags, None).unwrap();
        drop(theirs);
        assert!(matches!(other.receive().await, Err(ChannelError::DescriptorsLost)));
        assert_eq!(ours.read(&mut [0]).unwrap(), 0, "nobody has the other end any more");
        one.send(Body::Heartbeat(Heartbeat {}), &[]).await.unwrap();
        assert_eq!(other.receive().await.unwrap().body, Body::Heartbeat(Heartbeat {}));
    }

    #[tokio::test]
    async fn what_is_not_understood_is_answered_and_passed_over() {
        let (one, other) = pair().await;
        // Field 1000 of the envelope, which is nothing to us, and bytes that are no protobuf.
        let unknown: [u8; 3] = [0xc2, 0x3e, 0x00];
        nix::sys::socket::send(one.as_fd().as_raw_fd(), &unknown, MsgFlags::empty()).unwrap();
        nix::sys::socket::send(one.as_fd().as_raw_fd(), &[0xff; 20], MsgFlags::empty()).unwrap();
        one.send(Body::Heartbeat(Heartbeat {}), &[]).await.unwrap();
        assert!(matches!(other.receive().await, Err(ChannelError::Malformed(_))));
        assert_eq!(other.receive().await.unwrap().body, Body::Heartbeat(Heartbeat {}));
        assert_eq!(one.receive().await.unwrap().body, Body::Unknown(Unknown {}));
    }

    #[tokio::test]
    async fn an_end_that_goes_away_is_told() {
        let (one, other) = pair().await;
        assert!(!other.is_closed());
        drop(one);
        assert!(other.is_closed());
        assert!(matches!(other.receive().await, Err(ChannelError::Closed)));
        let sent = other.send(Body::Heartbeat(Heartbeat {}), &[]).await;
        assert!(matches!(sent, Err(ChannelError::Closed)), "{sent:?}");
    }

    #[tokio::test]
    async fn what_is_too_large_is_not_sent() {
        let (one, _other) = pair().await;
        let sent = one.send(Body::Offer(Offer { id: 1, state: vec![0; MESSAGE_BYTES] }), &[]).await;
        assert!(matches!(sent, Err(ChannelError::TooLarge(_))));
        let many = vec![one.as_fd(); DESCRIPTORS + 1];
        assert!(matches!(
            one.send(Body::Heartbeat(Heartbeat {}), &many).await,
            Err(ChannelError::TooLarge(_))
        ));
    }
}
