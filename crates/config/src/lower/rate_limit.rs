//! `rate_limits` of routes, virtual hosts and filters: what a request is described by for rate limiters.

use envoy_types::pb::envoy::config::core::v3 as core_v3;
use envoy_types::pb::envoy::config::route::v3 as route_v3;
use envoy_types::pb::envoy::config::route::v3::rate_limit as limit_v3;
use envoy_types::pb::envoy::r#type::metadata::v3 as metadata_v3;
use envoy_types::pb::google::protobuf::UInt32Value;

use super::{Context, access_log, address, header, matcher, value};
use crate::settings::{
    Format, HitCount, Hits, LimitAction, LimitValue, MOST_HITS, MetadataOf, Piece, RateLimit, RuntimeValue,
};
use crate::{Code, Path};

/// Every rate limit of a route or virtual host. What they say to rate limit services alone, local rate limits do not go by:
/// `limit`, `hits_addend`, `apply_on_stream_done`.
pub(super) fn of_route(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[route_v3::RateLimit],
) -> Vec<RateLimit> {
    let mut lowered = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let here = path.index(index);
        let stage = value::number(context, &here.field("stage"), message.stage.as_ref(), 0..=10, 0);
        lowered.push(RateLimit {
            stage,
            // In Envoy the key disables it for local rate limits whatever its value.
            applies: message.disable_key.is_empty(),
            actions: actions(context, &here, message),
            hits: Hits { count: HitCount::Fixed(1), puts_back: false },
            tells: tells(context, &here, message),
        });
    }
    lowered
}

/// Every rate limit of a filter.
pub(super) fn of_filter(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[route_v3::RateLimit],
) -> Vec<RateLimit> {
    let mut lowered = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let here = path.index(index);
        let of_routes = [
            ("stage", message.stage.is_some()),
            ("disable_key", !message.disable_key.is_empty()),
            ("limit", message.limit.is_some()),
        ];
        for (field, _) in of_routes.into_iter().filter(|(_, set)| *set) {
            let problem = format_args!("{field} is for rate limits of routes and virtual hosts");
            context.error(&here.field(field), Code::INVALID, problem);
        }
        lowered.push(RateLimit {
            stage: 0,
            applies: !message.apply_on_stream_done,
            actions: actions(context, &here, message),
            hits: hits(context, &here.field("hits_addend"), message.hits_addend.as_ref()),
            tells: tells(context, &here, message),
        });
    }
    lowered
}

fn actions(context: &mut Context<'_>, path: &Path<'_>, message: &route_v3::RateLimit) -> Vec<LimitAction> {
    let here = path.field("actions");
    let each = message.actions.iter().enumerate();
    each.filter_map(|(index, message)| action(context, &here.index(index), message)).collect()
}

fn tells(context: &mut Context<'_>, path: &Path<'_>, message: &route_v3::RateLimit) -> Option<bool> {
    let here = path.field("x_ratelimit_option");
    match value::enumeration(context, &here, message.x_ratelimit_option) {
        limit_v3::XRateLimitOption::Unspecified => None,
        limit_v3::XRateLimitOption::Off => Some(false),
        limit_v3::XRateLimitOption::DraftVersion03 => Some(true),
    }
}

fn hits(context: &mut Context<'_>, path: &Path<'_>, message: Option<&limit_v3::HitsAddend>) -> Hits {
    let one = HitCount::Fixed(1);
    let Some(message) = message else { return Hits { count: one, puts_back: false } };
    let count = match (&message.number, message.format.as_str()) {
        (Some(number), "") if number.value <= MOST_HITS => HitCount::Fixed(number.value),
        (Some(_), "") => {
            context.error(&path.field("number"), Code::OUT_OF_RANGE, format_args!("at most {MOST_HITS}"));
            one
        }
        (None, text) if !text.is_empty() => {
            let here = path.field("format");
            let format = access_log::compiled(context, &here, text);
            match format {
                None => one,
                Some(format) if matches!(&*format.pieces, [Piece::Value { .. }]) => HitCount::Told(format),
                Some(_) => {
                    context.error(&here, Code::INVALID, "exactly one operator is expected");
                    one
                }
            }
        }
        _ => {
            context.error(path, Code::INVALID, "either a number or a format is required");
            one
        }
    };
    Hits { count, puts_back: message.is_negative_hits }
}

/// A value with operators in it, or a text.
fn formatted(context: &mut Context<'_>, path: &Path<'_>, text: &str, default: &str) -> Option<LimitValue> {
    let format = access_log::compiled(context, &path.field("descriptor_value"), text)?;
    Some(match format {
        Format { pieces } if matches!(&*pieces, [Piece::Text(_)]) => match pieces.into_vec().pop() {
            Some(Piece::Text(text)) => LimitValue::Text(text.into()),
            _ => return None,
        },
        format => LimitValue::Format { format, default: default.to_owned() },
    })
}

/// The same where Envoy reads operators only if a runtime flag says so.
fn maybe_formatted(
    context: &mut Context<'_>,
    path: &Path<'_>,
    text: &str,
    default: &str,
) -> Option<LimitValue> {
    match context.runtime(FORMATS).and_then(RuntimeValue::flag) {
        Some(true) => formatted(context, path, text, default),
        _ => Some(LimitValue::Text(text.to_owned())),
    }
}

/// Off by default.
const FORMATS: &str = "envoy.reloadable_features.enable_formatter_for_ratelimit_action_descriptor_value";

fn keys(message: Option<&metadata_v3::MetadataKey>) -> (Box<str>, Box<[Box<str>]>) {
    use metadata_v3::metadata_key::path_segment::Segment;
    let namespace = message.map_or("", |message| &message.key).into();
    let path = message.into_iter().flat_map(|message| &message.path);
    let path = path.map(|part| match &part.segment {
        Some(Segment::Key(key)) => key.as_str().into(),
        // Refused where it stands.
        Some(Segment::Index(_)) | None => "".into(),
    });
    (namespace, path.collect())
}

fn of_metadata(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &limit_v3::action::MetaData,
) -> LimitAction {
    use limit_v3::action::meta_data::Source;
    let (namespace, keys) = keys(message.metadata_key.as_ref());
    LimitAction::Metadata {
        key: message.descriptor_key.clone(),
        of: match value::enumeration(context, &path.field("source"), message.source) {
            Source::Dynamic => MetadataOf::Stream,
            Source::RouteEntry => MetadataOf::Route,
            Source::ClusterEntry => MetadataOf::Cluster,
            Source::ClusterLocalityEntry => MetadataOf::UpstreamHost,
        },
        namespace,
        path: keys,
        default: Some(message.default_value.clone()).filter(|text| !text.is_empty()),
        skip_if_absent: message.skip_if_absent,
    }
}

fn action(context: &mut Context<'_>, path: &Path<'_>, message: &limit_v3::Action) -> Option<LimitAction> {
    use limit_v3::action::ActionSpecifier as Specifier;
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
        Some(Specifier::GenericKey(message)) => {
            let (here, default) = (path.field("generic_key"), &message.default_value);
            LimitAction::GenericKey {
                key: key(&message.descriptor_key, "generic_key"),
                value: maybe_formatted(context, &here, &message.descriptor_value, default)?,
            }
        }
        Some(Specifier::Metadata(message)) => of_metadata(context, &path.field("metadata"), message),
        Some(Specifier::RemoteAddressMatch(message)) => {
            let here = path.field("remote_address_match");
            let matcher = here.field("address_matcher");
            let ranges = message.address_matcher.iter().flat_map(|matcher| &matcher.ranges);
            let ranges = ranges.map(|range| core_v3::CidrRange {
                address_prefix: range.address_prefix.clone(),
                prefix_len: range.prefix_len,
            });
            let ranges: Vec<_> = ranges.collect();
            LimitAction::RemoteAddressMatch {
                key: key(&message.descriptor_key, "remote_address_match"),
                value: formatted(context, &here, &message.descriptor_value, &message.default_value)?,
                networks: address::cidrs(context, &matcher.field("ranges"), &ranges),
                invert: message.address_matcher.as_ref().is_some_and(|matcher| matcher.invert_match),
            }
        }
        Some(Specifier::HeaderValueMatch(message)) => {
            let here = path.field("header_value_match");
            LimitAction::HeaderValueMatch {
                key: key(&message.descriptor_key, "header_match"),
                value: maybe_formatted(context, &here, &message.descriptor_value, &message.default_value)?,
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
                value: maybe_formatted(context, &here, &message.descriptor_value, &message.default_value)?,
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
