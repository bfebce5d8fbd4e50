//! `csrf`.

use envoy_types::pb::envoy::extensions::filters::http::csrf::v3 as csrf_v3;

use crate::Path;
use crate::lower::{Context, matcher, value};
use crate::settings::{CsrfPolicy, Fraction};

pub(super) fn lower(context: &mut Context<'_>, path: &Path<'_>, message: &csrf_v3::CsrfPolicy) -> CsrfPolicy {
    let (enabled, shadow) = (path.field("filter_enabled"), path.field("shadow_enabled"));
    if message.filter_enabled.is_none() {
        context.missing(&enabled, "a fraction is required");
    }
    CsrfPolicy {
        enabled: value::runtime_fraction(context, &enabled, message.filter_enabled.as_ref(), Fraction::NONE),
        shadow: value::runtime_fraction(context, &shadow, message.shadow_enabled.as_ref(), Fraction::NONE),
        origins: matcher::strings(context, &path.field("additional_origins"), &message.additional_origins),
    }
}
