//! String, header and query matchers.

use envoy_types::pb::envoy::config::route::v3 as route_v3;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher_v3;

use super::{Context, regex};
use crate::Path;
use crate::settings::{
    HeaderMatcher, HeaderPredicate, QueryMatcher, QueryPredicate, StringMatcher, StringPattern,
};

pub(super) fn strings(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[matcher_v3::StringMatcher],
) -> Vec<StringMatcher> {
    let each = messages.iter().enumerate();
    each.filter_map(|(index, message)| string(context, &path.index(index), message)).collect()
}

pub(super) fn string(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &matcher_v3::StringMatcher,
) -> Option<StringMatcher> {
    use matcher_v3::string_matcher::MatchPattern;
    let fold = message.ignore_case;
    let pattern = match &message.match_pattern {
        Some(MatchPattern::Exact(text)) => StringPattern::Exact(bytes(text, fold)),
        Some(MatchPattern::Prefix(text)) => StringPattern::Prefix(bytes(text, fold)),
        Some(MatchPattern::Suffix(text)) => StringPattern::Suffix(bytes(text, fold)),
        Some(MatchPattern::Contains(text)) => StringPattern::Contains(bytes(text, fold)),
        Some(MatchPattern::SafeRegex(message)) => {
            // The case of a regex is its own affair: ignore_case has no effect on it.
            let regex = regex::whole(context, &path.field("safe_regex"), message)?;
            return Some(StringMatcher { pattern: StringPattern::Regex(regex), ignore_case: false });
        }
        Some(MatchPattern::Custom(_)) => {
            context.unsupported(&path.field("custom"), "a custom string matcher");
            return None;
        }
        None => {
            context.missing(path, "exact, prefix, suffix, contains or safe_regex is required");
            return None;
        }
    };
    Some(StringMatcher { pattern, ignore_case: fold })
}

/// Literal text, lower-cased when matched in any case.
pub(super) fn bytes(text: &str, fold: bool) -> Box<[u8]> {
    let text = if fold { text.to_ascii_lowercase() } else { text.to_owned() };
    text.into_bytes().into_boxed_slice()
}

pub(super) fn headers(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[route_v3::HeaderMatcher],
) -> Vec<HeaderMatcher> {
    let each = messages.iter().enumerate();
    each.filter_map(|(index, message)| header(context, &path.index(index), message)).collect()
}

pub(super) fn header(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &route_v3::HeaderMatcher,
) -> Option<HeaderMatcher> {
    use route_v3::header_matcher::HeaderMatchSpecifier as Specifier;
    if message.name.is_empty() {
        context.missing(&path.field("name"), "a header name is required");
    }
    let literal =
        |pattern: StringPattern| Some(HeaderPredicate::String(StringMatcher { pattern, ignore_case: false }));
    #[expect(deprecated, reason = "the older spellings are part of the v3 API")]
    let predicate = match &message.header_match_specifier {
        None => Some(HeaderPredicate::Present(true)),
        Some(Specifier::PresentMatch(present)) => Some(HeaderPredicate::Present(*present)),
        Some(Specifier::RangeMatch(range)) => {
            Some(HeaderPredicate::Range { start: range.start, end: range.end })
        }
        Some(Specifier::StringMatch(message)) => {
            string(context, &path.field("string_match"), message).map(HeaderPredicate::String)
        }
        Some(Specifier::SafeRegexMatch(message)) => {
            regex::whole(context, &path.field("safe_regex_match"), message)
                .and_then(|regex| literal(StringPattern::Regex(regex)))
        }
        Some(Specifier::ExactMatch(text)) => literal(StringPattern::Exact(bytes(text, false))),
        Some(Specifier::PrefixMatch(text)) => literal(StringPattern::Prefix(bytes(text, false))),
        Some(Specifier::SuffixMatch(text)) => literal(StringPattern::Suffix(bytes(text, false))),
        Some(Specifier::ContainsMatch(text)) => literal(StringPattern::Contains(bytes(text, false))),
    };
    let mut name = message.name.to_ascii_lowercase();
    if name == "host" {
        name = ":authority".to_owned(); // one header under two names, as in Envoy's header map
    }
    Some(HeaderMatcher {
        name: name.into_boxed_str(),
        predicate: predicate?,
        invert: message.invert_match,
        missing_as_empty: message.treat_missing_header_as_empty,
    })
}

pub(super) fn queries(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[route_v3::QueryParameterMatcher],
) -> Vec<QueryMatcher> {
    let each = messages.iter().enumerate();
    each.filter_map(|(index, message)| query(context, &path.index(index), message)).collect()
}

fn query(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &route_v3::QueryParameterMatcher,
) -> Option<QueryMatcher> {
    use route_v3::query_parameter_matcher::QueryParameterMatchSpecifier as Specifier;
    if message.name.is_empty() {
        context.missing(&path.field("name"), "the name of a query parameter is required");
    }
    let predicate = match &message.query_parameter_match_specifier {
        None => QueryPredicate::Present(true),
        Some(Specifier::PresentMatch(present)) => QueryPredicate::Present(*present),
        Some(Specifier::StringMatch(message)) => {
            QueryPredicate::String(string(context, &path.field("string_match"), message)?)
        }
    };
    Some(QueryMatcher { name: message.name.as_str().into(), predicate })
}
