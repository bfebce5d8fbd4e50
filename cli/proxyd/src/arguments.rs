//! The command line as it is typed. Knows nothing but clap: manual pages and completions are made from it as well.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// A proxy that reads Envoy's v3 configuration
#[derive(Debug, Parser)]
#[command(name = "proxyd", version, about, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a proxy until it is told to end
    ///
    /// Without a configuration, a page on http://127.0.0.1:10000/ says what to try next.
    Run(Box<Run>),
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Configuration file: YAML, JSON or protobuf binary, by its suffix (.yaml, .yml, .json, .pb)
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config_path: Option<PathBuf>,

    /// Configuration as YAML; merged over that of --config-path
    #[arg(long, value_name = "YAML")]
    pub(crate) config_yaml: Option<String>,

    /// Reads the configuration again when its file changes, or one that it names, also through a replaced symbolic link
    #[arg(long, requires = "config_path")]
    pub(crate) watch: bool,

    /// A proxy with no file: listens here and sends everything to --to
    #[arg(long, value_name = "ADDRESS", requires = "to", conflicts_with_all = ["config_path", "config_yaml"])]
    pub(crate) from: Option<SocketAddr>,

    /// Where --from sends everything: http://HOST, http://HOST:PORT or tcp://HOST:PORT, several separated by commas
    #[arg(long, value_name = "URL,...", requires = "from")]
    pub(crate) to: Option<String>,

    /// Prints the configuration that is built in, or made from --from and --to, and ends
    #[arg(long, conflicts_with_all = ["config_path", "config_yaml"])]
    pub(crate) print_config: bool,

    /// 'serve', or 'validate': says what is wrong with the configuration, and ends
    #[arg(long, value_enum, default_value_t = Mode::Serve)]
    pub(crate) mode: Mode,

    /// Accepts configuration that proxyd does not implement, with a warning, and ignores it
    #[arg(long)]
    pub(crate) allow_unsupported: bool,

    /// Fills in ${VAR} and ${VAR:-default} in values of the configuration from the environment
    #[arg(long)]
    pub(crate) env_substitution: bool,

    /// Worker threads [default: the number of cores]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) concurrency: Option<u32>,

    /// Tells several proxies on one host apart
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) base_id: u32,

    /// Takes a base-id that nobody uses
    #[arg(long, conflicts_with = "base_id")]
    pub(crate) use_dynamic_base_id: bool,

    /// File that gets the base-id
    #[arg(long, value_name = "FILE")]
    pub(crate) base_id_path: Option<PathBuf>,

    /// Directory of the control sockets [default: $XDG_RUNTIME_DIR/proxyd, /run/proxyd or /tmp/proxyd-UID]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) run_dir: Option<PathBuf>,

    /// Directory of the counters, in memory
    #[arg(long, value_name = "DIRECTORY", default_value = "/dev/shm")]
    pub(crate) shm_dir: PathBuf,

    /// What is logged
    #[arg(short, long, value_name = "LEVEL", value_parser = levels(), default_value = "info")]
    pub(crate) log_level: String,

    /// Levels of single components, as 'upstream:debug,dns:trace'; 'proxyctl log-level' lists them
    #[arg(long, value_name = "NAME:LEVEL,...", default_value = "")]
    pub(crate) component_log_level: String,

    /// Log file; opened again on SIGUSR1 [default: standard error]
    #[arg(long, value_name = "FILE")]
    pub(crate) log_path: Option<PathBuf>,

    /// How a log line looks: 'text' or 'json'
    #[arg(long, value_name = "FORMAT", value_parser = log_format, default_value = "text")]
    pub(crate) log_format: LogFormat,

    /// Name of the cluster this proxy belongs to (node.cluster)
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) service_cluster: String,

    /// Name of this proxy (node.id)
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) service_node: String,

    /// Zone this proxy is in (node.locality.zone)
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) service_zone: String,

    /// File that gets the address of the admin port
    #[arg(long, value_name = "FILE")]
    pub(crate) admin_address_path: Option<PathBuf>,

    /// Another name by which the admin port may be addressed, besides IP addresses and localhost
    #[arg(long, value_name = "NAME")]
    pub(crate) admin_allowed_host: Vec<String>,

    /// Milliseconds that lines of access logs wait at most before they are written
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 10_000)]
    pub(crate) file_flush_interval_msec: u32,

    /// Kilobytes of access log lines that a worker collects before they are written
    #[arg(long, value_name = "KILOBYTES", default_value_t = 64)]
    pub(crate) file_flush_min_size_kb: u32,

    /// Which restart of this base-id: 0 is a cold start, 'auto' takes over from a running instance if there is one, and another
    /// number from the instance with the one before
    #[arg(long, value_name = "NUMBER|auto", value_parser = restart_epoch, default_value = "0")]
    pub(crate) restart_epoch: RestartEpoch,

    /// Seconds that this process must have served before the one it takes over from lets go
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "2")]
    pub(crate) confirm_after: Duration,

    /// Seconds that connections may last in a process that another one has taken over from
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    pub(crate) parent_shutdown_time_s: u32,

    /// How connections that cannot move to the next process are asked to end: spread over the drain time, or all at once
    #[arg(long, value_enum, default_value_t = DrainStrategy::Gradual)]
    pub(crate) drain_strategy: DrainStrategy,

    /// Lets no other process take over from this one
    #[arg(long)]
    pub(crate) disable_hot_restart: bool,

    /// Starts cold when there is no instance to take over from
    #[arg(long)]
    pub(crate) skip_hot_restart_on_no_parent: bool,

    /// Prints the version of the hot restart protocol, and ends
    #[arg(long)]
    pub(crate) hot_restart_version: bool,

    /// Starts the proxy as a child, and those that take over from it: for PID 1 of a container, or where one process has to stay.
    /// Forwards signals, and ends with the code of the proxy that led last
    #[arg(long)]
    pub(crate) supervise: bool,

    /// Seconds that draining listeners give their connections
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) drain_time_s: u32,

    /// Seconds that connections may last after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 25)]
    pub(crate) shutdown_time_s: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    Serve,
    Validate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DrainStrategy {
    Gradual,
    Immediate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartEpoch {
    Auto,
    Number(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ if text.contains('%') => {
            Err("Envoy's log patterns are not supported, choose text or json".to_owned())
        }
        _ => Err("expected text or json".to_owned()),
    }
}

fn restart_epoch(text: &str) -> Result<RestartEpoch, String> {
    if text == "auto" {
        return Ok(RestartEpoch::Auto);
    }
    text.parse().map(RestartEpoch::Number).map_err(|_| "expected a number or auto".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|time| *time <= LONGEST).ok_or_else(|| "expected seconds, such as 2 or 0.5".to_owned())
}

const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

fn levels() -> PossibleValuesParser {
    let warning = PossibleValue::new("warning").alias("warn");
    let names = ["trace", "debug", "info"].map(PossibleValue::new).into_iter().chain([warning]);
    names.chain(["error", "critical", "off"].map(PossibleValue::new)).into()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn error(arguments: &[&str]) -> String {
        let all = ["proxyd", "run"].iter().chain(arguments);
        Arguments::try_parse_from(all).unwrap_err().to_string()
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_cannot_be_is_said() {
        assert!(error(&["--from", "127.0.0.1:1"]).contains("--to <URL,...>"));
        assert!(
            error(&["--from", "1:1", "--to", "http://a"])
                .contains("invalid value '1:1' for '--from <ADDRESS>'")
        );
        assert!(
            error(&["-c", "a", "--from", "1.1.1.1:1", "--to", "http://a"]).contains("cannot be used with")
        );
        assert!(error(&["--log-format", "[%Y-%m-%d] %v"]).contains("Envoy's log patterns are not supported"));
        assert!(
            error(&["-l", "loud"])
                .contains("[possible values: trace, debug, info, warning, error, critical, off]")
        );
    }

    #[test]
    fn envoys_spellings_are_taken() {
        let line = "proxyd run -c envoy.yaml --config-yaml {} --concurrency 0 --base-id 7 -l warn --component-log-level dns:trace \
                    --log-path log --service-cluster c --service-node n --service-zone z --admin-address-path a \
                    --drain-time-s 5 --file-flush-interval-msec 50 --file-flush-min-size-kb 1 --mode validate";
        let Command::Run(run) = Arguments::try_parse_from(line.split_whitespace()).unwrap().command;
        assert_eq!(
            (run.concurrency, run.base_id, run.log_level.as_str(), run.mode),
            (Some(0), 7, "warn", Mode::Validate)
        );
    }
}
