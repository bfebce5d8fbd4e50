//! Looking at the events of a lineage again and again, from outside: those of all processes on the list, each event once, whichever
//! ring it is found in.

use std::os::unix::fs::MetadataExt;

use hashbrown::HashMap;

use super::control::Snapshot;
use super::files::LineagePath;
use super::reader::open;
use crate::error::ReadError;
use crate::events::Event;
use crate::reader::Reader;

/// The rings of a lineage, and what was seen of them. A look that finds nothing new reads some hundred bytes of each.
#[derive(Debug)]
pub struct EventWatch {
    path: LineagePath,
    /// Device and number of the control file: with another one, generations begin anew.
    control: Option<(u64, u64)>,
    /// By generation of the segment: its file, and how many events were read of it. Kept open, because who ends in good order
    /// writes down that it does and then takes the file away.
    rings: HashMap<u64, (Reader, u64)>,
    /// By generation of events, the highest number that was told.
    told: HashMap<u64, u64>,
}

impl EventWatch {
    /// Nothing is opened before the first look.
    pub fn new(path: LineagePath) -> EventWatch {
        EventWatch { path, control: None, rings: HashMap::new(), told: HashMap::new() }
    }

    /// What has happened since the last look, by time; the first look finds all that is in the rings. Nothing in the files is
    /// trusted.
    ///
    /// # Errors
    /// There is no such lineage, or not any more; what happened last in one comes before that. A ring that cannot be read has no
    /// events.
    pub fn look(&mut self) -> Result<Vec<Event>, ReadError> {
        let (control, snapshot) = match self.read_control() {
            Ok(read) => read,
            Err(error) => {
                let last = self.read_rings();
                self.rings.clear();
                return if last.is_empty() { Err(error) } else { Ok(last) };
            }
        };
        if self.control != Some(control) || self.told.len() > MOST_GENERATIONS {
            let control = Some(control);
            *self = EventWatch { control, ..EventWatch::new(self.path.clone()) };
        }
        for generation in &snapshot.generations {
            if !self.rings.contains_key(generation)
                && let Ok(file) = open(&self.path.segment(*generation))
                && let Ok(reader) = Reader::from_file(file)
            {
                self.rings.insert(*generation, (reader, 0));
            }
        }
        let found = self.read_rings();
        self.rings.retain(|generation, _| snapshot.generations.contains(generation));
        Ok(found)
    }

    fn read_control(&self) -> Result<((u64, u64), Snapshot), ReadError> {
        let file = open(&self.path.control())?;
        let metadata = file.metadata()?;
        Ok(((metadata.dev(), metadata.ino()), Snapshot::read(&file)?))
    }

    /// What is new in the rings.
    fn read_rings(&mut self) -> Vec<Event> {
        let mut found = Vec::new();
        for (reader, seen) in self.rings.values_mut() {
            // Without sense, or damaged: it says nothing.
            if let Ok((events, written)) = reader.events_since(*seen) {
                found.extend(events);
                *seen = written;
            }
        }
        found.sort_unstable_by_key(Event::id);
        found.dedup_by_key(|event| event.id());
        found.retain(|event| self.told.get(&event.generation).is_none_or(|told| *told < event.number));
        // In this order the last is the highest.
        self.told.extend(found.iter().map(Event::id));
        found.sort_unstable_by_key(Event::order);
        found
    }
}

/// That events are remembered of.
const MOST_GENERATIONS: usize = 4096;
