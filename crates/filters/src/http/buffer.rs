//! `envoy.filters.http.buffer`: a request goes on when it has arrived whole, if it is not too large.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use proxy_config::settings::{self, BufferPerRoute};
use proxy_http::filter::{FilterIndex, Filtered, Flow, HttpFilter, Reset};
use proxy_http::h1::write::set_content_length;
use proxy_http::reply::LocalReply;
use proxy_http::{Body, BodyError, Frame, HeaderId, Request, StreamInfo, Tunnelling};
use proxy_net::buffer::Chunk;

use super::{FilterContext, FilterWorker, HttpFilterPlan};
use crate::hcm::HttpStats;

/// The filter, on main and on each worker.
#[derive(Clone)]
pub(super) struct Buffer {
    index: FilterIndex,
    limit: usize,
    stats: Arc<HttpStats>,
}

impl Buffer {
    pub(super) fn new(settings: &settings::Buffer, context: &FilterContext<'_>) -> Buffer {
        Buffer {
            index: context.index,
            limit: settings.max_request_bytes as usize,
            stats: Arc::clone(context.manager),
        }
    }

    fn too_large(&self, stream: &StreamInfo) -> Flow {
        self.stats.manager.downstream_rq_too_large.inc();
        Flow::Reply(LocalReply::RequestTooLarge.response(stream))
    }

    /// Waits for the whole of a request's body and puts it back.
    async fn gather(&self, stream: &StreamInfo, request: &mut Request, limit: usize) -> Result<Flow, Reset> {
        let mut whole = BytesMut::new();
        loop {
            match poll_fn(|cx| request.body.poll_frame(cx)).await {
                Some(Ok(Frame::Data(chunk))) => {
                    whole.extend_from_slice(chunk.as_slice());
                    if whole.len() > limit {
                        return Ok(self.too_large(stream));
                    }
                }
                Some(Err(error)) => return broken(stream, &error),
                end => {
                    if end.is_none() && !request.headers.contains(HeaderId::CONTENT_LENGTH) {
                        request.headers.remove(HeaderId::TRANSFER_ENCODING);
                        set_content_length(&mut request.headers, whole.len() as u64);
                    }
                    request.body.put_back(Chunk::from(whole.freeze()), end);
                    return Ok(Flow::Continue);
                }
            }
        }
    }
}

/// The client's fault is answered as it is without this filter.
fn broken(stream: &StreamInfo, error: &BodyError) -> Result<Flow, Reset> {
    match LocalReply::of_request_body(error) {
        Some(reply) => Ok(Flow::Reply(reply.response(stream))),
        None => Err(Reset),
    }
}

impl HttpFilterPlan for Buffer {
    fn build(&self, _: &FilterWorker) -> Box<dyn HttpFilter> {
        Box::new(self.clone())
    }
}

impl HttpFilter for Buffer {
    fn request<'a>(
        &'a self,
        stream: &'a Rc<StreamInfo>,
        request: &'a mut Request,
    ) -> Filtered<'a, Result<Flow, Reset>> {
        // A tunnel has no end to wait for.
        if request.body.is_empty() || stream.tunnel() != Tunnelling::No {
            return Filtered::Now(Ok(Flow::Continue));
        }
        let route = stream.route();
        let limit = match route.as_ref().and_then(|route| route.filter_config(self.index)) {
            Some(BufferPerRoute::Disabled) => return Filtered::Now(Ok(Flow::Continue)),
            Some(BufferPerRoute::Buffer(settings)) => settings.max_request_bytes as usize,
            None => self.limit,
        };
        if let Body::Full(body) = &request.body {
            // A filter before this one has gathered it.
            let flow = if body.len() > limit { self.too_large(stream) } else { Flow::Continue };
            return Filtered::Now(Ok(flow));
        }
        Filtered::Later(Box::pin(self.gather(stream, request, limit)))
    }
}
