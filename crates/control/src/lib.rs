#![doc = include_str!("../DESIGN.md")]

mod client;
mod instance;
mod lock;
mod run_dir;

pub use client::{Answer, AskError, Client};
pub use hyper::Method;
pub use instance::{BaseId, ClaimError, FindError, Found, Generation, Instance, find, find_one};
pub use run_dir::{RunDir, RunDirError, stats_prefix};
