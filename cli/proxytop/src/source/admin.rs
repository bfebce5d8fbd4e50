//! Looks at an admin port: of a proxyd on another host, or of an Envoy; or at the control socket of a proxyd whose counters are in
//! private memory. All answer `/stats?format=json` alike.

use std::collections::HashMap;
use std::sync::Arc;

use proxy_stats::{Catalog, ImportMode, MetricKind, StatId, Watch};
use serde_json::Value;

use super::Source;
use super::ask::{Admin, whole_url};
use super::instances::Instance;
use crate::snapshot::{Points, Quantiles, Snapshot, Standing};

/// The stats of an admin port.
pub(crate) struct AdminPort {
    admin: Admin,
    last: Snapshot,
}

impl AdminPort {
    pub(crate) fn new(url: &str) -> anyhow::Result<AdminPort> {
        let origin = whole_url(url);
        Ok(AdminPort { admin: Admin::port(url)?, last: Snapshot { origin, ..Snapshot::default() } })
    }

    /// A process of this host that counts in private memory.
    pub(crate) fn of_private(instance: &Instance) -> AdminPort {
        let Instance { base_id, run_dir, .. } = instance.clone();
        let origin = format!("base-id {base_id} (private stats)");
        AdminPort {
            admin: Admin::Control { run_dir, base_id },
            last: Snapshot { origin, ..Snapshot::default() },
        }
    }

    fn read(&self, at_ms: u64) -> anyhow::Result<Snapshot> {
        let stats = |kind: &str| self.admin.json(&format!("/stats?format=json&type={kind}"));
        let mut reading = Reading { catalog: Arc::clone(&self.last.catalog), ..Reading::default() };
        reading.add_numbers(&stats("Counters")?, MetricKind::Counter);
        reading.add_numbers(&stats("Gauges")?, MetricKind::Gauge(ImportMode::Accumulate));
        reading.add_histograms(&stats("Histograms")?);
        reading.add_texts(&stats("TextReadouts")?);
        reading.values.resize(reading.catalog.len(), Watch::ABSENT);
        let mut snapshot = Snapshot {
            at_ms,
            origin: self.last.origin.clone(),
            catalog: reading.catalog,
            values: reading.values,
            quantiles: Arc::new(reading.quantiles),
            texts: Arc::new(reading.texts),
            ..Snapshot::default()
        };
        snapshot.standing = match snapshot.named("server.state") {
            0 => Standing::Live,
            1 => Standing::Draining,
            _ => Standing::Starting,
        };
        Ok(snapshot)
    }
}

impl Source for AdminPort {
    fn look(&mut self, at_ms: u64) -> Snapshot {
        match self.read(at_ms) {
            Ok(snapshot) => self.last = snapshot,
            Err(error) => {
                self.last.standing = Standing::Gone;
                self.last.trouble = Some(format!("{error:#}"));
            }
        }
        self.last.clone()
    }
}

#[derive(Default)]
struct Reading {
    catalog: Arc<Catalog>,
    values: Vec<u64>,
    quantiles: HashMap<StatId, Quantiles>,
    texts: HashMap<StatId, String>,
}

impl Reading {
    fn set(&mut self, name: &str, kind: MetricKind, value: u64) -> Option<StatId> {
        let known = self.catalog.find(name).filter(|id| self.catalog.kind(*id) == Some(kind));
        let id = match known {
            Some(id) => id,
            None => Arc::make_mut(&mut self.catalog).intern(name, kind)?,
        };
        let at = id.0 as usize;
        if self.values.len() <= at {
            self.values.resize(at + 1, Watch::ABSENT);
        }
        self.values[at] = value;
        Some(id)
    }

    fn add_numbers(&mut self, stats: &Value, kind: MetricKind) {
        for stat in stats["stats"].as_array().into_iter().flatten() {
            if let (Some(name), Some(value)) = (stat["name"].as_str(), stat["value"].as_u64()) {
                self.set(name, kind, value);
            }
        }
    }

    fn add_texts(&mut self, stats: &Value) {
        for stat in stats["stats"].as_array().into_iter().flatten() {
            if let (Some(name), Some(text)) = (stat["name"].as_str(), stat["value"].as_str())
                && let Some(id) = self.set(name, MetricKind::TextReadout, Watch::ABSENT)
            {
                self.texts.insert(id, text.to_owned());
            }
        }
    }

    /// Only quantiles are told, of the last flush and of all.
    fn add_histograms(&mut self, stats: &Value) {
        let holders = stats["stats"].as_array().into_iter().flatten();
        for histograms in holders.map(|stat| &stat["histograms"]) {
            let supported: Vec<f64> = histograms["supported_quantiles"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_f64)
                .collect();
            for histogram in histograms["computed_quantiles"].as_array().into_iter().flatten() {
                let values: Vec<&Value> = histogram["values"].as_array().into_iter().flatten().collect();
                let points = |which: &str| {
                    let at = |percentile: f64| -> Option<f64> {
                        let place = supported.iter().position(|known| (known - percentile).abs() < 1e-6)?;
                        values.get(place)?[which].as_f64()
                    };
                    Some(Points { p50: at(50.0)?, p90: at(90.0)?, p99: at(99.0)?, max: at(100.0)? })
                };
                let (Some(name), Some(cumulative)) = (histogram["name"].as_str(), points("cumulative"))
                else {
                    continue;
                };
                // How many values there are is not told.
                if let Some(id) = self.set(name, MetricKind::Histogram, Watch::ABSENT) {
                    self.quantiles.insert(id, Quantiles { cumulative, recent: points("interval") });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_become_numbers() {
        let mut reading = Reading::default();
        reading.add_numbers(
            &json!({ "stats": [{ "name": "a", "value": 3 }, { "name": "t", "value": "text" }] }),
            MetricKind::Counter,
        );
        reading.add_histograms(&json!({ "stats": [{ "histograms": {
            "supported_quantiles": [0.0, 50.0, 90.0, 99.0, 100.0],
            "computed_quantiles": [
                { "name": "h", "values": [
                    { "interval": null, "cumulative": 1.0 }, { "interval": null, "cumulative": 2.0 },
                    { "interval": null, "cumulative": 3.0 }, { "interval": null, "cumulative": 4.0 },
                    { "interval": null, "cumulative": 5.0 } ] },
                { "name": "never", "values": [] },
            ] } }] }));
        let id = reading.catalog.find("h").unwrap();
        assert_eq!(reading.values[0], 3);
        reading.add_texts(&json!({ "stats": [{ "name": "t", "value": "text" }] }));
        assert_eq!(reading.texts[&reading.catalog.find("t").unwrap()], "text");
        let expected = Points { p50: 2.0, p90: 3.0, p99: 4.0, max: 5.0 };
        assert_eq!(reading.quantiles[&id], Quantiles { cumulative: expected, recent: None });
        assert_eq!(reading.catalog.find("never"), None);
        reading.add_histograms(&json!({ "stats": 7 }));
    }
}
