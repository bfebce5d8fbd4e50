//! `health_check`.

use envoy_types::pb::envoy::extensions::filters::http::health_check::v3 as health_v3;

use crate::lower::{Context, matcher, value};
use crate::settings::{HealthCheck, HealthCheckMode};
use crate::{Code, Path};

pub(super) fn lower(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &health_v3::HealthCheck,
) -> HealthCheck {
    if message.pass_through_mode.is_none() {
        context.missing(&path.field("pass_through_mode"), "true or false is required");
    }
    let cache = path.field("cache_time");
    let cache_time = value::limit(context, &cache, message.cache_time.as_ref(), None);
    let clusters = &message.cluster_min_healthy_percentages;
    let mode = if value::flag(message.pass_through_mode.as_ref(), false) {
        if !clusters.is_empty() {
            let here = path.field("cluster_min_healthy_percentages");
            context.error(&here, Code::CONFLICT, "this and pass_through_mode exclude each other");
        }
        HealthCheckMode::PassThrough { cache_time }
    } else {
        if cache_time.is_some() {
            context.error(&cache, Code::CONFLICT, "a cache needs pass_through_mode");
        }
        let mut clusters: Vec<_> =
            clusters.iter().map(|(name, percent)| (name.as_str().into(), percent.value)).collect();
        clusters.sort_by(|(one, _): &(Box<str>, f64), (other, _)| one.cmp(other));
        HealthCheckMode::Answered { clusters }
    };
    HealthCheck { headers: matcher::headers(context, &path.field("headers"), &message.headers), mode }
}
