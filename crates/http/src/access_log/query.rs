//! The query of a path.

/// The path without `?` and what follows it.
pub(super) fn without(path: &[u8]) -> &[u8] {
    memchr::memchr(b'?', path).map_or(path, |at| &path[..at])
}

/// What follows the `?`; `None` without one.
pub(super) fn of(path: &[u8]) -> Option<&[u8]> {
    memchr::memchr(b'?', path).map(|at| &path[at + 1..]).filter(|query| !query.is_empty())
}

/// Writes the first value of the parameter `name`, decoded. False where there is none.
pub(super) fn write_parameter(path: &[u8], name: &str, out: &mut Vec<u8>) -> bool {
    let Some(query) = of(path) else { return false };
    for pair in query.split(|&byte| byte == b'&') {
        let equals = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let start = out.len();
        decode(&pair[..equals], out);
        let found = out[start..] == *name.as_bytes();
        out.truncate(start);
        if found {
            decode(pair.get(equals + 1..).unwrap_or_default(), out);
            return true;
        }
    }
    false
}

/// Writes `text` with `%XX` replaced by the byte it stands for; what is no such code stays.
fn decode(text: &[u8], out: &mut Vec<u8>) {
    decode_some(text, |_| true, out);
}

/// The same, but only of characters that are visible, as Envoy decodes whole queries.
pub(super) fn decode_visible(text: &[u8], out: &mut Vec<u8>) {
    decode_some(text, |byte| byte.is_ascii_graphic(), out);
}

fn decode_some(text: &[u8], wanted: impl Fn(u8) -> bool, out: &mut Vec<u8>) {
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
