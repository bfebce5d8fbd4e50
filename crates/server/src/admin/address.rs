//! Addresses as Envoy's admin prints them.

use proxy_config::settings::SocketAddress;
use serde_json::{Value, json};

/// `127.0.0.1:80`, `[::1]:80`, or a path.
pub(super) fn text(address: &SocketAddress) -> String {
    match address {
        SocketAddress::Ip(address) => address.to_string(),
        SocketAddress::Pipe { path, .. } => path.to_string_lossy().into_owned(),
    }
}

/// `envoy.config.core.v3.Address`.
pub(super) fn message(address: &SocketAddress) -> Value {
    match address {
        SocketAddress::Ip(ip) => {
            json!({ "socket_address": { "address": ip.ip().to_string(), "port_value": ip.port() } })
        }
        SocketAddress::Pipe { .. } => json!({ "pipe": { "path": text(address) } }),
    }
}
