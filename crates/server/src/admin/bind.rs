//! The admin address of the configuration file, bound.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{
    SocketAddr as UnixAddress, UnixListener as StdUnixListener, UnixStream as StdUnixStream,
};
use std::path::{Path, PathBuf};

use proxy_config::settings::SocketAddress;
use tokio::net::{TcpListener, UnixListener};
use tracing::warn;

use super::address;

/// A bound admin address.
#[derive(Debug)]
pub enum Bound {
    Tcp(TcpListener),
    /// Whoever can open the socket is trusted: rules about Host and Origin are for TCP.
    Unix(UnixListener),
}

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("admin address {address}: {error}")]
    Bind { address: String, error: io::Error },
    #[error("--admin-address-path {}: {error}", path.display())]
    AddressPath { path: PathBuf, error: io::Error },
}

impl Bound {
    /// Takes over a listening socket from another process. In main's runtime.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_descriptor(descriptor: OwnedFd) -> io::Result<Self> {
        let socket = socket2::Socket::from(descriptor);
        socket.set_nonblocking(true)?;
        match socket.local_addr()?.as_socket() {
            Some(_) => Ok(Self::Tcp(TcpListener::from_std(socket.into())?)),
            None => Ok(Self::Unix(UnixListener::from_std(OwnedFd::from(socket).into())?)),
        }
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// Binds `admin`, or goes on with a socket of it, and writes where it is to `address_path`. Warns if others than this host can reach it. In main's runtime.
///
/// # Errors
/// The address is taken or not ours; the file cannot be written.
pub async fn bind(
    admin: &SocketAddress,
    taken_over: Option<OwnedFd>,
    address_path: Option<&Path>,
) -> Result<Bound, BindError> {
    let failed = |error| BindError::Bind { address: address::text(admin), error };
    let bound = match (taken_over, admin) {
        (Some(socket), _) => Bound::from_descriptor(socket).map_err(failed)?,
        (None, SocketAddress::Ip(wanted)) => Bound::Tcp(TcpListener::bind(wanted).await.map_err(failed)?),
        (None, SocketAddress::Pipe { path, abstract_name, mode }) => {
            Bound::Unix(bind_pipe(path, *abstract_name, *mode).map_err(failed)?)
        }
    };
    let actual = match &bound {
        Bound::Tcp(listener) => {
            let actual = listener.local_addr().map_err(failed)?;
            if !actual.ip().to_canonical().is_loopback() {
                warn!(address = %actual, "the admin port can be reached from other hosts");
            }
            actual.to_string()
        }
        Bound::Unix(_) => address::text(admin),
    };
    if let Some(path) = address_path {
        fs::write(path, actual).map_err(|error| BindError::AddressPath { path: path.to_owned(), error })?;
    }
    Ok(bound)
}

fn bind_pipe(path: &Path, abstract_name: bool, mode: u32) -> io::Result<UnixListener> {
    let listener = if abstract_name {
        let name = path.to_string_lossy();
        let name = name.strip_prefix('@').unwrap_or(&name);
        StdUnixListener::bind_addr(&UnixAddress::from_abstract_name(name)?)?
    } else {
        remove_stale(path)?;
        let listener = StdUnixListener::bind(path)?;
        if mode != 0 {
            fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        listener
    };
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// A socket file that nobody listens on is left over from a process that was killed.
fn remove_stale(path: &Path) -> io::Result<()> {
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Ok(()),
    }
}
