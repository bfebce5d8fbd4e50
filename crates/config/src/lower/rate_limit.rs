//! `rate_limits` of routes, virtual hosts and filters: what a request is described by for rate limiters.

use envoy_types::pb::envoy::config::route::v3 as route_v3;
use envoy_types::pb::google::protobuf::UInt32Value;

use super::{Context, header, matcher, value};
use crate::Path;
use crate::settings::{LimitAction, RateLimit};

/// Every rate limit at `path`.
pub(super) fn lower(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[route_v3::RateLimit],
) -> Vec<RateLimit> {
    let mut lowered = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let here = path.index(index);
        let stage = value::number(context, &here.field("stage"), message.stage.as_ref(), 0..=10, 0);
        let here = here.field("actions");
        let each = message.actions.iter().enumerate();
        let actions = each.filter_map(|(index, message)| action(context, &here.index(index), message));
        lowered.push(RateLimit { stage, actions: actions.collect() });
    }
    lowered
}

fn action(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &route_v3::rate_limit::Action,
) -> Option<LimitAction> {
    use route_v3::rate_limit::action::ActionSpecifier as Specifier;
    let key = |text: &str, default: &str| if text.is_empty() { default.to_owned() } else { text.to_owned() };
    Some(match &message.action_specifier {
        Some(Specifier::SourceCluster(_)) => LimitAction::SourceCluster,
        Some(Specifier::DestinationCluster(_)) => LimitAction::DestinationCluster,
        Some(Specifier::RemoteAddress(_)) => LimitAction::RemoteAddress,
        Some(Specifier::RequestHeaders(message)) => {
            let name = path.field("request_headers");
            LimitAction::RequestHeader {
                name: header::header_name(context, &name.field("header_name"), &message.header_name)?,
                key: message.descriptor_key.clone(),
                skip_if_absent: message.skip_if_absent,
            }
        }
        Some(Specifier::GenericKey(message)) => LimitAction::GenericKey {
            key: key(&message.descriptor_key, "generic_key"),
            value: message.descriptor_value.clone(),
        },
        Some(Specifier::HeaderValueMatch(message)) => {
            let here = path.field("header_value_match");
            LimitAction::HeaderValueMatch {
                key: key(&message.descriptor_key, "header_match"),
                value: message.descriptor_value.clone(),
                expect: value::flag(message.expect_match.as_ref(), true),
                headers: matcher::headers(context, &here.field("headers"), &message.headers),
            }
        }
        Some(Specifier::QueryParameters(message)) => LimitAction::QueryParameter {
            name: message.query_parameter_name.as_str().into(),
            key: message.descriptor_key.clone(),
            skip_if_absent: message.skip_if_absent,
        },
        Some(Specifier::MaskedRemoteAddress(message)) => {
            let here = path.field("masked_remote_address");
            let mut bits = |field: &str, bits: &Option<UInt32Value>, all: u32| {
                value::number(context, &here.field(field), bits.as_ref(), 0..=all, all) as u8
            };
            LimitAction::MaskedRemoteAddress {
                v4: bits("v4_prefix_mask_len", &message.v4_prefix_mask_len, 32),
                v6: bits("v6_prefix_mask_len", &message.v6_prefix_mask_len, 128),
            }
        }
        Some(Specifier::QueryParameterValueMatch(message)) => {
            let here = path.field("query_parameter_value_match");
            LimitAction::QueryParameterValueMatch {
                key: key(&message.descriptor_key, "query_match"),
                value: message.descriptor_value.clone(),
                expect: value::flag(message.expect_match.as_ref(), true),
                parameters: matcher::queries(
                    context,
                    &here.field("query_parameters"),
                    &message.query_parameters,
                ),
            }
        }
        Some(_) => {
            context.unsupported(path, "this action of a rate limit");
            return None;
        }
        None => {
            context.missing(path, "an action is required");
            return None;
        }
    })
}
