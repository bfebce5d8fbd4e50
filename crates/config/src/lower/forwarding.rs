//! What a connection manager does to requests before filters see them.

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core_v3;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as manager_v3;
use envoy_types::pb::envoy::extensions::http::early_header_mutation::header_mutation::v3 as early_v3;
use envoy_types::pb::envoy::extensions::http::original_ip_detection::custom_header::v3 as custom_v3;
use envoy_types::pb::envoy::extensions::http::original_ip_detection::xff::v3 as xff_v3;
use envoy_types::pb::envoy::extensions::request_id::uuid::v3 as uuid_v3;
use manager_v3::HttpConnectionManager;

use super::{Context, address, any, header, value};
use crate::settings::{
    ForwardedForDetection, Forwarding, HeaderMutations, IpDetection, StripPort, UserAgent,
};
use crate::{Code, Path};

pub(super) fn lower(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &HttpConnectionManager,
) -> Forwarding {
    let via = path.field("via");
    Forwarding {
        early_mutations: early_mutations(context, path, message),
        strip_port: strip_port(context, path, message),
        strip_trailing_dot: message.strip_trailing_host_dot,
        via: (!message.via.is_empty()).then(|| header::header_value(context, &via, &message.via)),
        add_user_agent: value::flag(message.add_user_agent.as_ref(), false).then(|| user_agent(context)),
        scheme_is_https: scheme(context, path, message),
        detections: detections(context, path, message),
        plain_request_ids: plain_request_ids(context, path, message),
    }
}

fn strip_port(context: &mut Context<'_>, path: &Path<'_>, message: &HttpConnectionManager) -> StripPort {
    use manager_v3::http_connection_manager::StripPortMode;
    let any = matches!(message.strip_port_mode, Some(StripPortMode::StripAnyHostPort(true)));
    match (message.strip_matching_host_port, any) {
        (true, true) => {
            let problem = "strip_matching_host_port and strip_any_host_port exclude each other";
            context.error(&path.field("strip_any_host_port"), Code::CONFLICT, problem);
            StripPort::Any
        }
        (true, false) => StripPort::Matching,
        (false, true) => StripPort::Any,
        (false, false) => StripPort::Never,
    }
}

fn user_agent(context: &Context<'_>) -> UserAgent {
    let node = &context.node;
    UserAgent {
        cluster: Bytes::copy_from_slice(node.cluster.as_bytes()),
        node: Bytes::copy_from_slice(node.id.as_bytes()),
    }
}

fn scheme(context: &mut Context<'_>, path: &Path<'_>, message: &HttpConnectionManager) -> Option<bool> {
    use core_v3::scheme_header_transformation::Transformation;
    let here = path.field("scheme_header_transformation");
    let message = message.scheme_header_transformation.as_ref()?;
    match message.transformation.as_ref()? {
        Transformation::SchemeToOverwrite(scheme) => match scheme.as_str() {
            "http" => Some(false),
            "https" => Some(true),
            _ => {
                let here = here.field("scheme_to_overwrite");
                context.error(&here, Code::INVALID, "http or https is expected");
                None
            }
        },
    }
}

fn early_mutations(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &HttpConnectionManager,
) -> Vec<HeaderMutations> {
    let here = path.field("early_header_mutation_extensions");
    let mut lowered = Vec::new();
    for (index, extension) in message.early_header_mutation_extensions.iter().enumerate() {
        let here = here.index(index);
        let here = here.field("typed_config");
        let Some(any) = &extension.typed_config else {
            context.missing(&here, "typed_config is required");
            continue;
        };
        if !any::holds::<early_v3::HeaderMutation>(any) {
            let name = any::type_name(any);
            context.unsupported_type(&here, format_args!("the early mutation {name} is not supported"));
            continue;
        }
        if let Some(message) = any::decode::<early_v3::HeaderMutation>(context, &here, any) {
            lowered.extend(header::mutations(context, &here.field("mutations"), &message.mutations));
        }
    }
    lowered
}

fn detections(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &HttpConnectionManager,
) -> Vec<IpDetection> {
    let here = path.field("original_ip_detection_extensions");
    let extensions = &message.original_ip_detection_extensions;
    if !extensions.is_empty()
        && (value::flag(message.use_remote_address.as_ref(), false) || message.xff_num_trusted_hops > 0)
    {
        let problem = "original_ip_detection_extensions excludes use_remote_address and xff_num_trusted_hops";
        context.error(&here, Code::CONFLICT, problem);
    }
    let each = extensions.iter().enumerate();
    each.filter_map(|(index, extension)| detection(context, &here.index(index), extension)).collect()
}

fn detection(
    context: &mut Context<'_>,
    path: &Path<'_>,
    extension: &core_v3::TypedExtensionConfig,
) -> Option<IpDetection> {
    let here = path.field("typed_config");
    let Some(any) = &extension.typed_config else {
        context.missing(&here, "typed_config is required");
        return None;
    };
    if any::holds::<xff_v3::XffConfig>(any) {
        let message: xff_v3::XffConfig = any::decode(context, &here, any)?;
        let trusted = message.xff_trusted_cidrs.as_ref();
        if trusted.is_some() && message.xff_num_trusted_hops > 0 {
            let problem = "xff_num_trusted_hops and xff_trusted_cidrs exclude each other";
            context.error(&here.field("xff_trusted_cidrs"), Code::CONFLICT, problem);
        }
        let cidrs = here.field("xff_trusted_cidrs");
        return Some(IpDetection::ForwardedFor(ForwardedForDetection {
            hops: message.xff_num_trusted_hops,
            trusted: trusted.map(|message| address::cidrs(context, &cidrs.field("cidrs"), &message.cidrs)),
            append: !value::flag(message.skip_xff_append.as_ref(), true),
        }));
    }
    if any::holds::<custom_v3::CustomHeaderConfig>(any) {
        let message: custom_v3::CustomHeaderConfig = any::decode(context, &here, any)?;
        let reject = here.field("reject_with_status");
        let status = message.reject_with_status.as_ref().map(|status| status.code);
        let reject = match status.map(u16::try_from) {
            Some(Ok(status @ 200..=599)) => Some(status),
            Some(_) => {
                context.error(
                    &reject.field("code"),
                    Code::OUT_OF_RANGE,
                    "a status from 200 to 599 is expected",
                );
                None
            }
            None => None,
        };
        return Some(IpDetection::Header {
            name: header::header_name(context, &here.field("header_name"), &message.header_name)?,
            trusted: message.allow_extension_to_set_address_as_trusted,
            reject,
        });
    }
    let name = any::type_name(any);
    context.unsupported_type(&here, format_args!("detection of addresses by {name} is not supported"));
    None
}

/// Whether request ids stay as they are; there is no tracing whose reason could stand in them.
fn plain_request_ids(context: &mut Context<'_>, path: &Path<'_>, message: &HttpConnectionManager) -> bool {
    let here = path.field("request_id_extension");
    let here = here.field("typed_config");
    let Some(any) = message.request_id_extension.as_ref().and_then(|message| message.typed_config.as_ref())
    else {
        return false;
    };
    if !any::holds::<uuid_v3::UuidRequestIdConfig>(any) {
        let name = any::type_name(any);
        context.unsupported_type(&here, format_args!("request ids by {name} are not supported"));
        return false;
    }
    let message = any::decode::<uuid_v3::UuidRequestIdConfig>(context, &here, any);
    message.is_some_and(|message| !value::flag(message.pack_trace_reason.as_ref(), true))
}
