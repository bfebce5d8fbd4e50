//! Access log filters.

use proxy_config::settings::AccessLogFilter;

use super::{FormatContext, operator};
use crate::name::HeaderId;
use crate::route::header_matches;

/// Whether the stream gets a line.
pub fn passes(filter: &AccessLogFilter, context: &FormatContext<'_>) -> bool {
    match filter {
        AccessLogFilter::Status(comparison) => comparison.holds(context.record.status.get().into()),
        AccessLogFilter::Duration(comparison) => {
            let record = context.record;
            let end = record.end.at(record.start).unwrap_or(context.now);
            comparison.holds(end.saturating_duration_since(record.start).as_millis() as u64)
        }
        AccessLogFilter::NotHealthCheck => !context.record.health_check.get(),
        AccessLogFilter::Sample { numerator, denominator, independent } => {
            let id = if *independent { None } else { request_id_number(context) };
            let drawn = id.unwrap_or(context.random as u64);
            drawn % u64::from(*denominator) < u64::from(*numerator)
        }
        AccessLogFilter::And(filters) => filters.iter().all(|filter| passes(filter, context)),
        AccessLogFilter::Or(filters) => filters.iter().any(|filter| passes(filter, context)),
        AccessLogFilter::Header(matcher) => header_matches(matcher, context.request),
        AccessLogFilter::Flags(None) => !context.record.flags().is_empty(),
        AccessLogFilter::Flags(Some(flags)) => context.record.flags().intersects(*flags),
        AccessLogFilter::GrpcStatus { statuses, exclude } => {
            let status = operator::grpc_status_of_any(context);
            let listed =
                u32::try_from(status).is_ok_and(|status| status < 32 && statuses & (1 << status) != 0);
            listed != *exclude
        }
        AccessLogFilter::LogType { types, exclude } => (types & context.log_type.bit() != 0) != *exclude,
    }
}

/// What a UUID in `x-request-id` begins with: the same for every proxy on the way, so all log the same requests.
fn request_id_number(context: &FormatContext<'_>) -> Option<u64> {
    let id = context.request?.headers.joined(HeaderId::X_REQUEST_ID)?;
    let digits = std::str::from_utf8(id.get(..8)?).ok()?;
    u64::from_str_radix(digits, 16).ok()
}
