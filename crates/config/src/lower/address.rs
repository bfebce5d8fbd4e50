//! Addresses, CIDR ranges and socket options.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3 as core_v3;

use super::{Context, value};
use crate::settings::{
    Cidr, EndpointAddress, SocketAddress, SocketOption, SocketOptionState, SocketOptionValue, TcpKeepalive,
};
use crate::{Code, Path};

/// What may stand for the host of a socket address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hosts {
    /// Only literals.
    Ip,
    /// Names too, as DNS clusters resolve them.
    Names,
}

/// An address that must be literal.
pub(super) fn literal(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&core_v3::Address>,
) -> Option<SocketAddress> {
    match address(context, path, message, Hosts::Ip)? {
        EndpointAddress::Socket(address) => Some(address),
        EndpointAddress::Name { .. } => None,
    }
}

/// The literal address of who receives datagrams. As in Envoy, its `protocol` says nothing.
pub(super) fn datagram(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &core_v3::Address,
) -> Option<SocketAddress> {
    let mut message = message.clone();
    if let Some(core_v3::address::Address::SocketAddress(socket)) = &mut message.address {
        socket.protocol = core_v3::socket_address::Protocol::Tcp as i32;
    }
    literal(context, path, Some(&message))
}

pub(super) fn address(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&core_v3::Address>,
    hosts: Hosts,
) -> Option<EndpointAddress> {
    use core_v3::address::Address;
    match message.and_then(|message| message.address.as_ref()) {
        Some(Address::SocketAddress(message)) => {
            socket(context, &path.field("socket_address"), message, hosts)
        }
        Some(Address::Pipe(message)) => {
            pipe(context, &path.field("pipe"), message).map(EndpointAddress::Socket)
        }
        Some(Address::EnvoyInternalAddress(_)) => {
            context.unsupported(&path.field("envoy_internal_address"), "an internal address");
            None
        }
        None => {
            context.missing(path, "an address is required");
            None
        }
    }
}

pub(super) fn socket(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &core_v3::SocketAddress,
    hosts: Hosts,
) -> Option<EndpointAddress> {
    use core_v3::socket_address::{PortSpecifier, Protocol};
    if message.protocol != Protocol::Tcp as i32 {
        context.unsupported(&path.field("protocol"), "a protocol other than TCP");
    }
    let port = match &message.port_specifier {
        Some(PortSpecifier::PortValue(port)) => u16::try_from(*port).ok().or_else(|| {
            let code = Code::OUT_OF_RANGE;
            context.error(&path.field("port_value"), code, format_args!("{port} is no port"));
            None
        }),
        Some(PortSpecifier::NamedPort(_)) => {
            context.unsupported(&path.field("named_port"), "a port by name");
            None
        }
        None => {
            context.missing(path, "a port is required");
            None
        }
    };
    let host = message.address.as_str();
    match (host.parse::<IpAddr>(), hosts) {
        (Ok(ip), _) => Some(EndpointAddress::Socket(SocketAddress::Ip(SocketAddr::new(ip, port?)))),
        (Err(_), Hosts::Names) if is_host_name(host) => {
            Some(EndpointAddress::Name { host: host.into(), port: port? })
        }
        (Err(_), hosts) => {
            let hint = match hosts {
                Hosts::Ip if host == "*" => {
                    "is no IP address: 0.0.0.0 stands for all of them, :: for those of IPv6"
                }
                _ if host.parse::<SocketAddr>().is_ok() => "is no IP address: the port stands in port_value",
                Hosts::Ip if host == "localhost" => {
                    "is no IP address: write 127.0.0.1 (names need a cluster of type STRICT_DNS or LOGICAL_DNS)"
                }
                Hosts::Ip => "is no IP address (names need a cluster of type STRICT_DNS or LOGICAL_DNS)",
                Hosts::Names => "is neither an IP address nor a host name",
            };
            context.error(&path.field("address"), Code::BAD_ADDRESS, format_args!("{host:?} {hint}"));
            None
        }
    }
}

/// Loose on purpose: resolvers and /etc/hosts know names that RFC 1123 forbids.
fn is_host_name(host: &str) -> bool {
    !host.is_empty() && host.len() <= 255 && host.bytes().all(|byte| byte.is_ascii_graphic())
}

fn pipe(context: &mut Context<'_>, path: &Path<'_>, message: &core_v3::Pipe) -> Option<SocketAddress> {
    let name = message.path.as_str();
    let abstract_name = name.starts_with('@');
    let problem = if name.is_empty() {
        "a path is required"
    } else if name.len() > MAX_PIPE_PATH {
        "the path of a UNIX socket has at most 107 bytes"
    } else if name.contains('\0') {
        "the path of a UNIX socket has no NUL"
    } else if message.mode > 0o777 {
        let mode = path.field("mode");
        context.error(&mode, Code::OUT_OF_RANGE, "file permission bits, at most 511 (0777), are expected");
        return None;
    } else {
        return Some(SocketAddress::Pipe { path: PathBuf::from(name), abstract_name, mode: message.mode });
    };
    context.error(&path.field("path"), Code::BAD_ADDRESS, problem);
    None
}

pub(super) fn cidrs(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[core_v3::CidrRange],
) -> Vec<Cidr> {
    let each = messages.iter().enumerate();
    each.filter_map(|(index, message)| cidr(context, &path.index(index), message)).collect()
}

pub(super) fn cidr(context: &mut Context<'_>, path: &Path<'_>, message: &core_v3::CidrRange) -> Option<Cidr> {
    let text = message.address_prefix.as_str();
    let Ok(address) = text.parse::<IpAddr>() else {
        let prefix = path.field("address_prefix");
        context.error(&prefix, Code::BAD_ADDRESS, format_args!("{text:?} is no IP address"));
        return None;
    };
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let prefix_len = path.field("prefix_len");
    let length = value::number(context, &prefix_len, message.prefix_len.as_ref(), 0..=128, 0);
    // Envoy too reads an IPv4 prefix length over 32 as 32.
    let length = u8::try_from(length.min(bits)).unwrap_or(u8::MAX);
    Some(masked(address, length))
}

fn masked(address: IpAddr, prefix_len: u8) -> Cidr {
    let shift = u32::from(prefix_len);
    let address = match address {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) & u32::MAX.checked_shl(32 - shift).unwrap_or(0)).into()),
        IpAddr::V6(ip) => {
            IpAddr::V6((u128::from(ip) & u128::MAX.checked_shl(128 - shift).unwrap_or(0)).into())
        }
    };
    Cidr { address, prefix_len }
}

pub(super) fn socket_options(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[core_v3::SocketOption],
) -> Vec<SocketOption> {
    let each = messages.iter().enumerate();
    each.filter_map(|(index, message)| socket_option(context, &path.index(index), message)).collect()
}

fn socket_option(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &core_v3::SocketOption,
) -> Option<SocketOption> {
    use core_v3::socket_option::{SocketState, Value};
    let mut int = |field: &str, number: i64| {
        i32::try_from(number).ok().or_else(|| {
            let code = Code::OUT_OF_RANGE;
            context.error(&path.field(field), code, format_args!("{number} does not fit in 32 bits"));
            None
        })
    };
    let level = int("level", message.level);
    let name = int("name", message.name);
    let value = match &message.value {
        Some(Value::IntValue(number)) => int("int_value", *number).map(SocketOptionValue::Int),
        Some(Value::BufValue(bytes)) => Some(SocketOptionValue::Bytes(bytes.clone())),
        None => {
            context.missing(path, "int_value or buf_value is required");
            None
        }
    };
    let state = match value::enumeration(context, &path.field("state"), message.state) {
        SocketState::StatePrebind => SocketOptionState::PreBind,
        SocketState::StateBound => SocketOptionState::Bound,
        SocketState::StateListening => SocketOptionState::Listening,
    };
    Some(SocketOption { level: level?, name: name?, value: value?, state })
}

/// `None` when a field switches it off by 0.
pub(super) fn tcp_keepalive(message: &core_v3::TcpKeepalive) -> Option<TcpKeepalive> {
    let seconds = |value: u32| Duration::from_secs(u64::from(value));
    let [probes, time, interval] =
        [&message.keepalive_probes, &message.keepalive_time, &message.keepalive_interval]
            .map(|value| value.as_ref().map(|value| value.value));
    let off = [probes, time, interval].contains(&Some(0));
    (!off).then(|| TcpKeepalive { probes, time: time.map(seconds), interval: interval.map(seconds) })
}

/// `sun_path` of Linux has 108 bytes, the last one a NUL.
const MAX_PIPE_PATH: usize = 107;
