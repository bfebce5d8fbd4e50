#![doc = include_str!("../DESIGN.md")]

pub mod clock;
mod drain;
mod mailbox;
mod slot;
mod timer;
mod wheel;
pub mod worker_local;
mod workers;

pub use drain::{Drain, DrainGuard};
pub use mailbox::{Mail, OnAllWorkers};
pub use slot::{Slot, SlotReader, Snapshot};
pub use timer::{Deadlines, TICK, Timer};
pub use workers::{StartError, StopError, WorkerIndex, Workers, WorkersOptions, local_runtime};
