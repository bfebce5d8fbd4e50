#![doc = include_str!("../DESIGN.md")]

mod boxed;
pub mod clock;
mod drain;
mod instant;
pub mod log_file;
mod loop_stats;
mod mailbox;
mod pulse;
mod slot;
mod timer;
mod wheel;
pub mod worker_local;
mod workers;

pub use boxed::boxed;
pub use drain::{Drain, DrainGuard};
pub use instant::Instant;
pub use loop_stats::LoopStats;
pub use mailbox::{Mail, OnAllWorkers};
pub use pulse::{Beat, Pulse};
pub use slot::{Slot, SlotReader, Snapshot};
pub use timer::{Deadlines, TICK, Timer};
pub use workers::{
    Peers, StartError, StopError, WorkerIndex, Workers, WorkersOptions, local_runtime, measured_local_runtime,
};
