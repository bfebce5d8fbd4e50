//! What is looked at, as the command line says, and what is done beside drawing.

use std::path::PathBuf;
use std::sync::mpsc::SyncSender;

use anyhow::bail;

use crate::app::{App, Replay};
use crate::arguments::Arguments;
use crate::collect::{Collectors, Event};
use crate::live::World;
use crate::record::{Recorder, Recording};
use crate::source::Source;
use crate::source::admin::AdminPort;
use crate::source::ask::Admin;
use crate::source::instances::{self, Place};
use crate::source::shared::SharedMemory;

/// What the command line says.
pub(crate) struct Target {
    which: Which,
    access_log: Option<PathBuf>,
    recorder: Option<Recorder>,
}

enum Which {
    /// Instances on this host, of which one is chosen.
    Shared(Vec<Place>),
    Admin(String),
    Recorded(Recording),
}

impl Target {
    pub(crate) fn find(arguments: &Arguments) -> anyhow::Result<Target> {
        let which = match (&arguments.admin, &arguments.replay) {
            (Some(url), _) => Which::Admin(url.clone()),
            (None, Some(path)) => Which::Recorded(Recording::open(path)?),
            (None, None) => Which::Shared(instances::find(arguments)?),
        };
        let recorder = arguments.record.as_deref().map(Recorder::create).transpose()?;
        Ok(Target { which, access_log: arguments.access_log.clone(), recorder })
    }

    /// What there is to choose from.
    pub(crate) fn names(&self) -> Vec<String> {
        match &self.which {
            Which::Shared(places) => {
                places.iter().map(|place| format!("base-id {}", place.base_id)).collect()
            }
            Which::Admin(_) | Which::Recorded(_) => Vec::new(),
        }
    }

    /// Looks that were recorded, if that is what is shown.
    pub(crate) fn recorded(&self) -> Option<usize> {
        match &self.which {
            Which::Recorded(recording) => Some(recording.len()),
            _ => None,
        }
    }

    /// The one to look at and to ask, where nobody chooses.
    pub(crate) fn open_only(&self) -> anyhow::Result<(Box<dyn Source>, Admin)> {
        if self.names().len() > 1 {
            bail!("there are several instances, choose one with --base-id: {}", self.names().join(", "));
        }
        self.open(0)
    }

    fn open(&self, at: usize) -> anyhow::Result<(Box<dyn Source>, Admin)> {
        match &self.which {
            Which::Shared(places) => {
                let place = &places[at.min(places.len() - 1)];
                let admin = Admin::Control { run_dir: place.run_dir.clone(), base_id: place.base_id };
                Ok((Box::new(SharedMemory::new(place)), admin))
            }
            Which::Admin(url) => Ok((Box::new(AdminPort::new(url)?), Admin::port(url)?)),
            Which::Recorded(_) => bail!("what was recorded cannot be asked"),
        }
    }
}

impl World for Target {
    fn choose(
        &mut self,
        at: usize,
        app: &App,
        events: &SyncSender<Event>,
    ) -> anyhow::Result<Option<Collectors>> {
        let (source, admin) = self.open(at)?;
        Collectors::start(source, admin, self.access_log.clone(), app.interval, events).map(Some)
    }

    fn record(&mut self, app: &App) -> anyhow::Result<()> {
        match &mut self.recorder {
            Some(recorder) => recorder.write(&app.now, &app.asked),
            None => Ok(()),
        }
    }

    fn seek(&mut self, at: usize, app: &mut App) {
        if let Which::Recorded(recording) = &self.which {
            let at = at.min(recording.len() - 1);
            // So many lead to it as lines of the overview can show.
            let (looks, asked) = recording.looks(at.saturating_sub(SHOWN), at);
            app.see_recorded(Replay { at, of: recording.len() }, looks, asked);
        }
    }
}

const SHOWN: usize = 200;
