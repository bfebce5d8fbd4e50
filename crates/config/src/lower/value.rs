//! Scalars: durations and wrapped numbers with their bounds.

use std::ops::RangeInclusive;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::{RuntimeFeatureFlag, RuntimeFractionalPercent};
use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use envoy_types::pb::google::protobuf::{BoolValue, Duration as DurationMessage, UInt32Value};

use super::Context;
use crate::settings::Fraction;
use crate::settings::RuntimeValue;
use crate::{Code, Path};

/// The duration at `path`; `None` when unset. Negative ones and those over 10,000 years are refused.
pub(super) fn duration(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&DurationMessage>,
) -> Option<Duration> {
    let message = message?;
    let seconds = u64::try_from(message.seconds).ok().filter(|seconds| *seconds <= MAX_SECONDS);
    let nanos = u32::try_from(message.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    match (seconds, nanos) {
        (Some(seconds), Some(nanos)) => Some(Duration::new(seconds, nanos)),
        _ => {
            context.error(path, Code::OUT_OF_RANGE, "a duration from 0s to 315576000000s is expected");
            None
        }
    }
}

/// A limit that 0 switches off; `default` when unset.
pub(super) fn limit(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&DurationMessage>,
    default: Option<Duration>,
) -> Option<Duration> {
    match message {
        None => default,
        Some(_) => duration(context, path, message).filter(|duration| !duration.is_zero()),
    }
}

/// A limit that overrides an outer one: outer `None` when unset, `Some(None)` when switched off by 0.
pub(super) fn override_limit(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&DurationMessage>,
) -> Option<Option<Duration>> {
    message.map(|_| limit(context, path, message, None))
}

/// A number within `range`; `default` when unset.
pub(super) fn number(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&UInt32Value>,
    range: RangeInclusive<u32>,
    default: u32,
) -> u32 {
    match message {
        None => default,
        Some(message) if range.contains(&message.value) => message.value,
        Some(message) => {
            let (low, high) = (range.start(), range.end());
            let value = message.value;
            context.error(path, Code::OUT_OF_RANGE, format_args!("{value} is not between {low} and {high}"));
            default
        }
    }
}

/// A share of all requests; `default` when unset.
pub(super) fn fraction(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&FractionalPercent>,
    default: Fraction,
) -> Fraction {
    message.map_or(default, |message| Fraction {
        numerator: message.numerator,
        denominator: denominator(context, path, message),
    })
}

/// The same of a value that a runtime key may change.
pub(super) fn runtime_fraction(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&RuntimeFractionalPercent>,
    default: Fraction,
) -> Fraction {
    let Some(message) = message else { return default };
    let here = path.field("default_value");
    if message.default_value.is_none() {
        context.missing(&here, "a fraction is required");
    }
    let default = fraction(context, &here, message.default_value.as_ref(), default);
    context.runtime(&message.runtime_key).and_then(RuntimeValue::fraction).unwrap_or(default)
}

/// What a fraction is a part of.
pub(super) fn denominator(context: &mut Context<'_>, path: &Path<'_>, message: &FractionalPercent) -> u32 {
    match enumeration(context, &path.field("denominator"), message.denominator) {
        DenominatorType::Hundred => 100,
        DenominatorType::TenThousand => 10_000,
        DenominatorType::Million => 1_000_000,
    }
}

/// A count of which 0 means no limit.
pub(super) fn count(message: Option<&UInt32Value>) -> Option<u32> {
    message.map(|message| message.value).filter(|count| *count > 0)
}

pub(super) fn flag(message: Option<&BoolValue>, default: bool) -> bool {
    message.map_or(default, |message| message.value)
}

/// Whether something is switched on; true when unset.
pub(super) fn feature(context: &mut Context<'_>, message: Option<&RuntimeFeatureFlag>) -> bool {
    let Some(message) = message else { return true };
    let value = context.runtime(&message.runtime_key).and_then(RuntimeValue::flag);
    value.unwrap_or_else(|| flag(message.default_value.as_ref(), true))
}

/// An enum value; one that the v3 API does not have is refused and read as the default.
pub(super) fn enumeration<E: TryFrom<i32> + Default>(
    context: &mut Context<'_>,
    path: &Path<'_>,
    value: i32,
) -> E {
    E::try_from(value).unwrap_or_else(|_| {
        context.error(path, Code::UNKNOWN_ENUM_VALUE, format_args!("{value} is not a value of this enum"));
        E::default()
    })
}

/// The proto3 JSON mapping's bound.
const MAX_SECONDS: u64 = 315_576_000_000;
