//! Access log filters: which streams get a line.

use envoy_types::pb::envoy::config::accesslog::v3 as log_v3;
use envoy_types::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use envoy_types::pb::envoy::data::accesslog::v3::AccessLogType;

use super::{Context, matcher, value};
use crate::settings::{
    AccessLogFilter, Comparison, ComparisonOperation, Fraction, ResponseFlags, RuntimeValue,
};
use crate::{Code, Path};

pub(super) fn lower(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &log_v3::AccessLogFilter,
) -> Option<AccessLogFilter> {
    let Some(specifier) = &message.filter_specifier else {
        context.missing(path, "a filter is required");
        return None;
    };
    Some(match specifier {
        FilterSpecifier::StatusCodeFilter(message) => {
            let here = path.field("status_code_filter");
            AccessLogFilter::Status(comparison(context, &here, message.comparison.as_ref())?)
        }
        FilterSpecifier::DurationFilter(message) => {
            let here = path.field("duration_filter");
            AccessLogFilter::Duration(comparison(context, &here, message.comparison.as_ref())?)
        }
        FilterSpecifier::NotHealthCheckFilter(_) => AccessLogFilter::NotHealthCheck,
        FilterSpecifier::RuntimeFilter(message) => {
            let here = path.field("runtime_filter");
            let percent = here.field("percent_sampled");
            let sampled =
                value::fraction(context, &percent, message.percent_sampled.as_ref(), Fraction::NONE);
            let runtime = context.runtime(&message.runtime_key).and_then(RuntimeValue::fraction);
            let Fraction { numerator, denominator } = runtime.unwrap_or(sampled);
            AccessLogFilter::Sample {
                numerator,
                denominator,
                independent: message.use_independent_randomness,
            }
        }
        FilterSpecifier::AndFilter(message) => {
            AccessLogFilter::And(all(context, &path.field("and_filter"), &message.filters)?)
        }
        FilterSpecifier::OrFilter(message) => {
            AccessLogFilter::Or(all(context, &path.field("or_filter"), &message.filters)?)
        }
        FilterSpecifier::HeaderFilter(message) => {
            let here = path.field("header_filter");
            let Some(header) = &message.header else {
                context.missing(&here, "header is required");
                return None;
            };
            AccessLogFilter::Header(matcher::header(context, &here.field("header"), header)?)
        }
        FilterSpecifier::ResponseFlagFilter(message) => {
            flags(context, &path.field("response_flag_filter"), message)
        }
        FilterSpecifier::GrpcStatusFilter(message) => AccessLogFilter::GrpcStatus {
            statuses: bits(message.statuses.iter().copied()),
            exclude: message.exclude,
        },
        FilterSpecifier::LogTypeFilter(message) => AccessLogFilter::LogType {
            types: bits(message.types.iter().filter(|t| AccessLogType::try_from(**t).is_ok()).copied()),
            exclude: message.exclude,
        },
        FilterSpecifier::TraceableFilter(_) => {
            context.unsupported(&path.field("traceable_filter"), "a filter on tracing");
            return None;
        }
        FilterSpecifier::MetadataFilter(_) => {
            context.unsupported(&path.field("metadata_filter"), "a filter on metadata");
            return None;
        }
        FilterSpecifier::ExtensionFilter(_) => {
            context.unsupported(&path.field("extension_filter"), "an extension filter");
            return None;
        }
    })
}

fn all(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[log_v3::AccessLogFilter],
) -> Option<Box<[AccessLogFilter]>> {
    let here = path.field("filters");
    let each = messages.iter().enumerate();
    let lowered: Vec<_> = each.map(|(index, message)| lower(context, &here.index(index), message)).collect();
    lowered.into_iter().collect()
}

fn comparison(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&log_v3::ComparisonFilter>,
) -> Option<Comparison> {
    use log_v3::comparison_filter::Op;
    let here = path.field("comparison");
    let Some(message) = message else {
        context.missing(&here, "comparison is required");
        return None;
    };
    let operation = match value::enumeration(context, &here.field("op"), message.op) {
        Op::Eq => ComparisonOperation::Equal,
        Op::Ge => ComparisonOperation::GreaterOrEqual,
        Op::Le => ComparisonOperation::LessOrEqual,
        Op::Ne => ComparisonOperation::NotEqual,
    };
    let value = message.value.as_ref().map_or(0, |value| {
        let runtime = context.runtime(&value.runtime_key).and_then(RuntimeValue::count);
        runtime.map_or(value.default_value, |count| u32::try_from(count).unwrap_or(u32::MAX))
    });
    Some(Comparison { operation, value })
}

fn flags(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &log_v3::ResponseFlagFilter,
) -> AccessLogFilter {
    let here = path.field("flags");
    let mut flags = ResponseFlags::default();
    for (index, name) in message.flags.iter().enumerate() {
        match ResponseFlags::from_short_name(name) {
            Some(flag) => flags = flags.with(flag),
            None => {
                context.error(
                    &here.index(index),
                    Code::INVALID,
                    format_args!("{name:?} is no response flag"),
                );
            }
        }
    }
    AccessLogFilter::Flags(Some(flags).filter(|flags| !flags.is_empty()))
}

fn bits(numbers: impl Iterator<Item = i32>) -> u32 {
    numbers.filter(|number| (0..32).contains(number)).fold(0, |bits, number| bits | 1 << number)
}
