//! Where a request came from: whose address counts as the client's.

use std::net::IpAddr;

use proxy_config::settings::{Cidr, ForwardedForDetection, HttpConnectionManager, IpDetection};

use super::ForwardingContext;
use crate::headers::Headers;
use crate::joined::Direction;
use crate::name::HeaderId;

/// The address that counts as the client's, before `x-forwarded-for` is appended to.
pub(super) struct Origin {
    pub(super) address: Option<IpAddr>,
    /// No proxy stood between, or what says so is trusted: only then the client can be internal.
    pub(super) is_single: bool,
    /// The peer is to be appended to `x-forwarded-for`.
    pub(super) append_peer: bool,
}

impl Origin {
    /// # Errors
    /// The status with which a request without an address is to be answered.
    pub(super) fn find(
        headers: &Headers,
        settings: &HttpConnectionManager,
        context: &ForwardingContext<'_>,
    ) -> Result<Origin, u16> {
        let hops = settings.xff_trusted_hops;
        if settings.use_remote_address {
            let from_header = hops.checked_sub(1).and_then(|skip| forwarded_for(headers, skip).address);
            return Ok(Origin {
                address: from_header.or(context.peer),
                is_single: !headers.contains(HeaderId::X_FORWARDED_FOR),
                append_peer: !settings.skip_xff_append,
            });
        }
        let detections = &settings.forwarding.detections;
        if detections.is_empty() {
            return Ok(forwarded_for(headers, hops));
        }
        let mut append_peer = false;
        for detection in detections {
            let found = match detection {
                IpDetection::ForwardedFor(detection) => by_forwarded_for(headers, detection, context.peer),
                IpDetection::Header { name, trusted, reject } => {
                    let value = headers.value_in(Direction::Request, &**name);
                    let text = value.as_deref().and_then(|value| std::str::from_utf8(value).ok());
                    let address = text.and_then(|text| text.parse().ok());
                    if let (None, Some(status)) = (address, reject) {
                        return Err(*status);
                    }
                    Origin { address, is_single: *trusted, append_peer: false }
                }
            };
            append_peer |= found.append_peer;
            if found.address.is_some() {
                return Ok(Origin { append_peer, ..found });
            }
        }
        Ok(Origin { address: None, is_single: false, append_peer })
    }
}

fn by_forwarded_for(headers: &Headers, detection: &ForwardedForDetection, peer: Option<IpAddr>) -> Origin {
    let Some(trusted) = &detection.trusted else {
        return Origin { append_peer: detection.append, ..forwarded_for(headers, detection.hops) };
    };
    let is_trusted = |address: IpAddr| trusted.iter().any(|range: &Cidr| range.contains(address));
    if !peer.is_some_and(is_trusted) {
        // Appended whatever was said, as in Envoy.
        return Origin { address: None, is_single: false, append_peer: true };
    }
    let all = headers.joined(HeaderId::X_FORWARDED_FOR).unwrap_or_default();
    let mut entries = all.rsplit(|&byte| byte == b',');
    let mut address = None;
    for entry in entries.by_ref().take(MOST_ENTRIES) {
        address = parse(entry);
        if !address.is_some_and(is_trusted) {
            return Origin { address, is_single: false, append_peer: detection.append };
        }
    }
    // So many proxies nobody has: who wrote the list did not mean to be found.
    let address = address.filter(|_| entries.next().is_none());
    Origin { address, is_single: false, append_peer: detection.append }
}

/// The last address in `x-forwarded-for` after the last `skip` ones were left out.
fn forwarded_for(headers: &Headers, skip: u32) -> Origin {
    let none = Origin { address: None, is_single: false, append_peer: false };
    let Some(list) = headers.joined(HeaderId::X_FORWARDED_FOR) else { return none };
    let address = list.rsplit(|&b| b == b',').nth(skip as usize).and_then(parse);
    let is_single = skip == 0 && !list.contains(&b',');
    Origin { address, is_single: is_single && address.is_some(), ..none }
}

/// So many entries of `x-forwarded-for` are looked at for one that is not trusted, as in Envoy.
const MOST_ENTRIES: usize = 20;

fn parse(entry: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(entry.trim_ascii()).ok()?.parse().ok()
}
