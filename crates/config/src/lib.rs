#![doc = include_str!("../DESIGN.md")]

mod allow;
mod check;
mod codes;
mod constraint;
mod coverage;
mod difference;
mod excerpt;
mod extension;
mod finding;
mod forms;
mod hint;
mod json;
mod json_schema;
mod lint;
mod load;
mod locate;
pub mod lower;
mod reader;
mod redact;
mod rules;
mod scalar;
mod schema;
#[cfg(test)]
mod secret_tests;
pub mod settings;
mod supported;
mod tree;
mod variable;
mod wire;
mod yaml;

pub use codes::Code;
pub use coverage::{Coverage, coverage};
pub use difference::{Changes, Compared, Difference, KeptChain};
pub use extension::{Extension, ExtensionKind, ExtensionTypes};
pub use finding::{Excerpt, Finding, Findings, MAX_FINDINGS, Path, Place, Severity, Step};
pub use json_schema::json_schema;
pub use load::{
    Configuration, FileReport, LintOptions, LoadInputs, LoadOptions, Loaded, MAX_FILE, ValidateOptions,
    check_message, load, load_bootstrap, validate,
};
pub use locate::Locator;
pub use redact::redacted;
pub use variable::variables;
