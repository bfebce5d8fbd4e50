//! HTTP filters and `typed_per_filter_config`: which type is which filter's. Each filter is lowered in a file of its own.

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::FilterConfig;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as manager_v3;
use envoy_types::pb::google::protobuf::Any;
use prost::{Message, Name};

use super::{Context, FILTER_ORDER, any, filter_state};
use crate::settings::{HttpFilter, HttpFilterConfig, MAX_HTTP_FILTERS, RouteFilter, RouteFilterConfig};
use crate::{Code, ExtensionKind, Path};

mod buffer;
mod compression;
mod cors;
mod csrf;
mod fault;
mod header_mutation;
mod health_check;
mod local_rate_limit;
mod router;

/// The filters in order. The router must be the last one: Envoy accepts a chain without, and then no
/// request is ever answered.
pub(super) fn chain(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[manager_v3::HttpFilter],
) -> Vec<HttpFilter> {
    let mut lowered = Vec::with_capacity(messages.len());
    let mut skipped_last = false;
    if messages.len() > MAX_HTTP_FILTERS {
        let message = format_args!("more than {MAX_HTTP_FILTERS} HTTP filters");
        context.error(path, Code::OUT_OF_RANGE, message);
    }
    for (index, message) in messages.iter().enumerate() {
        let here = path.index(index);
        let last = index + 1 == messages.len();
        let filter = http_filter(context, &here, message);
        match &filter {
            Some(HttpFilter { config: HttpFilterConfig::Router(_), disabled, .. }) => {
                if !last {
                    context.error(&here, FILTER_ORDER, "the router must be the last HTTP filter");
                }
                if *disabled {
                    let message = "the router cannot be disabled";
                    context.error(&here.field("disabled"), Code::INVALID, message);
                }
            }
            Some(_) => {}
            None => skipped_last = last && !context.options.allow_unsupported,
        }
        lowered.extend(filter);
    }
    let router = lowered.iter().any(|filter| matches!(filter.config, HttpFilterConfig::Router(_)));
    if !router && !skipped_last {
        let message = "envoy.filters.http.router must be the last HTTP filter; no request would be answered";
        context.failed = true;
        context.findings.hinted_error(path, Code::NO_TERMINAL_FILTER, message, || Some(ROUTER.to_owned()));
    }
    lowered
}

/// What to add.
const ROUTER: &str = "add to this list, as the last one:
- name: envoy.filters.http.router
  typed_config:
    \"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";

fn http_filter(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &manager_v3::HttpFilter,
) -> Option<HttpFilter> {
    use manager_v3::http_filter::ConfigType;
    let here = path.field("typed_config");
    let config = match &message.config_type {
        Some(ConfigType::TypedConfig(any)) => filter_config(context, &here, any)?,
        Some(ConfigType::ConfigDiscovery(_)) => {
            context.unsupported(&path.field("config_discovery"), "discovery of a filter's configuration");
            return None;
        }
        None => {
            context.missing(path, "typed_config is required");
            return None;
        }
    };
    Some(HttpFilter { name: message.name.clone(), disabled: message.disabled, config })
}

fn filter_config(context: &mut Context<'_>, path: &Path<'_>, any: &Any) -> Option<HttpFilterConfig> {
    use HttpFilterConfig as Config;
    if let Some(extension) = any::extension(context, path, any, ExtensionKind::HttpFilter) {
        return extension.map(Config::Extension);
    }
    let mut typed = Typed { context, path, any };
    match any::type_name(any) {
        "envoy.extensions.filters.http.buffer.v3.Buffer" => typed.lower(buffer::lower).map(Config::Buffer),
        "envoy.extensions.filters.http.compressor.v3.Compressor" => {
            typed.lower_or_none(compression::lower_compressor).map(Config::Compressor)
        }
        "envoy.extensions.filters.http.cors.v3.Cors" => Some(Config::Cors),
        "envoy.extensions.filters.http.csrf.v3.CsrfPolicy" => typed.lower(csrf::lower).map(Config::Csrf),
        "envoy.extensions.filters.http.decompressor.v3.Decompressor" => {
            typed.lower_or_none(compression::lower_decompressor).map(Config::Decompressor)
        }
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation" => {
            typed.lower(header_mutation::lower).map(Config::HeaderMutation)
        }
        "envoy.extensions.filters.http.fault.v3.HTTPFault" => typed.lower(fault::lower).map(Config::Fault),
        "envoy.extensions.filters.http.health_check.v3.HealthCheck" => {
            typed.lower(health_check::lower).map(Config::HealthCheck)
        }
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit" => {
            typed.lower(local_rate_limit::lower).map(Config::LocalRateLimit)
        }
        "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb" => Some(Config::GrpcWeb),
        "envoy.extensions.filters.http.set_filter_state.v3.Config" => {
            typed.lower(filter_state::of_requests).map(Config::SetFilterState)
        }
        "envoy.extensions.filters.http.router.v3.Router" => typed.lower(router::lower).map(Config::Router),
        name => {
            context.unsupported_type(path, format_args!("the HTTP filter {name} is not supported"));
            None
        }
    }
}

/// What `typed_per_filter_config` says at one level.
pub(super) fn of_route(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &HashMap<String, Any>,
) -> Vec<RouteFilter> {
    let here = path.field("typed_per_filter_config");
    let mut sorted: Vec<_> = messages.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    let each = sorted.into_iter();
    each.filter_map(|(name, any)| route_filter(context, &here.key(name), name, any)).collect()
}

fn route_filter(context: &mut Context<'_>, path: &Path<'_>, name: &str, any: &Any) -> Option<RouteFilter> {
    let (mut disabled, mut config) = (false, None);
    if any::holds::<FilterConfig>(any) {
        let message: FilterConfig = any::decode(context, path, any)?;
        disabled = message.disabled;
        // Envoy takes one without a type for none.
        if let Some(any) = message.config.as_ref().filter(|any| !any.type_url.is_empty()) {
            config = Some(route_config(context, &path.field("config"), any)?);
        }
    } else {
        config = Some(route_config(context, path, any)?);
    }
    Some(RouteFilter { name: name.into(), disabled, config })
}

fn route_config(context: &mut Context<'_>, path: &Path<'_>, any: &Any) -> Option<RouteFilterConfig> {
    use RouteFilterConfig as Config;
    if let Some(extension) = any::extension(context, path, any, ExtensionKind::RouteFilter) {
        return extension.map(Config::Extension);
    }
    let mut typed = Typed { context, path, any };
    match any::type_name(any) {
        "envoy.extensions.filters.http.buffer.v3.BufferPerRoute" => {
            typed.lower_or_none(buffer::lower_route).map(Config::Buffer)
        }
        "envoy.extensions.filters.http.compressor.v3.CompressorPerRoute" => {
            typed.lower_or_none(compression::lower_compressor_route).map(Config::Compressor)
        }
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute" => {
            typed.lower(header_mutation::lower_route).map(Config::HeaderMutation)
        }
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit" => {
            typed.lower(local_rate_limit::lower_route).map(Config::LocalRateLimit)
        }
        "envoy.extensions.filters.http.cors.v3.CorsPolicy" => {
            typed.lower(cors::lower_route).map(Config::Cors)
        }
        "envoy.extensions.filters.http.csrf.v3.CsrfPolicy" => typed.lower(csrf::lower).map(Config::Csrf),
        "envoy.extensions.filters.http.fault.v3.HTTPFault" => typed.lower(fault::lower).map(Config::Fault),
        name => {
            context.unsupported_type(path, format_args!("{name} for a route is not supported"));
            None
        }
    }
}

/// A typed config whose type is known to be `M`.
struct Typed<'c, 'f, 'p> {
    context: &'c mut Context<'f>,
    path: &'p Path<'p>,
    any: &'p Any,
}

impl Typed<'_, '_, '_> {
    fn lower<M: Message + Name + Default, S>(
        &mut self,
        lower: impl FnOnce(&mut Context<'_>, &Path<'_>, &M) -> S,
    ) -> Option<Arc<S>> {
        self.lower_or_none(|context, path, message| Some(lower(context, path, message)))
    }

    fn lower_or_none<M: Message + Name + Default, S>(
        &mut self,
        lower: impl FnOnce(&mut Context<'_>, &Path<'_>, &M) -> Option<S>,
    ) -> Option<Arc<S>> {
        debug_assert!(any::holds::<M>(self.any), "{} is another type", M::full_name());
        let message = any::decode(self.context, self.path, self.any)?;
        lower(self.context, self.path, &message).map(Arc::new)
    }
}
