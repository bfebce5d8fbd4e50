#![doc = include_str!("../DESIGN.md")]

mod check;
mod constraint;
mod difference;
mod extension;
mod finding;
mod forms;
mod json;
mod load;
mod locate;
pub mod lower;
mod reader;
mod redact;
mod rules;
mod scalar;
mod schema;
pub mod settings;
mod supported;
mod tree;
mod wire;
mod yaml;

pub use difference::{Changes, Compared, Difference};
pub use extension::{Extension, ExtensionKind, ExtensionTypes};
pub use finding::{Code, Finding, Findings, MAX_FINDINGS, Path, Place, Severity, Step};
pub use load::{
    Configuration, FileReport, LoadInputs, LoadOptions, Loaded, MAX_FILE, check_message, load,
    load_bootstrap, validate,
};
pub use locate::Locator;
pub use redact::redacted;
