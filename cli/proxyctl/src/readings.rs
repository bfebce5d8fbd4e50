//! Stats as they were at one moment, what changed between two moments, and how both are shown.

use std::collections::BTreeMap;
use std::time::Duration;

use proxy_stats::{Distribution, Metric, MetricKind, Value};
use serde_json::json;

/// By name. Stats of one name and different kinds are next to each other.
#[derive(Debug, Default)]
pub(crate) struct Reading(BTreeMap<(String, Kind), Amount>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
    TextReadout,
}

#[derive(Debug, Clone)]
enum Amount {
    Number(u64),
    Text(String),
    /// None: nothing was recorded.
    Distribution(Option<Summary>),
}

#[derive(Debug, Clone)]
struct Summary {
    /// None: it was not told.
    count: Option<u64>,
    sum: Option<f64>,
    /// At `QUANTILES`.
    quantiles: Vec<f64>,
}

impl Reading {
    pub(crate) fn add(&mut self, metric: &Metric<'_>) {
        let kind = match metric.kind {
            MetricKind::Counter => Kind::Counter,
            MetricKind::Gauge(_) => Kind::Gauge,
            MetricKind::Histogram => Kind::Histogram,
            MetricKind::TextReadout => Kind::TextReadout,
        };
        let amount = match metric.value {
            Value::Number(number) => Amount::Number(number),
            Value::Text(text) => Amount::Text(text.to_owned()),
            Value::Histogram(histogram) => Amount::Distribution(Summary::of(histogram.cumulative)),
        };
        self.0.insert((metric.name.to_owned(), kind), amount);
    }

    /// Adds what `/stats?format=json&type=KIND` has of a kind; of histograms that is quantiles.
    pub(crate) fn add_answer(&mut self, kind: Kind, answer: &serde_json::Value) {
        let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
        for stat in list(&answer["stats"]) {
            if kind == Kind::Histogram {
                for histogram in list(&stat["histograms"]["computed_quantiles"]) {
                    let values = list(&histogram["values"]);
                    let quantiles: Vec<f64> =
                        values.iter().filter_map(|value| value["cumulative"].as_f64()).collect();
                    let some = quantiles.len() == QUANTILES.len();
                    let summary = some.then_some(Summary { count: None, sum: None, quantiles });
                    self.insert(&histogram["name"], kind, Amount::Distribution(summary));
                }
                continue;
            }
            let amount = match (stat["value"].as_u64(), stat["value"].as_str()) {
                (Some(number), _) => Amount::Number(number),
                (None, text) => Amount::Text(text.unwrap_or_default().to_owned()),
            };
            self.insert(&stat["name"], kind, amount);
        }
    }

    fn insert(&mut self, name: &serde_json::Value, kind: Kind, amount: Amount) {
        if let Some(name) = name.as_str() {
            self.0.insert((name.to_owned(), kind), amount);
        }
    }

    /// Keeps only stats of these names, and with `used` only those that are not 0 or empty.
    pub(crate) fn retain(&mut self, name: impl Fn(&str) -> bool, used: bool) {
        self.0.retain(|(of, _), amount| name(of) && (!used || amount.is_used()));
    }

    /// A line for each stat; with what changed a second since `before`, `elapsed` ago.
    pub(crate) fn lines(&self, before: Option<(&Reading, Duration)>) -> impl Iterator<Item = String> {
        self.0.iter().map(move |(key, amount)| {
            let rate = before.and_then(|(before, elapsed)| before.rate(key, amount, elapsed));
            let rate = rate.map(|rate| format!(" ({rate:+.1}/s)")).unwrap_or_default();
            format!("{}: {}{rate}", key.0, amount.shown())
        })
    }

    /// The same as an array of objects.
    pub(crate) fn json(&self, before: Option<(&Reading, Duration)>) -> serde_json::Value {
        let stat = |(key, amount): (&(String, Kind), &Amount)| {
            let mut stat = json!({ "name": key.0, "type": key.1.name(), "value": amount.json() });
            if let Some(rate) = before.and_then(|(before, elapsed)| before.rate(key, amount, elapsed)) {
                stat["rate"] = rate.into();
            }
            stat
        };
        self.0.iter().map(stat).collect()
    }

    /// Change a second since this reading. A counter that fell began anew.
    fn rate(&self, key: &(String, Kind), now: &Amount, elapsed: Duration) -> Option<f64> {
        let now = now.counted()?;
        let before = self.0.get(key).and_then(Amount::counted).unwrap_or(0);
        let change = match key.1 {
            Kind::Gauge => now as f64 - before as f64,
            _ if now < before => now as f64,
            _ => (now - before) as f64,
        };
        Some(change / elapsed.as_secs_f64())
    }
}

/// Whether there is something to see.
pub(crate) fn is_used(metric: &Metric<'_>) -> bool {
    match metric.value {
        Value::Number(number) => number != 0,
        Value::Text(text) => !text.is_empty(),
        Value::Histogram(histogram) => !histogram.cumulative.is_empty(),
    }
}

impl Kind {
    /// With their names in `/stats?type=`.
    pub(crate) const NAMES: [(Kind, &'static str); 4] = [
        (Kind::Counter, "Counters"),
        (Kind::Gauge, "Gauges"),
        (Kind::Histogram, "Histograms"),
        (Kind::TextReadout, "TextReadouts"),
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::TextReadout => "text_readout",
        }
    }
}

impl Amount {
    /// What rates are of: of a histogram the number of its values.
    fn counted(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Distribution(None) => Some(0),
            Self::Distribution(Some(summary)) => summary.count,
            Self::Text(_) => None,
        }
    }

    fn is_used(&self) -> bool {
        match self {
            Self::Number(number) => *number != 0,
            Self::Text(text) => !text.is_empty(),
            Self::Distribution(summary) => summary.is_some(),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => format!("{text:?}"),
            Self::Distribution(None) => "no values".to_owned(),
            Self::Distribution(Some(summary)) => {
                let quantile = |((name, _), value): (&(&str, f64), &f64)| format!("{name}={value}");
                let quantiles: Vec<_> = QUANTILES.iter().zip(&summary.quantiles).map(quantile).collect();
                let count = summary.count.map(|count| format!("{count} values, ")).unwrap_or_default();
                count + &quantiles.join(" ")
            }
        }
    }

    fn json(&self) -> serde_json::Value {
        match self {
            Self::Number(number) => (*number).into(),
            Self::Text(text) => text.as_str().into(),
            Self::Distribution(None) => json!({ "count": 0 }),
            Self::Distribution(Some(summary)) => {
                let mut value = json!({ "count": summary.count, "sum": summary.sum });
                for ((name, _), quantile) in QUANTILES.iter().zip(&summary.quantiles) {
                    value[*name] = (*quantile).into();
                }
                value
            }
        }
    }
}

impl Summary {
    fn of(distribution: &Distribution) -> Option<Self> {
        let quantiles = QUANTILES.iter().map(|(_, quantile)| distribution.quantile(*quantile)).collect();
        let (count, sum) = (distribution.count(), distribution.sum());
        (!distribution.is_empty()).then_some(Self { count: Some(count), sum: Some(sum), quantiles })
    }
}

/// Those of Envoy, by its names.
const QUANTILES: &[(&str, f64)] = &[
    ("P0", 0.0),
    ("P25", 0.25),
    ("P50", 0.5),
    ("P75", 0.75),
    ("P90", 0.9),
    ("P95", 0.95),
    ("P99", 0.99),
    ("P99.5", 0.995),
    ("P99.9", 0.999),
    ("P100", 1.0),
];

#[cfg(test)]
mod tests {
    use proxy_stats::{ImportMode, Scope, Store, StoreOptions};

    use super::*;

    fn reading(store: &Store) -> Reading {
        store.hand_over();
        let mut merge = store.merge_histograms();
        while merge.advance() {}
        let mut reading = Reading::default();
        store.for_each(|metric| reading.add(metric));
        reading
    }

    fn lines(reading: &Reading, before: Option<(&Reading, Duration)>) -> String {
        reading.lines(before).collect::<Vec<_>>().join("\n")
    }

    fn store() -> (Store, Scope) {
        let store = Store::create(StoreOptions::private(1)).unwrap();
        store.bind_thread(proxy_stats::ThreadIndex(0));
        let scope = store.root().scope("a");
        scope.counter("total").add(7);
        scope.gauge("active", ImportMode::Accumulate).set(3);
        scope.histogram("unused");
        scope.histogram("time").record(0);
        scope.text_readout("version").set("v1");
        (store, scope)
    }

    #[test]
    fn a_reading_is_shown_by_name() {
        let (store, _scope) = store();
        let expected = "a.active: 3\na.time: 1 values, P0=0 P25=0 P50=0 P75=0 P90=0 P95=0 P99=0 P99.5=0 P99.9=0 P100=0\n\
                        a.total: 7\na.unused: no values\na.version: \"v1\"";
        assert_eq!(lines(&reading(&store), None), expected);
        let json = reading(&store).json(None);
        assert_eq!(json[0], json!({ "name": "a.active", "type": "gauge", "value": 3 }));
        assert_eq!((&json[1]["value"]["count"], &json[1]["value"]["P99.9"]), (&1.into(), &0.0.into()));
    }

    #[test]
    fn what_an_instance_answers_is_read_as_far_as_it_makes_sense() {
        let mut reading = Reading::default();
        let number = json!({ "stats": [{ "name": "a", "value": 3 }, { "name": "unused", "value": 0 }, { "value": 1 }, 7] });
        reading.add_answer(Kind::Counter, &number);
        reading.add_answer(Kind::TextReadout, &json!({ "stats": [{ "name": "t", "value": "text" }] }));
        let values: Vec<_> = (0..10).map(|at| json!({ "interval": null, "cumulative": at })).collect();
        reading.add_answer(
            Kind::Histogram,
            &json!({ "stats": [{ "histograms": { "computed_quantiles": [
                { "name": "h", "values": values }, { "name": "never", "values": [] } ] } }] }),
        );
        reading.add_answer(Kind::Gauge, &json!("nothing"));
        let shown = "a: 3\nh: P0=0 P25=1 P50=2 P75=3 P90=4 P95=5 P99=6 P99.5=7 P99.9=8 P100=9\n";
        assert_eq!(lines(&reading, None), format!("{shown}never: no values\nt: \"text\"\nunused: 0"));
        reading.retain(|name| name != "t", true);
        assert_eq!(lines(&reading, None) + "\n", shown);
        assert_eq!(reading.json(None)[1]["value"]["count"], json!(null));
    }

    #[test]
    fn rates_are_changes_a_second() {
        let (store, scope) = store();
        let before = reading(&store);
        scope.counter("total").add(5);
        scope.counter("new").add(1);
        scope.gauge("active", ImportMode::Accumulate).set(1);
        scope.histogram("time").record(9);
        let (after, two) = (reading(&store), Duration::from_secs(2));
        let shown = lines(&after, Some((&before, two)));
        for line in [
            "a.total: 12 (+2.5/s)",
            "a.new: 1 (+0.5/s)",
            "a.active: 1 (-1.0/s)",
            "P100=9.05 (+0.5/s)",
            "\"v1\"",
        ] {
            assert!(shown.contains(&format!("{line}\n")) || shown.ends_with(line), "{shown}");
        }
        store.reset_counters();
        scope.counter("total").add(4);
        assert!(lines(&reading(&store), Some((&after, two))).contains("a.total: 4 (+2.0/s)"));
        assert_eq!(after.json(Some((&before, two)))[3]["rate"], json!(2.5));
    }
}
