//! The admin port over real connections, on a state that stands still.

mod formats;
mod process;
mod serving;
mod stats;
