//! Looks in a file, to be gone through afterwards: a line of JSON each, with what has changed since the line before.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use proxy_stats::{Catalog, Event, EventKind, ImportMode, MetricKind, Severity, StatId, Watch};
use serde::{Deserialize, Serialize};

use crate::asked::Asked;
use crate::snapshot::{Generation, Points, Quantiles, Snapshot, Standing, Thread, add_events};

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
    /// Number and text readout; none for what is gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    texts: Vec<(u32, Option<String>)>,
    /// Of rings: microseconds since 1970, generation, number, kind, severity, text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    events: Vec<(u64, u64, u64, u16, u8, String)>,
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
            texts: changed_texts(before.map(|(before, _)| &**before), now),
            events: new_events(before.map(|(before, _)| &**before), now),
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
    /// Why there are no looks after the last.
    trouble: Option<String>,
}

/// What lines add up to.
#[derive(Clone, Default)]
struct State {
    values: Vec<u64>,
    quantiles: HashMap<StatId, Quantiles>,
    texts: Arc<HashMap<StatId, String>>,
    ring: Arc<Vec<Event>>,
    asked: Asked,
}

impl Recording {
    /// Reads a file, as far as it makes sense: see [`Recording::trouble`].
    pub(crate) fn open(path: &Path) -> anyhow::Result<Recording> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        Recording::read(BufReader::new(file)).with_context(|| path.display().to_string())
    }

    fn read(mut input: impl BufRead) -> anyhow::Result<Recording> {
        let (mut lines, mut catalog, mut text) = (Vec::<Line>::new(), Catalog::default(), Vec::new());
        let (mut state, mut marks) = (State::default(), Vec::new());
        let mut trouble = None;
        while input.read_until(b'\n', &mut text)? > 0 {
            let line = match read_line(&text, &mut catalog) {
                Ok(line) => line,
                Err(error) if lines.is_empty() => return Err(error.context("its first line is no look")),
                Err(error) => {
                    let (number, good) = (lines.len() + 1, lines.len());
                    trouble = Some(format!(
                        "line {number} cannot be read ({error:#}): only the {good} looks before it are shown"
                    ));
                    break;
                }
            };
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
        Ok(Recording { lines, catalog: Arc::new(catalog), marks, trouble })
    }

    /// What was wrong with the file, from where on it is not shown.
    pub(crate) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
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
                    texts: Arc::clone(&state.texts),
                    ring: Arc::clone(&state.ring),
                    generations: line.generations.clone(),
                    threads: line.threads.clone(),
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
        for (id, text) in &line.texts {
            let texts = Arc::make_mut(&mut self.texts);
            match text {
                Some(text) => drop(texts.insert(StatId(*id), text.clone())),
                None => drop(texts.remove(&StatId(*id))),
            }
        }
        add_events(&mut self.ring, line.events.iter().map(event));
        if let Some(asked) = &line.asked {
            self.asked = asked.clone();
        }
    }
}

/// A look, whose names are added to the others.
fn read_line(text: &[u8], catalog: &mut Catalog) -> anyhow::Result<Line> {
    if !text.ends_with(b"\n") {
        bail!("it was cut off");
    }
    let line: Line = serde_json::from_slice(text)?;
    if line.version != VERSION {
        bail!("it is of version {}, this program reads {VERSION}", line.version);
    }
    for (letter, name) in &line.names {
        let id = catalog.intern(name, kind(*letter)).context("there are too many names")?;
        if id.0 as usize + 1 != catalog.len() {
            bail!("it names {name:?} a second time");
        }
    }
    Ok(line)
}

fn changed_texts(before: Option<&Snapshot>, now: &Snapshot) -> Vec<(u32, Option<String>)> {
    let earlier = before.map(|before| &before.texts);
    if earlier.is_some_and(|earlier| Arc::ptr_eq(earlier, &now.texts)) {
        return Vec::new();
    }
    let text_before = |id: &StatId| earlier.and_then(|texts| texts.get(id));
    let changed = now.texts.iter().filter(|(id, text)| text_before(id) != Some(*text));
    let gone = earlier.into_iter().flat_map(|texts| texts.keys()).filter(|id| !now.texts.contains_key(*id));
    let mut texts: Vec<_> =
        changed.map(|(id, text)| (id.0, Some(text.clone()))).chain(gone.map(|id| (id.0, None))).collect();
    texts.sort_unstable();
    texts
}

fn new_events(before: Option<&Snapshot>, now: &Snapshot) -> Vec<(u64, u64, u64, u16, u8, String)> {
    let known: HashSet<_> = match before {
        Some(before) if Arc::ptr_eq(&before.ring, &now.ring) => return Vec::new(),
        before => before.into_iter().flat_map(|before| before.ring.iter().map(Event::order)).collect(),
    };
    let new = now.ring.iter().filter(|event| !known.contains(&event.order()));
    let parts = |event: &Event| {
        let Event { at_us, generation, number, kind, severity, text } = event.clone();
        (at_us, generation, number, kind.0, severity as u8, text)
    };
    new.map(parts).collect()
}

fn event((at_us, generation, number, kind, severity, text): &(u64, u64, u64, u16, u8, String)) -> Event {
    Event {
        at_us: *at_us,
        generation: *generation,
        number: *number,
        kind: EventKind(*kind),
        severity: Severity::of_code(*severity),
        text: text.clone(),
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
            texts: Arc::new(HashMap::from([(StatId(0), format!("text of {}", at_ms / 7000))])),
            ring: Arc::new((at_ms.saturating_sub(9000) / 1000..at_ms / 1000).map(happened).collect()),
            generations: vec![Generation { number: 7, ..Generation::default() }],
            ..Snapshot::default()
        })
    }

    fn happened(second: u64) -> Event {
        Event {
            at_us: second * 1_000_000,
            generation: 7,
            number: second + 1,
            kind: EventKind::RELOAD,
            severity: Severity::Warning,
            text: format!("reload {second}"),
        }
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
                    (&seen.quantiles, &seen.texts, &seen.generations),
                    (&expected.quantiles, &expected.texts, &expected.generations)
                );
                // All that was ever seen in a ring, each once.
                assert_eq!(*seen.ring, (0..seen.at_ms / 1000).map(happened).collect::<Vec<_>>());
            }
        }
        let text = std::fs::read(&path).unwrap();
        assert_eq!(recording.trouble(), None);
        std::fs::write(&path, &text[..text.len() - 5]).unwrap();
        let cut = Recording::open(&path).unwrap();
        assert_eq!((cut.len(), cut.trouble().is_some()), (199, true), "the last line was cut off");
        let line = text
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'\n')
            .map(|(at, _)| at + 1)
            .nth(49)
            .unwrap();
        for torn in [
            &text[..line + 40],
            &[&text[..line + 40], b"\n", &text[line..]].concat(),
            &[&text[..line], b"\xff\n"].concat(),
        ] {
            std::fs::write(&path, torn).unwrap();
            let torn = Recording::open(&path).unwrap();
            assert_eq!(torn.len(), 50);
            assert!(torn.trouble().unwrap().starts_with("line 51 cannot be read ("), "{:?}", torn.trouble());
            assert_eq!(torn.looks(49, 49).0[0].value(StatId(0)), looks[49].value(StatId(0)));
        }
        std::fs::write(&path, "{}\n").unwrap();
        assert!(Recording::open(&path).is_err());
    }
}
