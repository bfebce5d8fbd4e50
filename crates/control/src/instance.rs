//! Instances: how one claims its base-id, and how others find it.

use std::fmt;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Method;

use crate::client::Client;
use crate::lock;
use crate::restart::{Standing, Status};
use crate::run_dir::RunDir;

/// Which of several proxies on one host (`--base-id`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BaseId(pub u32);

/// Which start of a base-id, from 1; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// The place of this process among the instances: no other can claim the base-id while it lives. Leaves nothing behind when
/// dropped.
#[derive(Debug)]
pub struct Instance {
    name: Name,
    run_dir: Arc<RunDir>,
    /// Says that we live; read by others only.
    _lock: File,
}

/// A living instance that another process holds.
#[derive(Debug, Clone)]
pub struct Found {
    name: Name,
    run_dir: Arc<RunDir>,
}

/// Whether other instances of the base-id may live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// None may: a cold start.
    Alone,
    /// Some may, of which one is to be taken over from: a hot restart.
    Successor,
}

/// Why an instance could not start.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error(
        "base-id {} is taken by a running instance (control socket {}): replace it with `proxyctl restart --hot --base-id {0}`, \
         end it with `proxyctl stop --base-id {0}`, or start this one with another --base-id",
        base_id.0, socket.display()
    )]
    Running { base_id: BaseId, generation: Generation, socket: PathBuf },
    #[error("{GENERATIONS} generations of base-id {0} live already: the oldest has to end first")]
    Crowded(BaseId),
    #[error("another instance with base-id {0} has been starting for {limit:?}", limit = START_LIMIT)]
    Starting(BaseId),
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
}

/// Why there is not exactly one instance to talk to.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    #[error("no instance is running{} (looked in {})", of_base_id(base_id), run_dir.display())]
    None { base_id: Option<BaseId>, run_dir: PathBuf },
    #[error("several instances are running, choose one with --base-id: {}", list(.0))]
    Several(Vec<BaseId>),
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
}

impl Instance {
    /// Claims `base_id` as its next generation. Removes what dead instances left. Blocks for at most a few seconds, while another
    /// start with the same base-id is under way.
    ///
    /// # Errors
    /// An instance with this base-id lives (or [`GENERATIONS`] do), or the directory cannot be written.
    pub fn claim(run_dir: Arc<RunDir>, base_id: BaseId, claim: Claim) -> Result<Self, ClaimError> {
        let start_path = run_dir.file(&format!("{base_id}.start"));
        let mut start =
            open(&start_path).map_err(|error| ClaimError::Io { path: start_path.clone(), error })?;
        take_start(&start, base_id).map_err(|error| error.at(start_path.clone()))?;
        let at_start = |error| ClaimError::Io { path: start_path.clone(), error };
        let mut newest = newest_generation(&mut start).map_err(at_start)?;
        let mut living = 0;
        for name in
            names(&run_dir).map_err(|error| ClaimError::Io { path: run_dir.path().to_owned(), error })?
        {
            if name.base_id != base_id {
                continue;
            }
            newest = newest.max(name.generation.0);
            if name
                .lives(&run_dir)
                .map_err(|error| ClaimError::Io { path: run_dir.path().to_owned(), error })?
            {
                if claim == Claim::Alone {
                    let socket = run_dir.file(&name.socket());
                    return Err(ClaimError::Running { base_id, generation: name.generation, socket });
                }
                living += 1;
                continue;
            }
            name.remove(&run_dir);
        }
        if living >= GENERATIONS {
            return Err(ClaimError::Crowded(base_id));
        }
        let name = Name { base_id, generation: Generation(newest + 1) };
        start.set_len(0).and_then(|()| start.rewind()).map_err(at_start)?;
        start.write_all(name.generation.0.to_string().as_bytes()).map_err(at_start)?;
        let lock_path = run_dir.file(&name.lock());
        let lock = open(&lock_path).and_then(|file| match lock::try_take(&file)? {
            true => Ok(file),
            false => Err(io::Error::other("locked by a process that did not claim it")),
        });
        let lock = lock.map_err(|error| ClaimError::Io { path: lock_path, error })?;
        Ok(Self { name, run_dir, _lock: lock })
    }

    #[must_use]
    pub fn base_id(&self) -> BaseId {
        self.name.base_id
    }

    #[must_use]
    pub fn generation(&self) -> Generation {
        self.name.generation
    }

    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.run_dir.file(&self.name.socket())
    }

    /// Where its successor will connect, for `bind`. Valid while `self` lives.
    #[must_use]
    pub fn restart_address(&self) -> PathBuf {
        self.run_dir.socket_address(&self.name.restart())
    }

    #[must_use]
    pub fn run_dir(&self) -> &Arc<RunDir> {
        &self.run_dir
    }

    /// Binds the control socket, mode 0600, non-blocking. To be called once.
    ///
    /// # Errors
    /// Those of `bind` and `chmod`.
    pub fn listen(&self) -> io::Result<UnixListener> {
        let address = self.run_dir.socket_address(&self.name.socket());
        let listener = UnixListener::bind(&address)?;
        fs::set_permissions(&address, Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.name.remove(&self.run_dir);
    }
}

impl Found {
    #[must_use]
    pub fn base_id(&self) -> BaseId {
        self.name.base_id
    }

    #[must_use]
    pub fn generation(&self) -> Generation {
        self.name.generation
    }

    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.run_dir.file(&self.name.socket())
    }

    /// Where it waits for its successor, for `connect`. Valid while `self` lives.
    #[must_use]
    pub fn restart_address(&self) -> PathBuf {
        self.run_dir.socket_address(&self.name.restart())
    }

    /// Whether it still lives.
    ///
    /// # Errors
    /// The lock file cannot be read.
    pub fn lives(&self) -> io::Result<bool> {
        self.name.lives(&self.run_dir)
    }

    /// A client of its control socket; each question waits at most `deadline`.
    #[must_use]
    pub fn client(&self, deadline: Duration) -> Client {
        Client::new(Arc::clone(&self.run_dir), self.name.socket(), deadline)
    }
}

/// All living instances, by base-id and generation.
///
/// # Errors
/// The directory or a lock file cannot be read.
pub fn find(run_dir: &Arc<RunDir>) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for name in names(run_dir)? {
        if name.lives(run_dir)? {
            found.push(Found { name, run_dir: Arc::clone(run_dir) });
        }
    }
    found.sort_by_key(|instance| (instance.base_id(), instance.generation()));
    Ok(found)
}

/// The newest living instance of `base_id`, or the only base-id's when `None`.
///
/// # Errors
/// There is none, or several base-ids are running and none was named.
pub fn find_one(run_dir: &Arc<RunDir>, base_id: Option<BaseId>) -> Result<Found, FindError> {
    let path = run_dir.path();
    let mut all = find(run_dir).map_err(|error| FindError::Io { path: path.to_owned(), error })?;
    all.retain(|instance| base_id.is_none_or(|wanted| instance.base_id() == wanted));
    let mut base_ids: Vec<_> = all.iter().map(Found::base_id).collect();
    base_ids.dedup();
    if base_ids.len() > 1 {
        return Err(FindError::Several(base_ids));
    }
    all.pop().ok_or_else(|| FindError::None { base_id, run_dir: path.to_owned() })
}

/// Of the living instances of a base-id, the one that leads, if it says that its stats are in private memory: shared memory then
/// holds those of others, or nothing. To be asked where fewer processes have stats in shared memory than live. Each has
/// until `deadline` to answer.
pub async fn private_leader(all: &[Found], deadline: Duration) -> Option<Found> {
    for found in all.iter().rev() {
        let answer = found.client(deadline).ask(Method::GET, "/generation").await;
        let status = answer.ok().and_then(|answer| Status::of_json(&answer.text));
        match status {
            Some(status) if status.state == Standing::Leads => {
                return status.private_stats.then(|| found.clone());
            }
            _ => {}
        }
    }
    None
}

/// What the files of an instance are called.
#[derive(Debug, Clone, Copy)]
struct Name {
    base_id: BaseId,
    generation: Generation,
}

impl Name {
    fn of_lock(file: &str) -> Option<Self> {
        let (base_id, generation) = file.strip_suffix(".lock")?.split_once('.')?;
        Some(Self { base_id: base_id.parse().ok()?, generation: Generation(generation.parse().ok()?) })
    }

    fn lock(self) -> String {
        format!("{}.{}.lock", self.base_id, self.generation)
    }

    fn socket(self) -> String {
        format!("{}.{}.sock", self.base_id, self.generation)
    }

    fn restart(self) -> String {
        format!("{}.{}.restart", self.base_id, self.generation)
    }

    fn lives(self, run_dir: &RunDir) -> io::Result<bool> {
        match File::options().read(true).write(true).open(run_dir.file(&self.lock())) {
            Ok(file) => lock::is_held(&file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The lock goes last: while it exists, somebody will come and clean up.
    fn remove(self, run_dir: &RunDir) {
        let _ = fs::remove_file(run_dir.file(&self.socket()));
        let _ = fs::remove_file(run_dir.file(&self.restart()));
        let _ = fs::remove_file(run_dir.file(&self.lock()));
    }
}

fn names(run_dir: &RunDir) -> io::Result<Vec<Name>> {
    Ok(run_dir.names()?.iter().filter_map(|name| Name::of_lock(name)).collect())
}

fn open(path: &std::path::Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

enum StartError {
    Starting(BaseId),
    Io(io::Error),
}

impl StartError {
    fn at(self, path: PathBuf) -> ClaimError {
        match self {
            Self::Starting(base_id) => ClaimError::Starting(base_id),
            Self::Io(error) => ClaimError::Io { path, error },
        }
    }
}

/// A claim takes well under a millisecond, so waiting is polling.
fn take_start(start: &File, base_id: BaseId) -> Result<(), StartError> {
    let begun = Instant::now();
    while !lock::try_take(start).map_err(StartError::Io)? {
        if begun.elapsed() > START_LIMIT {
            return Err(StartError::Starting(base_id));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// What the start file says; one that was cut short by a crash says nothing, and the lock files say the rest.
fn newest_generation(start: &mut File) -> io::Result<u64> {
    let mut text = String::new();
    start.take(20).read_to_string(&mut text)?;
    Ok(text.trim().parse().unwrap_or(0))
}

fn of_base_id(base_id: &Option<BaseId>) -> String {
    base_id.map(|base_id| format!(" with base-id {base_id}")).unwrap_or_default()
}

fn list(base_ids: &[BaseId]) -> String {
    base_ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for BaseId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl FromStr for BaseId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

const START_LIMIT: Duration = Duration::from_secs(3);
/// So many generations of a base-id may live at a time.
pub const GENERATIONS: usize = 4;

#[cfg(test)]
#[path = "instance_tests.rs"]
mod tests;
