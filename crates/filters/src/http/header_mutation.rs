//! `envoy.filters.http.header_mutation`: changes headers, and query parameters, in the order that the configuration says.

use std::rc::Rc;
use std::sync::Arc;

use proxy_config::settings::{
    AppendAction, HeaderMutationFilter, HeaderValue, LogType, Mutation, Mutations, QueryMutation,
};
use proxy_http::access_log::{FormatContext, write_text};
use proxy_http::filter::{FilterIndex, Filtered, Flow, HttpFilter, Reset};
use proxy_http::mutation::{ContextSource, mutate_request, mutate_response};
use proxy_http::reply::percent_encode;
use proxy_http::route::RouteEntry;
use proxy_http::{Request, Response, StreamInfo};

use super::{FilterContext, FilterWorker, HttpFilterPlan};

/// The filter on main.
pub(super) struct HeaderMutation {
    index: FilterIndex,
    settings: Arc<HeaderMutationFilter>,
}

/// A worker's instance.
struct Filter {
    index: FilterIndex,
    settings: Arc<HeaderMutationFilter>,
    filter_chain: Rc<str>,
}

impl HeaderMutation {
    pub(super) fn new(settings: &Arc<HeaderMutationFilter>, context: &FilterContext<'_>) -> HeaderMutation {
        HeaderMutation { index: context.index, settings: Arc::clone(settings) }
    }
}

impl HttpFilterPlan for HeaderMutation {
    fn build(&self, worker: &FilterWorker) -> Box<dyn HttpFilter> {
        Box::new(Filter {
            index: self.index,
            settings: Arc::clone(&self.settings),
            filter_chain: Rc::clone(&worker.filter_chain),
        })
    }

    fn tells_of_record(&self) -> bool {
        self.settings.mutations.tells_of_record()
    }
}

impl Filter {
    /// The filter's own and those of the route, in the order in which they are carried out.
    fn each(&self, route: Option<&RouteEntry>, mut visit: impl FnMut(&Mutations)) {
        visit(&self.settings.mutations);
        let Some(route) = route else { return };
        let levels = route.filter_configs::<Mutations>(self.index);
        if self.settings.most_specific_wins {
            levels.rev().for_each(visit);
        } else {
            levels.for_each(visit);
        }
    }
}

fn change_request(mutation: &Mutation, request: &mut Request, source: ContextSource<'_>) {
    match mutation {
        Mutation::Remove(name) => _ = request.headers.remove(&**name),
        Mutation::RemoveMatching(matcher) => request.headers.remove_if(|name, _| matcher.matches(name)),
        Mutation::Append(addition) => mutate_request(addition, request, source),
    }
}

fn change_response(
    mutation: &Mutation,
    response: &mut Response,
    request: Option<&Request>,
    source: ContextSource<'_>,
) {
    match mutation {
        Mutation::Remove(name) => _ = response.headers.remove(&**name),
        Mutation::RemoveMatching(matcher) => response.headers.remove_if(|name, _| matcher.matches(name)),
        Mutation::Append(addition) => mutate_response(addition, response, request, source),
    }
}

fn change_query(mutations: &[QueryMutation], request: &mut Request, source: ContextSource<'_>) {
    let path = request.path();
    let (path, query) = match memchr::memchr(b'?', path) {
        Some(at) => (path[..at].to_vec(), path[at + 1..].to_vec()),
        None => (path.to_vec(), Vec::new()),
    };
    let mut pairs: Vec<Vec<u8>> =
        query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(<[u8]>::to_vec).collect();
    for mutation in mutations {
        match mutation {
            QueryMutation::Remove(key) => pairs.retain(|pair| !has_key(pair, key)),
            QueryMutation::Append { key, value, action } => {
                let present = pairs.iter().any(|pair| has_key(pair, key));
                let overwrites = match action {
                    AppendAction::AppendIfExistsOrAdd => false,
                    AppendAction::AddIfAbsent if present => continue,
                    AppendAction::OverwriteIfExists if !present => continue,
                    AppendAction::AddIfAbsent => false,
                    AppendAction::OverwriteIfExistsOrAdd | AppendAction::OverwriteIfExists => true,
                };
                if overwrites {
                    pairs.retain(|pair| !has_key(pair, key));
                }
                let mut pair = Vec::new();
                encode(key.as_bytes(), &mut pair);
                pair.push(b'=');
                encode(&filled(value, request, source), &mut pair);
                pairs.push(pair);
            }
        }
    }
    let mut whole = path;
    for (index, pair) in pairs.iter().enumerate() {
        whole.push(if index == 0 { b'?' } else { b'&' });
        whole.extend_from_slice(pair);
    }
    request.set_path(&whole);
}

fn filled(value: &HeaderValue, request: &Request, source: ContextSource<'_>) -> Vec<u8> {
    match value {
        HeaderValue::Constant(value) => value.to_vec(),
        HeaderValue::Format(format) => {
            let mut out = Vec::new();
            write_text(format, true, &FormatContext { request: Some(request), ..source() }, &mut out);
            out
        }
    }
}

/// Whether the parameter has this name, which may be percent-encoded.
fn has_key(pair: &[u8], key: &str) -> bool {
    let mut name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
    let mut wanted = key.bytes();
    while let Some((&byte, rest)) = name.split_first() {
        let (byte, rest) = match rest {
            [high, low, rest @ ..] if byte == b'%' => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, rest),
                _ => (byte, &name[1..]),
            },
            rest => (byte, rest),
        };
        if wanted.next() != Some(byte) {
            return false;
        }
        name = rest;
    }
    wanted.next().is_none()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

/// As `percent_encode`, and what has a meaning in a query besides.
fn encode(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else if byte.is_ascii_graphic() && byte != b'%' || byte == b' ' {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            percent_encode(&[byte], out);
        }
    }
}

impl HttpFilter for Filter {
    fn request<'a>(
        &'a self,
        stream: &'a Rc<StreamInfo>,
        request: &'a mut Request,
    ) -> Filtered<'a, Result<Flow, Reset>> {
        let route = stream.route();
        let source = || FormatContext::of_stream(stream, &self.filter_chain, LogType::NotSet);
        self.each(route.as_ref(), |mutations| {
            for mutation in &mutations.request {
                change_request(mutation, request, &source);
            }
            if !mutations.query.is_empty() {
                change_query(&mutations.query, request, &source);
            }
            if mutations.responses_need_requests() {
                stream.want_request();
            }
        });
        Filtered::Now(Ok(Flow::Continue))
    }

    fn response<'a>(
        &'a self,
        stream: &'a Rc<StreamInfo>,
        response: &'a mut Response,
    ) -> Filtered<'a, Result<(), Reset>> {
        let route = stream.route();
        let kept = stream.kept();
        let source = || FormatContext::of_stream(stream, &self.filter_chain, LogType::NotSet);
        self.each(route.as_ref(), |mutations| {
            for mutation in &mutations.response {
                change_response(mutation, response, kept.request.as_deref(), &source);
            }
        });
        Filtered::Now(Ok(()))
    }
}
