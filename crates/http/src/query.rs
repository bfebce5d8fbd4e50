//! The query of a path, as it stands there and decoded.
//!
//! Who looks at it differs as in Envoy: routes compare what was sent, formats and rate limits what it stands for. A plus sign
//! is always itself.

use std::borrow::Cow;

/// The path without `?` and what follows it.
pub(crate) fn without(path: &[u8]) -> &[u8] {
    memchr::memchr(b'?', path).map_or(path, |at| &path[..at])
}

/// What follows the `?`; `None` without one.
pub(crate) fn of(path: &[u8]) -> Option<&[u8]> {
    memchr::memchr(b'?', path).map(|at| &path[at + 1..]).filter(|query| !query.is_empty())
}

/// The value of the first parameter whose name, decoded, is `name`; decoded too, and empty where it has none.
pub fn decoded_parameter<'p>(path: &'p [u8], name: &str) -> Option<Cow<'p, [u8]>> {
    let named = |(sent, _): &(&[u8], &[u8])| *decoded(sent) == *name.as_bytes();
    parameters(path).find(named).map(|(_, value)| decoded(value))
}

/// The value of the first parameter that is called `name` as it was sent; as it was sent too, and empty where it has none.
pub fn sent_parameter<'p>(path: &'p [u8], name: &str) -> Option<&'p [u8]> {
    parameters(path).find(|(sent, _)| *sent == name.as_bytes()).map(|(_, value)| value)
}

/// Names and values as they were sent.
fn parameters(path: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let query = of(path).unwrap_or_default();
    query.split(|&byte| byte == b'&').map(|pair| {
        let equals = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        (&pair[..equals], pair.get(equals + 1..).unwrap_or_default())
    })
}

fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    decode(text, |_| true, &mut out);
    Cow::Owned(out)
}

/// Writes `text` decoded, but only of characters that are visible, as Envoy decodes whole queries.
pub(crate) fn decode_visible(text: &[u8], out: &mut Vec<u8>) {
    decode(text, |byte| byte.is_ascii_graphic(), out);
}

/// Writes `text` with `%XX` replaced by the byte it stands for, if that is `wanted`; what is no such code stays.
fn decode(text: &[u8], wanted: impl Fn(u8) -> bool, out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'%', rest) {
        out.extend_from_slice(&rest[..at]);
        let digit = |index: usize| rest.get(at + index).and_then(|&byte| char::from(byte).to_digit(16));
        let byte = digit(1).zip(digit(2)).map(|(high, low)| (high * 16 + low) as u8);
        match byte.filter(|byte| wanted(*byte)) {
            Some(byte) => {
                out.push(byte);
                rest = &rest[at + 3..];
            }
            None => {
                out.push(b'%');
                rest = &rest[at + 1..];
            }
        }
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_by_what_they_stand_for() {
        for (path, expected) in [
            ("/?a=v", Some("v")),
            ("/?a=%76", Some("v")),
            ("/?%61=v", Some("v")),
            ("/?a=v%20+w%2b", Some("v +w+")),
            ("/?a=%2576", Some("%76")),
            ("/?a=%zz%4", Some("%zz%4")),
            ("/?%61=w&a=v", Some("w")),
            ("/?a", Some("")),
            ("/?a=b=c%26", Some("b=c&")),
            ("/?%2561=v", None),
            ("/?a%3dv", None),
            ("/p%3Fa=v", None),
            ("/?", None),
            ("/", None),
        ] {
            let found = decoded_parameter(path.as_bytes(), "a");
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{path}");
        }
    }
}
