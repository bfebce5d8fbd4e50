//! From a stat to lines of the statsd protocol, in one of the three forms that tags take.

use std::io::Write as _;
use std::sync::Arc;

use proxy_config::settings::StatsFormat;
use proxy_stats::{Bucket, Distribution, FlushMark, TagExtractor};

use super::lines::Lines;

/// Writes stats as one receiver wants them.
pub(super) struct Encoder {
    format: StatsFormat,
    prefix: String,
    tags: Arc<TagExtractor>,
    /// What comes before the value of the current stat, and after its type.
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Encoder {
    pub(super) fn new(format: StatsFormat, prefix: &str, tags: Arc<TagExtractor>) -> Encoder {
        Encoder { format, prefix: prefix.to_owned(), tags, head: Vec::new(), tail: Vec::new() }
    }

    /// Appends what a counter has counted.
    pub(super) fn counter(&mut self, name: &str, told: FlushMark, lines: &mut Lines) {
        self.name(name);
        lines.push(Some(told), |line| self.line(line, told.amount, "c", None));
    }

    /// Appends the value of a gauge.
    pub(super) fn gauge(&mut self, name: &str, value: u64, lines: &mut Lines) {
        self.name(name);
        lines.push(None, |line| self.line(line, value, "g", None));
    }

    /// Appends values of a histogram. Whatever their unit, as milliseconds: so does Envoy.
    pub(super) fn histogram(&mut self, name: &str, values: &Distribution, lines: &mut Lines) {
        self.name(name);
        for sample in samples(values) {
            for _ in 0..sample.lines {
                lines.push(None, |line| self.line(line, sample.value, "ms", sample.rate));
            }
        }
    }

    fn line(&self, line: &mut Vec<u8>, value: u64, kind: &str, rate: Option<f64>) {
        line.extend_from_slice(&self.head);
        // Writing to memory cannot fail.
        let _ = write!(line, "{value}|{kind}");
        if let Some(rate) = rate {
            let _ = write!(line, "|@{rate}");
        }
        line.extend_from_slice(&self.tail);
    }

    /// Begins a stat.
    fn name(&mut self, name: &str) {
        let Encoder { format, prefix, tags, head, tail } = self;
        head.clear();
        tail.clear();
        head.extend_from_slice(prefix.as_bytes());
        head.push(b'.');
        if *format == StatsFormat::Statsd {
            append(head, name, b":|");
            head.push(b':');
            return;
        }
        let extracted = tags.extract(name);
        append(head, &extracted.name, b":|;");
        for tag in &extracted.tags {
            if *format == StatsFormat::Graphite {
                head.push(b';');
                append(head, tag.name, b":|;=!^");
                head.push(b'=');
                append(head, tag.value, b":|;~");
            } else {
                tail.extend_from_slice(if tail.is_empty() { b"|#" } else { b"," });
                append(tail, tag.name, b":|,");
                tail.push(b':');
                append(tail, tag.value, b"|,");
            }
        }
        head.push(b':');
    }
}

/// Appends text in which nothing ends it early: parts of names come from configurations and, some, from peers.
fn append(bytes: &mut Vec<u8>, text: &str, special: &[u8]) {
    bytes.extend(text.bytes().map(|byte| if special.contains(&byte) || byte < b' ' { b'_' } else { byte }));
}

/// The same value, so many times, each standing for 1/rate values.
#[derive(Debug, PartialEq)]
struct Sample {
    value: u64,
    lines: u64,
    rate: Option<f64>,
}

/// Few values are sent as they are, one line each, as Envoy does it; of many a part, each with its share.
fn samples(distribution: &Distribution) -> impl Iterator<Item = Sample> + '_ {
    let total = distribution.count();
    distribution.buckets().map(move |bucket| {
        let share = (u128::from(bucket.count) * u128::from(SAMPLES) / u128::from(total.max(1))) as u64;
        let lines = if total <= SAMPLES { bucket.count } else { share.max(1) };
        let rate = (lines < bucket.count).then(|| lines as f64 / bucket.count as f64);
        Sample { value: middle(bucket), lines, rate }
    })
}

/// The middle of the whole numbers that fall into a bucket: of those below 100 the number itself.
fn middle(bucket: Bucket) -> u64 {
    (bucket.lower + ((bucket.width - 1.0) / 2.0).max(0.0)) as u64
}

/// About as many lines as a histogram may take in one flush; one for each bucket may come on top.
const SAMPLES: u64 = 100;

#[cfg(test)]
mod tests {
    use proxy_stats::{Store, StoreOptions, ThreadIndex, Value};

    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Vec<Sample> {
        let store = Store::create(StoreOptions::private(1)).unwrap();
        assert!(store.bind_thread(ThreadIndex(0)));
        let scope = store.root().scope("s");
        let histogram = scope.histogram("h");
        values.into_iter().for_each(|value| histogram.record(value));
        store.hand_over();
        let mut merge = store.merge_histograms();
        while merge.advance() {}
        let mut found = Vec::new();
        store.for_each(|metric| {
            if let Value::Histogram(value) = metric.value {
                found.extend(samples(value.interval));
            }
        });
        found
    }

    #[test]
    fn few_values_are_sent_as_they_are() {
        let sample = |value, lines| Sample { value, lines, rate: None };
        assert_eq!(
            of([0, 0, 1, 7, 42, 42, 42, 99]),
            [sample(0, 2), sample(1, 1), sample(7, 1), sample(42, 3), sample(99, 1)]
        );
        // Two digits are kept.
        assert_eq!(of([100, 1234, 56_789]), [sample(104, 1), sample(1249, 1), sample(56_499, 1)]);
    }

    #[test]
    fn of_many_values_a_part_stands_for_all() {
        let samples = of((0..10_000).map(|index| if index % 1000 == 0 { 500 } else { 3 }));
        assert!(samples.iter().map(|sample| sample.lines).sum::<u64>() <= SAMPLES + 2);
        let stands_for = |sample: &Sample| sample.lines as f64 / sample.rate.unwrap_or(1.0);
        let counts: Vec<_> =
            samples.iter().map(|sample| (sample.value, stands_for(sample).round())).collect();
        assert_eq!(counts, [(3, 9990.0), (504, 10.0)]);
    }

    #[test]
    fn tags_have_three_forms() {
        let tags = Arc::new(TagExtractor::default());
        let line = |format, name: &str| {
            let mut encoder = Encoder::new(format, "envoy", Arc::clone(&tags));
            let mut lines = Lines::default();
            encoder.gauge(name, 3, &mut lines);
            String::from_utf8(lines.bytes().to_vec()).unwrap()
        };
        let name = "cluster.a.upstream_cx_active";
        assert_eq!(line(StatsFormat::Statsd, name), "envoy.cluster.a.upstream_cx_active:3|g\n");
        let dog = "envoy.cluster.upstream_cx_active:3|g|#envoy.cluster_name:a\n";
        assert_eq!(line(StatsFormat::DogStatsd, name), dog);
        let graphite = "envoy.cluster.upstream_cx_active;envoy.cluster_name=a:3|g\n";
        assert_eq!(line(StatsFormat::Graphite, name), graphite);
        // Nothing in a name ends the line, the name or the tag.
        assert_eq!(line(StatsFormat::Statsd, "a:1|c\nb"), "envoy.a_1_c_b:3|g\n");
        let hostile = "cluster.a,b|c;d\n.x";
        assert_eq!(
            line(StatsFormat::DogStatsd, hostile),
            "envoy.cluster.x:3|g|#envoy.cluster_name:a_b_c;d_\n"
        );
        assert_eq!(line(StatsFormat::Graphite, hostile), "envoy.cluster.x;envoy.cluster_name=a,b_c_d_:3|g\n");
    }
}
