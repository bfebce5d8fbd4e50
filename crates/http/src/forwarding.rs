//! What the connection manager does to every request before filters see it (Envoy's
//! `ConnectionManagerUtility::mutateRequestHeaders`): hop-by-hop headers go, the client's address is found, headers that
//! only trusted peers may send are removed, and the request learns where it came from.
//!
//! Runs once per request: a header that is absent costs a bit test, and nothing is allocated.

use std::borrow::Cow;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proxy_config::settings::{Cidr, HttpConnectionManager, UserAgent};
use smallvec::SmallVec;

use crate::headers::Headers;
use crate::joined;
use crate::message::{Method, Request, Scheme};
use crate::name::HeaderId;
use crate::path::{PathAction, normalize_path};

pub mod host;
pub mod nominated;
mod origin;
pub mod timeouts;

pub use host::normalize_host;
pub use nominated::{InvalidNomination, remove_nominated};
use origin::Origin;
pub use timeouts::{Timeouts, remove_router_headers, take_timeouts};

/// What is known of the connection and the process.
#[derive(Clone, Copy, Debug)]
pub struct ForwardingContext<'a> {
    /// Address of the direct peer; `None` for UNIX sockets.
    pub peer: Option<IpAddr>,
    /// The port that the connection came to; `None` for UNIX sockets.
    pub local_port: Option<u16>,
    /// The scheme of the connection: HTTPS when it is encrypted.
    pub scheme: Scheme,
    /// This machine's own address, which stands for a loopback peer in `x-forwarded-for`, as in Envoy.
    pub local_address: Option<IpAddr>,
    /// `internal_address_config.cidr_ranges`; empty trusts nobody, the default since Envoy 1.36.
    pub internal_addresses: &'a [Cidr],
    /// Drawn per request, for the request id.
    pub random: u128,
}

/// What was found out about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The address that counts as the client's: of the peer, or from `x-forwarded-for` where that is trusted.
    pub client: Option<IpAddr>,
    /// The client is internal: it may send `x-envoy-*` headers.
    pub is_internal: bool,
}

/// Why a request goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotForwarded {
    /// Its target is no path: 404.
    NoPath,
    /// `path_with_escaped_slashes_action` refuses the path.
    BadPath,
    /// To be sent to the path that the request has now.
    OtherPath,
    /// What `connection` nominates; Envoy answers 400.
    Nomination,
    /// The client's address was not found; to be answered with this status.
    Refused(u16),
}

/// Makes `request` what routes are to see: host, path and headers. Whether it asks for an upgrade has to be decided before.
///
/// # Errors
/// Where the request ends here.
pub fn admit_request(
    request: &mut Request,
    settings: &HttpConnectionManager,
    context: &ForwardingContext<'_>,
) -> Result<Forwarded, NotForwarded> {
    normalize_host(request, &settings.forwarding, context.local_port);
    if !request.path().is_empty() {
        // CONNECT has none.
        if !request.path().starts_with(b"/") {
            return Err(NotForwarded::NoPath);
        }
        match normalize_path(request, &settings.path) {
            PathAction::Continue => {}
            PathAction::Reject => return Err(NotForwarded::BadPath),
            PathAction::Redirect => return Err(NotForwarded::OtherPath),
        }
    }
    prepare_request(request, settings, context)
}

/// Makes `request` ready for filters. Whether it asks for an upgrade has to be decided before.
///
/// # Errors
/// Where `connection` nominates headers that must not be removed, and where no client's address was found that had to be.
pub fn prepare_request(
    request: &mut Request,
    settings: &HttpConnectionManager,
    context: &ForwardingContext<'_>,
) -> Result<Forwarded, NotForwarded> {
    let upgrades = request.method != Method::Connect && requested_upgrade(request).is_some();
    let headers = &mut request.headers;
    remove_nominated(headers).map_err(|InvalidNomination| NotForwarded::Nomination)?;
    for id in HOP_BY_HOP {
        // What an upgrade says of itself is for the host to read.
        if !upgrades || !matches!(id, HeaderId::CONNECTION | HeaderId::UPGRADE) {
            headers.remove(id);
        }
    }
    keep_only_trailers(headers);

    let origin = Origin::find(headers, settings, context).map_err(NotForwarded::Refused)?;
    if origin.append_peer {
        append_forwarded_for(headers, context);
    }
    let extra = &settings.forwarding;
    set_forwarded_proto(headers, settings, context.scheme);
    if let Some(via) = &extra.via {
        append_via(headers, via);
    }
    if let Some(agent) = &extra.add_user_agent {
        add_user_agent(headers, agent);
    }
    let is_internal = origin.is_single
        && match origin.address {
            Some(ip) => context.internal_addresses.iter().any(|range| range.contains(ip)),
            None => context.peer.is_none() && settings.internal_unix_sockets,
        };
    let is_edge = !is_internal && settings.use_remote_address;
    if is_internal {
        headers.append(HeaderId::X_ENVOY_INTERNAL, b"true");
    }
    sanitize(headers, is_internal, is_edge);
    let client = origin.address.or(context.peer);
    if let Some(client) = client.filter(|_| is_edge) {
        headers.set(HeaderId::X_ENVOY_EXTERNAL_ADDRESS, &address_text(client));
    }
    if settings.generate_request_id {
        set_request_id(headers, is_edge, settings, context.random);
    }
    if !request.names_scheme {
        request.scheme = forwarded_scheme(&request.headers).unwrap_or(context.scheme);
    }
    if let Some(is_https) = extra.scheme_is_https {
        request.scheme = if is_https { Scheme::Https } else { Scheme::Http };
        request.headers.set(HeaderId::X_FORWARDED_PROTO, request.scheme.as_str().as_bytes());
    }
    Ok(Forwarded { client, is_internal })
}

/// Whether a request asks to become a stream of bytes: CONNECT, or an upgrade.
pub fn asks_for_tunnel(request: &Request) -> bool {
    request.method == Method::Connect || requested_upgrade(request).is_some()
}

/// Whether the client waits for 100 before it sends its body; told so even when there is none, as Envoy does.
pub fn expects_continue(request: &Request) -> bool {
    only_value(&request.headers, HeaderId::EXPECT)
        .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
}

/// The protocol that an HTTP/1 request asks to change to; several are none that a configuration knows. A wish for h2c is
/// ignored, as in Envoy.
pub fn requested_upgrade(request: &Request) -> Option<Cow<'_, [u8]>> {
    let protocol = request.headers.joined(HeaderId::UPGRADE)?;
    let is_meant = nominated::tokens(&request.headers).any(|token| token.eq_ignore_ascii_case(b"upgrade"));
    (is_meant && !protocol.eq_ignore_ascii_case(b"h2c")).then_some(protocol)
}

/// The value of a header that stands in one line, besides empty ones. Several lines are one list to Envoy, which is none of
/// the values that are looked for.
pub(crate) fn only_value(headers: &Headers, id: HeaderId) -> Option<&[u8]> {
    let mut values = headers.values(id).filter(|value| !value.is_empty());
    values.next().filter(|_| values.next().is_none())
}

fn append_forwarded_for(headers: &mut Headers, context: &ForwardingContext<'_>) {
    let Some(peer) = context.peer else {
        return;
    };
    // The one loopback address, not its whole network: what Envoy compares with.
    let loopback = peer == IpAddr::V4(Ipv4Addr::LOCALHOST) || peer == IpAddr::V6(Ipv6Addr::LOCALHOST);
    let address = if loopback { context.local_address.unwrap_or(peer) } else { peer };
    let address = address_text(address);
    if !headers.contains(HeaderId::X_FORWARDED_FOR) {
        headers.append(HeaderId::X_FORWARDED_FOR, &address);
        return;
    }
    let all = joined::join(headers.values(HeaderId::X_FORWARDED_FOR).chain([&address[..]]));
    headers.set(HeaderId::X_FORWARDED_FOR, &all);
}

/// What an untrusted peer says of its protocol is replaced; what is missing is added.
fn set_forwarded_proto(headers: &mut Headers, settings: &HttpConnectionManager, scheme: Scheme) {
    let untrusted = settings.use_remote_address && settings.xff_trusted_hops == 0;
    if untrusted || !headers.contains(HeaderId::X_FORWARDED_PROTO) {
        headers.set(HeaderId::X_FORWARDED_PROTO, scheme.as_str().as_bytes());
    }
}

/// Adds `via` to the line there is.
pub(crate) fn append_via(headers: &mut Headers, via: &[u8]) {
    let mut all: SmallVec<[u8; 128]> = SmallVec::new();
    for value in headers.values(HeaderId::VIA).filter(|value| !value.is_empty()) {
        all.extend_from_slice(value);
        all.extend_from_slice(b", ");
    }
    all.extend_from_slice(via);
    headers.set(HeaderId::VIA, &all);
}

/// Tells the upstream which service is asking (`add_user_agent`).
fn add_user_agent(headers: &mut Headers, agent: &UserAgent) {
    headers.set(HeaderId::X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER, &agent.cluster);
    if headers.joined(HeaderId::USER_AGENT).is_none_or(|agent| agent.is_empty()) {
        headers.set(HeaderId::USER_AGENT, &agent.cluster);
    }
    if !agent.node.is_empty() {
        headers.set(HeaderId::X_ENVOY_DOWNSTREAM_SERVICE_NODE, &agent.node);
    }
}

fn forwarded_scheme(headers: &Headers) -> Option<Scheme> {
    match only_value(headers, HeaderId::X_FORWARDED_PROTO)? {
        proto if proto.eq_ignore_ascii_case(b"http") => Some(Scheme::Http),
        proto if proto.eq_ignore_ascii_case(b"https") => Some(Scheme::Https),
        _ => None,
    }
}

/// Removes what only trusted peers may say.
fn sanitize(headers: &mut Headers, is_internal: bool, is_edge: bool) {
    if is_edge {
        for id in NOT_FROM_OUTSIDE {
            headers.remove(id);
        }
    }
    if !is_internal {
        for id in NOT_FROM_EXTERNAL {
            headers.remove(id);
        }
    }
    // Names without an id, in one pass. Client certificates are not forwarded: `SANITIZE` is the default.
    headers.remove_if(|name, _| match name {
        b"x-forwarded-client-cert" => true,
        b"x-envoy-upstream-stream-duration-ms" => !is_internal,
        b"x-envoy-original-host" => is_edge,
        _ => false,
    });
}

/// `te` may only say `trailers` upstream.
fn keep_only_trailers(headers: &mut Headers) {
    if !headers.contains(HeaderId::TE) {
        return;
    }
    let trailers = headers
        .values(HeaderId::TE)
        .any(|line| line.split(|&b| b == b',').any(|coding| coding.trim_ascii() == b"trailers"));
    headers.remove(HeaderId::TE);
    if trailers {
        headers.append(HeaderId::TE, b"trailers");
    }
}

/// `x-request-id`: kept from inside, or where `preserve_external_request_id` says so; made otherwise.
fn set_request_id(headers: &mut Headers, is_edge: bool, settings: &HttpConnectionManager, random: u128) {
    let known = headers.value(HeaderId::X_REQUEST_ID).filter(|id| !id.is_empty());
    match known {
        Some(_) if !is_edge => {}
        Some(id) if settings.preserve_external_request_id => {
            // The 15th character of a UUID says why a request is traced, which is not for strangers to decide.
            if id.len() == 36 && id[14] != b'4' && !settings.forwarding.plain_request_ids {
                let mut id: SmallVec<[u8; 36]> = SmallVec::from_slice(id);
                id[14] = b'4';
                headers.set(HeaderId::X_REQUEST_ID, &id);
            }
        }
        _ => headers.set(HeaderId::X_REQUEST_ID, &uuid(random)),
    }
}

/// A version 4 UUID (RFC 9562, section 5.4) as text.
pub(crate) fn uuid(random: u128) -> [u8; 36] {
    const VERSION: u128 = 0xf << 76;
    const VARIANT: u128 = 0x3 << 62;
    let value = random & !(VERSION | VARIANT) | 0x4 << 76 | 0x2 << 62;
    let digits = hexadecimal(value);
    let mut text = [b'-'; 36];
    for (from, to, length) in [(0, 0, 8), (8, 9, 4), (12, 14, 4), (16, 19, 4), (20, 24, 12)] {
        text[to..to + length].copy_from_slice(&digits[from..from + length]);
    }
    text
}

/// The digits of a number, eight at a time: every request gets an id, and one digit after the other takes 500 instructions.
fn hexadecimal(value: u128) -> [u8; 32] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let mut text = [0; 32];
    for (digits, bytes) in text.chunks_exact_mut(8).zip(value.to_be_bytes().chunks_exact(4)) {
        // Each of four bytes moves to a pair of its own, and its high half before its low one.
        let spread = bytes.iter().rev().fold(0, |spread, &byte| spread << 16 | u64::from(byte));
        let halves =
            spread >> 4 & (15 * 0x0001_0001_0001_0001) | (spread & (15 * 0x0001_0001_0001_0001)) << 8;
        let letters = (halves + 6 * ONES) >> 4 & ONES;
        let ascii = halves + u64::from(b'0') * ONES + letters * u64::from(b'a' - b'0' - 10);
        digits.copy_from_slice(&ascii.to_le_bytes());
    }
    text
}

/// An IPv4 address that came over an IPv6 socket is written as IPv4.
fn address_text(address: IpAddr) -> SmallVec<[u8; ADDRESS_BYTES]> {
    let mut text = [0; ADDRESS_BYTES];
    let mut rest = &mut text[..];
    write!(rest, "{}", address.to_canonical()).expect("no address is longer than ADDRESS_BYTES");
    let written = ADDRESS_BYTES - rest.len();
    SmallVec::from_slice(&text[..written])
}

/// The longest IPv6 address has 45 characters.
const ADDRESS_BYTES: usize = 48;

const HOP_BY_HOP: [HeaderId; 6] = [
    HeaderId::CONNECTION,
    HeaderId::UPGRADE,
    HeaderId::KEEP_ALIVE,
    HeaderId::PROXY_CONNECTION,
    HeaderId::TRANSFER_ENCODING,
    HeaderId::X_ENVOY_INTERNAL,
];

/// Removed from what comes from clients to an edge proxy (`use_remote_address`).
const NOT_FROM_OUTSIDE: [HeaderId; 4] = [
    HeaderId::X_ENVOY_DECORATOR_OPERATION,
    HeaderId::X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER,
    HeaderId::X_ENVOY_DOWNSTREAM_SERVICE_NODE,
    HeaderId::X_ENVOY_ORIGINAL_PATH,
];

/// Removed from all that does not come from an internal address.
const NOT_FROM_EXTERNAL: [HeaderId; 14] = [
    HeaderId::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS,
    HeaderId::X_ENVOY_FORCE_TRACE,
    HeaderId::X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT,
    HeaderId::X_ENVOY_IP_TAGS,
    HeaderId::X_ENVOY_MAX_RETRIES,
    HeaderId::X_ENVOY_ORIGINAL_URL,
    HeaderId::X_ENVOY_RETRIABLE_HEADER_NAMES,
    HeaderId::X_ENVOY_RETRIABLE_STATUS_CODES,
    HeaderId::X_ENVOY_RETRY_GRPC_ON,
    HeaderId::X_ENVOY_RETRY_ON,
    HeaderId::X_ENVOY_UPSTREAM_ALT_STAT_NAME,
    HeaderId::X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS,
    HeaderId::X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE,
    HeaderId::X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS,
];

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;
