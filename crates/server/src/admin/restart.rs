//! Reloads and hot restarts for the operator: who leads, and how another process comes to. All but `/hot_restart_version` is ours.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use proxy_control::restart::PROTOCOL;
use tokio::sync::mpsc;

use super::answer::Answer;
use super::query::Query;
use super::routes::Context;
use super::state::{Refusal, RestartRequest};
use crate::options::Options;

pub(super) fn restart(context: &Context, query: &Query) -> Answer {
    let path = |name| query.value(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    progress(context.state.restart(RestartRequest {
        binary: path("binary"),
        config: path("config"),
        dry_run: query.has("dry_run"),
        within: query.value("within_ms").and_then(|text| text.parse().ok()).map(Duration::from_millis),
    }))
}

pub(super) fn reload(context: &Context, query: &Query) -> Answer {
    progress(context.state.reload(query.has("wait")))
}

pub(super) fn rollback(context: &Context, _: &Query) -> Answer {
    progress(context.state.roll_back())
}

pub(super) fn generation(context: &Context, _: &Query) -> Answer {
    Answer::json(&context.state.generation())
}

pub(super) fn hot_restart_version(context: &Context, _: &Query) -> Answer {
    Answer::text(version(&context.options))
}

/// Which processes can take over from this one.
pub(super) fn version(options: &Options) -> String {
    if options.restart.disabled { "disabled".to_owned() } else { PROTOCOL.to_string() }
}

/// Lines as they come, until it is over.
fn progress(begun: Result<mpsc::Receiver<Bytes>, Refusal>) -> Answer {
    match begun {
        Ok(lines) => Answer::json_lines(lines),
        Err(refusal) => {
            let status = match refusal {
                Refusal::Busy(_) => StatusCode::CONFLICT,
                Refusal::Never(_) => StatusCode::FORBIDDEN,
            };
            Answer::error(status, format!("{refusal}\n"))
        }
    }
}
