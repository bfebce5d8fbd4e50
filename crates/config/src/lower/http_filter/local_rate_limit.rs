//! `local_ratelimit`.

use envoy_types::pb::envoy::extensions::common::ratelimit::v3 as common_v3;
use envoy_types::pb::envoy::extensions::filters::http::local_ratelimit::v3 as rate_v3;

use crate::lower::connection_limit::token_bucket;
use crate::lower::{Context, header, rate_limit, value};
use crate::settings::{Fraction, HeaderMutations, LimitDescriptor, LocalRateLimit, VirtualHostLimits};
use crate::{Code, Path};

pub(super) fn lower_route(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &rate_v3::LocalRateLimit,
) -> LocalRateLimit {
    if message.token_bucket.is_none() {
        context.missing(&path.field("token_bucket"), "a token bucket is required on routes");
    }
    lower(context, path, message)
}

pub(super) fn lower(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &rate_v3::LocalRateLimit,
) -> LocalRateLimit {
    use common_v3::XRateLimitHeadersRfcVersion as Version;
    let bucket = path.field("token_bucket");
    let bucket =
        message.token_bucket.as_ref().and_then(|message| token_bucket(context, &bucket, Some(message)));
    let (enabled, enforced) = (path.field("filter_enabled"), path.field("filter_enforced"));
    let request = path.field("request_headers_to_add_when_not_enforced");
    let response = path.field("response_headers_to_add");
    let rate_limits = rate_limit::of_filter(context, &path.field("rate_limits"), &message.rate_limits);
    let of_host = path.field("vh_rate_limits");
    let version = path.field("enable_x_ratelimit_headers");
    let version: Version = value::enumeration(context, &version, message.enable_x_ratelimit_headers);
    let status = message.status.as_ref().map_or(0, |status| status.code);
    let dynamic = path.field("max_dynamic_descriptors");
    let max_dynamic =
        value::number(context, &dynamic, message.max_dynamic_descriptors.as_ref(), 1..=u32::MAX, 20);
    LocalRateLimit {
        stat_prefix: message.stat_prefix.clone(),
        status: u16::try_from(status).ok().filter(|status| *status >= 400).unwrap_or(429),
        bucket,
        enabled: value::runtime_fraction(context, &enabled, message.filter_enabled.as_ref(), Fraction::NONE),
        enforced: value::runtime_fraction(
            context,
            &enforced,
            message.filter_enforced.as_ref(),
            Fraction::NONE,
        ),
        request_headers: HeaderMutations {
            remove: Vec::new(),
            add: header::additions(context, &request, &message.request_headers_to_add_when_not_enforced),
        },
        response_headers: HeaderMutations {
            remove: Vec::new(),
            add: header::additions(context, &response, &message.response_headers_to_add),
        },
        descriptors: descriptors(context, &path.field("descriptors"), &message.descriptors),
        rate_limits,
        stage: message.stage,
        of_virtual_host: match value::enumeration(context, &of_host, message.vh_rate_limits) {
            common_v3::VhRateLimitsOptions::Override => VirtualHostLimits::Override,
            common_v3::VhRateLimitsOptions::Include => VirtualHostLimits::Include,
            common_v3::VhRateLimitsOptions::Ignore => VirtualHostLimits::Ignore,
        },
        per_connection: message.local_rate_limit_per_downstream_connection,
        always_default: value::flag(message.always_consume_default_token_bucket.as_ref(), true),
        tells: version == Version::DraftVersion03,
        resource_exhausted: message.rate_limited_as_resource_exhausted,
        tells_when: message.enable_retry_after_header,
        max_dynamic: max_dynamic as usize,
    }
}

fn descriptors(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[common_v3::LocalRateLimitDescriptor],
) -> Vec<LimitDescriptor> {
    let mut lowered: Vec<LimitDescriptor> = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let here = path.index(index);
        let entries: Vec<_> =
            message.entries.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect();
        if lowered.iter().any(|other| other.entries == entries) {
            context.error(&here.field("entries"), Code::INVALID, "there is a descriptor like this already");
        }
        let bucket = token_bucket(context, &here.field("token_bucket"), message.token_bucket.as_ref());
        lowered.extend(bucket.map(|bucket| LimitDescriptor { entries, bucket, shadow: message.shadow_mode }));
    }
    lowered
}
