//! Socket options by number, as Envoy's `SocketOption` gives them. The only file here that calls the system directly.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;

/// One option to set (Envoy's `config.core.v3.SocketOption`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketOption {
    /// Protocol level, such as `SOL_SOCKET` (1) or `IPPROTO_TCP` (6).
    pub level: i32,
    /// The option's number at that level.
    pub name: i32,
    /// Its value.
    pub value: OptionValue,
    /// When it is set.
    pub state: OptionState,
}

/// The value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionValue {
    /// `int_value`: a C `int`.
    Int(i32),
    /// `buf_value`: bytes as they are.
    Bytes(Vec<u8>),
}

/// When an option is set (Envoy's `SocketOption.SocketState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OptionState {
    /// Before bind, or before connect.
    Prebind,
    /// After bind.
    Bound,
    /// After listen.
    Listening,
}

/// Sets every option of `options` that belongs to `state`.
///
/// # Errors
/// The first that the system refuses, named in the text.
pub fn apply(socket: impl AsFd, options: &[SocketOption], state: OptionState) -> io::Result<()> {
    for option in options.iter().filter(|option| option.state == state) {
        set(&socket, option.level, option.name, &option.value).map_err(|error| {
            io::Error::new(error.kind(), format!("socket option {}/{}: {error}", option.level, option.name))
        })?;
    }
    Ok(())
}

/// Sets one option.
///
/// # Errors
/// As `setsockopt(2)`.
pub fn set(socket: impl AsFd, level: i32, name: i32, value: &OptionValue) -> io::Result<()> {
    let integer;
    let bytes: &[u8] = match value {
        OptionValue::Int(value) => {
            integer = value.to_ne_bytes();
            &integer
        }
        OptionValue::Bytes(bytes) => bytes,
    };
    let length = libc::socklen_t::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let descriptor = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed for the call, and the kernel reads `length` bytes at a pointer to as many;
    // it keeps neither.
    #[allow(unsafe_code)]
    let result = unsafe { libc::setsockopt(descriptor, level, name, bytes.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};

    #[test]
    fn sets_integers_and_bytes_and_tells_refusals() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let option =
            |name, value| SocketOption { level: libc::SOL_SOCKET, name, value, state: OptionState::Prebind };
        let on = option(libc::SO_KEEPALIVE, OptionValue::Int(1));
        apply(&socket, std::slice::from_ref(&on), OptionState::Bound).unwrap();
        assert!(!socket.keepalive().unwrap());
        apply(&socket, &[on], OptionState::Prebind).unwrap();
        assert!(socket.keepalive().unwrap());
        let off = option(libc::SO_KEEPALIVE, OptionValue::Bytes(0_i32.to_ne_bytes().to_vec()));
        apply(&socket, &[off], OptionState::Prebind).unwrap();
        assert!(!socket.keepalive().unwrap());
        let short = option(libc::SO_KEEPALIVE, OptionValue::Bytes(vec![]));
        let error = apply(&socket, &[short], OptionState::Prebind).unwrap_err();
        assert!(error.to_string().starts_with("socket option 1/9: "), "{error}");
    }
}
