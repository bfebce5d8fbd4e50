//! Where a request is meant for: target and `Host` of HTTP/1 (RFC 9112, section 3.2), and what an authority may be in any version.

use std::net::Ipv6Addr;

use proxy_config::settings::Http1Options;

use super::head::HeadError;
use crate::headers::Span;
use crate::message::{Method, Request, Scheme, Version};
use crate::name::HeaderId;

/// Sorts out target and `Host` (RFC 9112, section 3.2).
pub(super) fn take_target(request: &mut Request, options: &Http1Options) -> Result<(), HeadError> {
    if request.headers.values(HeaderId::HOST).count() > 1 {
        return Err(HeadError::Malformed("host twice"));
    }
    match request.headers.take_first(HeaderId::HOST) {
        Some(host) => request.authority = host,
        None if request.version == Version::Http10
            && !request.path().starts_with(b"/")
            && !options.refuse_absolute_url => {}
        None if request.version == Version::Http10 && !options.default_host_for_http_10.is_empty() => {
            request.set_authority(options.default_host_for_http_10.as_bytes());
        }
        None => return Err(HeadError::NoHost),
    }
    if !valid_authority(request.authority()) {
        return Err(HeadError::Malformed("host"));
    }
    let target = request.path();
    if !target.is_ascii() {
        return Err(HeadError::Malformed("target"));
    }
    if request.method == Method::Connect {
        if !names_a_host(target, true) {
            return Err(HeadError::Malformed("host in target"));
        }
        request.authority = std::mem::take(&mut request.path);
        return Ok(());
    }
    if target.starts_with(b"/")
        || (target == b"*" && (request.method == Method::Options || options.refuse_absolute_url))
    {
        return Ok(());
    }
    let (scheme, skip) = match target {
        t if t.len() > 7 && t[..7].eq_ignore_ascii_case(b"http://") => (Scheme::Http, 7),
        t if t.len() > 8 && t[..8].eq_ignore_ascii_case(b"https://") => (Scheme::Https, 8),
        _ => return Err(HeadError::Malformed("target")),
    };
    if options.refuse_absolute_url {
        // What then has the form of a path that no route has.
        return Ok(());
    }
    let rest = &target[skip..];
    let split = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    if !names_a_host(&rest[..split], false) {
        return Err(HeadError::Malformed("host in target"));
    }
    let start = request.path.start as usize + skip;
    let path = Span::new(start + split, request.path.end as usize);
    request.authority = Span::new(start, start + split);
    (request.scheme, request.names_scheme) = (scheme, true);
    request.path = path;
    if !request.path().starts_with(b"/") {
        let mut with_slash = vec![b'/'];
        with_slash.extend_from_slice(request.path());
        request.set_path(&with_slash);
    }
    Ok(())
}

/// Whether a target names a host that a connection can be made to: a name of letters, digits, `-` and `.`, or an IPv6
/// address, and a port. Narrower than RFC 3986, and as narrow as Envoy.
fn names_a_host(authority: &[u8], with_port: bool) -> bool {
    let (is_host, rest) = match authority.strip_prefix(b"[") {
        Some(bracketed) => {
            let Some(end) = memchr::memchr(b']', bracketed) else { return false };
            let address = std::str::from_utf8(&bracketed[..end]).ok();
            (address.is_some_and(|text| text.parse::<Ipv6Addr>().is_ok()), &bracketed[end + 1..])
        }
        None => {
            let (name, rest) = authority.split_at(memchr::memchr(b':', authority).unwrap_or(authority.len()));
            let is_name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
            (!name.is_empty() && name.iter().all(is_name), rest)
        }
    };
    let is_port = match rest.strip_prefix(b":") {
        None => rest.is_empty() && !with_port,
        Some(digits) => {
            let number = std::str::from_utf8(digits).ok().and_then(|text| text.parse::<u16>().ok());
            digits.iter().all(u8::is_ascii_digit) && number.is_some()
        }
    };
    is_host && is_port
}

/// The characters of RFC 3986's `authority`; userinfo is refused as Envoy does.
pub(crate) fn valid_authority(authority: &[u8]) -> bool {
    authority.iter().all(|b| {
        b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'%'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
                    | b':'
                    | b'['
                    | b']'
            )
    })
}
