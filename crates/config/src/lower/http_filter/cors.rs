//! `cors`, which has settings on routes only.

use envoy_types::pb::envoy::extensions::filters::http::cors::v3 as cors_v3;

use crate::Path;
use crate::lower::header::header_value;
use crate::lower::{Context, matcher, value};
use crate::settings::{CorsPolicy, Fraction};

pub(super) fn lower_route(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &cors_v3::CorsPolicy,
) -> CorsPolicy {
    let origins = path.field("allow_origin_string_match");
    let (enabled, shadow) = (path.field("filter_enabled"), path.field("shadow_enabled"));
    let flag = |message: &Option<envoy_types::pb::google::protobuf::BoolValue>| {
        message.as_ref().map(|flag| flag.value)
    };
    CorsPolicy {
        origins: matcher::strings(context, &origins, &message.allow_origin_string_match),
        methods: header_value(context, &path.field("allow_methods"), &message.allow_methods),
        headers: header_value(context, &path.field("allow_headers"), &message.allow_headers),
        exposed_headers: header_value(context, &path.field("expose_headers"), &message.expose_headers),
        max_age: header_value(context, &path.field("max_age"), &message.max_age),
        credentials: flag(&message.allow_credentials),
        private_network: flag(&message.allow_private_network_access),
        forward_not_matching: flag(&message.forward_not_matching_preflights),
        enabled: value::runtime_fraction(context, &enabled, message.filter_enabled.as_ref(), Fraction::ALL),
        shadow: value::runtime_fraction(context, &shadow, message.shadow_enabled.as_ref(), Fraction::NONE),
    }
}
