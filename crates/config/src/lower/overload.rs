//! The overload manager, of which only the limit on all downstream connections is supported.

use envoy_types::pb::envoy::config::overload::v3 as overload_v3;
use envoy_types::pb::envoy::extensions::resource_monitors::downstream_connections::v3 as monitor_v3;

use super::{Context, any};
use crate::{Code, Path};

/// `max_active_downstream_connections`, if there is such a limit.
pub(super) fn max_connections(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &overload_v3::OverloadManager,
) -> Option<u64> {
    use overload_v3::resource_monitor::ConfigType;
    let here = path.field("resource_monitors");
    let mut limit = None;
    for (index, message) in message.resource_monitors.iter().enumerate() {
        let here = here.index(index);
        let config = here.field("typed_config");
        let Some(ConfigType::TypedConfig(message)) = &message.config_type else {
            context.missing(&config, "typed_config is required");
            continue;
        };
        if !any::holds::<monitor_v3::DownstreamConnectionsConfig>(message) {
            let name = any::type_name(message);
            context.unsupported_type(&config, format_args!("the resource monitor {name} is not supported"));
            continue;
        }
        if limit.is_some() {
            let message = "another monitor of this kind limits connections already";
            context.error(&here, Code::DUPLICATE_NAME, message);
        }
        let decoded = any::decode::<monitor_v3::DownstreamConnectionsConfig>(context, &config, message)?;
        limit = u64::try_from(decoded.max_active_downstream_connections).ok().filter(|limit| *limit > 0);
        if limit.is_none() {
            let here = config.field("max_active_downstream_connections");
            context.error(&here, Code::OUT_OF_RANGE, "a number greater than 0 is expected");
        }
    }
    limit
}
