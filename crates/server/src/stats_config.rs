//! `stats_config` in the terms of `proxy-stats`, which knows no configuration.

use proxy_config::settings;
use proxy_stats::{Scope, TagExtractor, TagRule};

/// The scope under which something makes its stats that may have a `stats_matcher` of its own.
pub(crate) fn restricted(root: &Scope, matcher: Option<&settings::StatsMatcher>) -> Scope {
    match matcher.cloned() {
        Some(matcher) => root.restricted(move |name| matcher.accepts(name)),
        None => root.clone(),
    }
}

/// `stats_tags` and Envoy's default tags.
pub(crate) fn tag_extractor(settings: &settings::StatsTags) -> TagExtractor {
    let defaults = TagRule::defaults();
    let of_name = |name: &str| defaults.iter().filter(|rule| rule.tag() == name).cloned().collect::<Vec<_>>();
    let own = settings.tags.iter().flat_map(|tag| match &tag.value {
        settings::StatsTagValue::Default => of_name(&tag.name),
        settings::StatsTagValue::Fixed(value) => vec![TagRule::fixed(&tag.name, value)],
        settings::StatsTagValue::Regex(regex) => vec![TagRule::regex(&tag.name, regex.clone())],
    });
    let overridden = |rule: &TagRule| settings.tags.iter().any(|tag| tag.name == rule.tag());
    let used = |rule: &&TagRule| settings.use_defaults && !(settings.override_defaults && overridden(rule));
    TagExtractor::new(defaults.iter().filter(used).cloned().chain(own))
}
