//! Matchers shared by routes and filters (`envoy.type.matcher.v3`, `HeaderMatcher`, `QueryParameterMatcher`).

use regex::bytes::Regex;

/// `envoy.type.matcher.v3.StringMatcher`; literals are lower-cased already when `ignore_case` is set.
#[derive(Debug, Clone)]
pub struct StringMatcher {
    pub pattern: StringPattern,
    pub ignore_case: bool,
}

#[derive(Debug, Clone)]
pub enum StringPattern {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Contains(Box<[u8]>),
    /// Matches the whole string, as `safe_regex` does in Envoy (RE2 full match): anchored when lowered.
    Regex(Regex),
}

impl StringMatcher {
    /// Whether the whole of `value` satisfies the pattern.
    pub fn matches(&self, value: &[u8]) -> bool {
        let fold = self.ignore_case;
        let same = |a: &[u8], b: &[u8]| if fold { a.eq_ignore_ascii_case(b) } else { a == b };
        match &self.pattern {
            StringPattern::Exact(s) => same(value, s),
            StringPattern::Prefix(s) => value.len() >= s.len() && same(&value[..s.len()], s),
            StringPattern::Suffix(s) => value.len() >= s.len() && same(&value[value.len() - s.len()..], s),
            StringPattern::Contains(s) => s.is_empty() || value.windows(s.len()).any(|w| same(w, s)),
            StringPattern::Regex(r) => r.is_match(value),
        }
    }
}

/// `envoy.config.route.v3.HeaderMatcher`.
#[derive(Debug, Clone)]
pub struct HeaderMatcher {
    /// Lower-cased; may be `:method`, `:path`, `:authority` or `:scheme`.
    pub name: Box<str>,
    pub predicate: HeaderPredicate,
    pub invert: bool,
    /// `treat_missing_header_as_empty`.
    pub missing_as_empty: bool,
}

#[derive(Debug, Clone)]
pub enum HeaderPredicate {
    /// `present_match`, and a matcher without specifier (`Present(true)`).
    Present(bool),
    /// `range_match`: start <= value < end, value being a base-10 integer.
    Range { start: i64, end: i64 },
    /// `string_match` and its older spellings; several values of a header are joined with ",".
    String(StringMatcher),
}

/// `envoy.config.route.v3.QueryParameterMatcher`; case-sensitive on the first occurrence of the key.
#[derive(Debug, Clone)]
pub struct QueryMatcher {
    pub name: Box<str>,
    pub predicate: QueryPredicate,
}

#[derive(Debug, Clone)]
pub enum QueryPredicate {
    /// `present_match`, and a matcher without specifier (`Present(true)`).
    Present(bool),
    /// `string_match`: on the value as sent.
    String(StringMatcher),
}

/// `envoy.type.v3.FractionalPercent`: a share of all requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction {
    pub numerator: u32,
    /// 100, 10,000 or 1,000,000.
    pub denominator: u32,
}

impl Fraction {
    /// All of them.
    pub const ALL: Fraction = Fraction { numerator: 100, denominator: 100 };
    /// None.
    pub const NONE: Fraction = Fraction { numerator: 0, denominator: 100 };

    /// Whether the request for which `random` was drawn belongs to the share.
    pub fn has(self, random: u64) -> bool {
        random % u64::from(self.denominator) < u64::from(self.numerator)
    }
}
