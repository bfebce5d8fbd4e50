//! `envoy.filters.http.header_mutation`: changes headers, query parameters and trailers, in the order that the
//! configuration says. A body is wrapped only where its trailers are to be changed, if there are any.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use proxy_config::settings::{
    AppendAction, HeaderMutationFilter, HeaderMutations, HeaderValue, LogType, Mutation, Mutations,
    QueryMutation,
};
use proxy_http::access_log::{FormatContext, write_text};
use proxy_http::filter::{FilterIndex, Filtered, Flow, HttpFilter, Reset};
use proxy_http::mutation::{
    ContextSource, mutate_request, mutate_request_trailers, mutate_response, mutate_response_trailers,
};
use proxy_http::reply::percent_encode;
use proxy_http::route::RouteEntry;
use proxy_http::{Body, BodyError, BodyStream, Frame, Headers, Request, Response, StreamInfo, Tunnelling};
use proxy_net::pipe::Pipe;

use super::{FilterContext, FilterWorker, HttpFilterPlan};

/// The filter on main.
pub(super) struct HeaderMutation {
    index: FilterIndex,
    settings: Arc<HeaderMutationFilter>,
}

/// A worker's instance.
#[derive(Clone)]
struct Filter {
    index: FilterIndex,
    settings: Arc<HeaderMutationFilter>,
    filter_chain: Rc<str>,
}

/// A body whose trailers are to be changed.
struct ChangedTrailers {
    body: Body,
    of: Message,
    filter: Filter,
    stream: Rc<StreamInfo>,
    /// The one that the head was changed by.
    route: Option<RouteEntry>,
}

/// What a body is part of.
#[derive(Clone, Copy)]
enum Message {
    Request,
    Response { status: u16 },
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

    /// Has the trailers of `body` changed, where it may have some.
    fn wrap(&self, body: &mut Body, of: Message, stream: &Rc<StreamInfo>, route: Option<RouteEntry>) {
        if matches!(body, Body::Stream(_)) {
            let inner = std::mem::replace(body, Body::Empty);
            let (filter, stream) = (self.clone(), Rc::clone(stream));
            *body = Body::Stream(Box::new(ChangedTrailers { body: inner, of, filter, stream, route }));
        }
    }
}

impl ChangedTrailers {
    fn change(&self, trailers: &mut Headers) {
        let kept = self.stream.kept();
        let all = || FormatContext::of_stream(&self.stream, &self.filter.filter_chain, LogType::NotSet);
        let of_request = || FormatContext { request: kept.request.as_deref(), ..all() };
        let of_response = |status| {
            let context = of_request();
            let sent = Some(context.response_status).filter(|status| *status != 0);
            FormatContext {
                response: kept.response.as_ref(),
                response_status: sent.unwrap_or(status),
                ..context
            }
        };
        self.filter.each(self.route.as_ref(), |mutations| match self.of {
            Message::Request => {
                change_trailers(&mutations.request_trailers, trailers, |addition, trailers| {
                    mutate_request_trailers(addition, trailers, &of_request);
                })
            }
            Message::Response { status } => {
                change_trailers(&mutations.response_trailers, trailers, |addition, trailers| {
                    mutate_response_trailers(addition, trailers, &|| of_response(status));
                });
            }
        });
    }
}

fn change_trailers(
    mutations: &[Mutation],
    trailers: &mut Headers,
    append: impl Fn(&HeaderMutations, &mut Headers),
) {
    for mutation in mutations {
        match mutation {
            Mutation::Remove(name) => _ = trailers.remove(&**name),
            Mutation::RemoveMatching(matcher) => trailers.remove_if(|name, _| matcher.matches(name)),
            Mutation::Append(addition) => append(addition, trailers),
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
        let (mut trailers, mut shown) = (false, false);
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
            trailers |= !mutations.request_trailers.is_empty();
            shown |= mutations.trailers_need_requests();
        });
        // What a tunnel carries has no trailers, and is to stay bytes.
        if trailers && stream.tunnel() == Tunnelling::No {
            if shown && !request.body.is_empty() {
                stream.show_request(request);
            }
            self.wrap(&mut request.body, Message::Request, stream, route);
        }
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
        let (mut trailers, mut shown) = (false, false);
        self.each(route.as_ref(), |mutations| {
            for mutation in &mutations.response {
                change_response(mutation, response, kept.request.as_deref(), &source);
            }
            trailers |= !mutations.response_trailers.is_empty();
            shown |= mutations.trailers_need_responses();
        });
        drop(kept);
        if trailers && response.tunnel.is_none() {
            if shown && !response.body.is_empty() {
                stream.show_response(&response.headers);
            }
            let of = Message::Response { status: response.status };
            self.wrap(&mut response.body, of, stream, route);
        }
        Filtered::Now(Ok(()))
    }
}

impl BodyStream for ChangedTrailers {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let mut frame = ready!(self.body.poll_frame(cx));
        if let Some(Ok(Frame::Trailers(trailers))) = &mut frame {
            self.change(trailers);
            if trailers.is_empty() {
                frame = None;
            }
        }
        Poll::Ready(frame)
    }

    fn remaining(&self) -> Option<u64> {
        self.body.remaining()
    }

    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Option<Poll<Result<usize, BodyError>>> {
        self.body.poll_splice(cx, pipe)
    }
}
