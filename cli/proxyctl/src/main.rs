//! The operator's tool: command line, output, exit codes. What it knows of instances is in `proxy-control`, of configurations in
//! `proxy-config`.

mod arguments;
mod config;
mod coverage;
mod events;
mod generations;
mod instance;
mod output;
mod readings;
mod reload;
mod report;
mod restart;
mod routes;
mod stats;
mod status;
mod validate;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::{Arguments, Command, Config, Routes, Validate};
use crate::output::Output;

fn main() -> ExitCode {
    let mut output = Output::default();
    let done = match Arguments::parse().command {
        Command::Validate(Validate::Config(arguments)) => return validate::config(&arguments, &mut output),
        Command::Config(Config::Dump(arguments)) => config::dump(&arguments, &mut output),
        Command::Config(Config::Diff(arguments)) => config::diff(&arguments, &mut output),
        Command::Config(Config::Schema) => {
            output.json(&proxy_config::json_schema());
            Ok(())
        }
        Command::Routes(Routes::Explain(arguments)) => routes::explain(&arguments, &mut output),
        Command::Coverage(arguments) => coverage::coverage(&arguments, &mut output),
        Command::Explain(arguments) => validate::explain(&arguments, &mut output),
        Command::Status(arguments) => status::status(&arguments, &mut output),
        Command::Drain(arguments) => instance::drain(&arguments, &mut output),
        Command::Stop(arguments) => instance::stop(&arguments, &mut output),
        Command::Reload(arguments) => reload::reload(&arguments, &mut output),
        Command::Restart(arguments) if !arguments.hot => {
            output.tell(COLD_RESTART);
            return ExitCode::from(2);
        }
        Command::Restart(arguments) => restart::restart(&arguments, &mut output),
        Command::Rollback(arguments) => restart::rollback(&arguments, &mut output),
        Command::Epochs(arguments) => generations::epochs(&arguments, &mut output),
        Command::LogLevel(arguments) => instance::log_level(&arguments, &mut output),
        Command::Events(arguments) => events::events(&arguments, &mut output),
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

const COLD_RESTART: &str = "\
proxyctl: a restart without --hot would end the process, drop what does not end in time, and refuse connections until another one
runs. That is `proxyctl stop`, and a new start by whoever starts it. `proxyctl restart --hot` loses nothing.";
