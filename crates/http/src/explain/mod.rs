//! What would become of a request, told instead of done: for people who ask why.
//!
//! The request is parsed, admitted, routed and rewritten by the functions that serve real ones; only what happens between
//! sockets is left out. Nothing here decides anything.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proxy_config::settings::{
    HostRewrite, HttpConnectionManager, HttpFilter, HttpFilterConfig, LogNeeds, LogType, RouteAction,
    RouteFilter, Router,
};
use proxy_net::{Address, ConnectionId, ConnectionInfo};
use proxy_runtime::clock;

use crate::access_log::FormatContext;
use crate::filter::{ChainIndex, FilterIndex, FilterSet};
use crate::forwarding::{ForwardingContext, NotForwarded, admit_request, asks_for_tunnel, uuid};
use crate::h1::head::{HeadError, HeadLimits, RequestRules, parse_request};
use crate::local_reply;
use crate::message::{Request, Response, Scheme};
use crate::mutation::mutate_request;
use crate::reply::is_grpc_call;
use crate::route::{
    ChosenRoute, ClusterId, LookupContext, RouteFilterValue, RouteFilters, RouteTable, SelectedCluster,
    redirect_to_https, tunnel_chain,
};
use crate::stream::{StreamDeadlines, StreamInfo};

mod describe;

/// A request, and how it comes to the proxy.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The head of an HTTP/1.1 request.
    pub head: &'a [u8],
    pub scheme: Scheme,
    /// Of the direct peer.
    pub client: SocketAddr,
    /// What it has connected to.
    pub local: Address,
    pub listener: &'a str,
    pub filter_chain: &'a str,
    /// In place of what is drawn for each request: decides fractions and weighted clusters.
    pub random: u64,
    /// When the request comes.
    pub wall: SystemTime,
}

/// What becomes of a request, and why.
#[derive(Debug, Default)]
pub struct Explanation {
    /// As routes see them.
    pub host: String,
    pub path: String,
    pub virtual_host: Option<Chosen>,
    /// The other virtual hosts.
    pub other_hosts: Vec<Passed>,
    pub route: Option<Chosen>,
    /// The routes before it.
    pub passed: Vec<Passed>,
    /// HTTP filters before the router, in their order. What they do is not told.
    pub filters: Vec<FilterNote>,
    pub outcome: Outcome,
}

/// A virtual host or route that takes the request.
#[derive(Debug)]
pub struct Chosen {
    /// Its place in the list it stands in.
    pub index: usize,
    pub name: String,
    /// The domain, or all that the route asks for.
    pub by: String,
}

/// A virtual host or route that does not.
#[derive(Debug)]
pub struct Passed {
    pub index: usize,
    pub name: String,
    pub why: String,
}

/// An HTTP filter on the way.
#[derive(Debug)]
pub struct FilterNote {
    pub name: String,
    /// Where it stands in the connection manager, for instance `http_filters[0]`.
    pub place: String,
    /// The request passes it by.
    pub disabled: bool,
}

#[derive(Debug)]
pub enum Outcome {
    /// The proxy answers by itself.
    Answered(Answer),
    Forwarded(Box<Forwarding>),
}

impl Default for Outcome {
    fn default() -> Self {
        Outcome::Answered(Answer::default())
    }
}

#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    /// What in the configuration, or what rule, makes it so.
    pub why: String,
    /// Those that the route decides on.
    pub headers: Vec<(String, String)>,
    /// Bytes of the body, where the configuration has one.
    pub body: usize,
}

/// What goes to a host.
#[derive(Debug)]
pub struct Forwarding {
    /// Empty: a header names it, and it is absent.
    pub cluster: String,
    /// How it was chosen, where there was a choice.
    pub chosen_by: Option<String>,
    /// The answer where there is no such cluster.
    pub not_found_status: u16,
    pub method: String,
    pub host: String,
    /// `auto_host_rewrite`: the host becomes the name of the endpoint, if it has one.
    pub host_of_endpoint: bool,
    pub path: String,
    /// Lines of headers that the client did not send so.
    pub added: Vec<(String, String)>,
    /// Lines of headers that the client sent and that do not go on.
    pub removed: Vec<(String, String)>,
    pub response_added: Vec<(String, String)>,
    /// Names.
    pub response_removed: Vec<String>,
    /// From the end of the request to the end of the response; `None`: for ever, as below.
    pub timeout: Option<Duration>,
    pub idle_timeout: Option<Duration>,
    pub max_stream_duration: Option<Duration>,
}

/// Tells what becomes of a request.
///
/// # Errors
/// Where `asked.head` is no request that a client could make.
pub fn explain(manager: &HttpConnectionManager, asked: &Asked<'_>) -> Result<Explanation, HeadError> {
    let rules = RequestRules {
        limits: HeadLimits {
            bytes: manager.max_request_header_bytes as usize,
            lines: manager.max_request_headers as usize,
        },
        options: &manager.http1,
        underscores: manager.underscores,
    };
    let parsed = parse_request(asked.head, &rules)?.ok_or(HeadError::Malformed("head"))?;
    if parsed.0.no_host {
        return Err(HeadError::NoHost);
    }
    let stream = stream(asked);
    let dry_run = DryRun { manager, asked, stream: &stream };
    Ok(dry_run.run(parsed.0.request))
}

/// The stream that there would be, for formats that tell of it.
fn stream(asked: &Asked<'_>) -> StreamInfo {
    let now = clock::now();
    let connection = ConnectionInfo::accepted(
        ConnectionId(0),
        asked.listener.into(),
        asked.local.clone(),
        Address::Ip(asked.client),
        now,
        asked.wall,
    );
    let deadlines = Rc::new(StreamDeadlines::new());
    StreamInfo::new(Rc::new(connection), crate::message::Version::Http11, now, deadlines, LogNeeds::default())
}

struct DryRun<'a> {
    manager: &'a HttpConnectionManager,
    asked: &'a Asked<'a>,
    stream: &'a StreamInfo,
}

impl DryRun<'_> {
    fn run(&self, mut request: Request) -> Explanation {
        let before = lines(&request);
        let tunnel = asks_for_tunnel(&request);
        for mutations in &self.manager.forwarding.early_mutations {
            mutate_request(mutations, &mut request, &|| self.format_context());
        }
        self.stream.set_grpc(is_grpc_call(&request.headers));
        let context = ForwardingContext {
            peer: Some(self.asked.client.ip()),
            local_port: self.asked.local.ip().map(|address| address.port()),
            scheme: self.asked.scheme,
            local_address: None,
            internal_addresses: &self.manager.internal_addresses,
            random: self.asked.random.into(),
        };
        match admit_request(&mut request, self.manager, &context) {
            Ok(forwarded) => {
                self.stream.set_client(forwarded.client);
                self.stream.set_internal(forwarded.is_internal);
            }
            Err(refusal) => {
                let outcome = Outcome::Answered(refused(&refusal, &request));
                return Explanation { outcome, ..seen(&request) };
            }
        }
        self.find_route(request, &before, tunnel)
    }

    fn find_route(&self, mut request: Request, before: &[Line], tunnel: bool) -> Explanation {
        let filters = Filters::of(self.manager);
        let mut clusters = Clusters::default();
        let table = RouteTable::new(Arc::clone(&self.manager.routes), &mut |name| clusters.id(name));
        let table = table.with_filters(&filters);
        let mut told = seen(&request);
        describe::virtual_hosts(&table, &request, &mut told);
        if table.requires_tls(&request) {
            let chain = tunnel.then(|| tunnel_chain(None, &request, self.manager)).flatten();
            told.filters = filters.notes(chain.unwrap_or_default(), filters.disabled());
            let response = redirect_to_https(&request);
            told.outcome = self.answered("require_tls of the virtual host", response, &request);
            return told;
        }
        let trace = table.trace(&request, &LookupContext { random: self.asked.random });
        describe::routes(&table, &trace, &request, &mut told);
        let Some((host, route)) = trace.virtual_host.zip(trace.route) else {
            let chain = tunnel.then(|| tunnel_chain(None, &request, self.manager)).flatten();
            told.filters = filters.notes(chain.unwrap_or_default(), filters.disabled());
            told.outcome = self.not_found(
                match trace.virtual_host {
                    None => "no virtual host has a domain for this host",
                    Some(_) => "no route of the virtual host matches",
                },
                &request,
            );
            return told;
        };
        let chosen = table.chosen(host, route);
        let weighted = chosen.select_weighted(&request, self.asked.random);
        let chain = match tunnel {
            true => tunnel_chain(Some(chosen), &request, self.manager),
            false => Some(ChainIndex::default()),
        };
        let Some(chain) = chain else {
            let why = "upgrade_configs of neither route nor connection manager allow this upgrade";
            told.outcome =
                Outcome::Answered(Answer { status: 403, why: why.to_owned(), ..Answer::default() });
            return told;
        };
        let disabled = chosen.disabled_filters(weighted).unwrap_or_else(|| filters.disabled());
        told.filters = filters.notes(chain, disabled);
        let source = || self.format_context();
        told.outcome = match &chosen.route().action {
            RouteAction::Forward(_) => {
                self.forward(chosen, weighted, &filters.router(chain), &mut request, before, &clusters)
            }
            RouteAction::Redirect(redirect) => {
                let response = chosen.redirect_response(redirect, &request, &source);
                self.answered("redirect of the route", response, &request)
            }
            RouteAction::Direct(direct) => {
                let response = chosen.direct_response(direct, &request, &source);
                self.answered("direct_response of the route", response, &request)
            }
            RouteAction::NonForwarding => {
                self.answered("non_forwarding_action of the route", Response::local(503, ""), &request)
            }
        };
        told
    }

    fn forward(
        &self,
        chosen: ChosenRoute<'_>,
        weighted: Option<u32>,
        router: &Router,
        request: &mut Request,
        before: &[Line],
        clusters: &Clusters,
    ) -> Outcome {
        let (Some(forward), Some(selected)) = (chosen.forward(), chosen.select_cluster(request, weighted))
        else {
            return self.not_found("the route has no cluster", request);
        };
        let cluster = match selected.cluster {
            SelectedCluster::Id(id) => clusters.name(id).to_owned(),
            SelectedCluster::Name(name) => text(&name),
        };
        let chosen_by = describe::cluster_choice(&forward.target, weighted);
        let source = || self.format_context();
        let timeouts = chosen.prepare_upstream(weighted, request, router, &source);
        let after = lines(request);
        let mut response = Response::new(200);
        chosen.apply_response(weighted, &mut response, Some(request), &source);
        Outcome::Forwarded(Box::new(Forwarding {
            cluster,
            chosen_by,
            not_found_status: forward.cluster_not_found_status,
            method: request.method.as_str().to_owned(),
            host: text(request.authority()),
            host_of_endpoint: matches!(forward.host_rewrite, Some(HostRewrite::Auto)),
            path: text(request.path()),
            added: missing(&after, before).into_iter().map(|line| self.drawn(line)).collect(),
            removed: missing(before, &after),
            response_added: headers(&response),
            response_removed: chosen.removed_from_responses(weighted),
            timeout: timeouts.global,
            idle_timeout: forward.idle_timeout.unwrap_or(self.manager.stream_idle_timeout),
            max_stream_duration: forward.max_stream_duration.unwrap_or(self.manager.max_stream_duration),
        }))
    }

    /// A request id that was drawn is no value to show.
    fn drawn(&self, line: Line) -> Line {
        let id = uuid(self.asked.random.into());
        if line.0 == "x-request-id" && line.1.as_bytes() == id {
            (line.0, "(random)".to_owned())
        } else {
            line
        }
    }

    /// The proxy's own answer, as `local_reply_config` and gRPC want it.
    fn answered(&self, why: &str, mut response: Response, request: &Request) -> Outcome {
        let headers = headers(&response);
        let config = self.manager.local_replies.as_ref();
        local_reply::complete(&mut response, config, self.stream, Some(request), &|| self.format_context());
        let body = response.body.remaining().unwrap_or_default() as usize;
        Outcome::Answered(Answer { status: response.status, why: why.to_owned(), headers, body })
    }

    fn not_found(&self, why: &str, request: &Request) -> Outcome {
        self.answered(why, Response::local(404, ""), request)
    }

    fn format_context(&self) -> FormatContext<'_> {
        FormatContext {
            connection: &self.stream.connection,
            record: &self.stream.record,
            stream: Some(self.stream),
            request: None,
            response: None,
            response_status: 0,
            trailers: None,
            local_reply_body: b"",
            filter_chain: self.asked.filter_chain,
            log_type: LogType::NotSet,
            now: self.stream.record.start,
            wall: self.asked.wall,
            random: self.asked.random.into(),
        }
    }
}

/// Names of clusters by the numbers that a table wants for them.
#[derive(Default)]
struct Clusters {
    ids: HashMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
}

impl Clusters {
    fn id(&mut self, name: &Arc<str>) -> ClusterId {
        let names = &mut self.names;
        ClusterId(*self.ids.entry(Arc::clone(name)).or_insert_with(|| {
            names.push(Arc::clone(name));
            names.len() as u32 - 1
        }))
    }

    fn name(&self, id: ClusterId) -> &str {
        self.names.get(id.0 as usize).map_or("", |name| name)
    }
}

/// The filters before the router, of all chains; what routes say to them is of no interest here, but for whether they are
/// disabled.
#[derive(Default)]
struct Filters {
    names: Vec<String>,
    disabled: FilterSet,
    chains: Vec<Chain>,
}

#[derive(Default)]
struct Chain {
    /// The list it stands in.
    path: String,
    /// The index of its first filter.
    start: usize,
    /// Its filters, without the router.
    count: usize,
    router: Arc<Router>,
}

impl Filters {
    fn of(manager: &HttpConnectionManager) -> Filters {
        let mut filters = Filters::default();
        filters.push("http_filters".to_owned(), &manager.filters);
        let upgrades = manager.upgrades.iter().enumerate();
        for (index, upgrade) in upgrades.filter(|(_, upgrade)| !upgrade.filters.is_empty()) {
            filters.push(format!("upgrade_configs[{index}].filters"), &upgrade.filters);
        }
        filters
    }

    fn push(&mut self, path: String, list: &[HttpFilter]) {
        let mut chain = Chain { path, start: self.names.len(), ..Chain::default() };
        for filter in list {
            if let HttpFilterConfig::Router(router) = &filter.config {
                chain.router = Arc::clone(router);
                continue;
            }
            if filter.disabled {
                self.disabled.insert(FilterIndex(self.names.len() as u8));
            }
            self.names.push(filter.name.clone());
            chain.count += 1;
        }
        self.chains.push(chain);
    }

    fn notes(&self, chain: ChainIndex, disabled: FilterSet) -> Vec<FilterNote> {
        let Some(chain) = self.chains.get(usize::from(chain.0)) else { return Vec::new() };
        let names = self.names.iter().skip(chain.start).take(chain.count).enumerate();
        names
            .map(|(at, name)| FilterNote {
                name: name.clone(),
                place: format!("{}[{at}]", chain.path),
                disabled: disabled.contains(FilterIndex((chain.start + at) as u8)),
            })
            .collect()
    }

    fn router(&self, chain: ChainIndex) -> Arc<Router> {
        self.chains.get(usize::from(chain.0)).map(|chain| Arc::clone(&chain.router)).unwrap_or_default()
    }
}

impl RouteFilters for Filters {
    fn names(&self) -> &[String] {
        &self.names
    }

    fn disabled(&self) -> FilterSet {
        self.disabled
    }

    fn ready(&self, _: FilterIndex, _: &RouteFilter) -> Option<RouteFilterValue> {
        None
    }
}

/// A header's name and value.
type Line = (String, String);

fn lines(request: &Request) -> Vec<Line> {
    request.headers.iter().map(|(name, value)| (text(name), text(value))).collect()
}

fn headers(response: &Response) -> Vec<Line> {
    response.headers.iter().map(|(name, value)| (text(name), text(value))).collect()
}

/// Those of `lines` that are not in `others`; each of these stands for one.
fn missing(lines: &[Line], others: &[Line]) -> Vec<Line> {
    let mut others: Vec<_> = others.iter().collect();
    let mut missing = Vec::new();
    for line in lines {
        match others.iter().position(|other| *other == line) {
            Some(at) => _ = others.swap_remove(at),
            None => missing.push(line.clone()),
        }
    }
    missing
}

fn seen(request: &Request) -> Explanation {
    Explanation { host: text(request.authority()), path: text(request.path()), ..Explanation::default() }
}

fn refused(refusal: &NotForwarded, request: &Request) -> Answer {
    let (status, why) = match refusal {
        NotForwarded::NoPath => (404, "the target is no path"),
        NotForwarded::BadPath => (400, "path_with_escaped_slashes_action or normalize_path refuses the path"),
        NotForwarded::OtherPath => {
            (307, "path_with_escaped_slashes_action redirects to the path without them")
        }
        NotForwarded::Nomination => (400, "`connection` names a header that must not be removed"),
        NotForwarded::Refused(status) => (*status, "original_ip_detection_extensions found no address"),
    };
    let location = (status == 307).then(|| ("location".to_owned(), text(request.path())));
    Answer { status, why: why.to_owned(), headers: location.into_iter().collect(), body: 0 }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;
