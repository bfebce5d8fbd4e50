//! The operator's tool: command line, output, exit codes. What it knows of instances is in `proxy-control`, of configurations in
//! `proxy-config`.

mod arguments;
mod instance;
mod output;
mod readings;
mod stats;
mod status;
mod validate;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command, Validate};
use crate::output::Output;

fn main() -> ExitCode {
    let mut output = Output::default();
    let done = match Arguments::parse().command {
        Command::Validate(Validate::Config(arguments)) => return validate::config(&arguments, &mut output),
        Command::Status(arguments) => status::status(&arguments, &mut output),
        Command::Drain(arguments) => instance::drain(&arguments, &mut output),
        Command::Stop(arguments) => instance::stop(&arguments, &mut output),
        Command::LogLevel(arguments) => instance::log_level(&arguments, &mut output),
        Command::Stats(arguments) => stats::stats(&arguments, &mut output),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.tell(&format!("proxyctl: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
