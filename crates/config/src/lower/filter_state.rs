//! `set_filter_state`, of connections and of requests.

use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3 as state_v3;
use envoy_types::pb::envoy::extensions::filters::http::set_filter_state::v3 as http_v3;
use envoy_types::pb::envoy::extensions::filters::network::set_filter_state::v3 as network_v3;

use super::{Context, access_log, value};
use crate::settings::{FilterStateKind, FilterStateValue, SetFilterState};
use crate::{Code, Path};

pub(super) fn of_requests(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &http_v3::Config,
) -> SetFilterState {
    let here = path.field("on_request_headers");
    let values = values(context, &here, &message.on_request_headers);
    SetFilterState { values, clears_route: message.clear_route_cache }
}

pub(super) fn of_connections(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &network_v3::Config,
) -> SetFilterState {
    let here = path.field("on_new_connection");
    SetFilterState { values: values(context, &here, &message.on_new_connection), clears_route: false }
}

fn values(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[state_v3::FilterStateValue],
) -> Vec<FilterStateValue> {
    let each = messages.iter().enumerate();
    each.filter_map(|(index, message)| one(context, &path.index(index), message)).collect()
}

fn one(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &state_v3::FilterStateValue,
) -> Option<FilterStateValue> {
    use state_v3::filter_state_value::{Key, SharedWithUpstream, Value};
    let Some(Key::ObjectKey(key)) = &message.key else {
        context.missing(path, "object_key is required");
        return None;
    };
    let shared = path.field("shared_with_upstream");
    let sharing: SharedWithUpstream = value::enumeration(context, &shared, message.shared_with_upstream);
    if sharing != SharedWithUpstream::None {
        context.unsupported(&shared, "an object that upstream connections have as well");
    }
    let named = !message.factory_key.is_empty();
    let factory = if named { &message.factory_key } else { key };
    let kind = match factory.as_str() {
        "envoy.string" => FilterStateKind::Text,
        "envoy.tcp_proxy.cluster" => FilterStateKind::TcpCluster,
        factory => {
            let here = path.field(if named { "factory_key" } else { "object_key" });
            // Envoy names its factories after their consumers, none of which there is.
            if factory.starts_with("envoy.") {
                context.unsupported(&here, format_args!("the object factory {factory}"));
            } else {
                let problem = format_args!(
                    "no factory makes objects called {factory:?}; name one by factory_key, envoy.string for a text"
                );
                context.error(&here, Code::INVALID, problem);
            }
            return None;
        }
    };
    let Some(Value::FormatString(format)) = &message.value else {
        context.missing(path, "format_string is required");
        return None;
    };
    let format = access_log::substitution(context, &path.field("format_string"), format)?;
    Some(FilterStateValue { key: key.as_str().into(), kind, format, skip_if_empty: message.skip_if_empty })
}
