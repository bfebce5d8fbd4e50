//! Headers that the `connection` header names as hop-by-hop (RFC 9110, section 7.6.1), as Envoy removes them.

use smallvec::SmallVec;

use crate::headers::Headers;
use crate::name::HeaderId;

/// `connection` names what may not be removed, or too much; Envoy answers 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection header names headers that may not be removed")]
pub struct InvalidNomination;

/// The most names, and the longest `te`, that are looked at.
const TOKENS: usize = 10;
const TE_BYTES: usize = 256;

/// The names in `connection`.
pub(crate) fn tokens(headers: &Headers) -> impl Iterator<Item = &[u8]> {
    headers
        .values(HeaderId::CONNECTION)
        .flat_map(|line| line.split(|&b| b == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

/// Removes every header that `connection` names. Headers that say where the request comes from, or where to, may not
/// be named; `te: trailers` and `content-length`, which frames our own message, stay.
pub fn remove_nominated(headers: &mut Headers) -> Result<(), InvalidNomination> {
    if !headers.contains(HeaderId::CONNECTION) {
        return Ok(());
    }
    let mut names: SmallVec<[SmallVec<[u8; 24]>; 4]> = SmallVec::new();
    for (i, token) in tokens(headers).enumerate() {
        if i + 1 >= TOKENS {
            return Err(InvalidNomination);
        }
        if !is_ours(token) {
            let mut name = SmallVec::from_slice(token);
            name.make_ascii_lowercase();
            names.push(name);
        }
    }
    for name in &names {
        match HeaderId::of(name) {
            HeaderId::X_FORWARDED_FOR
            | HeaderId::X_FORWARDED_HOST
            | HeaderId::X_FORWARDED_PROTO
            | HeaderId::HOST => return Err(InvalidNomination),
            HeaderId::TE if te_bytes(headers) >= TE_BYTES => return Err(InvalidNomination),
            // What remains of it is decided by those who forward it.
            HeaderId::TE | HeaderId::CONTENT_LENGTH => {}
            _ if name[0] == b':' => return Err(InvalidNomination),
            _ => _ = headers.remove(&name[..]),
        }
    }
    Ok(())
}

/// Options rather than header names, and headers that go anyway.
fn is_ours(token: &[u8]) -> bool {
    [&b"close"[..], b"keep-alive", b"upgrade", b"connection"]
        .iter()
        .any(|own| token.eq_ignore_ascii_case(own))
}

fn te_bytes(headers: &Headers) -> usize {
    headers.values(HeaderId::TE).map(|line| line.len() + 1).sum::<usize>().saturating_sub(1)
}
