//! `stats_config`, `stats_sinks` and when stats are flushed.

use std::time::Duration;

use envoy_types::pb::envoy::config::bootstrap::v3 as bootstrap_v3;
use envoy_types::pb::envoy::config::bootstrap::v3::bootstrap::StatsFlush as OnAdmin;
use envoy_types::pb::envoy::config::core::v3 as core_v3;
use envoy_types::pb::envoy::config::metrics::v3 as metrics_v3;
use envoy_types::pb::envoy::extensions::stat_sinks::graphite_statsd::v3 as graphite_v3;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher_v3;
use envoy_types::pb::google::protobuf::{Any, UInt64Value};

use super::matcher::string;
use super::{Context, address, any, regex, value};
use crate::settings::{
    HistogramBuckets, Stats, StatsFlush, StatsFormat, StatsMatcher, StatsSink, StatsTag, StatsTagValue,
    StatsTags, StatsTransport, StringMatcher,
};
use crate::{Code, Path};

pub(super) fn lower(context: &mut Context<'_>, path: &Path<'_>, message: &bootstrap_v3::Bootstrap) -> Stats {
    let config = message.stats_config.clone().unwrap_or_default();
    let config_path = path.field("stats_config");
    let buckets = config_path.field("histogram_bucket_settings");
    Stats {
        flush: flush(context, path, message),
        tags: tags(context, &config_path, &config),
        matcher: matcher(context, &config_path.field("stats_matcher"), config.stats_matcher.as_ref())
            .unwrap_or_default(),
        histogram_buckets: histogram_buckets(context, &buckets, &config.histogram_bucket_settings),
        sinks: sinks(context, &path.field("stats_sinks"), &message.stats_sinks),
    }
}

fn flush(context: &mut Context<'_>, path: &Path<'_>, message: &bootstrap_v3::Bootstrap) -> StatsFlush {
    let on_admin = message.stats_flush.as_ref().map(|OnAdmin::StatsFlushOnAdmin(on_admin)| *on_admin);
    let here = path.field("stats_flush_interval");
    match (value::duration(context, &here, message.stats_flush_interval.as_ref()), on_admin) {
        (Some(_), Some(_)) => {
            let message = "only one of stats_flush_interval and stats_flush_on_admin can be set";
            context.error(&path.field("stats_flush_on_admin"), Code::CONFLICT, message);
            StatsFlush::OnAdmin
        }
        (None, Some(_)) => StatsFlush::OnAdmin,
        (None, None) => StatsFlush::default(),
        (Some(interval), None) => {
            if !(Duration::from_millis(1)..Duration::from_secs(300)).contains(&interval) {
                context.error(
                    &here,
                    Code::OUT_OF_RANGE,
                    "a time of at least 0.001s and less than 300s is expected",
                );
            }
            StatsFlush::Every(interval)
        }
    }
}

fn tags(context: &mut Context<'_>, path: &Path<'_>, message: &metrics_v3::StatsConfig) -> StatsTags {
    let here = path.field("stats_tags");
    let each = message.stats_tags.iter().enumerate();
    StatsTags {
        use_defaults: value::flag(message.use_all_default_tags.as_ref(), true),
        override_defaults: value::flag(message.allow_default_tag_overrides.as_ref(), false),
        tags: each.filter_map(|(index, message)| tag(context, &here.index(index), message)).collect(),
    }
}

fn tag(context: &mut Context<'_>, path: &Path<'_>, message: &metrics_v3::TagSpecifier) -> Option<StatsTag> {
    use metrics_v3::tag_specifier::TagValue;
    let name = message.tag_name.clone();
    let value = match &message.tag_value {
        Some(TagValue::FixedValue(text)) => StatsTagValue::Fixed(text.clone()),
        Some(TagValue::Regex(pattern)) if !pattern.is_empty() => {
            StatsTagValue::Regex(regex::in_text(context, &path.field("regex"), pattern)?)
        }
        _ if name.strip_prefix("envoy.").is_some_and(|name| DEFAULT_TAGS.contains(&name)) => {
            StatsTagValue::Default
        }
        _ => {
            let message = format_args!("regex or fixed_value is required: Envoy has no default tag {name:?}");
            context.missing(path, message);
            return None;
        }
    };
    Some(StatsTag { name, value })
}

/// Also of a cluster or listener.
pub(super) fn matcher(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&metrics_v3::StatsMatcher>,
) -> Option<StatsMatcher> {
    use metrics_v3::stats_matcher::StatsMatcher as Message;
    let mut list = |field: &str, list| patterns(context, &path.field(field), list);
    Some(match &message?.stats_matcher {
        Some(Message::RejectAll(false)) => StatsMatcher::AcceptAll,
        Some(Message::RejectAll(true)) => StatsMatcher::RejectAll,
        Some(Message::ExclusionList(patterns)) => StatsMatcher::Exclude(list("exclusion_list", patterns)),
        Some(Message::InclusionList(patterns)) => StatsMatcher::Include(list("inclusion_list", patterns)),
        None => {
            context.missing(path, "reject_all, exclusion_list or inclusion_list is required");
            return None;
        }
    })
}

fn patterns(
    context: &mut Context<'_>,
    path: &Path<'_>,
    list: &matcher_v3::ListStringMatcher,
) -> Vec<StringMatcher> {
    let here = path.field("patterns");
    let each = list.patterns.iter().enumerate();
    each.filter_map(|(index, message)| string(context, &here.index(index), message)).collect()
}

fn histogram_buckets(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[metrics_v3::HistogramBucketSettings],
) -> Vec<HistogramBuckets> {
    let mut lowered = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let setting = path.index(index);
        let here = setting.field("match");
        let Some(matcher) = &message.r#match else {
            context.missing(&here, "a matcher of names is required");
            continue;
        };
        let mut bounds = message.buckets.clone();
        bounds.sort_by(f64::total_cmp);
        // Settings without buckets are about the memory of Envoy's histograms only.
        if let Some(matcher) = string(context, &here, matcher).filter(|_| !bounds.is_empty()) {
            lowered.push(HistogramBuckets { matcher, bounds: bounds.into() });
        }
    }
    lowered
}

fn sinks(context: &mut Context<'_>, path: &Path<'_>, messages: &[metrics_v3::StatsSink]) -> Vec<StatsSink> {
    use metrics_v3::stats_sink::ConfigType;
    let mut lowered = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let sink_path = path.index(index);
        let here = sink_path.field("typed_config");
        match &message.config_type {
            Some(ConfigType::TypedConfig(any)) => lowered.extend(sink(context, &here, any)),
            None => context.missing(&here, "a typed_config is required"),
        }
    }
    lowered
}

fn sink(context: &mut Context<'_>, path: &Path<'_>, any: &Any) -> Option<StatsSink> {
    if any::holds::<metrics_v3::StatsdSink>(any) {
        let message = any::decode(context, path, any)?;
        return statsd(context, path, message);
    }
    if any::holds::<metrics_v3::DogStatsdSink>(any) {
        use metrics_v3::dog_statsd_sink::DogStatsdSpecifier::Address;
        let message: metrics_v3::DogStatsdSink = any::decode(context, path, any)?;
        let address = message.dog_statsd_specifier.map(|Address(address)| address);
        let transport = datagrams(context, path, address.as_ref(), message.max_bytes_per_datagram.as_ref())?;
        return Some(StatsSink { format: StatsFormat::DogStatsd, prefix: prefix(message.prefix), transport });
    }
    if any::holds::<graphite_v3::GraphiteStatsdSink>(any) {
        use graphite_v3::graphite_statsd_sink::StatsdSpecifier::Address;
        let message: graphite_v3::GraphiteStatsdSink = any::decode(context, path, any)?;
        let address = message.statsd_specifier.map(|Address(address)| address);
        let transport = datagrams(context, path, address.as_ref(), message.max_bytes_per_datagram.as_ref())?;
        return Some(StatsSink { format: StatsFormat::Graphite, prefix: prefix(message.prefix), transport });
    }
    context.unsupported_type(path, format_args!("{} is no supported stats sink", any::type_name(any)));
    None
}

fn statsd(context: &mut Context<'_>, path: &Path<'_>, message: metrics_v3::StatsdSink) -> Option<StatsSink> {
    use metrics_v3::statsd_sink::StatsdSpecifier;
    let transport = match &message.statsd_specifier {
        Some(StatsdSpecifier::TcpClusterName(name)) => {
            let cluster = context.cluster_name(&path.field("tcp_cluster_name"), name, true);
            StatsTransport::Tcp { cluster }
        }
        Some(StatsdSpecifier::Address(address)) => datagrams(context, path, Some(address), None)?,
        None => {
            context.missing(path, "address or tcp_cluster_name is required");
            return None;
        }
    };
    Some(StatsSink { format: StatsFormat::Statsd, prefix: prefix(message.prefix), transport })
}

fn datagrams(
    context: &mut Context<'_>,
    path: &Path<'_>,
    address: Option<&core_v3::Address>,
    max_bytes: Option<&UInt64Value>,
) -> Option<StatsTransport> {
    let Some(address) = address else {
        context.missing(path, "an address is required");
        return None;
    };
    let address = address::datagram(context, &path.field("address"), address)?;
    // What does not fit into a datagram is cut short by the sink anyway.
    let max_bytes = max_bytes.map(|bytes| usize::try_from(bytes.value).unwrap_or(usize::MAX));
    Some(StatsTransport::Datagram { address, max_bytes })
}

fn prefix(given: String) -> String {
    if given.is_empty() { "envoy".to_owned() } else { given }
}

/// Names of Envoy's default tags without their `envoy.`, as far as a tag may be asked for by name alone.
const DEFAULT_TAGS: &[&str] = &[
    "clientssl_prefix",
    "cluster_name",
    "connection_limit_prefix",
    "dns_filter_prefix",
    "dynamo_operation",
    "dynamo_partition_id",
    "dynamo_table",
    "ext_authz_prefix",
    "fault_downstream_cluster",
    "google_grpc_client_prefix",
    "grpc_bridge_method",
    "grpc_bridge_service",
    "health_check_name",
    "http_conn_manager_prefix",
    "http_user_agent",
    "listener_address",
    "local_http_ratelimit_prefix",
    "local_listener_ratelimit_prefix",
    "local_network_ratelimit_prefix",
    "mongo_callsite",
    "mongo_cmd",
    "mongo_collection",
    "mongo_prefix",
    "proxy_protocol_prefix",
    "proxy_protocol_version",
    "ratelimit_prefix",
    "rbac_http_prefix",
    "rbac_policy_name",
    "rbac_prefix",
    "rds_route_config",
    "redis_prefix",
    "response_code",
    "response_code_class",
    "route",
    "scoped_rds_config",
    "ssl_cipher",
    "ssl_curve",
    "ssl_sigalg",
    "ssl_version",
    "tcp_prefix",
    "thrift_prefix",
    "tls_certificate",
    "udp_prefix",
    "virtual_cluster",
    "virtual_host",
    "worker_id",
    "xds_resource_name",
];
