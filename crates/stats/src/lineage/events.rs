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
    /// By generation of the segment: number of its file, and events ever written to it.
    rings: HashMap<u64, (u64, u64)>,
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
    /// There is no such lineage. A ring that cannot be read has no events.
    pub fn look(&mut self) -> Result<Vec<Event>, ReadError> {
        let file = open(&self.path.control())?;
        let snapshot = Snapshot::read(&file)?;
        let metadata = file.metadata()?;
        let control = Some((metadata.dev(), metadata.ino()));
        if self.control != control || self.told.len() > MOST_GENERATIONS {
            *self = EventWatch { control, ..EventWatch::new(self.path.clone()) };
        }
        self.rings.retain(|generation, _| snapshot.generations.contains(generation));
        let mut found = Vec::new();
        for generation in &snapshot.generations {
            match self.look_at(*generation) {
                Ok(events) => found.extend(events),
                // It was folded just now: who did that has its events. Or it says nothing that makes sense.
                Err(_) => drop(self.rings.remove(generation)),
            }
        }
        found.sort_unstable_by_key(Event::id);
        found.dedup_by_key(|event| event.id());
        found.retain(|event| self.told.get(&event.generation).is_none_or(|told| *told < event.number));
        // In this order the last is the highest.
        self.told.extend(found.iter().map(Event::id));
        found.sort_unstable_by_key(Event::order);
        Ok(found)
    }

    fn look_at(&mut self, generation: u64) -> Result<Vec<Event>, ReadError> {
        let reader = Reader::from_file(open(&self.path.segment(generation))?)?;
        let number = reader.file().metadata()?.ino();
        let known = self.rings.get(&generation).filter(|(known, _)| *known == number);
        let (events, written) = reader.events_since(known.map_or(0, |(_, seen)| *seen))?;
        self.rings.insert(generation, (number, written));
        Ok(events)
    }
}

/// That events are remembered of.
const MOST_GENERATIONS: usize = 4096;
