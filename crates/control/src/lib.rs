#![doc = include_str!("../DESIGN.md")]

pub mod answers;
mod client;
mod instance;
mod lock;
pub mod reload;
pub mod restart;
mod run_dir;
pub mod supervise;

pub use client::{Answer, AskError, Client};
pub use hyper::{Method, StatusCode};
pub use instance::{
    BaseId, Claim, ClaimError, FindError, Found, GENERATIONS, Generation, Instance, find, find_one,
    private_leader,
};
pub use run_dir::{RunDir, RunDirError, stats_prefix};
pub use supervise::{Ended, SpawnError, Spawned, Supervisor};
