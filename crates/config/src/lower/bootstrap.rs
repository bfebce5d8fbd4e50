//! The bootstrap: node, admin, and the static resources checked against each other.

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::bootstrap::v3 as bootstrap_v3;
use envoy_types::pb::envoy::config::cluster::v3 as cluster_v3;
use envoy_types::pb::envoy::config::core::v3 as core_v3;

use super::{
    ClusterNames, Context, LowerOptions, address, cluster, listener, overload, runtime, stats, watchdog,
};
use crate::settings::{Admin, Bootstrap, Cluster, Listener, Node};
use crate::{Code, Path};

/// The clusters that routes of this bootstrap may name.
pub(super) fn cluster_names(message: &bootstrap_v3::Bootstrap) -> ClusterNames {
    clusters_of(message).iter().map(|cluster| cluster.name.as_str()).collect()
}

fn clusters_of(message: &bootstrap_v3::Bootstrap) -> &[cluster_v3::Cluster] {
    message.static_resources.as_ref().map(|resources| resources.clusters.as_slice()).unwrap_or_default()
}

pub(super) fn lower(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &bootstrap_v3::Bootstrap,
) -> Bootstrap {
    let resources = path.field("static_resources");
    let runtime = path.field("layered_runtime");
    let layers = message.layered_runtime.as_ref().map(|message| runtime::lower(context, &runtime, message));
    let (values, places) = layers.unwrap_or_default();
    context.runtime = Arc::new(values);
    let mut lowered = Bootstrap {
        node: context.node.clone(),
        admin: admin(context, &path.field("admin"), message.admin.as_ref()),
        clusters: clusters(context, &resources.field("clusters"), clusters_of(message)),
        listeners: listeners(context, &resources.field("listeners"), message),
        max_connections: max_connections(context, &path.field("overload_manager"), message),
        runtime: Arc::clone(&context.runtime),
        stats: stats::lower(context, path, message),
        local_cluster: local_cluster(context, &path.field("cluster_manager"), message),
        watchdogs: watchdog::lower(context, path, message),
        dispatcher_stats: message.enable_dispatcher_stats,
        version_override: message.stats_server_version_override.as_ref().map(|version| version.value),
        files: Vec::new(),
    };
    lowered.files = std::mem::take(&mut context.files);
    context.check_runtime(&runtime, &places);
    lowered
}

/// Over all listeners: as the overload manager says, or else the older runtime key.
fn max_connections(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &bootstrap_v3::Bootstrap,
) -> Option<u64> {
    let manager = message.overload_manager.as_ref();
    let limit = manager.and_then(|message| overload::max_connections(context, path, message));
    limit.or_else(|| context.runtime("overload.global_downstream_max_connections")?.count())
}

fn clusters(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[cluster_v3::Cluster],
) -> Vec<Arc<Cluster>> {
    let mut names = HashMap::with_capacity(messages.len());
    let mut lowered = Vec::with_capacity(messages.len());
    for (index, message) in messages.iter().enumerate() {
        let here = path.index(index);
        let name = message.name.as_str();
        if let Some(other) = names.insert(name, index) {
            let message = format_args!("clusters[{other}] is named {name:?} as well");
            context.error(&here.field("name"), Code::DUPLICATE_NAME, message);
        }
        lowered.push(Arc::new(cluster::lower(context, &here, message)));
    }
    lowered
}

fn listeners(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &bootstrap_v3::Bootstrap,
) -> Vec<Arc<Listener>> {
    let resources = message.static_resources.as_ref();
    let messages = resources.map(|resources| resources.listeners.as_slice()).unwrap_or_default();
    let each = messages.iter().enumerate();
    let lowered: Vec<_> = each
        .filter_map(|(index, message)| {
            let listener = listener::lower(context, &path.index(index), message)?;
            Some((index, Arc::new(listener)))
        })
        .collect();
    listener::check_distinct(context, path, &lowered);
    lowered.into_iter().map(|(_, listener)| listener).collect()
}

/// The node that `message` names, under what the command line says.
pub(super) fn node(options: &LowerOptions, message: Option<&core_v3::Node>) -> Node {
    let message = message.cloned().unwrap_or_default();
    let locality = message.locality.unwrap_or_default();
    let or =
        |flag: &Option<String>, field: String| flag.clone().filter(|flag| !flag.is_empty()).unwrap_or(field);
    Node {
        id: or(&options.service_node, message.id),
        cluster: or(&options.service_cluster, message.cluster),
        region: locality.region,
        zone: or(&options.service_zone, locality.zone),
        sub_zone: locality.sub_zone,
    }
}

/// Without an address there is no admin server, as in Envoy.
fn admin(context: &mut Context<'_>, path: &Path<'_>, message: Option<&bootstrap_v3::Admin>) -> Option<Admin> {
    let message = message?;
    #[expect(deprecated, reason = "the older spelling is part of the v3 API")]
    let log = message.access_log_path.as_str();
    if !matches!(log, "" | "/dev/null") {
        let here = path.field("access_log_path");
        context.error(
            &here,
            Code::UNSUPPORTED_VALUE,
            "an access log of the admin server is not supported: leave it out, or write /dev/null",
        );
    }
    message.address.as_ref()?;
    let address = address::literal(context, &path.field("address"), message.address.as_ref())?;
    Some(Admin { address })
}

fn local_cluster(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &bootstrap_v3::Bootstrap,
) -> Option<Arc<str>> {
    let name = message.cluster_manager.as_ref().map(|manager| manager.local_cluster_name.as_str());
    let name = name.filter(|name| !name.is_empty())?;
    Some(context.cluster_name(&path.field("local_cluster_name"), name, true))
}
