#![doc = include_str!("../DESIGN.md")]

mod finding;
mod locate;
pub mod settings;

pub use finding::{Code, Finding, Findings, MAX_FINDINGS, Path, Place, Severity, Step};
pub use locate::Locator;
