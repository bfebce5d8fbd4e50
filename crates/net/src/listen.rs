//! Listening sockets: bound on main, so that what cannot be bound is told before anything starts.
//!
//! Binding and listening are two steps. A bound socket that does not listen is outside the kernel's reuseport group
//! and gets no connections, so a process that warms up takes none away from one that serves. The order of `listen`
//! calls is the order in that group.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use nix::sys::socket::{getsockopt, sockopt};
use proxy_config::settings::{SocketOption, SocketOptionState, SocketOptionValue};
use socket2::{Domain, Protocol, Socket, Type};

use crate::address::Address;
use crate::sockopt::apply;

/// What to bind, in the words of Envoy's `Listener`.
#[derive(Debug, Clone)]
pub struct ListenSocketOptions {
    /// Where. Port 0 lets the system choose one, the same for all sockets of a listener.
    pub address: Address,
    /// `enable_reuse_port`: a socket of its own for every worker. UNIX sockets are always shared.
    pub reuse_port: bool,
    /// `tcp_backlog_size`: how many connections may wait to be accepted; the system caps it at `net.core.somaxconn`,
    /// 4096 on most. Unset means that cap, as in Envoy.
    pub backlog: u32,
    /// `freebind`: bind also to an address that this host does not have yet.
    pub freebind: Option<bool>,
    /// `transparent`: bind to and answer from foreign addresses.
    pub transparent: Option<bool>,
    /// `ipv4_compat`: an IPv6 socket that takes IPv4 connections as well.
    pub ipv4_compat: bool,
    /// `tcp_fast_open_queue_length`.
    pub fast_open_queue: Option<u32>,
    /// `socket_options`.
    pub socket_options: Vec<SocketOption>,
    /// `Pipe.mode`: permissions of a UNIX socket's file; 0 leaves them to the umask.
    pub mode: u32,
}

/// A bound socket for one worker; may be sent to it.
#[derive(Debug)]
pub struct ListenSocket {
    socket: Socket,
    address: Address,
}

/// Why a listener has no socket. The text is Envoy's.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system gives no socket: no descriptors, or no such address family.
    #[error("cannot create a socket for '{address}': {}", reason(.source))]
    Create {
        /// For which address.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// The system refuses an option.
    #[error("cannot set {option} on '{address}': {}", reason(.source))]
    Option {
        /// On the socket of which address.
        address: Address,
        /// Which option.
        option: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The address is taken, not ours, or not allowed.
    #[error("cannot bind '{address}': {}", reason(.source))]
    Bind {
        /// Which address.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// Bound, but the system refuses to listen: another socket listens already.
    #[error("cannot listen on '{address}': {}", reason(.source))]
    Listen {
        /// Which address.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
}

impl ListenSocketOptions {
    /// Envoy's defaults: reuse of the port, the longest backlog, IPv6 only on IPv6 addresses.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            reuse_port: true,
            backlog: u32::MAX,
            freebind: None,
            transparent: None,
            ipv4_compat: false,
            fast_open_queue: None,
            socket_options: Vec::new(),
            mode: 0,
        }
    }
}

impl ListenSocket {
    /// Binds one socket, which does not listen yet. A UNIX socket file that is there already is replaced; a file of any
    /// other kind is left alone and reported, where Envoy deletes it.
    ///
    /// # Errors
    /// With the address and what the system said.
    pub fn bind(options: &ListenSocketOptions) -> Result<Self, BindError> {
        let wanted = &options.address;
        let socket =
            create(wanted).map_err(|source| BindError::Create { address: wanted.clone(), source })?;
        set_options(&socket, options).map_err(|(option, source)| BindError::Option {
            address: wanted.clone(),
            option,
            source,
        })?;
        let bind_error = |source| BindError::Bind { address: wanted.clone(), source };
        if let Some(path) = wanted.file() {
            // Only a socket is ever removed; anything else makes bind say so.
            if std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
                let _ = std::fs::remove_file(path);
            }
        }
        wanted.to_socket_address().and_then(|address| socket.bind(&address)).map_err(bind_error)?;
        if let (Some(path), mode @ 1..) = (wanted.file(), options.mode) {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(bind_error)?;
        }
        apply(&socket, &options.socket_options, SocketOptionState::Bound).map_err(|source| {
            BindError::Option { address: wanted.clone(), option: "socket_options", source }
        })?;
        let address = socket.local_addr().map_err(bind_error)?;
        Ok(Self { socket, address: Address::from_socket_address(&address) })
    }

    /// Binds the sockets of a listener, one for each worker: of their own with `reuse_port`, else duplicates of one.
    ///
    /// # Errors
    /// As [`ListenSocket::bind`].
    pub fn bind_all(options: &ListenSocketOptions, workers: usize) -> Result<Vec<Self>, BindError> {
        let mut sockets = Vec::new();
        Self::complete(&mut sockets, options, workers)?;
        Ok(sockets)
    }

    /// As [`ListenSocket::bind_all`], behind sockets that are there already. There may be more than workers.
    ///
    /// # Errors
    /// As [`ListenSocket::bind`]. Those before the one that failed are there.
    pub fn complete(
        sockets: &mut Vec<Self>,
        options: &ListenSocketOptions,
        workers: usize,
    ) -> Result<(), BindError> {
        if sockets.is_empty() {
            sockets.push(Self::bind(options)?);
        }
        let of_their_own = options.reuse_port && options.address.ip().is_some();
        let mut again = options.clone();
        if let Some(ip) = sockets[0].address.ip() {
            again.address = options.address.with_port(ip.port());
        }
        while sockets.len() < workers {
            let next = if of_their_own {
                Self::bind(&again)?
            } else {
                let address = again.address.clone();
                sockets[0].duplicate().map_err(|source| BindError::Create { address, source })?
            };
            sockets.push(next);
        }
        Ok(())
    }

    /// Takes over a socket that another process bound.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_descriptor(descriptor: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(descriptor);
        let address = Address::from_socket_address(&socket.local_addr()?);
        socket.set_nonblocking(true)?;
        Ok(Self { socket, address })
    }

    /// Begins to take connections. Calling it again changes the backlog only.
    ///
    /// # Errors
    /// When another socket listens on this address.
    pub fn listen(&self, options: &ListenSocketOptions) -> Result<(), BindError> {
        let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
        let listen_error = |source| BindError::Listen { address: self.address.clone(), source };
        self.socket.listen(backlog).map_err(listen_error)?;
        let set = apply(&self.socket, &options.socket_options, SocketOptionState::Listening);
        set.map_err(|source| BindError::Option {
            address: self.address.clone(),
            option: "socket_options",
            source,
        })
    }

    /// Sets `socket_options` on one that was bound by somebody else, who may have had others.
    ///
    /// # Errors
    /// The first that the system refuses, such as one that can be set only before bind; named in the text.
    pub fn set_options_again(&self, options: &ListenSocketOptions) -> io::Result<()> {
        let before_bind = apply(&self.socket, &options.socket_options, SocketOptionState::PreBind);
        before_bind.and_then(|()| apply(&self.socket, &options.socket_options, SocketOptionState::Bound))
    }

    /// Whether anybody has called `listen` on it, in whatever process.
    pub fn is_listening(&self) -> bool {
        getsockopt(&self.socket, sockopt::AcceptConn).unwrap_or(false)
    }

    /// Where it is bound, with the port that the system chose.
    pub fn local_address(&self) -> &Address {
        &self.address
    }

    /// A second descriptor of the same socket, sharing its queue.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn duplicate(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, address: self.address.clone() })
    }

    pub(crate) fn into_parts(self) -> (OwnedFd, Address) {
        (self.socket.into(), self.address)
    }

    pub(crate) fn from_parts(descriptor: OwnedFd, address: Address) -> Self {
        Self { socket: Socket::from(descriptor), address }
    }
}

impl From<ListenSocket> for OwnedFd {
    fn from(socket: ListenSocket) -> OwnedFd {
        socket.socket.into()
    }
}

impl AsFd for ListenSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn create(address: &Address) -> io::Result<Socket> {
    let (domain, protocol) = match address {
        Address::Ip(address) => (Domain::for_address(*address), Some(Protocol::TCP)),
        Address::Pipe(_) => (Domain::UNIX, None),
    };
    let socket = Socket::new(domain, Type::STREAM, protocol)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn set_options(socket: &Socket, options: &ListenSocketOptions) -> Result<(), (&'static str, io::Error)> {
    let named = |option: &'static str| move |error: io::Error| (option, error);
    if let Some(address) = options.address.ip() {
        socket.set_reuse_address(true).map_err(named("SO_REUSEADDR"))?;
        if options.reuse_port {
            socket.set_reuse_port(true).map_err(named("SO_REUSEPORT"))?;
        }
        if address.is_ipv6() {
            socket.set_only_v6(!options.ipv4_compat).map_err(named("IPV6_V6ONLY"))?;
        }
        if let Some(freebind) = options.freebind {
            let set = if address.is_ipv6() {
                socket.set_freebind_v6(freebind)
            } else {
                socket.set_freebind_v4(freebind)
            };
            set.map_err(named("IP_FREEBIND"))?;
        }
        if let Some(transparent) = options.transparent {
            let set = if address.is_ipv6() {
                socket.set_ip_transparent_v6(transparent)
            } else {
                socket.set_ip_transparent_v4(transparent)
            };
            set.map_err(named("IP_TRANSPARENT"))?;
        }
        // Accepted sockets inherit it, which saves a call for each.
        socket.set_tcp_nodelay(true).map_err(named("TCP_NODELAY"))?;
        if let Some(length) = options.fast_open_queue {
            let length = SocketOptionValue::Int(i32::try_from(length).unwrap_or(i32::MAX));
            let set = crate::sockopt::set(socket, nix::libc::IPPROTO_TCP, nix::libc::TCP_FASTOPEN, &length);
            set.map_err(named("TCP_FASTOPEN"))?;
        }
    }
    apply(socket, &options.socket_options, SocketOptionState::PreBind).map_err(named("socket_options"))
}

/// The system's words without Rust's `(os error 98)`.
fn reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    }
}
