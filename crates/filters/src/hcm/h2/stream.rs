//! One stream of a client's HTTP/2 connection: its request, and the way of the response back.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use proxy_config::settings::UnderscoreAction;
use proxy_http::body::{Body, BodyError, BodyStream, Frame};
use proxy_http::forwarding::asks_for_tunnel;
use proxy_http::h1::head::{self, HeadError};
use proxy_http::h2::convert::{RequestError, content_length, request_from_parts, response_to_http};
use proxy_http::h2::{BodyReceiver, BodySender, Queued, SendError, StreamMetadata};
use proxy_http::reply::LocalReply;
use proxy_http::stream::StreamDeadlines;
use proxy_http::{
    Headers, Request, Response, ResponseFlags, StreamInfo, StreamTimer, Tunnel, Tunnelling, Version,
};
use proxy_runtime::clock;

use super::super::HttpStats;
use super::super::respond::{Arrival, StreamGuard};
use super::{OpenStream, Shared};

/// A request that came in, turned into what the rest of the proxy understands.
pub(super) struct Arrived {
    stream: Rc<StreamInfo>,
    guard: StreamGuard,
    /// It asks for a head alone, whatever else may be wrong with it.
    to_head: bool,
    request: Result<Request, RequestError>,
}

/// How far a stream came before it was to be answered.
enum Outcome {
    Response(Response),
    TimedOut(StreamTimer),
    /// The client took its request back, or is gone.
    Gone,
    /// The stream is to be reset.
    Reset,
}

/// The body of a request.
struct RequestBody {
    receiver: BodyReceiver,
    stream: Rc<StreamInfo>,
    stats: Arc<HttpStats>,
    underscores: UnderscoreAction,
    /// The request asks to become a tunnel: until that is open, nothing of what comes is passed on.
    tunnel: bool,
}

/// Takes a request in; a plain function, so that `http`'s large heads never lie in a future.
pub(super) fn arrive(
    shared: &Rc<Shared>,
    request: http::Request<RecvStream>,
    metadata: Option<StreamMetadata>,
) -> Arrived {
    let manager = &shared.manager;
    let now = clock::now();
    let deadlines = Rc::new(StreamDeadlines::new());
    let info = Rc::clone(&shared.info);
    let mut stream = StreamInfo::new(info, Version::Http2, now, deadlines, manager.needs);
    stream.h2_metadata = metadata;
    let stream = Rc::new(stream);
    let guard = StreamGuard::new(manager, &stream);
    manager.set_stream_timeouts(&stream, now);
    let (parts, body) = request.into_parts();
    let max_lines = manager.settings.max_request_headers as usize;
    let mut request = request_from_parts(&parts, max_lines).and_then(|mut request| {
        apply_underscores(&manager.stats, manager.settings.underscores, &mut request.headers)
            .map_err(RequestError::Head)?;
        Ok(request)
    });
    if manager.needs.record
        && let Ok(request) = &request
    {
        // What it was before HPACK is known to `h2` alone.
        stream.record.received.headers.set(request.header_bytes());
        stream.record.received.wire.set(request.header_bytes());
    }
    if body.is_end_stream() {
        stream.request_completed(now);
    } else if let Ok(request) = &mut request {
        let length = content_length(&request.headers);
        request.body = Body::Stream(Box::new(RequestBody {
            receiver: BodyReceiver::new(body, length),
            stream: Rc::clone(&stream),
            stats: Arc::clone(&manager.stats),
            underscores: manager.settings.underscores,
            tunnel: asks_for_tunnel(request),
        }));
    }
    Arrived { stream, guard, to_head: parts.method == http::Method::HEAD, request }
}

/// Deals with names that have an underscore, and counts.
fn apply_underscores(
    stats: &HttpStats,
    action: UnderscoreAction,
    headers: &mut Headers,
) -> Result<(), HeadError> {
    match head::apply_underscores(headers, action) {
        Ok(0) => {}
        Ok(dropped) => stats.http2().dropped_headers_with_underscores.add(dropped as u64),
        Err(error) => {
            stats.http2().requests_rejected_with_underscores_in_headers.inc();
            return Err(error);
        }
    }
    Ok(())
}

/// Serves the stream to its end.
pub(super) async fn serve(open: OpenStream, arrived: Arrived, mut respond: SendResponse<Queued>) {
    let Arrived { stream, mut guard, to_head, request } = arrived;
    let shared = &open.shared;
    let outcome = match request {
        Ok(request) => await_response(shared, &stream, request, &mut respond).await,
        Err(error) => Outcome::Response(refuse(shared, &stream, error).await),
    };
    let response = match outcome {
        Outcome::Response(response) => response,
        Outcome::TimedOut(timer) => shared.manager.timed_out(&stream, timer).await,
        Outcome::Gone => {
            guard.reset_by_peer();
            return;
        }
        Outcome::Reset => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            guard.reset_by_us();
            return;
        }
    };
    send_response(shared, &stream, response, to_head, respond, &mut guard).await;
}

/// The answer to a request that cannot be one.
async fn refuse(shared: &Shared, stream: &Rc<StreamInfo>, error: RequestError) -> Response {
    let manager = &shared.manager;
    let response = match error {
        RequestError::Path => {
            manager.stats.manager.downstream_rq_non_relative_path.inc();
            stream.set_details("absolute_path_rejected");
            Response::local(404, "")
        }
        RequestError::Head(error) => {
            if error == HeadError::TooManyLines {
                shared.codec_stats().header_overflow.inc();
            } else {
                shared.codec_stats().rx_messaging_error.inc();
            }
            LocalReply::Downstream(error).response(stream)
        }
    };
    manager.finish(stream, response).await
}

async fn await_response(
    shared: &Shared,
    stream: &Rc<StreamInfo>,
    mut request: Request,
    client: &mut SendResponse<Queued>,
) -> Outcome {
    shared.manager.prepare_interim(stream, &mut request);
    let arrival = Arrival { tunnel: asks_for_tunnel(&request), ..Arrival::default() };
    let mut respond = pin!(shared.manager.respond(stream, request, arrival));
    poll_fn(|cx| {
        let polled = respond.as_mut().poll(cx);
        if let Some(interim) = shared.manager.take_interim(stream) {
            // That the client is gone shows below.
            let _ = client.send_informational(response_to_http(interim.status, &interim.headers));
        }
        if let Poll::Ready(response) = polled {
            return Poll::Ready(match response {
                Ok(response) => Outcome::Response(response),
                // That the client has reset the stream may show in its body first.
                Err(_) if poll_gone(shared, stream, client, cx).is_ready() => Outcome::Gone,
                Err(_) => Outcome::Reset,
            });
        }
        while let Poll::Ready(index) = stream.deadlines().poll_expired(cx) {
            if let Some(timer) = StreamTimer::from_index(index) {
                return Poll::Ready(Outcome::TimedOut(timer));
            }
        }
        poll_gone(shared, stream, client, cx).map(|()| Outcome::Gone)
    })
    .await
}

/// Ready when the client has reset the stream, which is counted, or its connection is gone.
fn poll_gone(
    shared: &Shared,
    stream: &StreamInfo,
    client: &mut SendResponse<Queued>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    client.poll_reset(cx).map(|reset| note_reset(shared, stream, &reset))
}

fn note_reset(shared: &Shared, stream: &StreamInfo, reset: &Result<Reason, h2::Error>) {
    if reset.is_ok() {
        shared.codec_stats().rx_reset.inc();
        shared.note_reset(clock::now().saturating_duration_since(stream.record.start));
        stream.set_flag(ResponseFlags::DOWNSTREAM_REMOTE_RESET);
        stream.record.replace_details("http2.remote_reset");
    }
}

/// How a response ended.
enum End {
    Whole,
    ByPeer,
    ByUs,
    /// The host was done with it, the client did not take the end in time.
    Unflushed,
}

async fn send_response(
    shared: &Shared,
    stream: &Rc<StreamInfo>,
    response: Response,
    to_head: bool,
    mut respond: SendResponse<Queued>,
    guard: &mut StreamGuard,
) {
    let Response { status, headers, mut body, tunnel, .. } = response;
    if tunnel.is_none() && (to_head || status < 200 || status == 204 || status == 304) {
        body = Body::Empty;
    }
    // To HTTP/2 an upgrade is a CONNECT like others (RFC 8441, section 5).
    let sent_status = if status == 101 { 200 } else { status };
    let head = response_to_http(sent_status, &headers);
    if stream.needs().record {
        let size = headers.byte_size() as u64 + STATUS_BYTES;
        stream.record.sent.headers.set(size);
        stream.record.sent.wire.set(size);
    }
    stream.keep_response(headers);
    guard.response_started(status);
    let ends = body.is_empty() && !stream.h2_metadata.as_ref().is_some_and(StreamMetadata::is_to_go);
    let Ok(send) = respond.send_response(head, ends) else {
        guard.reset_by_peer();
        return;
    };
    let mut sender = BodySender::new(send, &shared.queue, ends);
    let end = match tunnel {
        None => poll_fn(|cx| poll_body(cx, shared, stream, &mut sender, &mut body, guard)).await,
        Some(tunnel) => {
            let relay = Relay { shared, stream, sender: &mut sender, body, tunnel: Some(tunnel), guard };
            Box::pin(relay).await
        }
    };
    stream.clear_timeouts();
    match end {
        End::Whole => guard.completed(),
        End::ByPeer => {
            guard.reset_by_peer();
        }
        End::ByUs => {
            // A reset takes back what `h2` has not written: first what has come has its turn.
            tokio::task::yield_now().await;
            sender.reset(Reason::INTERNAL_ERROR);
            guard.reset_by_us();
        }
        End::Unflushed => {
            shared.codec_stats().tx_flush_timeout.inc();
            sender.reset(Reason::INTERNAL_ERROR);
            // To everyone but the codec it is whole, as in Envoy.
            guard.completed();
        }
    }
}

/// A stream of bytes: what comes from the host as the response's body, and what goes to it.
struct Relay<'a> {
    shared: &'a Shared,
    stream: &'a StreamInfo,
    sender: &'a mut BodySender,
    body: Body,
    /// `None`: the host has all that the client sent.
    tunnel: Option<Box<dyn Tunnel>>,
    guard: &'a StreamGuard,
}

impl Future for Relay<'_> {
    type Output = End;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let this = self.get_mut();
        if let Some(tunnel) = &mut this.tunnel
            && let Poll::Ready(sent) = tunnel.poll_upload(cx)
        {
            this.tunnel = None;
            if let Err(error) = sent {
                // That the client has reset the stream is counted where it shows.
                if let BodyError::Reset(reason) = error {
                    note_reset(this.shared, this.stream, &Ok(reason));
                }
                return Poll::Ready(End::ByPeer);
            }
        }
        if !this.sender.is_finished() {
            let polled = poll_body(cx, this.shared, this.stream, this.sender, &mut this.body, this.guard);
            match std::task::ready!(polled) {
                End::Whole => {}
                end => return Poll::Ready(end),
            }
        }
        match this.tunnel {
            None => Poll::Ready(End::Whole),
            // The client may still end it.
            Some(_) => poll_rest(cx, this.shared, this.stream, this.sender, &mut this.body),
        }
    }
}

fn poll_body(
    cx: &mut Context<'_>,
    shared: &Shared,
    stream: &StreamInfo,
    sender: &mut BodySender,
    body: &mut Body,
    guard: &StreamGuard,
) -> Poll<End> {
    let polled = sender.poll_send(cx, body, |count| {
        stream.record.sent.add_body(count as u64);
        stream.record.sent.add_wire(count as u64);
        stream.touch(clock::now());
    });
    match polled {
        Poll::Ready(Ok(_)) => return Poll::Ready(End::Whole),
        Poll::Ready(Err(SendError::Peer(error))) => {
            let reset = if error.is_reset() { error.reason() } else { None };
            note_reset(shared, stream, &reset.ok_or(error));
            return Poll::Ready(End::ByPeer);
        }
        Poll::Ready(Err(SendError::Body(error))) => {
            guard.upstream_failed(&error);
            return Poll::Ready(End::ByUs);
        }
        Poll::Pending => {}
    }
    if sender.holds_last() || (stream.limits_flush() && sender.finds_last(cx, body)) {
        stream.begin_flush(clock::now());
    }
    poll_rest(cx, shared, stream, sender, body)
}

/// Ready when a limit passes, or the client resets the stream.
fn poll_rest(
    cx: &mut Context<'_>,
    shared: &Shared,
    stream: &StreamInfo,
    sender: &mut BodySender,
    body: &mut Body,
) -> Poll<End> {
    while let Poll::Ready(index) = stream.deadlines().poll_expired(cx) {
        if let Some(timer) = StreamTimer::from_index(index) {
            if stream.is_flushing() || sender.finds_last(cx, body) {
                stream.begin_flush(clock::now());
                match timer {
                    StreamTimer::Idle => return Poll::Ready(End::Unflushed),
                    StreamTimer::Response | StreamTimer::Duration => continue,
                    StreamTimer::Request => {}
                }
            }
            shared.manager.note_timeout(stream, timer, true);
            return Poll::Ready(End::ByUs);
        }
    }
    sender.poll_reset(cx).map(|reset| {
        note_reset(shared, stream, &reset);
        End::ByPeer
    })
}

impl BodyStream for RequestBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if self.tunnel && self.stream.tunnel() != Tunnelling::Open {
            // Who opens it polls again.
            return Poll::Pending;
        }
        let mut frame = ready!(self.receiver.poll_frame(cx));
        if let Some(Ok(Frame::Trailers(trailers))) = &mut frame
            && apply_underscores(&self.stats, self.underscores, trailers).is_err()
        {
            frame = Some(Err(BodyError::Malformed("an underscore in the name of a trailer")));
        }
        match &frame {
            Some(Ok(Frame::Data(chunk))) => {
                self.stream.record.received.add_body(chunk.len() as u64);
                self.stream.record.received.add_wire(chunk.len() as u64);
                self.stream.touch(clock::now());
            }
            Some(Ok(Frame::Trailers(_))) => self.stats.http2().trailers.inc(),
            Some(Err(_)) => return Poll::Ready(frame),
            None => {}
        }
        if self.receiver.is_ended() {
            self.stream.request_completed(clock::now());
        }
        Poll::Ready(frame)
    }

    fn remaining(&self) -> Option<u64> {
        if self.tunnel { None } else { self.receiver.remaining() }
    }
}

/// `:status` and its value.
const STATUS_BYTES: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, C, F: Future>(_: impl FnOnce(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_stream_is_small_enough_to_have_many() {
        let size = size_of_future(serve);
        assert!(size <= 2048, "{size}");
    }
}
