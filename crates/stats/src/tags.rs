//! Tags: which parts of a stat's name are values, such as the name of a cluster, and what the name is without them.
//!
//! A name is stored whole; whoever shows stats with tags (Prometheus, DogStatsD) takes it apart. The rules are Envoy's
//! by default (`tag_rules.rs`) and may be changed by `stats_config`. All rules look at the whole name; what they take
//! out is removed together at the end.

use std::borrow::Cow;
use std::ops::Range;

use hashbrown::HashMap;
use regex::Regex;

use crate::tag_rules::default_rules;

/// Takes names apart.
#[derive(Clone, Debug)]
pub struct TagExtractor {
    /// In the order in which tags are shown: first those that any name may have, then by the first part of the name.
    anywhere: Vec<TagRule>,
    by_first_part: HashMap<Box<str>, Vec<TagRule>>,
}

/// How one tag is found.
#[derive(Clone, Debug)]
pub struct TagRule {
    tag: Box<str>,
    pattern: Pattern,
}

/// One tag of a stat: `envoy.cluster_name` and the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag<'a> {
    pub name: &'a str,
    pub value: &'a str,
}

/// A name taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extracted<'a> {
    /// The name without what the tags hold.
    pub name: Cow<'a, str>,
    pub tags: Vec<Tag<'a>>,
}

#[derive(Clone, Debug)]
enum Pattern {
    /// Parts between dots.
    Parts(Box<[Part]>),
    Regex {
        regex: Regex,
        /// Names without this do not match: spares most of them the expression.
        needs: &'static str,
        /// A value that is none.
        never: &'static str,
    },
    /// `_rq_200`: the underscore and three digits at the end.
    ResponseCode,
    /// `_rq_2xx`: the digit before `xx` at the end.
    ResponseCodeClass,
    /// The same for every name.
    Fixed(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    /// `*`
    Any,
    /// `**`
    Rest,
    /// `$`
    Value,
}

/// What a rule found, as bytes of the name.
struct Match {
    removed: Range<usize>,
    value: Range<usize>,
}

impl Default for TagExtractor {
    /// Envoy's default rules.
    fn default() -> Self {
        Self::new(default_rules())
    }
}

impl TagExtractor {
    /// Rules in the order in which their tags are shown. Where two rules for one tag match, the first one counts.
    pub fn new(rules: impl IntoIterator<Item = TagRule>) -> Self {
        let mut extractor = Self { anywhere: Vec::new(), by_first_part: HashMap::new() };
        for rule in rules {
            match rule.first_part() {
                Some(first) => extractor.by_first_part.entry(first.into()).or_default().push(rule),
                None => extractor.anywhere.push(rule),
            }
        }
        extractor
    }

    /// Takes `name` apart.
    pub fn extract<'a>(&'a self, name: &'a str) -> Extracted<'a> {
        let first = name.split_once('.').and_then(|(first, _)| self.by_first_part.get(first));
        let (mut tags, mut removed): (Vec<Tag<'a>>, Vec<Range<usize>>) = (Vec::new(), Vec::new());
        for rule in self.anywhere.iter().chain(first.into_iter().flatten()) {
            match &rule.pattern {
                _ if tags.iter().any(|tag| *tag.name == *rule.tag) => {}
                Pattern::Fixed(value) => tags.push(Tag { name: &rule.tag, value }),
                pattern => {
                    let Some(found) = pattern.find(name) else { continue };
                    let value = name[found.value].trim_end_matches('.');
                    tags.push(Tag { name: &rule.tag, value });
                    removed.push(found.removed);
                }
            }
        }
        Extracted { name: without(name, removed), tags }
    }
}

impl TagRule {
    /// The tag is the first group of `regex` where it occurs in a name, or its second group if it has one; the first
    /// group is taken out of the name (Envoy: `TagSpecifier.regex`).
    pub fn regex(tag: &str, regex: Regex) -> Self {
        Self { tag: tag.into(), pattern: Pattern::Regex { regex, needs: "", never: "" } }
    }

    /// A tag of all stats (`TagSpecifier.fixed_value`).
    pub fn fixed(tag: &str, value: &str) -> Self {
        Self { tag: tag.into(), pattern: Pattern::Fixed(value.into()) }
    }

    /// Envoy's own rules, in its order.
    pub fn defaults() -> Vec<Self> {
        default_rules()
    }

    /// Which tag this rule makes.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Parts separated by dots: a word stands for itself, `*` for any part, `**` for any number of them (at the end at
    /// least one), `$` is the value.
    pub(crate) fn parts(tag: &str, pattern: &str) -> Self {
        let part = |part: &str| match part {
            "*" => Part::Any,
            "**" => Part::Rest,
            "$" => Part::Value,
            word => Part::Literal(word.into()),
        };
        Self { tag: tag.into(), pattern: Pattern::Parts(pattern.split('.').map(part).collect()) }
    }

    /// As [`TagRule::regex`], for names that contain `needs`; a value equal to `never` is no match.
    pub(crate) fn regex_where(tag: &str, regex: Regex, needs: &'static str, never: &'static str) -> Self {
        Self { tag: tag.into(), pattern: Pattern::Regex { regex, needs, never } }
    }

    pub(crate) fn response_code(tag: &str) -> Self {
        Self { tag: tag.into(), pattern: Pattern::ResponseCode }
    }

    pub(crate) fn response_code_class(tag: &str) -> Self {
        Self { tag: tag.into(), pattern: Pattern::ResponseCodeClass }
    }

    /// The first part of all names that may match, if there is one such.
    fn first_part(&self) -> Option<&str> {
        match &self.pattern {
            Pattern::Parts(parts) => match &parts[0] {
                Part::Literal(word) => Some(word),
                _ => None,
            },
            Pattern::Regex { regex, .. } => {
                let (first, _) = regex.as_str().strip_prefix('^')?.split_once(r"\.")?;
                let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
                (!first.is_empty() && first.bytes().all(word)).then_some(first)
            }
            Pattern::ResponseCode | Pattern::ResponseCodeClass | Pattern::Fixed(_) => None,
        }
    }
}

impl Pattern {
    fn find(&self, name: &str) -> Option<Match> {
        match self {
            Self::Parts(parts) => find_parts(parts, name),
            Self::Regex { regex, needs, never } => {
                if !name.contains(needs) {
                    return None;
                }
                let groups = regex.captures(name)?;
                let removed = groups.get(1)?.range();
                let value = groups.get(2).map_or(removed.clone(), |value| value.range());
                let taken = !removed.is_empty() && name[value.clone()] != **never;
                taken.then_some(Match { removed, value })
            }
            Self::ResponseCode => {
                let start = name.len().checked_sub("_200".len())?;
                let (before, code) = name.as_bytes().split_at(start);
                let taken =
                    before.ends_with(b"_rq") && code[0] == b'_' && code[1..].iter().all(u8::is_ascii_digit);
                taken.then_some(Match { removed: start..name.len(), value: start + 1..name.len() })
            }
            Self::ResponseCodeClass => {
                let before = name.as_bytes().strip_suffix(b"xx")?;
                let (class, before) = before.split_last()?;
                let digit = before.len()..before.len() + 1;
                let taken = class.is_ascii_digit() && before.ends_with(b"_rq_");
                taken.then_some(Match { removed: digit.clone(), value: digit })
            }
            Self::Fixed(_) => None,
        }
    }
}

/// Removes the value together with the dot after it, or before it where it is the last part.
fn find_parts(parts: &[Part], name: &str) -> Option<Match> {
    let value = match_parts(parts, name, 0)??;
    let removed = if value.end < name.len() {
        value.start..value.end + 1
    } else {
        value.start.saturating_sub(1)..value.end
    };
    Some(Match { removed, value })
}

/// Matches the part of `name` from `at` on; the value's place if there is one in `parts`. An end past the name's says
/// that no part is left.
fn match_parts(parts: &[Part], name: &str, at: usize) -> Option<Option<Range<usize>>> {
    let Some((part, rest)) = parts.split_first() else { return (at > name.len()).then_some(None) };
    if *part == Part::Rest {
        if rest.is_empty() {
            return (at <= name.len()).then_some(None);
        }
        let mut at = at;
        return loop {
            if let Some(found) = match_parts(rest, name, at) {
                break Some(found);
            }
            at = end_of_part(name, at)? + 1;
        };
    }
    let end = end_of_part(name, at)?;
    let matches = match part {
        Part::Literal(word) => name[at..end] == **word,
        _ => true,
    };
    if !matches {
        return None;
    }
    let later = match_parts(rest, name, end + 1)?;
    Some(if *part == Part::Value { Some(at..end) } else { later })
}

fn end_of_part(name: &str, at: usize) -> Option<usize> {
    let rest = name.get(at..)?;
    Some(rest.find('.').map_or(name.len(), |dot| at + dot))
}

/// `name` without `removed`, which may overlap, and without dots at its end.
fn without(name: &str, mut removed: Vec<Range<usize>>) -> Cow<'_, str> {
    if removed.is_empty() {
        return Cow::Borrowed(name);
    }
    removed.sort_unstable_by_key(|range| range.start);
    let (mut kept, mut next) = (String::with_capacity(name.len()), 0);
    for range in removed {
        if range.start > next {
            kept.push_str(&name[next..range.start]);
        }
        next = next.max(range.end);
    }
    kept.push_str(&name[next..]);
    kept.truncate(kept.trim_end_matches('.').len());
    Cow::Owned(kept)
}

#[cfg(test)]
#[path = "tags_tests.rs"]
mod tests;
