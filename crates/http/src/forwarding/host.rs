//! The host of a request, without what routes are not to see of it.

use proxy_config::settings::{Forwarding, StripPort};
use smallvec::SmallVec;

use crate::message::{Method, Request};

/// Takes a trailing dot and a port off the host, as `settings` say. `local_port` is the listener's.
pub fn normalize_host(request: &mut Request, settings: &Forwarding, local_port: Option<u16>) {
    if settings.strip_trailing_dot
        && let Some(host) = without_dot(request.authority())
    {
        request.set_authority(&host);
    }
    let strips = match settings.strip_port {
        StripPort::Never => return,
        StripPort::Matching => true,
        // Where a CONNECT goes is nothing without its port.
        StripPort::Any => request.method != Method::Connect,
    };
    if strips
        && let Some((host, port)) = split_port(request.authority())
        && (settings.strip_port == StripPort::Any || Some(port) == local_port.map(u32::from))
    {
        let host: SmallVec<[u8; 256]> = host.into();
        request.set_authority(&host);
    }
}

/// The host without a dot at its end or before its port; `None`: there is none.
fn without_dot(host: &[u8]) -> Option<SmallVec<[u8; 256]>> {
    let dot = memchr::memrchr(b'.', host)?;
    match host.get(dot + 1) {
        None | Some(b':') => {}
        Some(_) => return None,
    }
    let mut without = SmallVec::from_slice(&host[..dot]);
    without.extend_from_slice(&host[dot + 1..]);
    Some(without)
}

/// The host and what stands for its port, which may be larger than a port can be, as in Envoy.
fn split_port(host: &[u8]) -> Option<(&[u8], u32)> {
    let colon = memchr::memrchr(b':', host)?;
    let port = std::str::from_utf8(&host[colon + 1..]).ok()?.parse().ok()?;
    // A colon within brackets is part of an IPv6 address.
    let in_brackets = memchr::memrchr(b']', host).is_some_and(|bracket| bracket > colon);
    (!in_brackets).then_some((&host[..colon], port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::fixtures::{request, text};

    /// As Envoy 1.40 sent them on.
    #[test]
    fn ports_and_dots_come_off() {
        use StripPort::*;
        for (strip_port, strip_trailing_dot, from, to) in [
            (Matching, false, "a.com:80", "a.com:80"),
            (Matching, false, "a.com:8080", "a.com"),
            (Matching, false, "a.com.:8080", "a.com."),
            (Any, false, "a.com:80", "a.com"),
            (Any, false, "[::1]:80", "[::1]"),
            (Any, false, "[::1]", "[::1]"),
            (Any, false, "a.com:", "a.com:"),
            (Any, false, "a:b:80", "a:b"),
            (Any, false, "a.com", "a.com"),
            (Never, true, "A.com.", "A.com"),
            (Never, true, "a.com.:80", "a.com:80"),
            (Never, true, "a.com..", "a.com."),
            (Never, true, ".", ""),
            (Never, true, "a.com", "a.com"),
            (Any, true, "a.com.:80", "a.com"),
        ] {
            let settings = Forwarding { strip_port, strip_trailing_dot, ..Forwarding::default() };
            let mut request = request(from, "/", &[]);
            normalize_host(&mut request, &settings, Some(8080));
            assert_eq!(text(request.authority()), to, "{strip_port:?} {strip_trailing_dot} {from}");
        }
    }
}
