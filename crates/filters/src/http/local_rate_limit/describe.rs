//! What a request is described by: entries that actions make of it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::rc::Rc;

use proxy_config::settings::{
    self, Format, HitCount, LimitAction, LimitDescriptor, LimitValue, LogType, MetadataOf, RateLimit,
    VirtualHostLimits, metadata,
};
use proxy_http::access_log::{FormatContext, write_network, write_text};
use proxy_http::query::decoded_parameter;
use proxy_http::route::{ChosenRoute, RouteEntry, SelectedCluster, header_matches, parameter_matches};
use proxy_http::{Request, StreamInfo};
use proxy_upstream::{Cluster, ClusterMap};

use super::cost;

/// A request's descriptor, put together from one rate limit.
pub(super) struct Description<'d> {
    entries: Vec<(&'d str, Cow<'d, [u8]>)>,
    /// Tokens that it costs, or puts back.
    pub(super) hits: u64,
    pub(super) puts_back: bool,
    pub(super) tells: Option<bool>,
}

/// What descriptions are made from.
#[derive(Clone, Copy)]
pub(super) struct Facts<'f> {
    /// `node.cluster`.
    pub(super) own_cluster: &'f str,
    pub(super) clusters: &'f ClusterMap,
    pub(super) filter_chain: &'f str,
    pub(super) stream: &'f StreamInfo,
    pub(super) request: &'f Request,
}

/// An entry may be left out, or its lack leave the request without a descriptor.
enum Entry<'d> {
    Value(&'d str, Cow<'d, [u8]>),
    LeftOut,
}

impl Description<'_> {
    /// Whether it has the keys and values of `descriptor`, in order.
    pub(super) fn fits(&self, descriptor: &LimitDescriptor) -> bool {
        let mut pairs = self.entries.iter().zip(&descriptor.entries);
        self.entries.len() == descriptor.entries.len()
            && pairs.all(|((key, value), (known, wanted))| {
                key == known && (wanted.is_empty() || **value == *wanted.as_bytes())
            })
    }

    /// The values that `descriptor`, which it fits, leaves open, each with its length.
    pub(super) fn wildcards(&self, descriptor: &LimitDescriptor) -> Vec<u8> {
        let mut values = Vec::new();
        let pairs = self.entries.iter().zip(&descriptor.entries);
        for ((_, value), _) in pairs.filter(|(_, (_, wanted))| wanted.is_empty()) {
            values.extend_from_slice(&value.len().to_ne_bytes());
            values.extend_from_slice(value);
        }
        values
    }
}

impl<'f> Facts<'f> {
    /// The descriptor of a rate limit; `None` where a part is missing.
    pub(super) fn describe(self, rate_limit: &'f RateLimit) -> Option<Description<'f>> {
        let mut entries = Vec::with_capacity(rate_limit.actions.len());
        for action in &rate_limit.actions {
            match self.entry(action)? {
                Entry::Value(key, value) => entries.push((key, value)),
                Entry::LeftOut => {}
            }
        }
        let hits = match &rate_limit.hits.count {
            HitCount::Fixed(count) => *count,
            HitCount::Told(format) => cost::tokens(&self.format(format))?,
        };
        Some(Description { entries, hits, puts_back: rate_limit.hits.puts_back, tells: rate_limit.tells })
    }

    fn entry(self, action: &'f LimitAction) -> Option<Entry<'f>> {
        let Facts { stream, request, .. } = self;
        Some(match action {
            LimitAction::SourceCluster => borrowed("source_cluster", self.own_cluster.as_bytes()),
            LimitAction::DestinationCluster => owned("destination_cluster", destination(stream, request)?),
            LimitAction::RequestHeader { name, key, skip_if_absent } => match request.value_or_pseudo(name) {
                Some(value) => Entry::Value(key, value),
                None => left_out(*skip_if_absent)?,
            },
            LimitAction::QueryParameter { name, key, skip_if_absent } => {
                match decoded_parameter(request.path(), name) {
                    Some(value) => Entry::Value(key, value),
                    None => left_out(*skip_if_absent)?,
                }
            }
            LimitAction::RemoteAddress => owned("remote_address", client(stream)?.to_string().into_bytes()),
            LimitAction::MaskedRemoteAddress { v4, v6 } => {
                let mut network = Vec::new();
                let client = client(stream)?;
                write_network(client, Some(if client.is_ipv4() { *v4 } else { *v6 }), &mut network);
                owned("masked_remote_address", network)
            }
            LimitAction::RemoteAddressMatch { key, value, networks, invert } => {
                let client = client(stream)?;
                let found = networks.iter().any(|network| network.contains(client));
                if found == *invert {
                    return None;
                }
                self.value(key, value)?
            }
            LimitAction::GenericKey { key, value } => self.value(key, value)?,
            LimitAction::HeaderValueMatch { key, value, expect, headers } => {
                let found = headers.iter().all(|matcher| header_matches(matcher, Some(request)));
                if found != *expect {
                    return None;
                }
                self.value(key, value)?
            }
            LimitAction::QueryParameterValueMatch { key, value, expect, parameters } => {
                let found = parameters.iter().all(|matcher| {
                    let value = decoded_parameter(request.path(), &matcher.name);
                    parameter_matches(matcher, value.as_deref())
                });
                if found != *expect {
                    return None;
                }
                self.value(key, value)?
            }
            LimitAction::Metadata { key, of, namespace, path, default, skip_if_absent } => {
                match (self.metadata(*of, namespace, path), default) {
                    (Some(text), _) => owned(key, text.into_bytes()),
                    (None, Some(default)) => borrowed(key, default.as_bytes()),
                    (None, None) => left_out(*skip_if_absent)?,
                }
            }
        })
    }

    /// The entry of a value; `None` if a format yields nothing and there is no default.
    fn value(self, key: &'f str, value: &'f LimitValue) -> Option<Entry<'f>> {
        match value {
            LimitValue::Text(text) => Some(borrowed(key, text.as_bytes())),
            LimitValue::Format { format, default } => {
                let text = self.format(format);
                let value = if text.is_empty() { default.as_bytes().to_vec() } else { text };
                (!value.is_empty()).then(|| owned(key, value))
            }
        }
    }

    fn format(self, format: &Format) -> Vec<u8> {
        let mut text = Vec::new();
        let context = FormatContext::of_stream(self.stream, self.filter_chain, LogType::NotSet);
        write_text(format, true, &FormatContext { request: Some(self.request), ..context }, &mut text);
        text
    }

    /// A text that is not empty.
    fn metadata(self, of: MetadataOf, namespace: &str, path: &[Box<str>]) -> Option<String> {
        let text = match of {
            MetadataOf::Route => {
                let route = self.stream.route()?;
                let found = route.chosen().route().metadata.find(namespace, path);
                found.and_then(|value| value.as_str()).map(str::to_owned)
            }
            MetadataOf::Cluster => {
                let cluster = self.cluster()?;
                let found = cluster.info.settings.metadata.find(namespace, path);
                found.and_then(|value| value.as_str()).map(str::to_owned)
            }
            MetadataOf::Stream => {
                let mut text = None;
                self.stream.with_metadata(|all| {
                    let found = metadata::find(all, namespace, path);
                    text = found.and_then(|value| value.as_str()).map(str::to_owned);
                    true
                });
                text
            }
            // No host is chosen yet.
            MetadataOf::UpstreamHost => None,
            // No action asks for these.
            MetadataOf::VirtualHost | MetadataOf::Listener | MetadataOf::FilterChain => None,
        };
        text.filter(|text| !text.is_empty())
    }

    /// The cluster that the request goes to.
    fn cluster(self) -> Option<Rc<Cluster>> {
        let route = self.stream.route()?;
        match route.chosen().select_cluster(self.request, route.weighted)?.cluster {
            SelectedCluster::Id(id) => self.clusters.get(id),
            SelectedCluster::Name(name) => self.clusters.find(std::str::from_utf8(&name).ok()?),
        }
    }
}

fn owned(key: &str, value: Vec<u8>) -> Entry<'_> {
    Entry::Value(key, Cow::Owned(value))
}

fn borrowed<'d>(key: &'d str, value: &'d [u8]) -> Entry<'d> {
    Entry::Value(key, Cow::Borrowed(value))
}

fn left_out<'d>(skip_if_absent: bool) -> Option<Entry<'d>> {
    skip_if_absent.then_some(Entry::LeftOut)
}

/// What describes a request: what the filter says, or else its route and its virtual host.
pub(super) fn applicable<'s>(
    settings: &'s settings::LocalRateLimit,
    route: Option<&'s RouteEntry>,
) -> impl Iterator<Item = &'s RateLimit> {
    let chosen = route.map(RouteEntry::chosen).filter(|_| settings.rate_limits.is_empty());
    let forward = chosen.and_then(ChosenRoute::forward);
    let of_route = forward.map_or(&[][..], |forward| &forward.rate_limits[..]);
    let includes = forward.is_some_and(|forward| {
        forward.include_virtual_host_limits
            || match settings.of_virtual_host {
                VirtualHostLimits::Override => forward.rate_limits.is_empty(),
                VirtualHostLimits::Include => true,
                VirtualHostLimits::Ignore => false,
            }
    });
    let of_host =
        chosen.filter(|_| includes).map_or(&[][..], |chosen| &chosen.virtual_host().rate_limits[..]);
    let routed = of_route.iter().chain(of_host).filter(|rate_limit| rate_limit.stage == settings.stage);
    settings.rate_limits.iter().chain(routed).filter(|rate_limit| rate_limit.applies)
}

fn client(stream: &StreamInfo) -> Option<IpAddr> {
    stream.client().or_else(|| Some(stream.connection.remote.ip()?.ip()))
}

/// The name of the cluster that the request goes to.
fn destination(stream: &StreamInfo, request: &Request) -> Option<Vec<u8>> {
    let route = stream.route()?;
    let chosen = route.chosen();
    match chosen.cluster_name(route.weighted) {
        Some(name) => Some(name.as_bytes().to_vec()),
        None => match chosen.select_cluster(request, route.weighted)?.cluster {
            SelectedCluster::Name(name) => Some(name.into_owned()),
            SelectedCluster::Id(_) => None,
        },
    }
}
