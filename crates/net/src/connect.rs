//! Connecting to an upstream host, without ever blocking the worker. The caller puts its timeout around it.

use std::io;

use proxy_config::settings::{SocketOption, SocketOptionState, SocketOptionValue, TcpKeepalive};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, UnixStream};

use crate::address::Address;
use crate::io::Io;
use crate::sockopt::{apply, set};

/// How to connect, in the words of Envoy's `UpstreamBindConfig` and `UpstreamConnectionOptions`.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// `source_address`: bound before connecting; port 0 leaves the port to the system.
    pub source: Option<Address>,
    /// `freebind`: also from an address that this host does not have.
    pub freebind: bool,
    /// `tcp_keepalive`.
    pub keepalive: Option<TcpKeepalive>,
    /// `socket_options`; those for before bind are the only ones that apply.
    pub socket_options: Vec<SocketOption>,
}

/// Connects, with `TCP_NODELAY` set.
///
/// # Errors
/// As `socket(2)`, `bind(2)` and `connect(2)`.
pub async fn connect(address: &Address, options: &ConnectOptions) -> io::Result<Io> {
    match address {
        Address::Ip(address) => {
            let socket = prepare(address.is_ipv6(), options)?;
            Ok(Io::Tcp(TcpSocket::from_std_stream(socket.into()).connect(*address).await?))
        }
        Address::Pipe(_) => connect_pipe(address, options),
    }
}

fn prepare(six: bool, options: &ConnectOptions) -> io::Result<Socket> {
    let domain = if six { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(keepalive) = &options.keepalive {
        let mut parameters = socket2::TcpKeepalive::new();
        if let Some(probes) = keepalive.probes {
            parameters = parameters.with_retries(probes);
        }
        if let Some(time) = keepalive.time {
            parameters = parameters.with_time(time);
        }
        if let Some(interval) = keepalive.interval {
            parameters = parameters.with_interval(interval);
        }
        socket.set_tcp_keepalive(&parameters)?;
    }
    apply(&socket, &options.socket_options, SocketOptionState::PreBind)?;
    if let Some(source) = &options.source {
        if options.freebind {
            if six { socket.set_freebind_v6(true)? } else { socket.set_freebind_v4(true)? }
        }
        if source.ip().is_some_and(|source| source.port() == 0) {
            // The port is chosen at connect, when the whole four-tuple counts, and not out of 28,000 at bind.
            let on = SocketOptionValue::Int(1);
            set(&socket, nix::libc::IPPROTO_IP, nix::libc::IP_BIND_ADDRESS_NO_PORT, &on)?;
        }
        socket.bind(&source.to_socket_address()?)?;
    }
    Ok(socket)
}

fn connect_pipe(address: &Address, options: &ConnectOptions) -> io::Result<Io> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    apply(&socket, &options.socket_options, SocketOptionState::PreBind)?;
    // A UNIX socket connects at once or not at all; EAGAIN says that the listener's queue is full.
    socket.connect(&address.to_socket_address()?).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            io::Error::new(io::ErrorKind::ConnectionRefused, "the UNIX listener's queue is full")
        }
        _ => error,
    })?;
    Ok(Io::Unix(UnixStream::from_std(socket.into())?))
}
