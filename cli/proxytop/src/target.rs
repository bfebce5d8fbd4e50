//! What is looked at, as the command line says, and what is done beside drawing.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use anyhow::bail;

use crate::app::{App, Replay};
use crate::arguments::Arguments;
use crate::asked::Asked;
use crate::collect::{Collectors, Event};
use crate::record::{Recorder, Recording};
use crate::snapshot::Snapshot;
use crate::source::Source;
use crate::source::admin::AdminPort;
use crate::source::ask::Admin;
use crate::source::instances::{self, Instance};
use crate::source::shared::SharedMemory;

/// What the command line says.
pub(crate) struct Target {
    which: Which,
    access_log: Option<PathBuf>,
    recorder: Option<Recorder>,
}

enum Which {
    /// Instances on this host, of which one is chosen.
    Shared(Vec<Instance>),
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
            Which::Shared(instances) => {
                instances.iter().map(|instance| format!("base-id {}", instance.base_id)).collect()
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

    /// What is wrong with what was recorded.
    pub(crate) fn trouble(&self) -> Option<&str> {
        match &self.which {
            Which::Recorded(recording) => recording.trouble(),
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
            Which::Shared(instances) => {
                let instance = &instances[at.min(instances.len() - 1)];
                let admin = Admin::Control { run_dir: instance.run_dir.clone(), base_id: instance.base_id };
                match instance.private {
                    true => Ok((Box::new(AdminPort::of_private(instance)), admin)),
                    false => Ok((Box::new(SharedMemory::new(instance)), admin)),
                }
            }
            Which::Admin(url) => Ok((Box::new(AdminPort::new(url)?), Admin::port(url)?)),
            Which::Recorded(_) => bail!("what was recorded cannot be asked"),
        }
    }

    /// Looks at one of several instances from now on.
    pub(crate) fn choose(
        &self,
        at: usize,
        app: &App,
        events: &SyncSender<Event>,
    ) -> anyhow::Result<Collectors> {
        let (source, admin) = self.open(at)?;
        Collectors::start(source, admin, self.access_log.clone(), app.interval, events)
    }

    /// Keeps a look and the newest answers, if looks are to be recorded.
    pub(crate) fn record(&mut self, look: &Arc<Snapshot>, asked: &Asked) -> anyhow::Result<()> {
        match &mut self.recorder {
            Some(recorder) => recorder.write(look, asked),
            None => Ok(()),
        }
    }

    /// Shows another place in recorded time.
    pub(crate) fn seek(&self, at: usize, app: &mut App) {
        if let Which::Recorded(recording) = &self.which {
            let at = at.min(recording.len() - 1);
            // So many lead to it as lines of the overview can show.
            let (looks, asked) = recording.looks(at.saturating_sub(SHOWN), at);
            app.see_recorded(Replay { at, of: recording.len() }, looks, asked);
        }
    }
}

const SHOWN: usize = 200;
