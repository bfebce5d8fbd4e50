//! Processes that this one starts to be replaced: one that looks at the configuration, and the one that takes over.
//!
//! They inherit standard streams, environment, control group and limits, which is why not `proxyctl` starts them.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use proxy_control::supervise::{self, Ended, Supervisor};
use tokio::process::{Child, Command};

use crate::invocation::Invocation;

/// Who starts the process that takes over.
#[derive(Debug)]
pub(crate) enum Spawner {
    /// This process, which is its parent.
    Direct,
    /// The process that started this one.
    Supervised(Supervisor),
}

/// A process that was started.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) pid: u32,
    process: Process,
}

#[derive(Debug)]
enum Process {
    Child(Child),
    OfSupervisor(supervise::Spawned),
}

/// Why a process could not be started, or the configuration not be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    #[error("{} cannot be started: {error}", program.display())]
    Start { program: PathBuf, error: io::Error },
    #[error("{} cannot be started: {error}", program.display())]
    Supervisor { program: PathBuf, error: supervise::SpawnError },
    #[error("{} cannot run the configuration ({ended}):\n{said}", program.display())]
    Invalid { program: PathBuf, ended: String, said: String },
    #[error("{} did not say within {:.1} s whether it can run the configuration", program.display(), limit.as_secs_f64())]
    Undecided { program: PathBuf, limit: Duration },
}

impl Spawner {
    /// Starts `program`.
    ///
    /// # Errors
    /// It is not there, or is no program, or the system has no room for it.
    pub(crate) async fn spawn(&self, program: &Path, arguments: &[OsString]) -> Result<Spawned, SpawnError> {
        match self {
            Spawner::Direct => {
                let start = |error| SpawnError::Start { program: program.to_owned(), error };
                let child = Command::new(program).args(arguments).spawn().map_err(start)?;
                let pid = child.id().ok_or_else(|| start(io::ErrorKind::NotFound.into()))?;
                Ok(Spawned { pid, process: Process::Child(child) })
            }
            Spawner::Supervised(supervisor) => {
                let start = |error| SpawnError::Supervisor { program: program.to_owned(), error };
                let spawned = supervisor.spawn(program, arguments).await.map_err(start)?;
                Ok(Spawned { pid: spawned.pid, process: Process::OfSupervisor(spawned) })
            }
        }
    }
}

impl Spawned {
    /// Resolves when the process has ended and is reaped; says how it ended.
    pub(crate) async fn wait(self) -> String {
        match self.process {
            Process::Child(mut child) => match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            },
            Process::OfSupervisor(spawned) => match spawned.wait().await {
                Ended::Code(code) => format!("exit status: {code}"),
                Ended::Signal(signal) => format!("signal: {signal}"),
                Ended::Unknown => "nobody knows how".to_owned(),
            },
        }
    }
}

/// Asks `invocation`, which only looks at the configuration, whether it can run that. Waits no longer than `limit`.
///
/// # Errors
/// It cannot; what it said about that is part of the error.
pub(crate) async fn validate(invocation: &Invocation, limit: Duration) -> Result<(), SpawnError> {
    let program = || invocation.program().to_owned();
    let mut command = Command::new(&invocation.program);
    command.args(&invocation.arguments).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(limit, command.stderr(Stdio::piped()).output()).await {
        Ok(output) => output.map_err(|error| SpawnError::Start { program: program(), error })?,
        Err(_) => return Err(SpawnError::Undecided { program: program(), limit }),
    };
    if output.status.success() {
        return Ok(());
    }
    let mut said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    if said.len() > SAID_BYTES {
        said.truncate(said.floor_char_boundary(SAID_BYTES));
        said.push_str(" ...");
    }
    Err(SpawnError::Invalid { program: program(), ended: output.status.to_string(), said })
}

/// Of what a program says about a bad configuration.
const SAID_BYTES: usize = 16 << 10;
