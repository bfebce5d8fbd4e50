//! Quantiles of histograms, of all values and of those that came last. A distribution is kept for each, to see what came.

use std::collections::HashMap;
use std::sync::Arc;

use proxy_stats::{Distribution, StatId, Watch};

use crate::snapshot::{Points, Quantiles};

/// What was seen of each histogram.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    seen: HashMap<StatId, Seen>,
    shown: Arc<HashMap<StatId, Quantiles>>,
}

#[derive(Debug)]
struct Seen {
    count: u64,
    distribution: Distribution,
    changed_ms: u64,
}

impl Recent {
    /// Takes note of what the watch has found, and says what there is to show.
    pub(crate) fn follow(&mut self, watch: &Watch, at_ms: u64) -> Arc<HashMap<StatId, Quantiles>> {
        let Self { seen, shown } = self;
        let values = watch.values();
        let mut changed = Vec::new();
        let differs = |id: StatId| seen.get(&id).is_none_or(|seen| seen.count != values[id.0 as usize]);
        watch.for_each_histogram(differs, |id, sum| changed.push((id, sum.clone())));
        for (id, distribution) in changed {
            // Until a flush has been seen, those of all values.
            let recent = match seen.get(&id) {
                Some(before) => points(&distribution.since(&before.distribution)),
                None => points(&distribution),
            };
            let recent = Some(recent);
            let quantiles = Quantiles { cumulative: points(&distribution), recent };
            Arc::make_mut(shown).insert(id, quantiles);
            let count = values[id.0 as usize];
            seen.insert(id, Seen { count, distribution, changed_ms: at_ms });
        }
        let old = |seen: &Seen| at_ms.saturating_sub(seen.changed_ms) > RECENT_MS;
        let stale: Vec<StatId> = shown
            .iter()
            .filter(|(id, quantiles)| quantiles.recent.is_some() && seen.get(*id).is_none_or(old))
            .map(|(id, _)| *id)
            .collect();
        for id in stale {
            if let Some(quantiles) = Arc::make_mut(shown).get_mut(&id) {
                quantiles.recent = None;
            }
        }
        Arc::clone(shown)
    }
}

fn points(distribution: &Distribution) -> Points {
    let quantile = |quantile| distribution.quantile(quantile);
    Points { p50: quantile(0.5), p90: quantile(0.9), p99: quantile(0.99), max: quantile(1.0) }
}

/// Stats are flushed every 5 seconds unless the configuration says otherwise.
const RECENT_MS: u64 = 15_000;
