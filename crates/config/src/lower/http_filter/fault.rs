//! `fault`.

use envoy_types::pb::envoy::extensions::filters::common::fault::v3 as common_v3;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3 as fault_v3;

use crate::lower::{Context, matcher, value};
use crate::settings::{AbortStatus, Fault, FaultAbort, FaultDelay, FaultRate, Fraction};
use crate::{Code, Path};

pub(super) fn lower(context: &mut Context<'_>, path: &Path<'_>, message: &fault_v3::HttpFault) -> Fault {
    let delay = message.delay.as_ref().and_then(|message| delay(context, &path.field("delay"), message));
    let abort = message.abort.as_ref().and_then(|message| abort(context, &path.field("abort"), message));
    let here = path.field("response_rate_limit");
    let rate = message.response_rate_limit.as_ref().and_then(|message| rate(context, &here, message));
    Fault {
        delay,
        abort,
        rate,
        cluster: Some(message.upstream_cluster.as_str()).filter(|name| !name.is_empty()).map(Into::into),
        headers: matcher::headers(context, &path.field("headers"), &message.headers),
        nodes: message.downstream_nodes.iter().map(|node| node.as_str().into()).collect(),
        most: message.max_active_faults.as_ref().map(|most| most.value),
    }
}

fn delay(context: &mut Context<'_>, path: &Path<'_>, message: &common_v3::FaultDelay) -> Option<FaultDelay> {
    use common_v3::fault_delay::FaultDelaySecifier as Specifier;
    let fixed = match &message.fault_delay_secifier {
        Some(Specifier::FixedDelay(delay)) => {
            let here = path.field("fixed_delay");
            let fixed = value::duration(context, &here, Some(delay))?;
            if fixed.is_zero() {
                context.error(&here, Code::OUT_OF_RANGE, "a delay greater than 0 is expected");
            }
            Some(fixed)
        }
        Some(Specifier::HeaderDelay(_)) => None,
        None => {
            context.missing(path, "fixed_delay or header_delay is required");
            return None;
        }
    };
    let share = path.field("percentage");
    let share = value::fraction(context, &share, message.percentage.as_ref(), Fraction::NONE);
    Some(FaultDelay { fixed, share })
}

fn abort(context: &mut Context<'_>, path: &Path<'_>, message: &fault_v3::FaultAbort) -> Option<FaultAbort> {
    use fault_v3::fault_abort::ErrorType;
    let status = match &message.error_type {
        Some(ErrorType::HttpStatus(status)) => match u16::try_from(*status) {
            Ok(status @ 200..600) => AbortStatus::Http(status),
            _ => {
                let here = path.field("http_status");
                context.error(&here, Code::OUT_OF_RANGE, "a status from 200 to 599 is expected");
                return None;
            }
        },
        Some(ErrorType::GrpcStatus(status)) => AbortStatus::Grpc(*status),
        Some(ErrorType::HeaderAbort(_)) => AbortStatus::Headers,
        None => {
            context.missing(path, "http_status, grpc_status or header_abort is required");
            return None;
        }
    };
    let share = path.field("percentage");
    let share = value::fraction(context, &share, message.percentage.as_ref(), Fraction::NONE);
    let body = match message.response_body.as_str() {
        "" => "fault filter abort".into(),
        body => body.to_owned().into(),
    };
    Some(FaultAbort { status, share, body })
}

fn rate(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &common_v3::FaultRateLimit,
) -> Option<FaultRate> {
    use common_v3::fault_rate_limit::LimitType;
    let fixed = match &message.limit_type {
        Some(LimitType::FixedLimit(limit)) => {
            if limit.limit_kbps == 0 {
                let here = path.field("fixed_limit");
                context.error(&here.field("limit_kbps"), Code::OUT_OF_RANGE, "at least 1 is expected");
            }
            Some(limit.limit_kbps)
        }
        Some(LimitType::HeaderLimit(_)) => None,
        None => {
            context.missing(path, "fixed_limit or header_limit is required");
            return None;
        }
    };
    let share = path.field("percentage");
    let share = value::fraction(context, &share, message.percentage.as_ref(), Fraction::NONE);
    Some(FaultRate { fixed, share })
}
