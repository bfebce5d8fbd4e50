//! The router.

use envoy_types::pb::envoy::extensions::filters::http::router::v3 as router_v3;

use crate::lower::{Context, access_log, value};
use crate::settings::Router;
use crate::{Code, Path};

pub(super) fn lower(context: &mut Context<'_>, path: &Path<'_>, message: &router_v3::Router) -> Router {
    if !value::flag(message.dynamic_stats.as_ref(), true) {
        let here = path.field("dynamic_stats");
        context.error(&here, Code::UNSUPPORTED_VALUE, "dynamic_stats cannot be switched off");
    }
    Router {
        suppress_envoy_headers: message.suppress_envoy_headers,
        respect_expected_timeout: message.respect_expected_rq_timeout,
        upstream_logs: access_log::lower(context, &path.field("upstream_log"), &message.upstream_log).into(),
    }
}
