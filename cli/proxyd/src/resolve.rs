//! From what was typed to what is meant: every default filled in, everything parsed.

use std::env;
use std::num::{NonZeroU32, NonZeroUsize};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::bail;
use proxy_control::restart::PROTOCOL;
use proxy_control::{BaseId, RunDir};
use proxy_server::default_config::{self, Target};
use proxy_server::invocation::Invocation;
use proxy_server::logging::{self, LogOptions};
use proxy_server::options::{
    self, Allocator, ConfigSource, FlushOptions, NodeOptions, Options, RestartOptions,
};

use crate::arguments::{DrainStrategy, LogFormat, Mode, RestartEpoch, Run};

/// What `proxyd run` is to do.
#[derive(Debug)]
pub(crate) enum Task {
    Print(String),
    Run(Box<Options>),
}

/// Errors are about what was typed.
pub(crate) fn task(run: Run) -> anyhow::Result<Task> {
    let config = config(&run)?;
    if let (true, ConfigSource::Built { yaml }) = (run.print_config, &config) {
        return Ok(Task::Print(yaml.clone()));
    }
    if run.hot_restart_version {
        let version = if run.disable_hot_restart { "disabled".to_owned() } else { PROTOCOL.to_string() };
        return Ok(Task::Print(format!("{version}\n")));
    }
    if run.use_dynamic_base_id && run.restart_epoch != RestartEpoch::Number(0) {
        bail!(
            "--use-dynamic-base-id takes a base-id that nobody uses, so there is nothing to take over with --restart-epoch"
        );
    }
    let runtime_dir = env::var_os("XDG_RUNTIME_DIR");
    let default_run_dir = || RunDir::default_path(runtime_dir.as_deref().map(Path::new));
    Ok(Task::Run(Box::new(Options {
        invocation: invocation()?,
        config,
        watch: run.watch,
        mode: match run.mode {
            Mode::Serve => options::Mode::Serve,
            Mode::Validate => options::Mode::Validate,
        },
        concurrency: concurrency(run.concurrency),
        base_id: BaseId(run.base_id),
        dynamic_base_id: run.use_dynamic_base_id,
        base_id_path: run.base_id_path,
        run_dir: run.run_dir.unwrap_or_else(default_run_dir),
        shm_dir: run.shm_dir,
        log: LogOptions {
            level: run.log_level.parse()?,
            components: run.component_log_level.parse()?,
            format: match run.log_format {
                LogFormat::Text => logging::LogFormat::Text,
                LogFormat::Json => logging::LogFormat::Json,
            },
            path: run.log_path,
        },
        node: NodeOptions { cluster: run.service_cluster, id: run.service_node, zone: run.service_zone },
        admin_address_path: run.admin_address_path,
        admin_allowed_hosts: run.admin_allowed_host,
        file_flush: FlushOptions {
            interval: Duration::from_millis(run.file_flush_interval_msec.into()),
            min_size: usize::try_from(run.file_flush_min_size_kb).unwrap_or(usize::MAX).saturating_mul(1024),
        },
        restart: RestartOptions {
            epoch: match run.restart_epoch {
                RestartEpoch::Auto => options::RestartEpoch::Auto,
                RestartEpoch::Number(number) => {
                    NonZeroU32::new(number).map_or(options::RestartEpoch::Cold, options::RestartEpoch::Number)
                }
            },
            confirm_after: run.confirm_after,
            parent_shutdown_time: Duration::from_secs(run.parent_shutdown_time_s.into()),
            drain_strategy: match run.drain_strategy {
                DrainStrategy::Gradual => options::DrainStrategy::Gradual,
                DrainStrategy::Immediate => options::DrainStrategy::Immediate,
            },
            disabled: run.disable_hot_restart,
            skip_on_no_parent: run.skip_hot_restart_on_no_parent,
        },
        drain_time: Duration::from_secs(run.drain_time_s.into()),
        shutdown_time: Duration::from_secs(run.shutdown_time_s.into()),
        allow_unsupported: run.allow_unsupported,
        environment: run.env_substitution.then(|| proxy_config::variables(env::vars_os())),
        allocator: Allocator::Jemalloc,
    })))
}

fn config(run: &Run) -> anyhow::Result<ConfigSource> {
    Ok(match (&run.config_path, &run.config_yaml, &run.from, &run.to) {
        (Some(path), overlay, ..) => ConfigSource::File { path: path.clone(), overlay: overlay.clone() },
        (None, Some(yaml), ..) => ConfigSource::Inline { yaml: yaml.clone() },
        (None, None, Some(from), Some(to)) => {
            ConfigSource::Built { yaml: default_config::from_to(*from, &to.parse::<Target>()?) }
        }
        _ => ConfigSource::Built { yaml: default_config::DEFAULT.to_owned() },
    })
}

/// How this process was started. A program that was named by a path is found by it again: it may be a link to the version of
/// the day. One that was found by the shell stays where it was found.
fn invocation() -> anyhow::Result<Invocation> {
    let mut arguments = env::args_os();
    let program = arguments.next().unwrap_or_default();
    let program = match program.as_bytes().contains(&b'/') {
        true => std::path::absolute(program)?,
        false => env::current_exe()?,
    };
    Ok(Invocation { program, arguments: arguments.collect() })
}

/// As Envoy does, 0 is 1.
fn concurrency(asked: Option<u32>) -> NonZeroUsize {
    match asked {
        Some(number) => NonZeroUsize::new(number as usize).unwrap_or(NonZeroUsize::MIN),
        None => thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::arguments::{Arguments, Command};

    fn resolve(arguments: &[&str]) -> anyhow::Result<Task> {
        let all = ["proxyd", "run"].iter().chain(arguments);
        let Command::Run(run) = Arguments::try_parse_from(all).unwrap().command;
        task(*run)
    }

    fn options(arguments: &[&str]) -> Options {
        match resolve(arguments).unwrap() {
            Task::Run(options) => *options,
            Task::Print(text) => panic!("{text}"),
        }
    }

    #[test]
    fn defaults_are_filled_in() {
        let options = options(&[]);
        assert!(matches!(&options.config, ConfigSource::Built { yaml } if yaml == default_config::DEFAULT));
        assert_eq!((options.drain_time.as_secs(), options.shutdown_time.as_secs()), (600, 25));
        assert!(options.run_dir.is_absolute());
    }

    #[test]
    fn no_workers_are_one() {
        assert_eq!(options(&["--concurrency", "0"]).concurrency.get(), 1);
        assert_eq!(options(&["--concurrency", "3"]).concurrency.get(), 3);
    }

    #[test]
    fn configurations_come_from_where_they_were_named() {
        let file = |overlay: Option<&str>| ConfigSource::File {
            path: "a.yaml".into(),
            overlay: overlay.map(str::to_owned),
        };
        assert_eq!(options(&["-c", "a.yaml"]).config, file(None));
        assert_eq!(options(&["-c", "a.yaml", "--config-yaml", "{}"]).config, file(Some("{}")));
        assert_eq!(options(&["--config-yaml", "{}"]).config, ConfigSource::Inline { yaml: "{}".into() });
        let printed = resolve(&["--from", "0.0.0.0:1", "--to", "tcp://a:2", "--print-config"]).unwrap();
        assert!(matches!(printed, Task::Print(yaml) if yaml.contains("STRICT_DNS")));
    }

    #[test]
    fn what_means_nothing_is_said() {
        let error = |arguments: &[&str]| resolve(arguments).unwrap_err().to_string();
        assert!(error(&["--from", "0.0.0.0:1", "--to", "a"]).starts_with("expected http://HOST[:PORT]"));
        assert!(error(&["--component-log-level", "a:info"]).starts_with("unknown component \"a\""));
    }
}
