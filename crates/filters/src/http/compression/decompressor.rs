//! `envoy.filters.http.decompressor`: takes compression off requests and responses, and tells hosts that they may compress.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use proxy_config::settings::{self, DecompressedDirection};
use proxy_http::filter::{Filtered, Flow, HttpFilter, Reset};
use proxy_http::{Body, BodyError, BodyStream, Frame, HeaderId, Headers, Request, Response, StreamInfo};
use proxy_net::buffer::Chunk;
use proxy_stats::{Counter, stats_block};

use super::super::{FilterContext, FilterWorker, HttpFilterPlan};
use super::decoder::{Decoder, coding, stat_name};
use super::has_token;

stats_block! {
    /// `http.<stat_prefix>.decompressor.<library name>.<library>.{request,response}.*`.
    pub(super) struct DecompressorStats {
        counters: decompressed, not_decompressed, total_compressed_bytes, total_uncompressed_bytes;
    }
}

/// The filter, on main and on each worker.
#[derive(Clone)]
pub(in super::super) struct Decompressor {
    settings: Arc<settings::Decompressor>,
    of_requests: DecompressorStats,
    of_responses: DecompressorStats,
}

struct Decompressed {
    body: Body,
    decoder: Decoder,
    /// Some of it has come: what is empty is no compressed content, and not half of it.
    begun: bool,
    /// What came and is not decoded yet.
    input: Chunk,
    /// The decoder may have more without further input.
    more: bool,
    compressed: Counter,
    uncompressed: Counter,
}

impl Decompressor {
    pub(in super::super) fn new(
        settings: &Arc<settings::Decompressor>,
        context: &FilterContext<'_>,
    ) -> Decompressor {
        let name = format!("decompressor.{}.{}.", settings.library_name, stat_name(settings.library));
        let scope = context.scope.scope(&name);
        Decompressor {
            settings: Arc::clone(settings),
            of_requests: DecompressorStats::new(&scope.scope("request.")),
            of_responses: DecompressorStats::new(&scope.scope("response.")),
        }
    }

    fn decompress(
        &self,
        direction: DecompressedDirection,
        headers: &mut Headers,
        body: &mut Body,
        stats: &DecompressorStats,
    ) {
        let coding = coding(self.settings.library);
        let all = headers.joined("content-encoding");
        let wanted = direction.enabled
            && all.is_some_and(|all| first_token(&all).eq_ignore_ascii_case(coding.as_bytes()))
            && (direction.ignore_no_transform || !has_token(headers, "cache-control", b"no-transform"));
        let decoder = wanted.then(|| Decoder::new(self.settings.library)).and_then(Result::ok);
        let Some(decoder) = decoder else { return stats.not_decompressed.inc() };
        stats.decompressed.inc();
        headers.remove(HeaderId::CONTENT_LENGTH);
        remove_first_token(headers, "content-encoding");
        *body = Body::Stream(Box::new(Decompressed {
            body: std::mem::replace(body, Body::Empty),
            decoder,
            begun: false,
            input: Chunk::empty(),
            more: false,
            compressed: stats.total_compressed_bytes,
            uncompressed: stats.total_uncompressed_bytes,
        }));
    }
}

fn first_token(list: &[u8]) -> &[u8] {
    list.split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii()
}

fn remove_first_token(headers: &mut Headers, name: &str) {
    let rest = headers.joined(name).and_then(|list| {
        let at = memchr::memchr(b',', &list)?;
        Some(list[at + 1..].trim_ascii_start().to_vec())
    });
    match rest {
        Some(rest) => headers.set(name, &rest),
        None => _ = headers.remove(name),
    }
}

/// Says that `coding` is understood, once.
fn advertise(headers: &mut Headers, coding: &str) {
    if has_token(headers, "accept-encoding", coding.as_bytes()) {
        return;
    }
    match headers.joined("accept-encoding").map(Cow::into_owned) {
        None => headers.append("accept-encoding", coding.as_bytes()),
        Some(mut all) => {
            all.push(b',');
            all.extend_from_slice(coding.as_bytes());
            headers.set("accept-encoding", &all);
        }
    }
}

impl HttpFilterPlan for Decompressor {
    fn build(&self, _: &FilterWorker) -> Box<dyn HttpFilter> {
        Box::new(self.clone())
    }
}

impl HttpFilter for Decompressor {
    fn request<'a>(
        &'a self,
        _: &'a Rc<StreamInfo>,
        request: &'a mut Request,
    ) -> Filtered<'a, Result<Flow, Reset>> {
        let settings = &self.settings;
        if settings.response.enabled && settings.advertise {
            advertise(&mut request.headers, coding(settings.library));
        }
        if !request.body.is_empty() {
            self.decompress(settings.request, &mut request.headers, &mut request.body, &self.of_requests);
        }
        Filtered::Now(Ok(Flow::Continue))
    }

    fn response<'a>(
        &'a self,
        _: &'a Rc<StreamInfo>,
        response: &'a mut Response,
    ) -> Filtered<'a, Result<(), Reset>> {
        if !response.body.is_empty() {
            let direction = self.settings.response;
            self.decompress(direction, &mut response.headers, &mut response.body, &self.of_responses);
        }
        Filtered::Now(Ok(()))
    }
}

impl BodyStream for Decompressed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        loop {
            if self.input.is_empty() && !self.more {
                match ready!(self.body.poll_frame(cx)) {
                    Some(Ok(Frame::Data(chunk))) => {
                        self.compressed.add(chunk.len() as u64);
                        self.begun |= !chunk.is_empty();
                        self.input = chunk;
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    // Half of a message must not look whole.
                    Some(Ok(Frame::Trailers(_))) | None if self.begun && !self.decoder.may_end() => {
                        return Poll::Ready(Some(Err(BodyError::Malformed("compressed content"))));
                    }
                    end => return Poll::Ready(end),
                }
            }
            let mut out = vec![0; PIECE];
            let Ok(step) = self.decoder.step(self.input.as_slice(), &mut out) else {
                return Poll::Ready(Some(Err(BodyError::Malformed("compressed content"))));
            };
            self.input.advance(step.taken);
            self.more = step.given == out.len();
            if step.given == 0 && step.taken == 0 && !self.input.is_empty() {
                return Poll::Ready(Some(Err(BodyError::Malformed("compressed content"))));
            }
            if step.given > 0 {
                out.truncate(step.given);
                self.uncompressed.add(step.given as u64);
                return Poll::Ready(Some(Ok(Frame::Data(Chunk::from(bytes::Bytes::from(out))))));
            }
        }
    }

    fn remaining(&self) -> Option<u64> {
        None
    }
}

/// Bytes that come out at once.
const PIECE: usize = 16 << 10;
