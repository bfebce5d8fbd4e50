//! `proxyd run --supervise`: a parent that stays while generations come and go, for PID 1 of a container and for whoever
//! wants one process to watch. [`run`] is that parent, [`Supervisor`] what a generation knows of it.
//!
//! They talk over a SOCK_SEQPACKET pair per generation, whose number the generation finds in its environment. A supervisor
//! is not needed for a generation to live: when it is gone, its generations serve on.

mod message;
mod parent;
mod supervisor;

pub use parent::run;
pub use supervisor::{SpawnError, Spawned, Supervisor, is_supervised};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody knows: who would have told is gone.
    Unknown,
}

/// The environment variable with the number of a generation's descriptor.
const VARIABLE: &str = "PROXYD_SUPERVISOR";
