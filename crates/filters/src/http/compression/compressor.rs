//! `envoy.filters.http.compressor`: compresses responses that clients want compressed, and requests if told to.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use proxy_config::settings::{self, CompressedDirection, CompressorPerRoute, HttpFilterConfig};
use proxy_http::filter::{FilterIndex, Filtered, Flow, HttpFilter, Reset};
use proxy_http::{Body, BodyError, BodyStream, Frame, HeaderId, Headers, Request, Response, StreamInfo};
use proxy_net::buffer::Chunk;
use proxy_stats::{Counter, stats_block};

use super::super::{FilterContext, FilterWorker, HttpFilterPlan};
use super::choice::{Choice, Offer, choose};
use super::encoder::{Encoder, coding, stat_name};
use super::has_token;

stats_block! {
    /// `http.<stat_prefix>.compressor.<library name>.<library>.*`, what only responses have.
    pub(super) struct CompressorStats {
        counters: header_compressor_overshadowed, header_compressor_used, header_identity, header_not_valid,
            header_wildcard, no_accept_header, not_compressed_etag;
    }
}

stats_block! {
    /// The same of either direction, requests under `request.`.
    pub(super) struct DirectionStats {
        counters: compressed, content_length_too_small, not_compressed, total_compressed_bytes,
            total_uncompressed_bytes;
    }
}

/// The filter, on main and on each worker.
#[derive(Clone)]
pub(in super::super) struct Compressor {
    index: FilterIndex,
    settings: Arc<settings::Compressor>,
    /// All compressors of the chain, in order.
    all: Arc<[(FilterIndex, Arc<settings::Compressor>)]>,
    stats: CompressorStats,
    of_requests: DirectionStats,
    of_responses: DirectionStats,
}

/// `accept-encoding` of the request, as this filter saw it.
struct Accepted(Box<[u8]>);

struct Compressed {
    body: Body,
    encoder: Encoder,
    /// What comes after the last compressed bytes.
    end: Option<Option<Result<Frame, BodyError>>>,
    ended: bool,
    uncompressed: Counter,
    compressed: Counter,
}

impl Compressor {
    pub(in super::super) fn new(
        settings: &Arc<settings::Compressor>,
        context: &FilterContext<'_>,
    ) -> Compressor {
        let name = format!("compressor.{}.{}.", settings.library_name, stat_name(&settings.library));
        let scope = context.scope.scope(&name);
        let all = context.chain.iter().enumerate().filter_map(|(index, filter)| match &filter.config {
            HttpFilterConfig::Compressor(settings) => {
                Some((FilterIndex(context.chain_start.0 + index as u8), Arc::clone(settings)))
            }
            _ => None,
        });
        let of_responses = if settings.response_stats { scope.scope("response.") } else { scope.clone() };
        Compressor {
            index: context.index,
            settings: Arc::clone(settings),
            all: all.collect(),
            stats: CompressorStats::new(&scope),
            of_requests: DirectionStats::new(&scope.scope("request.")),
            of_responses: DirectionStats::new(&of_responses),
        }
    }

    fn route_settings(&self, stream: &StreamInfo) -> Option<CompressorPerRoute> {
        stream.route().as_ref().and_then(|route| route.filter_config(self.index).copied())
    }

    /// Has `body` compressed, and its headers say so.
    fn compress(&self, encoder: Encoder, headers: &mut Headers, body: &mut Body, stats: &DirectionStats) {
        stats.compressed.inc();
        headers.remove(HeaderId::CONTENT_LENGTH);
        headers.append("content-encoding", coding(&self.settings.library).as_bytes());
        *body = Body::Stream(Box::new(Compressed {
            body: std::mem::replace(body, Body::Empty),
            encoder,
            end: None,
            ended: false,
            uncompressed: stats.total_uncompressed_bytes,
            compressed: stats.total_compressed_bytes,
        }));
    }

    /// Whether the client wants what this filter makes.
    fn is_chosen(&self, stream: &StreamInfo, headers: &Headers) -> bool {
        let Some(accepted) = stream.filter_local::<Accepted>(self.index) else {
            self.stats.no_accept_header.inc();
            return false;
        };
        let choice = self.choice(stream, &accepted.0, headers);
        let own = coding(&self.settings.library);
        match choice {
            Choice::Coding(chosen) if chosen == own => self.stats.header_compressor_used.inc(),
            Choice::Coding(_) => self.stats.header_compressor_overshadowed.inc(),
            Choice::Any(_) => self.stats.header_wildcard.inc(),
            Choice::Identity => self.stats.header_identity.inc(),
            Choice::Nothing => self.stats.header_not_valid.inc(),
        }
        matches!(choice, Choice::Coding(chosen) | Choice::Any(chosen) if chosen == own)
    }

    /// The stream's decision, made by the first compressor that asks.
    fn choice(&self, stream: &StreamInfo, accepted: &[u8], headers: &Headers) -> Choice {
        let state = &stream.filter_data().state;
        if let Some(choice) = state.find(CHOICE).and_then(|made| made.downcast::<Choice>().ok()) {
            return *choice;
        }
        let disabled = stream.disabled_filters();
        let offered: Vec<_> = self
            .all
            .iter()
            .filter(|(index, settings)| {
                !disabled.contains(*index) && is_type_wanted(&settings.response, headers)
            })
            .map(|(_, settings)| Offer {
                coding: coding(&settings.library),
                first_of_equals: settings.choose_first,
            })
            .collect();
        let choice = choose(accepted, &offered);
        state.set(CHOICE, Rc::new(choice));
        choice
    }

    fn is_long_enough(
        &self,
        direction: &CompressedDirection,
        headers: &Headers,
        stats: &DirectionStats,
    ) -> bool {
        let Some(length) = headers.value(HeaderId::CONTENT_LENGTH) else { return true };
        let length = std::str::from_utf8(length).ok().and_then(|length| length.parse::<u64>().ok());
        let enough = length.is_some_and(|length| length >= direction.min_length);
        if !enough {
            stats.content_length_too_small.inc();
        }
        enough
    }

    /// Whether an `etag` does not stand against it.
    fn etag_allows(&self, headers: &Headers) -> bool {
        let allows = !self.settings.disable_on_etag || !headers.contains("etag");
        if !allows {
            self.stats.not_compressed_etag.inc();
        }
        allows
    }

    /// Decides on a response that is not empty, and tells in `x-envoy-compression-status`. What the response itself has
    /// against it comes first here, and only then what the client wants.
    fn decide_openly(&self, stream: &StreamInfo, response: &mut Response) {
        let (headers, stats) = (&mut response.headers, &self.of_responses);
        let direction = &self.settings.response;
        let is_long_enough = self.is_long_enough(direction, headers, stats);
        if response.status == 101
            || has_token(headers, "cache-control", b"no-transform")
            || headers.contains("content-encoding")
        {
            stats.not_compressed.inc();
            return;
        }
        let refusal = if !is_long_enough {
            Some("ContentLengthTooSmall")
        } else if !is_type_wanted(direction, headers) {
            Some("ContentTypeNotAllowed")
        } else if !self.etag_allows(headers) {
            Some("EtagNotAllowed")
        } else if self.settings.uncompressible.contains(&response.status) {
            Some("StatusCodeNotAllowed")
        } else {
            None
        };
        if let Some(reason) = refusal {
            stats.not_compressed.inc();
            self.tell(headers, reason, b"");
            return;
        }
        if self.is_chosen(stream, headers)
            && let Ok(encoder) = Encoder::new(&self.settings.library)
        {
            let length = headers.value(HeaderId::CONTENT_LENGTH).map(<[u8]>::to_vec).unwrap_or_default();
            self.change_etag(headers);
            self.compress(encoder, headers, &mut response.body, stats);
            self.tell(headers, "Compressed;OriginalLength=", &length);
        } else {
            stats.not_compressed.inc();
        }
        vary(headers);
    }

    fn tell(&self, headers: &mut Headers, what: &str, value: &[u8]) {
        let coding = coding(&self.settings.library);
        let value = [coding.as_bytes(), b";", what.as_bytes(), value].concat();
        headers.append("x-envoy-compression-status", &value);
    }

    /// A strong `etag` is one of exact bytes, which are others now.
    fn change_etag(&self, headers: &mut Headers) {
        let Some(etag) =
            headers.value("etag").filter(|etag| !etag.starts_with(b"W/") && !etag.starts_with(b"w/"))
        else {
            return;
        };
        if self.settings.weaken_etag {
            let weak = [b"W/", etag].concat();
            headers.set("etag", &weak);
        } else {
            headers.remove("etag");
        }
    }
}

/// Whether this is content of a type that is to be compressed; so is what has none, but not what has an empty one.
fn is_type_wanted(direction: &CompressedDirection, headers: &Headers) -> bool {
    let Some(value) = headers.joined(HeaderId::CONTENT_TYPE) else { return true };
    let media = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    direction.content_types.iter().any(|wanted| wanted.matches(media))
}

/// Caches have to know that clients with another `accept-encoding` get other content.
fn vary(headers: &mut Headers) {
    if has_token(headers, "vary", b"accept-encoding") {
        return;
    }
    match headers.joined("vary").map(Cow::into_owned) {
        None => headers.append("vary", b"Accept-Encoding"),
        Some(mut all) => {
            all.extend_from_slice(b", Accept-Encoding");
            headers.set("vary", &all);
        }
    }
}

impl HttpFilterPlan for Compressor {
    fn build(&self, _: &FilterWorker) -> Box<dyn HttpFilter> {
        Box::new(self.clone())
    }
}

impl HttpFilter for Compressor {
    fn request<'a>(
        &'a self,
        stream: &'a Rc<StreamInfo>,
        request: &'a mut Request,
    ) -> Filtered<'a, Result<Flow, Reset>> {
        let headers = &mut request.headers;
        let accepted = headers.joined("accept-encoding").map(|all| all.into());
        if let Some(accepted) = accepted {
            stream.set_filter_local(self.index, Accepted(accepted));
            let (enabled, remove) = match self.route_settings(stream) {
                None => (self.settings.response.enabled, self.settings.remove_accept_encoding),
                Some(CompressorPerRoute::Disabled) => (false, false),
                Some(CompressorPerRoute::Overrides { response, remove_accept_encoding }) => (
                    response || self.settings.response.enabled,
                    remove_accept_encoding.unwrap_or(self.settings.remove_accept_encoding),
                ),
            };
            if enabled && remove {
                headers.remove("accept-encoding");
            }
        }
        let stats = &self.of_requests;
        if let Some(direction) = self.settings.request.as_ref().filter(|direction| direction.enabled)
            && !request.body.is_empty()
            && self.is_long_enough(direction, headers, stats)
            && is_type_wanted(direction, headers)
            && !headers.contains("content-encoding")
            && let Ok(encoder) = Encoder::new(&self.settings.library)
        {
            self.compress(encoder, headers, &mut request.body, stats);
        } else {
            stats.not_compressed.inc();
        }
        Filtered::Now(Ok(Flow::Continue))
    }

    fn response<'a>(
        &'a self,
        stream: &'a Rc<StreamInfo>,
        response: &'a mut Response,
    ) -> Filtered<'a, Result<(), Reset>> {
        let (headers, stats) = (&mut response.headers, &self.of_responses);
        let direction = &self.settings.response;
        let enabled = match self.route_settings(stream) {
            None | Some(CompressorPerRoute::Overrides { response: false, .. }) => direction.enabled,
            Some(CompressorPerRoute::Disabled) => false,
            Some(CompressorPerRoute::Overrides { response: true, .. }) => true,
        };
        if self.settings.status_header && enabled && !response.body.is_empty() {
            self.decide_openly(stream, response);
            return Filtered::Now(Ok(()));
        }
        let enabled = enabled && self.is_long_enough(direction, headers, stats);
        let could = enabled
            && response.status != 101
            && is_type_wanted(direction, headers)
            && !has_token(headers, "cache-control", b"no-transform")
            && self.etag_allows(headers)
            && !headers.contains("content-encoding")
            && !self.settings.uncompressible.contains(&response.status);
        if enabled
            && !response.body.is_empty()
            && self.is_chosen(stream, headers)
            && could
            && let Ok(encoder) = Encoder::new(&self.settings.library)
        {
            self.change_etag(headers);
            self.compress(encoder, headers, &mut response.body, stats);
        } else {
            stats.not_compressed.inc();
        }
        if could {
            vary(&mut response.headers);
        }
        Filtered::Now(Ok(()))
    }
}

impl BodyStream for Compressed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Some(end) = self.end.take() {
            return Poll::Ready(end);
        }
        while !self.ended {
            let frame = ready!(self.body.poll_frame(cx));
            let piece = match frame {
                Some(Ok(Frame::Data(chunk))) => {
                    self.uncompressed.add(chunk.len() as u64);
                    self.encoder.compress(chunk.as_slice(), false)
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                end => {
                    self.ended = true;
                    self.end = Some(end);
                    self.encoder.compress(&[], true)
                }
            };
            let piece = piece?;
            self.compressed.add(piece.len() as u64);
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(Frame::Data(Chunk::from(bytes::Bytes::from(piece))))));
            }
        }
        Poll::Ready(self.end.take().flatten())
    }

    fn remaining(&self) -> Option<u64> {
        None
    }
}

/// The name of the decision in the stream's filter state.
const CHOICE: &str = "compressor.choice";
