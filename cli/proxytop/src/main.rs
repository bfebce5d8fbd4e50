//! Sees what the proxy is doing, now.

#[allow(dead_code, reason = "the views come next")]
mod arguments;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;

fn main() -> ExitCode {
    let _ = Arguments::parse();
    ExitCode::SUCCESS
}
