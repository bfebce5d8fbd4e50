//! `/server_info`: version, state, uptime, command line and node: `envoy.admin.v3.ServerInfo`.

use serde_json::{Value, json};

use super::answer::Answer;
use super::query::Query;
use super::restart;
use super::routes::Context;
use super::state::{ServerState, ServerStatus};
use crate::options::{ConfigSource, DrainStrategy, Mode, Options};

pub(super) fn server_info(context: &Context, _: &Query) -> Answer {
    let status = context.state.server();
    Answer::json(&json!({
        "version": version(),
        "state": state_name(status.state),
        "uptime_current_epoch": format!("{}s", status.uptime.as_secs()),
        "uptime_all_epochs": format!("{}s", status.uptime_all_epochs.as_secs()),
        "hot_restart_version": restart::version(&context.options),
        "command_line_options": command_line_options(&context.options, status.epoch),
        "node": node(&status),
        "hot_restart_initializing": status.hot_restart_initializing,
    }))
}

/// The value of `envoy.admin.v3.ServerInfo.State`.
pub(super) fn state_name(state: ServerState) -> &'static str {
    match state {
        ServerState::Live => "LIVE",
        ServerState::Draining => "DRAINING",
        ServerState::PreInitializing => "PRE_INITIALIZING",
        ServerState::Initializing => "INITIALIZING",
    }
}

/// Envoy's five parts: revision, version, source state, build type, TLS library.
fn version() -> String {
    let build = if cfg!(debug_assertions) { "DEBUG" } else { "RELEASE" };
    format!("proxyd/{VERSION}/Distribution/{build}/none")
}

/// `envoy.admin.v3.CommandLineOptions`; what proxyd has no option for is left out.
fn command_line_options(options: &Options, epoch: u32) -> Value {
    let (path, yaml) = match &options.config {
        ConfigSource::File { path, overlay } => (path.to_string_lossy().into_owned(), overlay.as_deref()),
        ConfigSource::Inline { yaml } | ConfigSource::Built { yaml } => (String::new(), Some(yaml.as_str())),
    };
    let path_text = |path: &Option<std::path::PathBuf>| {
        path.as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
    };
    json!({
        "base_id": options.base_id.to_string(),
        "concurrency": options.concurrency,
        "config_path": path,
        "config_yaml": yaml.unwrap_or_default(),
        "admin_address_path": path_text(&options.admin_address_path),
        "log_level": options.log.level.name(),
        "component_log_level": options.log.components.to_string(),
        "log_path": path_text(&options.log.path),
        "service_cluster": options.node.cluster,
        "service_node": options.node.id,
        "service_zone": options.node.zone,
        "drain_time": format!("{}s", options.drain_time.as_secs()),
        "parent_shutdown_time": format!("{}s", options.restart.parent_shutdown_time.as_secs()),
        "mode": match options.mode { Mode::Serve => "Serve", Mode::Validate => "Validate" },
        "disable_hot_restart": options.restart.disabled,
        "restart_epoch": epoch,
        "use_dynamic_base_id": options.dynamic_base_id,
        "base_id_path": path_text(&options.base_id_path),
        "drain_strategy": match options.restart.drain_strategy {
            DrainStrategy::Gradual => "Gradual",
            DrainStrategy::Immediate => "Immediate",
        },
        "skip_hot_restart_on_no_parent": options.restart.skip_on_no_parent,
    })
}

fn node(status: &ServerStatus) -> Value {
    let node = &status.node;
    let mut message = json!({ "id": node.id, "cluster": node.cluster });
    if !(node.region.is_empty() && node.zone.is_empty() && node.sub_zone.is_empty()) {
        message["locality"] = json!({ "region": node.region, "zone": node.zone, "sub_zone": node.sub_zone });
    }
    message["user_agent_name"] = "proxyd".into();
    let mut numbers = VERSION.split('.').map(|part| part.parse().unwrap_or(0_u32));
    let mut number = || numbers.next().unwrap_or(0);
    message["user_agent_build_version"] = json!({
        "version": { "major_number": number(), "minor_number": number(), "patch": number() },
    });
    message
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
