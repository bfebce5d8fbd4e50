//! The lineage of segments: what makes counters go on where a dead process, a predecessor or a child has left them.
//!
//! A value is a base plus all segments on the list of the control file. Whoever leads folds dead segments into a new base
//! ([`fold`]); a cold start leads, since nobody else does, and adopts what was left.

mod base;
mod control;
mod events;
mod files;
mod fold;
mod reader;
#[cfg(test)]
mod tests;
mod totals;
mod watch;
mod words;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) use base::Marks;
pub use events::EventWatch;
pub use files::{LineagePath, find_lineages};
pub use reader::LineageReader;
pub(crate) use totals::{Place, Total, Totals};
pub use watch::{Catalog, StatId, Watch, WatchedMember};

use self::control::{Changing, Control, Lead};
use self::fold::{Fold, Members, Past};
use crate::error::{LineageWarning, StatsError};
use crate::store::{Backing, Store, StoreOptions};

/// What a process needs to take its place.
#[derive(Clone, Debug)]
pub struct LineageOptions {
    pub path: LineagePath,
    /// Which lineage, as in `--base-id`.
    pub base_id: u32,
    /// Number of this process, from 1; never used again. Raised if what is left has a higher one.
    pub generation: u64,
    /// Threads that will be bound: main and workers.
    pub threads: usize,
}

/// The place of this process in its lineage, and its store. Main asks who leads; what reads or changes files
/// ([`Lineage::tend`], [`Lineage::look`]) can take long where there are many stats, and is for other threads.
pub struct Lineage {
    path: LineagePath,
    generation: u64,
    store: Store,
    /// None: there is no space for a control file or segment, and the store is on its own.
    control: Option<Control>,
    /// Whether this process has served: then its end is the end of what it counted.
    settled: AtomicBool,
    /// One thread at a time reads what others have counted, or changes what there is of it.
    view: Mutex<View>,
    /// Generations that were found dead and had not ended in good order, and nobody was told of.
    killed: Mutex<Vec<u64>>,
}

/// What this process shows of others.
struct View {
    /// Something of some that lived.
    of_living: bool,
    /// This process has left.
    left: bool,
}

impl Lineage {
    /// Joins the lineage, or begins it, and makes the store. If nobody leads, this process does, and has folded what the
    /// dead have left; all that went on without it is told by warnings. Blocks for at most a second or so, while another
    /// process changes the lineage.
    ///
    /// # Errors
    /// The directory cannot be used. A full one can: the store is private then.
    pub fn join(options: LineageOptions) -> Result<(Lineage, Vec<LineageWarning>), StatsError> {
        let mut warnings = Vec::new();
        let control = match Control::open(&options.path, options.base_id, &mut warnings) {
            Ok(opened) => Some(opened),
            Err(source)
                if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                return Err(StatsError::CreateFile { path: options.path.control(), source });
            }
            Err(error) => {
                warnings.push(LineageWarning::Alone(error));
                None
            }
        };
        let joined = match control {
            None => None,
            Some(control) => match Lineage::enter(&options, &control, &mut warnings) {
                Ok(entered) => Some((control, entered)),
                Err(Refused::Store(StatsError::CreateFile { source: error, .. }) | Refused::Io(error)) => {
                    warnings.push(LineageWarning::Alone(error));
                    None
                }
                Err(Refused::Store(error)) => return Err(error),
            },
        };
        let LineageOptions { path, generation, threads, base_id } = options;
        let (control, Entered { store, generation, killed, .. }) = match joined {
            Some((control, entered)) => (Some(control).filter(|_| entered.listed), entered),
            None => {
                let store = Store::create(StoreOptions { path: None, threads, generation, base_id })?;
                (None, Entered { store, generation, listed: false, killed: Vec::new() })
            }
        };
        let view = Mutex::new(View { of_living: true, left: false });
        let (settled, killed) = (AtomicBool::new(false), Mutex::new(killed));
        Ok((Lineage { path, generation, store, control, settled, view, killed }, warnings))
    }

    fn enter(
        options: &LineageOptions,
        control: &Control,
        warnings: &mut Vec<LineageWarning>,
    ) -> Result<Entered, Refused> {
        let path = &options.path;
        let changing = control.change()?;
        if !control.is_at(path) {
            return Err(Refused::Io(io::Error::other("another process has removed the control file")));
        }
        fold::recover(path, &changing)?;
        let lead = control.lead();
        let leads = lead.leader == 0 || !fold::lives(path, lead.leader)?;
        let past = if leads {
            take_stock(path, &changing, warnings)?
        } else {
            look_on(path, &changing, u64::MAX, warnings)?
        };
        let newest = path.segments()?.into_iter().max().unwrap_or(0);
        let generation = options.generation.max(newest + 1);
        let store = Store::create(StoreOptions {
            path: Some(path.segment(generation)),
            threads: options.threads,
            generation,
            base_id: options.base_id,
        })
        .map_err(Refused::Store)?;
        let listed = store.backing() == Backing::File && changing.add(generation);
        if leads && listed {
            control.hand_over(lead, generation);
        }
        let snapshot = changing.snapshot();
        if !listed && snapshot.generations.is_empty() && snapshot.base == 0 {
            // Nobody would remove it at the end.
            files::remove(&path.control())?;
        }
        store.inherit(past.totals, past.marks);
        store.events().adopt(past.events);
        Ok(Entered { store, generation, listed, killed: past.killed })
    }

    /// The store of this process.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Number of this process.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Generations that have been found dead since this was asked last, and had not ended in good order, as far as their events
    /// tell.
    pub fn take_killed(&self) -> Vec<u64> {
        std::mem::take(&mut *self.killed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether others see this process. Not where there is no space for the files of the lineage.
    pub fn is_listed(&self) -> bool {
        self.control.is_some()
    }

    /// Whether this process leads.
    pub fn leads(&self) -> bool {
        self.control.as_ref().is_some_and(|control| control.leader() == self.generation)
    }

    /// Counts how often the lead has changed. Who is to take over needs to be told.
    pub fn turn(&self) -> u16 {
        self.control.as_ref().map_or(0, |control| control.lead().turn)
    }

    /// Leads from now on, in place of `from`, in one step. False if that one no longer leads, or has
    /// [gone on](Lineage::go_on) since that turn.
    pub fn take_over(&self, from: u64, turn: u16) -> bool {
        let lead = Lead { leader: from, turn };
        self.control.as_ref().is_some_and(|control| control.hand_over(lead, self.generation))
    }

    /// Leads if nobody does who lives. True if this process leads now.
    pub fn take_over_from_dead(&self) -> bool {
        self.control.as_ref().is_some_and(|control| {
            let lead = control.lead();
            // What cannot be told may live.
            let lives = lead.leader != 0 && fold::lives(&self.path, lead.leader).unwrap_or(true);
            lead.leader == self.generation || (!lives && control.hand_over(lead, self.generation))
        })
    }

    /// Goes on leading, and from now on nobody takes over who was told of an earlier turn. False if this process leads no
    /// more.
    pub fn go_on(&self) -> bool {
        self.control.as_ref().is_some_and(|control| {
            let lead = control.lead();
            lead.leader == self.generation && control.hand_over(lead, self.generation)
        })
    }

    /// The scopes of the configuration are there: stats that only predecessors had under them show with the next look.
    pub fn settle(&self) {
        self.settled.store(true, Relaxed);
    }

    /// To be called every few seconds: shows what predecessors have counted under scopes made since, and, in the process
    /// that leads, folds what has died. What is under no scope at the first call after [`Lineage::settle`] will not outlive
    /// this process.
    pub fn tend(&self) -> Vec<LineageWarning> {
        let mut warnings = Vec::new();
        let mut view = self.view();
        if view.left {
            return warnings;
        }
        if self.settled.load(Relaxed) {
            self.store.note_settled();
        }
        if self.leads()
            && let Some(control) = &self.control
            && let Err(error) = self.fold(control, &mut view, &mut warnings)
        {
            warnings.push(LineageWarning::NotFolded(error));
        }
        self.store.claim_inherited();
        warnings
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fold(&self, control: &Control, view: &mut View, warnings: &mut Vec<LineageWarning>) -> io::Result<()> {
        // Without the lock first: most of the time there is nothing to do.
        let members = Members::of(&self.path, &control.snapshot())?;
        if members.dead.is_empty() {
            return Ok(());
        }
        // Whoever has the lock is joining or leaving; there is a next time.
        let Some(changing) = control.try_change()? else { return Ok(()) };
        self.show(changing, &members, view, warnings)
    }

    /// Takes the place of what was shown of others before. Folds the dead, if this process leads.
    fn show(
        &self,
        changing: Changing<'_>,
        members: &Members,
        view: &mut View,
        warnings: &mut Vec<LineageWarning>,
    ) -> io::Result<()> {
        let past = if self.leads() {
            let mut past = take_stock(&self.path, &changing, warnings)?;
            fold::add_others(&self.path, &members.living, self.generation, &mut past.totals)?;
            past
        } else {
            look_on(&self.path, &changing, self.generation, warnings)?
        };
        drop(changing);
        view.of_living = members.living.iter().any(|generation| *generation != self.generation);
        self.store.inherit(past.totals, past.marks);
        self.store.events().adopt(past.events);
        self.killed.lock().unwrap_or_else(PoisonError::into_inner).extend(past.killed);
        Ok(())
    }

    /// To be called before stats are shown: of others that live, what they have counted and hold by now. Costs next to
    /// nothing when there are none.
    pub fn look(&self) -> Vec<LineageWarning> {
        let mut warnings = Vec::new();
        let mut view = self.view();
        if view.left {
            return warnings;
        }
        if let Some(control) = &self.control
            && let Err(error) = self.look_at_others(control, &mut view, &mut warnings)
        {
            warnings.push(LineageWarning::NotFolded(error));
        }
        if self.settled.load(Relaxed) {
            self.store.claim_inherited();
        }
        warnings
    }

    fn look_at_others(
        &self,
        control: &Control,
        view: &mut View,
        warnings: &mut Vec<LineageWarning>,
    ) -> io::Result<()> {
        let members = Members::of(&self.path, &control.snapshot())?;
        if !view.of_living && members.living.iter().all(|generation| *generation == self.generation) {
            return Ok(());
        }
        // Whoever has the lock is joining or leaving; what was seen last will do.
        let Some(changing) = control.try_change()? else { return Ok(()) };
        self.show(changing, &members, view, warnings)
    }

    /// An orderly end. The last process takes everything with it; others leave what they have counted to who leads.
    /// One that never [settled](Lineage::settle) has counted nothing that matters, and leaves things as they were.
    pub fn leave(&self) -> io::Result<()> {
        let Some(control) = &self.control else { return Ok(()) };
        // Whoever is at it now will be done soon.
        self.view().left = true;
        let changing = control.change()?;
        if !control.is_at(&self.path) {
            // Replaced by a program of another version; so it is not ours to change.
            return files::remove(&self.path.segment(self.generation));
        }
        let lead = control.lead();
        if lead.leader == self.generation {
            control.hand_over(lead, 0);
        }
        let members = Members::of(&self.path, &changing.snapshot())?;
        let alone = members.living.iter().all(|generation| *generation == self.generation);
        if !self.settled.load(Relaxed) {
            changing.remove(self.generation);
            files::remove(&self.path.segment(self.generation))?;
            let left = changing.snapshot();
            return if alone && left.generations.is_empty() && left.base == 0 {
                self.remove_all()
            } else {
                Ok(())
            };
        }
        if alone && control.leader() == 0 {
            return self.remove_all();
        }
        self.store.end();
        Ok(())
    }

    /// The control file goes last: while it exists, somebody will come and clean up.
    fn remove_all(&self) -> io::Result<()> {
        for generation in self.path.segments()? {
            if generation == self.generation || !fold::lives(&self.path, generation)? {
                files::remove(&self.path.segment(generation))?;
            }
        }
        self.path.bases()?.into_iter().try_for_each(|number| files::remove(&self.path.base(number)))?;
        files::remove(&self.path.control())
    }
}

/// A process that is on the list, if its segment is a file.
struct Entered {
    store: Store,
    generation: u64,
    listed: bool,
    killed: Vec<u64>,
}

enum Refused {
    Store(StatsError),
    Io(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Refused {
        Refused::Io(error)
    }
}

/// What the dead have counted, folded; for the process that leads.
fn take_stock(
    path: &LineagePath,
    changing: &Changing<'_>,
    warnings: &mut Vec<LineageWarning>,
) -> io::Result<Past> {
    fold::complete(path, changing, warnings)?;
    match Fold::begin(path, changing, warnings)? {
        Some(fold) => Ok(fold.run(warnings)),
        None => {
            let Some(base) = fold::open_base(path, &changing.snapshot(), warnings)? else {
                return Ok(Past::default());
            };
            let totals = base.totals().map_err(io::Error::other)?;
            Ok(Past { totals, marks: Some(base.into_marks()), ..Past::default() })
        }
    }
}

/// What everybody but `own` has counted, for a process that does not lead: it flushes none of that, and drops none. One
/// that joins only now comes after all others.
fn look_on(
    path: &LineagePath,
    changing: &Changing<'_>,
    own: u64,
    warnings: &mut Vec<LineageWarning>,
) -> io::Result<Past> {
    let snapshot = changing.snapshot();
    let mut totals = match fold::open_base(path, &snapshot, warnings)? {
        Some(base) => base.totals().map_err(io::Error::other)?,
        None => Totals::default(),
    };
    for (_, place, total) in totals.iter_mut() {
        *place = None;
        if let Total::Counter { pending, .. } = total {
            *pending = 0;
        }
    }
    fold::add_others(path, &snapshot.generations, own, &mut totals)?;
    Ok(Past { totals, ..Past::default() })
}
