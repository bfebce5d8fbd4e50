//! Paths that change something, and `/ready`, which says what came of it.

use http::StatusCode;
use serde_json::json;

use super::answer::Answer;
use super::query::Query;
use super::routes::Context;
use super::server_info::state_name;
use super::state::{DrainListeners, ServerState, ShutDown};

pub(super) fn ready(context: &Context, _: &Query) -> Answer {
    let state = context.state.server().state;
    let status = if state == ServerState::Live { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Answer::text(format!("{}\n", state_name(state))).with_status(status)
}

pub(super) fn healthcheck_fail(context: &Context, _: &Query) -> Answer {
    context.state.set_healthy(false);
    ok()
}

pub(super) fn healthcheck_ok(context: &Context, _: &Query) -> Answer {
    context.state.set_healthy(true);
    ok()
}

pub(super) fn drain_listeners(context: &Context, query: &Query) -> Answer {
    context.state.drain_listeners(DrainListeners {
        graceful: query.has("graceful"),
        skip_exit: query.has("skip_exit"),
        inbound_only: query.has("inboundonly"),
    });
    ok()
}

pub(super) fn reopen_logs(context: &Context, _: &Query) -> Answer {
    context.state.reopen_logs();
    ok()
}

pub(super) fn quitquitquit(context: &Context, _: &Query) -> Answer {
    context.state.shut_down(ShutDown::Now);
    ok()
}

pub(super) fn shutdown(context: &Context, _: &Query) -> Answer {
    context.state.shut_down(ShutDown::Drained);
    ok()
}

pub(super) fn memory(context: &Context, _: &Query) -> Answer {
    let memory = context.state.memory();
    Answer::json(&json!({
        "allocated": memory.allocated.to_string(),
        "heap_size": memory.heap_size.to_string(),
        "pageheap_unmapped": memory.pageheap_unmapped.to_string(),
        "pageheap_free": memory.pageheap_free.to_string(),
        "total_thread_cache": memory.total_thread_cache.to_string(),
        "total_physical_bytes": memory.total_physical_bytes.to_string(),
    }))
}

fn ok() -> Answer {
    Answer::text("OK\n")
}
