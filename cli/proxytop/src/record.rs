//! Looks in a file, to be gone through afterwards: a line of JSON each, with what has changed since the line before.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use proxy_stats::{Catalog, ImportMode, MetricKind, StatId, Watch};
use serde::{Deserialize, Serialize};

use crate::asked::Asked;
use crate::snapshot::{Generation, Points, Quantiles, Snapshot, Standing, Thread};

/// One look, less what is as in the one before.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Line {
    /// Of this format.
    version: u32,
    at_ms: u64,
    origin: String,
    standing: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trouble: Option<String>,
    /// Kind and name of stats that are new; numbers go on from those of the lines before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    names: Vec<(char, String)>,
    /// Number and value; none for what is gone.
    values: Vec<(u32, Option<u64>)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    quantiles: Vec<(u32, [f64; 4], Option<[f64; 4]>)>,
    generations: Vec<Generation>,
    threads: Vec<Thread>,
    /// If it has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asked: Option<Asked>,
}

/// Writes looks.
pub(crate) struct Recorder {
    file: File,
    names: usize,
    last: Option<(Arc<Snapshot>, Asked)>,
}

impl Recorder {
    /// Starts a new file; one that exists is not overwritten.
    pub(crate) fn create(path: &Path) -> anyhow::Result<Recorder> {
        let mut options = File::options();
        let file =
            options.write(true).create_new(true).open(path).with_context(|| path.display().to_string())?;
        Ok(Recorder { file, names: 0, last: None })
    }

    pub(crate) fn write(&mut self, now: &Arc<Snapshot>, asked: &Asked) -> anyhow::Result<()> {
        let before = self.last.as_ref();
        let earlier = |id: StatId| before.and_then(|(before, _)| before.value(id));
        let changed = now.catalog.ids().filter(|id| now.value(*id) != earlier(*id));
        let names = now.catalog.ids().skip(self.names);
        let same_quantiles = |id: &StatId, found: &Quantiles| {
            before.is_some_and(|(before, _)| before.quantiles.get(id) == Some(found))
        };
        let quantiles = now.quantiles.iter().filter(|(id, found)| !same_quantiles(id, found));
        let line = Line {
            version: VERSION,
            at_ms: now.at_ms,
            origin: now.origin.clone(),
            standing: now.standing.name().to_owned(),
            trouble: now.trouble.clone(),
            names: names.map(|id| (letter(now.catalog.kind(id)), now.catalog.name(id).to_owned())).collect(),
            values: changed.map(|id| (id.0, now.value(id))).collect(),
            quantiles: quantiles
                .map(|(id, found)| (id.0, array(found.cumulative), found.recent.map(array)))
                .collect(),
            generations: now.generations.clone(),
            threads: now.threads.clone(),
            asked: before.is_none_or(|(_, before)| before != asked).then(|| asked.clone()),
        };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        self.file.write_all(&text).context("the recording cannot be written")?;
        self.names = now.catalog.len();
        self.last = Some((Arc::clone(now), asked.clone()));
        Ok(())
    }
}

/// Looks that were recorded.
pub(crate) struct Recording {
    lines: Vec<Line>,
    catalog: Arc<Catalog>,
    /// Values after every so many lines, so that going back does not begin at the beginning.
    marks: Vec<State>,
}

/// What lines add up to.
#[derive(Clone, Default)]
struct State {
    values: Vec<u64>,
    quantiles: HashMap<StatId, Quantiles>,
    asked: Asked,
}

impl Recording {
    /// Reads a file. A last line that was cut off is left out.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Recording> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        Recording::read(BufReader::new(file)).with_context(|| path.display().to_string())
    }

    fn read(mut input: impl BufRead) -> anyhow::Result<Recording> {
        let (mut lines, mut catalog, mut text) = (Vec::<Line>::new(), Catalog::default(), String::new());
        let (mut state, mut marks) = (State::default(), Vec::new());
        while input.read_line(&mut text)? > 0 {
            let line: Line = match serde_json::from_str(&text) {
                Ok(line) => line,
                Err(_) if !text.ends_with('\n') => break,
                Err(error) => bail!("line {} is no look: {error}", lines.len() + 1),
            };
            if line.version != VERSION {
                bail!("it is of version {}, this program reads {VERSION}", line.version);
            }
            for (letter, name) in &line.names {
                let id = catalog.intern(name, kind(*letter)).context("it has too many names")?;
                if id.0 as usize + 1 != catalog.len() {
                    bail!("line {} names {name:?} a second time", lines.len() + 1);
                }
            }
            state.apply(&line, catalog.len());
            if lines.len().is_multiple_of(MARK_EVERY) {
                marks.push(state.clone());
            }
            lines.push(line);
            text.clear();
        }
        if lines.is_empty() {
            bail!("it has no looks");
        }
        Ok(Recording { lines, catalog: Arc::new(catalog), marks })
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// The looks from `from` to `to`, and what was known of answers at the last.
    pub(crate) fn looks(&self, from: usize, to: usize) -> (Vec<Arc<Snapshot>>, Asked) {
        let to = to.min(self.lines.len() - 1);
        let from = from.min(to);
        let mut state = self.marks[from / MARK_EVERY].clone();
        let mut looks = Vec::new();
        for at in from / MARK_EVERY * MARK_EVERY..=to {
            let line = &self.lines[at];
            state.apply(line, self.catalog.len());
            if at >= from {
                looks.push(Arc::new(Snapshot {
                    at_ms: line.at_ms,
                    origin: line.origin.clone(),
                    standing: Standing::of_name(&line.standing),
                    trouble: line.trouble.clone(),
                    catalog: Arc::clone(&self.catalog),
                    values: state.values.clone(),
                    quantiles: Arc::new(state.quantiles.clone()),
                    generations: line.generations.clone(),
                    threads: line.threads.clone(),
                    ..Snapshot::default()
                }));
            }
        }
        (looks, state.asked)
    }
}

impl State {
    /// Applying a line twice is the same as once.
    fn apply(&mut self, line: &Line, names: usize) {
        self.values.resize(names.max(self.values.len()), Watch::ABSENT);
        for (id, value) in &line.values {
            if let Some(place) = self.values.get_mut(*id as usize) {
                *place = value.unwrap_or(Watch::ABSENT);
            }
        }
        for (id, cumulative, recent) in &line.quantiles {
            let quantiles = Quantiles { cumulative: points(*cumulative), recent: recent.map(points) };
            self.quantiles.insert(StatId(*id), quantiles);
        }
        if let Some(asked) = &line.asked {
            self.asked = asked.clone();
        }
    }
}

fn letter(kind: Option<MetricKind>) -> char {
    match kind {
        Some(MetricKind::Counter) => 'c',
        Some(MetricKind::Gauge(_)) => 'g',
        Some(MetricKind::Histogram) => 'h',
        Some(MetricKind::TextReadout) | None => 't',
    }
}

fn kind(letter: char) -> MetricKind {
    match letter {
        'c' => MetricKind::Counter,
        'g' => MetricKind::Gauge(ImportMode::Accumulate),
        'h' => MetricKind::Histogram,
        _ => MetricKind::TextReadout,
    }
}

fn array(points: Points) -> [f64; 4] {
    // JSON has no NaN.
    [points.p50, points.p90, points.p99, points.max].map(|value| if value.is_finite() { value } else { -1.0 })
}

fn points([p50, p90, p99, max]: [f64; 4]) -> Points {
    Points { p50, p90, p99, max }
}

const VERSION: u32 = 1;
const MARK_EVERY: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at_ms: u64, values: &[(&str, u64)]) -> Arc<Snapshot> {
        let mut catalog = Catalog::default();
        for (name, _) in values {
            catalog.intern(name, MetricKind::Counter).unwrap();
        }
        let quantiles =
            HashMap::from([(StatId(0), Quantiles { recent: None, cumulative: points([at_ms as f64; 4]) })]);
        Arc::new(Snapshot {
            at_ms,
            standing: Standing::Live,
            catalog: Arc::new(catalog),
            values: values.iter().map(|(_, value)| *value).collect(),
            quantiles: Arc::new(quantiles),
            generations: vec![Generation { number: 7, ..Generation::default() }],
            ..Snapshot::default()
        })
    }

    #[test]
    fn what_was_recorded_is_seen_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("looks");
        let mut recorder = Recorder::create(&path).unwrap();
        assert!(Recorder::create(&path).is_err(), "it is there already");
        let looks: Vec<_> = (1..=200)
            .map(|at| match at {
                0..100 => look(at * 1000, &[("a", at)]),
                100 => look(at * 1000, &[("a", Watch::ABSENT), ("b", 7)]),
                _ => look(at * 1000, &[("a", 3), ("b", at)]),
            })
            .collect();
        for look in &looks {
            recorder.write(look, &Asked { version: "v".into(), ..Asked::default() }).unwrap();
        }
        let recording = Recording::open(&path).unwrap();
        assert_eq!(recording.len(), 200);
        for (from, to) in [(0, 0), (98, 100), (63, 65), (199, 400)] {
            let (seen, asked) = recording.looks(from, to);
            assert_eq!(asked.version, "v");
            for (seen, expected) in seen.iter().zip(&looks[from..]) {
                let id = |name: &str| seen.catalog.find(name).unwrap();
                assert_eq!(seen.at_ms, expected.at_ms);
                assert_eq!(seen.value(id("a")), expected.value(StatId(0)));
                assert_eq!(seen.value(id("b")), expected.value(StatId(1)));
                assert_eq!(
                    (&seen.quantiles, &seen.generations),
                    (&expected.quantiles, &expected.generations)
                );
            }
        }
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 5]).unwrap();
        assert_eq!(Recording::open(&path).unwrap().len(), 199, "the last line was cut off");
        std::fs::write(&path, "{}\n").unwrap();
        assert!(Recording::open(&path).is_err());
    }
}
