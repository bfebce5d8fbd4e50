//! The command line as it is typed. Knows nothing but clap: manual pages and completions are made from it as well.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use regex::Regex;

/// Operates proxyd: validates configurations, shows and steers running instances
///
/// Exits with 0 if all is well, 1 if not, 2 if it was not called right or a file cannot be read.
#[derive(Debug, Parser)]
#[command(name = "proxyctl", version, about, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Checks files without running them
    #[command(subcommand)]
    Validate(Validate),

    /// Shows configurations, and what differs between them
    #[command(subcommand)]
    Config(Config),

    /// Says where requests go
    #[command(subcommand)]
    Routes(Routes),

    /// Shows what of Envoy's v3 API is supported, or what of a file is not
    Coverage(Coverage),

    /// Says what the code of a finding means, and what to do about it
    Explain(Explain),

    /// Shows what is running: state, configuration, listeners
    ///
    /// Without --base-id, all instances of the run directory.
    Status(Where),

    /// Drains the listeners of an instance: connections are ended as they become idle
    Drain(Drain),

    /// Drains an instance and waits for its end
    Stop(Stop),

    /// Has an instance read its configuration again and apply what differs
    ///
    /// What did not change keeps its connections. A configuration with errors changes nothing: they are shown, and the exit code
    /// is 1.
    Reload(Reload),

    /// Replaces an instance by a new process that takes over its connections
    ///
    /// The running process validates the configuration with the new program, starts it, and hands over listening sockets and
    /// connections. Until the new process leads, all is taken back if anything fails, and the old one goes on.
    Restart(Restart),

    /// Takes a hot restart back, while the process before lives
    ///
    /// A process that does not lead yet gives up, and ends with what it has accepted. After that the old process takes over again,
    /// as long as connections keep it alive: with the program and the configuration that it has in memory.
    Rollback(Rollback),

    /// Lists the processes of an instance: which one leads, and which are ending
    Epochs(Where),

    /// Shows log levels, or changes them while the instance runs
    LogLevel(LogLevel),

    /// Shows what has happened to an instance: starts, reloads, hot restarts, drains, panics
    ///
    /// Its processes write down their last 240 events in shared memory, so no instance needs to answer; whoever takes over from one that
    /// was killed keeps the last 120. Times are UTC.
    Events(Events),

    /// Shows stats from shared memory, also those of an instance that hangs or was killed
    ///
    /// Histograms are shown as quantiles of all values since the start.
    Stats(Stats),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Validate {
    /// Says everything that is wrong with configuration files, by line and column
    ///
    /// A warning is allowed by a comment on its line or above it: # proxyctl: allow CODE. Exits with 0 if all files can be run,
    /// 1 if there are errors, 2 if a file cannot be read.
    Config(ValidateConfig),
}

/// How files are read.
#[derive(Debug, Args)]
pub(crate) struct Reading {
    /// What proxyd does not implement is left out, and no error
    #[arg(long)]
    pub(crate) allow_unsupported: bool,

    /// Does not look at files that the configuration names: they are on another machine
    #[arg(long)]
    pub(crate) no_files: bool,

    /// Fills in ${VAR} and ${VAR:-default} in values from the environment
    #[arg(long)]
    pub(crate) env_substitution: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ValidateConfig {
    /// Bootstrap files, YAML, JSON or protobuf binary by suffix; folders of such; - for standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) reading: Reading,

    /// Exits with 1 also when there are only warnings
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) deny: Option<Deny>,

    /// What the configuration is for: with edge, every connection manager is held to what untrusted clients call for
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) profile: Option<Profile>,

    /// How findings are printed
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,

    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Deny {
    Warnings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    Edge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
    Sarif,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Prints what a file says, or what an instance runs with, as JSON without secrets
    Dump(ConfigDump),

    /// Says what differs between two files, or between what runs and a file, by resource; exits with 1 if anything does
    Diff(ConfigDiff),

    /// Prints a JSON Schema of what proxyd can run, for editors and validators
    ///
    /// Draft-07. It says less than validate config, which looks at the file as a whole, and is stricter about spelling: enum
    /// values in capitals, numbers without quotes, no empty values.
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigDump {
    /// A bootstrap file [default: the configuration of the running instance]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) instance: Where,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigDiff {
    /// A bootstrap file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// What to compare it with [default: the running instance is compared with the first]
    #[arg(value_name = "NEW")]
    pub(crate) new: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) instance: Where,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Routes {
    /// Says which virtual host and route take a request, why others do not, and what the request becomes
    ///
    /// What HTTP filters do to it is not told. Exits with 1 if no route takes it.
    Explain(RoutesExplain),
}

#[derive(Debug, Args)]
pub(crate) struct RoutesExplain {
    /// A bootstrap file
    #[arg(value_name = "CONFIG")]
    pub(crate) file: PathBuf,

    /// The request's method
    #[arg(value_name = "METHOD")]
    pub(crate) method: String,

    /// The request's URL, or its path where -H names a host; for CONNECT, host and port
    #[arg(value_name = "URL")]
    pub(crate) url: String,

    /// A header of the request
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<String>,

    /// The listener that the request comes to
    #[arg(long, value_name = "NAME")]
    pub(crate) listener: Option<String>,

    /// The filter chain of the listener, by its name, or by its number from 0 with a # ahead of it
    #[arg(long, value_name = "NAME")]
    pub(crate) filter_chain: Option<String>,

    /// The route configuration
    #[arg(long, value_name = "NAME")]
    pub(crate) route_config: Option<String>,

    /// Where the request comes from
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) client: IpAddr,

    /// Stands for what is drawn for each request: decides runtime_fraction and weighted_clusters
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) random: u64,

    #[command(flatten)]
    pub(crate) reading: Reading,

    /// How it is printed
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: TextOrJson,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TextOrJson {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Coverage {
    /// A bootstrap file: only what it uses and proxyd does not support
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The code of a finding, such as unknown-field [default: a list of all]
    #[arg(value_name = "CODE")]
    pub(crate) code: Option<String>,
}

/// Which instance.
#[derive(Debug, Clone, Args)]
pub(crate) struct Where {
    /// The instance with this base-id [default: the only one that runs]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) base_id: Option<u32>,

    /// Directory of the control sockets [default: $XDG_RUNTIME_DIR/proxyd, /run/proxyd or /tmp/proxyd-UID]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) run_dir: Option<PathBuf>,

    /// Prints JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    #[command(flatten)]
    pub(crate) instance: Where,

    /// Stops to accept at once, instead of after the drain time
    #[arg(long)]
    pub(crate) now: bool,

    /// Drains connections, but never stops to accept
    #[arg(long, conflicts_with = "now")]
    pub(crate) keep_listening: bool,

    /// Only listeners whose traffic direction is inbound
    #[arg(long)]
    pub(crate) inbound_only: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    #[command(flatten)]
    pub(crate) instance: Where,

    /// Ends it at once, with its connections
    #[arg(long)]
    pub(crate) now: bool,

    /// How long to wait for the end: 500ms, 30s or 2m
    #[arg(long, alias = "timeout-s", value_name = "TIME", value_parser = time, default_value = "60s")]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Reload {
    /// Waits until connections of what was replaced or removed have ended
    #[arg(long)]
    pub(crate) wait: bool,

    /// How long to wait: 500ms, 30s or 2m
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "60s")]
    pub(crate) timeout: Duration,

    #[command(flatten)]
    pub(crate) instance: Where,
}

#[derive(Debug, Args)]
pub(crate) struct Restart {
    /// Without losing a connection; there is no other restart here
    #[arg(long)]
    pub(crate) hot: bool,

    /// The new process's program [default: that of the running process, as its file is now]
    #[arg(long, value_name = "FILE")]
    pub(crate) binary: Option<PathBuf>,

    /// The new process's configuration file [default: that of the running process]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config_path: Option<PathBuf>,

    /// Only says whether the new program can run the configuration
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// How long to wait, also for another restart to end: 500ms, 30s or 2m
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "60s")]
    pub(crate) timeout: Duration,

    #[command(flatten)]
    pub(crate) instance: Where,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// How long to wait: 500ms, 30s or 2m
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "60s")]
    pub(crate) timeout: Duration,

    #[command(flatten)]
    pub(crate) instance: Where,
}

#[derive(Debug, Args)]
pub(crate) struct LogLevel {
    /// New level of everything: trace, debug, info, warning, error, critical or off
    #[arg(value_name = "LEVEL")]
    pub(crate) level: Option<String>,

    /// New levels of single components
    #[arg(long, value_name = "NAME:LEVEL,...")]
    pub(crate) component: Option<String>,

    #[command(flatten)]
    pub(crate) instance: Where,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Only the last so many
    #[arg(short = 'n', long, value_name = "NUMBER")]
    pub(crate) last: Option<usize>,

    /// Goes on with what happens, until the instance has ended
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// Directory of the counters, in memory
    #[arg(long, value_name = "DIRECTORY", default_value = "/dev/shm")]
    pub(crate) shm_dir: PathBuf,

    #[command(flatten)]
    pub(crate) instance: Where,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// Regular expression: only stats whose name it occurs in
    #[arg(value_name = "FILTER")]
    pub(crate) filter: Option<Regex>,

    /// Only stats that are not 0 or empty
    #[arg(long)]
    pub(crate) usedonly: bool,

    /// Shows them again and again, every so many seconds (1 if not said)
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "1")]
    pub(crate) watch: Option<Seconds>,

    /// Shows also by how much a second stats change; without --watch, during one second
    #[arg(long)]
    pub(crate) rates: bool,

    /// Directory of the counters, in memory
    #[arg(long, value_name = "DIRECTORY", default_value = "/dev/shm")]
    pub(crate) shm_dir: PathBuf,

    #[command(flatten)]
    pub(crate) instance: Where,
}

/// A time that is not 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seconds(pub(crate) Duration);

impl FromStr for Seconds {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let seconds = text.parse().ok().filter(|seconds| (0.01..=86_400.0).contains(seconds));
        seconds
            .map(|seconds| Self(Duration::from_secs_f64(seconds)))
            .ok_or("0.01 to 86400 seconds are expected")
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000)];
    let found = units.iter().find_map(|(unit, milliseconds)| Some((text.strip_suffix(unit)?, milliseconds)));
    let (number, unit) = found.unwrap_or((text, &1000));
    let milliseconds = number.parse::<u32>().ok().map(|number| u64::from(number) * unit);
    milliseconds
        .map(Duration::from_millis)
        .ok_or_else(|| "expected a time, such as 500ms, 30s or 2m".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn times_have_units() {
        let milliseconds = |text| time(text).map(|time| time.as_millis()).ok();
        assert_eq!(
            ["500ms", "30s", "2m", "7"].map(milliseconds),
            [Some(500), Some(30_000), Some(120_000), Some(7000)]
        );
        assert_eq!(["", "s", "1h", "-1s", "1.5s"].map(milliseconds), [None; 5]);
    }

    #[test]
    fn the_wait_of_stop_may_be_said_as_it_once_was() {
        for (option, seconds) in [("--timeout=2m", 120), ("--timeout=7", 7), ("--timeout-s=7", 7)] {
            match Arguments::parse_from(["proxyctl", "stop", option]).command {
                Command::Stop(stop) => assert_eq!(stop.timeout, Duration::from_secs(seconds)),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }
}
