//! Where a socket is bound or connected: an IP address and port, or a UNIX socket. Written as Envoy writes it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proxy_config::settings::SocketAddress;
use socket2::SockAddr;

/// An address (Envoy's `config.core.v3.Address`, after names are resolved). Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// IPv4 or IPv6 with a port.
    Ip(SocketAddr),
    /// A UNIX stream socket.
    Pipe(Arc<PipePath>),
}

/// The name of a UNIX socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PipePath {
    /// In the file system.
    File(PathBuf),
    /// In Linux's abstract name space, without the leading NUL.
    Abstract(Vec<u8>),
    /// A socket that was never bound, as most clients' are.
    Unnamed,
}

/// A UNIX socket name that the system cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// `sun_path` has 108 bytes, one of them for the end or the abstract mark.
    #[error("Path \"{0}\" exceeds maximum UNIX domain socket path size of 108.")]
    TooLong(String),
    /// The system would cut a path at a NUL.
    #[error("UNIX domain socket pathname contains embedded null characters")]
    Nul,
}

/// The longest UNIX socket name.
const PIPE_LENGTH: usize = 107;

impl Address {
    /// A UNIX socket as Envoy's `Pipe.path` names it: a leading `@` means the abstract name space.
    ///
    /// # Errors
    /// When the name does not fit or holds a NUL.
    pub fn pipe(path: &str) -> Result<Self, AddressError> {
        if path.len() > PIPE_LENGTH {
            return Err(AddressError::TooLong(path.to_owned()));
        }
        let pipe = match path.strip_prefix('@') {
            Some(name) => PipePath::Abstract(name.as_bytes().to_vec()),
            None if path.contains('\0') => return Err(AddressError::Nul),
            None => PipePath::File(PathBuf::from(path)),
        };
        Ok(Self::Pipe(Arc::new(pipe)))
    }

    /// The IP address and port, if it is one.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Pipe(_) => None,
        }
    }

    /// The same address with another port; UNIX sockets have none.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        match self {
            Self::Ip(address) => Self::Ip(SocketAddr::new(address.ip(), port)),
            Self::Pipe(_) => self.clone(),
        }
    }

    /// The path in the file system, if it has one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Pipe(pipe) => match &**pipe {
                PipePath::File(path) => Some(path),
                PipePath::Abstract(_) | PipePath::Unnamed => None,
            },
            Self::Ip(_) => None,
        }
    }

    /// What the system calls are given.
    ///
    /// # Errors
    /// When it is a UNIX socket without a name, or with one that is too long.
    pub fn to_socket_address(&self) -> io::Result<SockAddr> {
        match self {
            Self::Ip(address) => Ok(SockAddr::from(*address)),
            Self::Pipe(pipe) => match &**pipe {
                PipePath::File(path) => SockAddr::unix(path),
                PipePath::Abstract(name) => {
                    let mut path = Vec::with_capacity(name.len() + 1);
                    path.push(0);
                    path.extend_from_slice(name);
                    SockAddr::unix(std::ffi::OsStr::from_bytes(&path))
                }
                PipePath::Unnamed => {
                    Err(io::Error::new(io::ErrorKind::InvalidInput, "a UNIX socket without a name"))
                }
            },
        }
    }

    pub(crate) fn from_socket_address(address: &SockAddr) -> Self {
        match address.as_socket() {
            Some(address) => Self::from(address),
            None => Self::Pipe(Arc::new(match (address.as_pathname(), address.as_abstract_namespace()) {
                (Some(path), _) => PipePath::File(path.to_owned()),
                (None, Some(name)) => PipePath::Abstract(name.to_vec()),
                (None, None) => PipePath::Unnamed,
            })),
        }
    }
}

/// An IPv4 address that came in through an IPv6 socket is the IPv4 address it stands for, as in Envoy.
impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V6(six) if six.ip().to_ipv4_mapped().is_some() => {
                Self::Ip(SocketAddr::new(address.ip().to_canonical(), address.port()))
            }
            _ => Self::Ip(address),
        }
    }
}

/// As configured; an abstract name stands there with its `@`.
impl From<&SocketAddress> for Address {
    fn from(address: &SocketAddress) -> Self {
        match address {
            SocketAddress::Ip(address) => Self::Ip(*address),
            SocketAddress::Pipe { path, abstract_name, .. } => {
                let name = path.as_os_str().as_bytes();
                Self::Pipe(Arc::new(if *abstract_name {
                    PipePath::Abstract(name.strip_prefix(b"@").unwrap_or(name).to_vec())
                } else {
                    PipePath::File(path.clone())
                }))
            }
        }
    }
}

impl From<&UnixAddr> for Address {
    fn from(address: &UnixAddr) -> Self {
        Self::Pipe(Arc::new(match (address.as_pathname(), address.as_abstract_name()) {
            (Some(path), _) => PipePath::File(path.to_owned()),
            (None, Some(name)) => PipePath::Abstract(name.to_vec()),
            (None, None) => PipePath::Unnamed,
        }))
    }
}

/// Envoy's `asString`: `127.0.0.1:80`, `[::1]:80`, `/run/proxy.sock`, `@abstract` (a NUL in it is written `@`).
impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => fmt::Display::fmt(address, formatter),
            Self::Pipe(pipe) => match &**pipe {
                PipePath::File(path) => fmt::Display::fmt(&path.display(), formatter),
                PipePath::Abstract(name) => {
                    let name: Vec<u8> =
                        name.iter().map(|byte| if *byte == 0 { b'@' } else { *byte }).collect();
                    write!(formatter, "@{}", String::from_utf8_lossy(&name))
                }
                PipePath::Unnamed => Ok(()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Address {
        Address::from(text.parse::<SocketAddr>().unwrap())
    }

    #[test]
    fn reads_as_in_envoy() {
        for text in ["127.0.0.1:80", "[::1]:80", "0.0.0.0:0"] {
            assert_eq!(ip(text).to_string(), text);
        }
        for text in ["/run/proxy.sock", "@proxy", "@"] {
            assert_eq!(Address::pipe(text).unwrap().to_string(), text);
        }
        assert_eq!(Address::pipe("@a\0b").unwrap().to_string(), "@a@b");
        assert_eq!(ip("[::ffff:10.0.0.1]:80").to_string(), "10.0.0.1:80");
        assert_eq!(Address::Pipe(Arc::new(PipePath::Unnamed)).to_string(), "");
    }

    #[test]
    fn takes_configured_addresses_as_they_are() {
        let pipe = |text: &str| SocketAddress::Pipe {
            path: PathBuf::from(text),
            abstract_name: text.starts_with('@'),
            mode: 0,
        };
        for text in ["/run/proxy.sock", "@proxy"] {
            assert_eq!(Address::from(&pipe(text)), Address::pipe(text).unwrap());
        }
        assert_eq!(Address::from(&SocketAddress::Ip("[::1]:80".parse().unwrap())), ip("[::1]:80"));
    }

    #[test]
    fn refuses_names_the_system_would_cut() {
        assert!(Address::pipe(&"a".repeat(107)).is_ok());
        assert!(matches!(Address::pipe(&"a".repeat(108)), Err(AddressError::TooLong(_))));
        assert_eq!(Address::pipe("a\0b"), Err(AddressError::Nul));
    }

    #[test]
    fn survives_the_way_through_the_system() {
        let abstract_name = Address::pipe("@proxy\0x").unwrap();
        for address in [ip("127.0.0.1:80"), ip("[::1]:80"), Address::pipe("/run/x").unwrap(), abstract_name] {
            assert_eq!(Address::from_socket_address(&address.to_socket_address().unwrap()), address);
        }
        assert!(size_of::<Address>() <= 32);
    }
}
