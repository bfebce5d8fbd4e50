//! Path normalisation, before anything looks at the path: escaped slashes, dot segments, doubled slashes.
//!
//! The canonical form is the one of the URL parser that Envoy uses (RFC 3986 section 5.2.4, percent-encoding as
//! browsers do it), byte for byte: `path.tsv` beside this file holds what Envoy 1.40 made of some 150 paths. A path that
//! needs nothing is read once and not copied.

use proxy_config::settings::{EscapedSlashes, PathNormalization};
use smallvec::SmallVec;

use crate::message::Request;

/// What becomes of a request after its path has been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathAction {
    Continue,
    /// Answer 307 with the new path as `location` (`UNESCAPE_AND_REDIRECT`).
    Redirect,
    /// Answer 400: a fragment, an escaped slash where they are refused, or bytes that no path may have.
    Reject,
}

type Text = SmallVec<[u8; 256]>;

/// Brings the path of `request` into the form that `settings` ask for. The query is never touched; a path that does not
/// begin with `/` (`*`, or none) stays as it is.
pub fn normalize_path(request: &mut Request, settings: &PathNormalization) -> PathAction {
    if memchr::memchr(b'#', request.path()).is_some() {
        return PathAction::Reject;
    }
    let path = request.path_without_query();
    if path.first() != Some(&b'/') {
        return PathAction::Continue;
    }
    let needs = Needs::of(path, settings);
    if needs.nothing() {
        return PathAction::Continue;
    }
    if needs.unescaping && settings.escaped_slashes == EscapedSlashes::RejectRequest {
        return PathAction::Reject;
    }
    let mut new = if needs.unescaping { unescape_slashes(path) } else { Text::from_slice(path) };
    if settings.normalize {
        match canonicalize(&new) {
            Some(canonical) => new = canonical,
            None => return PathAction::Reject,
        }
    }
    if settings.merge_slashes {
        merge_slashes(&mut new);
    }
    let redirect = needs.unescaping && settings.escaped_slashes == EscapedSlashes::UnescapeAndRedirect;
    if new[..] != *path {
        let query = path.len();
        new.extend_from_slice(&request.path()[query..]);
        request.set_path(&new);
    }
    if redirect { PathAction::Redirect } else { PathAction::Continue }
}

/// What a glance at the path found to do.
#[derive(Default)]
struct Needs {
    unescaping: bool,
    canonical: bool,
    merging: bool,
}

impl Needs {
    fn of(path: &[u8], settings: &PathNormalization) -> Needs {
        let mut needs = Needs::default();
        if settings.escaped_slashes != EscapedSlashes::KeepUnchanged {
            needs.unescaping = memchr::memchr_iter(b'%', path).any(|at| escaped_slash(&path[at..]).is_some());
        }
        if settings.merge_slashes {
            needs.merging = memchr::memmem::find(path, b"//").is_some();
        }
        if settings.normalize {
            let dot_segment = path.windows(2).any(|pair| pair == b"/.");
            needs.canonical = dot_segment || path.iter().any(|&byte| CLASS[usize::from(byte)] != PLAIN);
        }
        needs
    }

    fn nothing(&self) -> bool {
        !(self.unescaping || self.canonical || self.merging)
    }
}

/// The slash that an escape at the start of `text` stands for.
fn escaped_slash(text: &[u8]) -> Option<u8> {
    match text.get(..3)? {
        b"%2f" | b"%2F" => Some(b'/'),
        b"%5c" | b"%5C" => Some(b'\\'),
        _ => None,
    }
}

fn unescape_slashes(path: &[u8]) -> Text {
    let mut new = Text::new();
    let mut at = 0;
    while let Some(&byte) = path.get(at) {
        match escaped_slash(&path[at..]) {
            Some(slash) => {
                new.push(slash);
                at += 3;
            }
            None => {
                new.push(byte);
                at += 1;
            }
        }
    }
    new
}

/// The canonical form of a path that begins with a slash, or `None` for bytes that no path may have.
fn canonicalize(path: &[u8]) -> Option<Text> {
    if !path.is_ascii() && std::str::from_utf8(path).is_err() {
        return None;
    }
    let path = without_dot_parameters(path);
    let mut new = Text::new();
    let mut at = 0;
    // Where in `new` the last percent sign stands that begins no escape.
    let mut bare = None;
    while let Some(&byte) = path.get(at) {
        if let Some(length) = dot(&path[at..]) {
            at += length;
            at += push_dot(&mut new, &path[at..]);
            bare = bare.filter(|&percent| percent < new.len());
            continue;
        }
        at += 1;
        match CLASS[usize::from(byte)] {
            PLAIN => new.push(byte),
            BACKSLASH => new.push(b'/'),
            PERCENT => match unhex(&path[at..]) {
                Some(0) => return None,
                Some(decoded) if is_unreserved(decoded) => {
                    new.push(decoded);
                    at += 2;
                    if let Some(percent) = bare {
                        keep_bare(&mut new, percent, path.get(at));
                    }
                }
                Some(_) => new.push(b'%'),
                None => {
                    bare = Some(new.len());
                    new.push(b'%');
                }
            },
            ESCAPED => new.extend_from_slice(&[b'%', hex(byte >> 4), hex(byte & 15)]),
            _ => return None,
        }
    }
    Some(new)
}

/// A byte has just been decoded: should the percent sign at `percent` begin an escape now, perhaps with the byte that comes
/// `next`, it is escaped itself. Who decodes once more would see another path otherwise.
fn keep_bare(new: &mut Text, percent: usize, next: Option<&u8>) {
    let begins_escape = match &new[percent + 1..] {
        [high] => next.is_some_and(|low| unhex(&[*high, *low]).is_some()),
        behind @ [_, _] => unhex(behind).is_some(),
        _ => false,
    };
    if begins_escape {
        new.insert_from_slice(percent + 1, b"25");
    }
}

/// Envoy drops the parameters of a dot segment (`/..;x/`), which some backends would ignore after it was routed. Only
/// literal dots right behind a forward slash count.
fn without_dot_parameters(path: &[u8]) -> Text {
    let mut new = Text::new();
    for (i, segment) in path.split(|&b| b == b'/').enumerate() {
        if i > 0 {
            new.push(b'/');
        }
        let kept = if segment.starts_with(b"..;") {
            2
        } else if segment.starts_with(b".;") {
            1
        } else {
            segment.len()
        };
        new.extend_from_slice(&segment[..kept]);
    }
    new
}

/// The length of a dot at the start of `text`, literal or escaped.
fn dot(text: &[u8]) -> Option<usize> {
    match text {
        [b'.', ..] => Some(1),
        [b'%', b'2', b'e' | b'E', ..] => Some(3),
        _ => None,
    }
}

/// Takes a dot behind which `rest` stands: as a dot segment where it is one. Gives the number of bytes of `rest` taken.
fn push_dot(new: &mut Text, rest: &[u8]) -> usize {
    let ends_segment = |rest: &[u8]| match rest.first() {
        None => Some(0),
        Some(b'/' | b'\\') => Some(1),
        Some(_) => None,
    };
    if new.last() == Some(&b'/') {
        if let Some(slash) = ends_segment(rest) {
            return slash;
        }
        if let Some(second) = dot(rest)
            && let Some(slash) = ends_segment(&rest[second..])
        {
            remove_last_segment(new);
            return second + slash;
        }
    }
    new.push(b'.');
    0
}

/// `/a/b/` becomes `/a/`; `/` stays.
fn remove_last_segment(path: &mut Text) {
    let end = path.len() - 1;
    if let Some(slash) = memchr::memrchr(b'/', &path[..end]) {
        path.truncate(slash + 1);
    }
}

/// `//` becomes `/`. Envoy leaves a path of slashes only at two of them, and so do we.
fn merge_slashes(path: &mut Text) {
    if memchr::memmem::find(path, b"//").is_none() {
        return;
    }
    let slash_at_end = path.last() == Some(&b'/');
    let mut merged = Text::from_slice(b"/");
    for segment in path.split(|&b| b == b'/').filter(|segment| !segment.is_empty()) {
        if merged.len() > 1 {
            merged.push(b'/');
        }
        merged.extend_from_slice(segment);
    }
    if slash_at_end {
        merged.push(b'/');
    }
    *path = merged;
}

fn unhex(text: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (high, low) = (digit(*text.first()?)?, digit(*text.get(1)?)?);
    Some((high << 4 | low) as u8)
}

fn hex(nibble: u8) -> u8 {
    b"0123456789ABCDEF"[usize::from(nibble)]
}

/// RFC 3986, section 2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// How a byte stands in a canonical path.
type Class = u8;
const PLAIN: Class = 0;
const PERCENT: Class = 1;
const BACKSLASH: Class = 2;
const ESCAPED: Class = 3;
const INVALID: Class = 4;

static CLASS: [Class; 256] = {
    let mut classes = [ESCAPED; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        classes[byte] = match byte as u8 {
            b'%' => PERCENT,
            b'\\' => BACKSLASH,
            b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' => ESCAPED,
            _ => PLAIN,
        };
        byte += 1;
    }
    classes[0] = INVALID;
    classes
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::Headers;
    use crate::message::{Method, Version};

    fn normalized(path: &[u8], settings: &PathNormalization) -> String {
        let mut request = Request::new(Method::Get, Version::Http11, b"h", path, Headers::new());
        let action = normalize_path(&mut request, settings);
        let new = String::from_utf8_lossy(request.path()).into_owned();
        match action {
            PathAction::Continue => new,
            PathAction::Redirect => format!("307 {new}"),
            PathAction::Reject => "400".to_owned(),
        }
    }

    const fn settings(normalize: bool, merge_slashes: bool, escaped: EscapedSlashes) -> PathNormalization {
        PathNormalization { normalize, merge_slashes, escaped_slashes: escaped }
    }

    #[test]
    fn every_path_becomes_what_envoy_makes_of_it() {
        use EscapedSlashes::*;
        let columns = [
            settings(true, false, KeepUnchanged),
            settings(false, true, KeepUnchanged),
            settings(true, true, KeepUnchanged),
            settings(false, false, RejectRequest),
            settings(false, false, UnescapeAndRedirect),
            settings(false, false, UnescapeAndForward),
            settings(true, true, UnescapeAndForward),
            settings(false, false, KeepUnchanged),
        ];
        let mut rows = 0;
        for row in include_str!("path.tsv").lines().filter(|line| !line.starts_with("# ")) {
            let mut fields = row.split('\t');
            let path = fields.next().unwrap();
            let expected: Vec<_> = fields.collect();
            assert_eq!(expected.len(), columns.len(), "{row}");
            for (settings, expected) in columns.iter().zip(expected) {
                assert_eq!(normalized(path.as_bytes(), settings), expected, "{path} with {settings:?}");
            }
            rows += 1;
        }
        assert!(rows > 140);
    }

    #[test]
    fn bytes_that_only_http2_lets_through_are_escaped_or_refused() {
        let all = settings(true, false, EscapedSlashes::KeepUnchanged);
        assert_eq!(normalized("/é b".as_bytes(), &all), "/%C3%A9%20b");
        assert_eq!(normalized(b"/\xff", &all), "400");
        assert_eq!(normalized(b"/a\0", &all), "400");
        assert_eq!(normalized(b"/\x7f", &all), "/%7F");
    }

    #[test]
    fn a_decoded_byte_completes_no_escape() {
        let all = settings(true, false, EscapedSlashes::KeepUnchanged);
        for (path, expected) in [
            ("/%2%65", "/%252e"),
            ("/%4%41z", "/%254Az"),
            ("/%%34%31", "/%2541"),
            ("/%%341", "/%2541"),
            ("/%%34z", "/%4z"),
            ("/%%30%30", "/%2500"),
            ("/a%/../%41", "/A"),
            ("/%2%65%2%65/b", "/%252e%252e/b"),
        ] {
            assert_eq!(normalized(path.as_bytes(), &all), expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_left_alone() {
        let all = settings(true, true, EscapedSlashes::UnescapeAndForward);
        assert_eq!(normalized(b"*", &all), "*");
        assert_eq!(normalized(b"", &all), "");
        assert_eq!(normalized(b"host/../x:80", &all), "host/../x:80");
    }

    #[test]
    fn a_path_that_needs_nothing_is_not_stored_again() {
        let all = settings(true, true, EscapedSlashes::UnescapeAndForward);
        let mut request =
            Request::new(Method::Get, Version::Http11, b"h", b"/a/b.c;d?e=%2f//", Headers::new());
        let before = request.path;
        assert_eq!(normalize_path(&mut request, &all), PathAction::Continue);
        assert_eq!(request.path, before);
    }
}
