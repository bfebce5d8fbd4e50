//! The daemon without its main function: command line, exit codes, allocator. A program with filters of its own calls
//! [`main`] with them; all else is in `proxy-server`.
//!
//! Exit codes: 0 ended as it was told to, 1 could not run (configuration, address, another instance), 2 wrong usage, 128 + n after
//! the second signal n.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use proxy_control::supervise;
pub use proxy_filters::Extensions;
use proxy_server::options::Mode;
use proxy_server::run::{RunError, run};

use crate::arguments::{Arguments, Command};
use crate::resolve::Task;

mod arguments;
mod resolve;

/// Of those measured the one that holds least for idle connections, at the same CPU time per request: 1.0 KiB for one
/// of HTTP/1 (mimalloc 1.6, or 2.1 with a purge delay of 0; glibc 2.1), and 96 MiB for 10,000 clusters (170, 93; 80).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Does what the command line says. `extensions`: filters besides proxyd's own.
pub fn main(extensions: Extensions) -> ExitCode {
    let Command::Run(arguments) = Arguments::parse().command;
    let supervise = arguments.supervise && !supervise::is_supervised();
    match resolve::task(*arguments) {
        Ok(Task::Print(text)) => {
            let printed = io::stdout().write_all(text.as_bytes());
            if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Ok(Task::Run(options)) if supervise && options.mode == Mode::Serve => supervise_this(),
        Ok(Task::Run(options)) => run(*options, extensions).unwrap_or_else(|error| {
            // Every finding has been printed with its place.
            if !matches!(error, RunError::Config) {
                tell(&error);
            }
            ExitCode::FAILURE
        }),
        Err(error) => {
            tell(&error);
            ExitCode::from(2)
        }
    }
}

/// Runs this program once more, with the same arguments, and stays its parent.
fn supervise_this() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let ended = env::current_exe().and_then(|program| supervise::run(&program, &arguments));
    ended.map(ExitCode::from).unwrap_or_else(|error| {
        tell(&error);
        ExitCode::FAILURE
    })
}

/// Nobody is left to tell if that fails.
fn tell(error: &dyn std::fmt::Display) {
    let _ = writeln!(io::stderr(), "proxyd: {error}");
}
