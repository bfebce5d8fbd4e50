//! `stats_config` in the terms of `proxy-stats`, which knows no configuration.

use proxy_config::settings;
use proxy_stats::StatsMatcher;

/// `stats_matcher`.
#[derive(Debug)]
pub(crate) struct Matcher(pub settings::StatsMatcher);

impl StatsMatcher for Matcher {
    fn accepts(&self, name: &str) -> bool {
        self.0.accepts(name)
    }
}
