//! Regular expressions: RE2 syntax, as the v3 API has it, compiled by the `regex` crate.
//!
//! The two syntaxes differ in little, all of it where one of them gives a meaning to what is plain text
//! for the other; [`translate`] quotes those. Matching is on bytes, without Unicode tables where the
//! pattern is plain ASCII: RE2's `\w`, `\d` and `\b` are ASCII as well.

use std::borrow::Cow;

use bytes::Bytes;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher_v3;
use regex::bytes::{Regex, RegexBuilder};

use super::Context;
use crate::{Code, Path};

/// A `RegexMatcher`: matches the whole of its input.
pub(super) fn whole(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &matcher_v3::RegexMatcher,
) -> Option<Regex> {
    compile(context, &path.field("regex"), &message.regex, true)
}

/// A `RegexMatchAndSubstitute`: a pattern that matches anywhere, and the text for each match in the syntax
/// of the `regex` crate.
pub(super) fn rewrite(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &matcher_v3::RegexMatchAndSubstitute,
) -> Option<(Regex, Bytes)> {
    let Some(pattern) = &message.pattern else {
        context.missing(&path.field("pattern"), "a pattern is required");
        return None;
    };
    let pattern = compile(context, &path.field("pattern").field("regex"), &pattern.regex, false);
    let groups = pattern.as_ref().map(|pattern| pattern.captures_len() - 1);
    match substitution(&message.substitution, groups) {
        Ok(substitution) => Some((pattern?, substitution)),
        Err(problem) => {
            context.error(&path.field("substitution"), Code::BAD_SUBSTITUTION, problem);
            None
        }
    }
}

/// A pattern that matches anywhere in text.
pub(super) fn in_text(context: &mut Context<'_>, path: &Path<'_>, pattern: &str) -> Option<regex::Regex> {
    build(context, path, pattern, |text| regex::RegexBuilder::new(text).size_limit(SIZE_LIMIT).build())
}

fn compile(context: &mut Context<'_>, path: &Path<'_>, pattern: &str, whole: bool) -> Option<Regex> {
    let unicode = needs_unicode(pattern);
    build(context, path, pattern, |text| {
        let text = if whole { Cow::Owned(format!("^(?:{text})$")) } else { Cow::Borrowed(text) };
        RegexBuilder::new(&text).unicode(unicode).size_limit(SIZE_LIMIT).build()
    })
}

/// Translates and bounds `pattern`, and tells what is wrong with it.
fn build<R>(
    context: &mut Context<'_>,
    path: &Path<'_>,
    pattern: &str,
    build: impl FnOnce(&str) -> Result<R, regex::Error>,
) -> Option<R> {
    if pattern.len() > MAX_PATTERN {
        let message = format_args!("a pattern has at most {MAX_PATTERN} bytes");
        context.error(path, Code::BAD_REGEX, message);
        return None;
    }
    let built =
        translate(pattern).and_then(|text| build(&text).map_err(|error| one_line(&error.to_string())));
    match built {
        Ok(regex) => Some(regex),
        Err(problem) => {
            context.error(path, Code::BAD_REGEX, problem);
            None
        }
    }
}

fn needs_unicode(pattern: &str) -> bool {
    !pattern.is_ascii() || [r"\p", r"\P", r"\x{"].iter().any(|class| pattern.contains(class))
}

/// The crate draws the pattern and an arrow over several lines; the last line says what is wrong.
fn one_line(error: &str) -> String {
    error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// RE2 syntax in the syntax of the `regex` crate.
fn translate(pattern: &str) -> Result<Cow<'_, str>, String> {
    if !pattern.contains(['[', '{', '\\', '(']) {
        return Ok(Cow::Borrowed(pattern));
    }
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    while let Some(next) = rest.chars().next() {
        let after = &rest[next.len_utf8()..];
        rest = match next {
            '\\' => escape(after, &mut out)?,
            '[' => class(after, &mut out),
            '{' if !is_repetition(rest) => push(&mut out, "\\{", after),
            '(' => group(after, &mut out)?,
            _ => push(&mut out, &rest[..next.len_utf8()], after),
        };
    }
    Ok(Cow::Owned(out))
}

fn push<'p>(out: &mut String, text: &str, rest: &'p str) -> &'p str {
    out.push_str(text);
    rest
}

/// What follows a backslash outside a class.
fn escape<'p>(after: &'p str, out: &mut String) -> Result<&'p str, String> {
    let Some(next) = after.chars().next() else { return Err("a backslash at the end".into()) };
    let rest = &after[next.len_utf8()..];
    Ok(match next {
        'Q' => {
            let (quoted, rest) = rest.split_once("\\E").unwrap_or((rest, ""));
            push(out, &regex::escape(quoted), rest)
        }
        'C' => push(out, "(?s-u:.)", rest),
        // Word boundaries and code points of the crate, plain or wrong in RE2.
        '<' | '>' => push(out, &after[..1], rest),
        'u' | 'U' => return Err(format!("\\{next} is no escape sequence")),
        _ => {
            out.push('\\');
            push(out, &after[..next.len_utf8()], rest)
        }
    })
}

/// What follows an opening parenthesis: only RE2's flags and groups pass.
fn group<'p>(after: &'p str, out: &mut String) -> Result<&'p str, String> {
    out.push('(');
    if let Some(flags) = after.strip_prefix('?') {
        let end = flags.find([':', ')', '<', 'P']).unwrap_or(flags.len());
        if let Some(flag) = flags[..end].chars().find(|flag| !"imsU-".contains(*flag)) {
            return Err(format!("(?{flag} is no group of RE2"));
        }
    }
    Ok(after)
}

/// What follows an opening bracket, up to and with the closing one. In the crate classes nest and have
/// set operations; RE2 has neither.
fn class<'p>(after: &'p str, out: &mut String) -> &'p str {
    out.push('[');
    let mut rest = after;
    if let Some(negated) = rest.strip_prefix('^') {
        rest = push(out, "^", negated);
    }
    let mut first = true;
    while let Some(next) = rest.chars().next() {
        let after = &rest[next.len_utf8()..];
        match next {
            ']' if first => rest = push(out, "\\]", after),
            ']' => return push(out, "]", after),
            '[' if let Some(length) = posix_class(rest) => rest = push(out, &rest[..length], &rest[length..]),
            '[' | '&' | '~' => {
                out.push('\\');
                rest = push(out, &rest[..1], after);
            }
            '-' if after.starts_with('-') => rest = push(out, "\\-", after),
            '\\' => {
                let length = after.chars().next().map_or(0, char::len_utf8);
                out.push('\\');
                rest = push(out, &after[..length], &after[length..]);
            }
            _ => rest = push(out, &rest[..next.len_utf8()], after),
        }
        first = false;
    }
    rest
}

/// `{n}`, `{n,}` or `{n,m}`; any other brace is plain text in RE2.
fn is_repetition(text: &str) -> bool {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let text = &text[1..];
    let low = digits(text);
    let rest = &text[low..];
    let rest = rest.strip_prefix(',').map_or(rest, |high| &high[digits(high)..]);
    low > 0 && rest.starts_with('}')
}

/// Bytes of the POSIX class, such as `[:alpha:]` or `[:^alpha:]`, that `text` starts with.
fn posix_class(text: &str) -> Option<usize> {
    let name = text.strip_prefix("[:")?;
    let name = name.strip_prefix('^').unwrap_or(name);
    let rest = name.trim_start_matches(|letter: char| letter.is_ascii_lowercase());
    rest.starts_with(":]").then(|| text.len() - rest.len() + 2)
}

/// RE2's `\1` and `\\` in the syntax of the crate. Without `groups`, their numbers are not checked.
fn substitution(text: &str, groups: Option<usize>) -> Result<Bytes, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(next) = chars.next() {
        match next {
            '$' => out.push_str("$$"),
            '\\' => match chars.next() {
                Some('\\') => out.push('\\'),
                Some(digit) if digit.is_ascii_digit() => {
                    let number = digit as usize - '0' as usize;
                    if groups.is_some_and(|groups| number > groups) {
                        return Err(format!("\\{digit}: the pattern has no group {number}"));
                    }
                    out.push_str("${");
                    out.push(digit);
                    out.push('}');
                }
                _ => return Err("after a backslash a digit or a backslash is expected".into()),
            },
            _ => out.push(next),
        }
    }
    Ok(Bytes::from(out))
}

/// Bytes of one pattern.
const MAX_PATTERN: usize = 32 << 10;
/// Bytes of one compiled expression; a route table may hold thousands.
const SIZE_LIMIT: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(pattern: &str) -> Regex {
        Regex::new(&format!("^(?:{})$", translate(pattern).unwrap())).unwrap()
    }

    #[test]
    fn re2_text_keeps_its_meaning() {
        let table: &[(&str, &str, bool)] = &[
            ("/a{b}/c", "/a{b}/c", true),
            ("/a{2}", "/aa", true),
            ("/a{2,}", "/aaa", true),
            ("[a&&b]+", "a&b", true),
            ("[[a]+", "[a", true),
            ("[]a]+", "]a", true),
            ("[^]a]+", "b", true),
            ("[[:alpha:]]+", "abc", true),
            ("[[:alpha:]]+", "ab1", false),
            ("[--/]+", "-./", true),
            (r"\Qa.b\E.", "a.bc", true),
            (r"\Qa.b\E.", "axbc", false),
            (r"\<a\>", "<a>", true),
            (r"(?i)ABC", "abc", true),
            (r"a|b", "ab", false),
            (r"(?P<x>a)(?:b)", "ab", true),
            (r"\/api\/v\d+", "/api/v12", true),
            (r"[\]\w]+", "]a", true),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(whole(pattern).is_match(text.as_bytes()), *expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn what_re2_does_not_have_is_refused() {
        for pattern in [r"(?x) a", r"(?u:a)", r"\u0041", r"a\"] {
            assert!(translate(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn substitutions_are_translated() {
        assert_eq!(substitution(r"/\1/$x\\", Some(1)).unwrap(), r"/${1}/$$x\".as_bytes());
        assert!(substitution(r"\2", Some(1)).is_err());
        assert!(substitution(r"\x", None).is_err());
        assert!(substitution(r"a\", None).is_err());
    }
}
