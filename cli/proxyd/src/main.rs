//! proxyd itself: no filters but its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    proxyd::main(proxyd::Extensions::default())
}
