//! Socket options by number, as Envoy's `SocketOption` gives them. The only file here that calls the system directly.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;
use proxy_config::settings::{SocketOption, SocketOptionState, SocketOptionValue};

/// Sets every option of `options` that belongs to `state`.
///
/// # Errors
/// The first that the system refuses, named in the text.
pub fn apply(socket: impl AsFd, options: &[SocketOption], state: SocketOptionState) -> io::Result<()> {
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
pub fn set(socket: impl AsFd, level: i32, name: i32, value: &SocketOptionValue) -> io::Result<()> {
    let integer;
    let bytes: &[u8] = match value {
        SocketOptionValue::Int(value) => {
            integer = value.to_ne_bytes();
            &integer
        }
        SocketOptionValue::Bytes(bytes) => bytes,
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
        let option = |name, value| SocketOption {
            level: libc::SOL_SOCKET,
            name,
            value,
            state: SocketOptionState::PreBind,
        };
        let on = option(libc::SO_KEEPALIVE, SocketOptionValue::Int(1));
        apply(&socket, std::slice::from_ref(&on), SocketOptionState::Bound).unwrap();
        assert!(!socket.keepalive().unwrap());
        apply(&socket, &[on], SocketOptionState::PreBind).unwrap();
        assert!(socket.keepalive().unwrap());
        let off = option(libc::SO_KEEPALIVE, SocketOptionValue::Bytes(0_i32.to_ne_bytes().to_vec()));
        apply(&socket, &[off], SocketOptionState::PreBind).unwrap();
        assert!(!socket.keepalive().unwrap());
        let short = option(libc::SO_KEEPALIVE, SocketOptionValue::Bytes(vec![]));
        let error = apply(&socket, &[short], SocketOptionState::PreBind).unwrap_err();
        assert!(error.to_string().starts_with("socket option 1/9: "), "{error}");
    }
}
