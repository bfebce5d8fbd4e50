#![doc = include_str!("../DESIGN.md")]

mod constraint;
mod finding;
mod forms;
mod json;
mod locate;
mod reader;
mod scalar;
mod schema;
pub mod settings;
mod supported;
mod tree;
mod wire;
mod yaml;

pub use finding::{Code, Finding, Findings, MAX_FINDINGS, Path, Place, Severity, Step};
pub use locate::Locator;
