//! What is shown of a histogram.

use proxy_stats::{Distribution, HistogramValue};

use crate::admin::state::Stats;

/// `histogram_buckets`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Buckets {
    /// What suits the format: quantiles, or for Prometheus cumulative buckets.
    Unset,
    Summary,
    Cumulative,
    Disjoint,
    Detailed,
    PrometheusNative,
}

impl Buckets {
    pub(super) fn parse(value: Option<&str>) -> Result<Self, String> {
        match value {
            None | Some("none") => Ok(Self::Unset),
            Some("summary") => Ok(Self::Summary),
            Some("cumulative") => Ok(Self::Cumulative),
            Some("disjoint") => Ok(Self::Disjoint),
            Some("detailed") => Ok(Self::Detailed),
            Some("prometheusnative") => Ok(Self::PrometheusNative),
            Some(_) => Err(
                "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)\n"
                    .to_owned(),
            ),
        }
    }
}

impl Stats {
    /// Upper bounds of the buckets that a histogram of this name is shown in.
    pub(super) fn bounds(&self, name: &str) -> &[f64] {
        let set = self.buckets.iter().find(|buckets| buckets.matcher.matches(name.as_bytes()));
        set.map_or(BOUNDS, |buckets| &buckets.bounds)
    }
}

/// For each bound how many values are at most that, or, if `disjoint`, above the bound before it: in the interval and altogether.
pub(super) fn counts<'a>(
    histogram: HistogramValue<'a>,
    bounds: &'a [f64],
    disjoint: bool,
) -> impl Iterator<Item = (f64, u64, u64)> + 'a {
    let mut before = (0, 0);
    bounds.iter().map(move |bound| {
        let (interval, cumulative) =
            (histogram.interval.count_up_to(*bound), histogram.cumulative.count_up_to(*bound));
        let below = if disjoint { std::mem::replace(&mut before, (interval, cumulative)) } else { (0, 0) };
        (*bound, interval - below.0, cumulative - below.1)
    })
}

/// `QUANTILES` of a distribution; NaN where nothing was recorded.
pub(super) fn quantiles(distribution: &Distribution) -> impl Iterator<Item = (f64, f64)> + '_ {
    QUANTILES.iter().map(|quantile| (*quantile, distribution.quantile(*quantile)))
}

/// Envoy's.
pub(super) const QUANTILES: &[f64] = &[0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0];

/// In percent, written as Envoy does.
pub(super) const PERCENTILES: &[&str] = &["0", "25", "50", "75", "90", "95", "99", "99.5", "99.9", "100"];

/// Envoy's bounds where `histogram_bucket_settings` say nothing else.
const BOUNDS: &[f64] = &[
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];
