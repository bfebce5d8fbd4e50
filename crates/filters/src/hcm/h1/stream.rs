//! One request on an HTTP/1 connection, and its response.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use proxy_http::body::Body;
use proxy_http::forwarding::asks_for_tunnel;
use proxy_http::h1::body::BodyDecoder;
use proxy_http::h1::head::{Framing, RequestHead};
use proxy_http::h1::outgoing::{Outgoing, SendError};
use proxy_http::h1::write::{set_content_length, write_response_head};
use proxy_http::reply::LocalReply;
use proxy_http::{HeaderId, Method, Request, Response, StreamInfo, StreamTimer, Version};
use proxy_net::CloseReason;
use proxy_runtime::clock;

use super::body::RequestBody;
use super::{Downstream, HeadSize, Served, tunnel};
use crate::hcm::Manager;
use crate::hcm::respond::{Arrival, StreamGuard};

/// How far a stream came before it was to be answered.
enum Outcome {
    Response(Response),
    TimedOut(StreamTimer),
    /// The client went away or broke the protocol; nothing can be sent.
    Gone,
    /// The stream is to be reset.
    Reset,
}

/// One request and its response. Gives what becomes of the connection.
pub(super) async fn serve_stream(
    manager: &Rc<Manager>,
    downstream: &Rc<Downstream>,
    head: Box<RequestHead>,
    size: HeadSize,
) -> Result<Served, CloseReason> {
    let now = clock::refresh();
    let RequestHead { mut request, framing, close, dropped, no_host } = *head;
    let version = request.version;
    if dropped > 0 {
        manager.stats.http1().dropped_headers_with_underscores.add(dropped as u64);
    }
    downstream.requests.set(downstream.requests.get() + 1);
    let stream = Rc::new(StreamInfo::new(
        Rc::clone(&downstream.info),
        version,
        now,
        Rc::clone(&downstream.deadlines),
        manager.needs,
    ));
    stream.record.received.headers.set(size.headers);
    stream.record.received.wire.set(size.whole);
    if let Some(record) = &downstream.info.record {
        record.protocol.set(stream.record.protocol.get());
    }
    let mut guard = StreamGuard::new(manager, &stream);
    downstream.guard.set_active_request(true);
    manager.set_stream_timeouts(&stream, now);
    *downstream.decoder.borrow_mut() = BodyDecoder::new(framing);
    let arrival =
        Arrival { tunnel: asks_for_tunnel(&request), chunked: framing == Framing::Chunked, no_host };
    manager.prepare_interim(&stream, &mut request);
    if framing == Framing::None && !arrival.tunnel {
        stream.request_completed(now);
    } else {
        let began = downstream.consumed() - size.whole;
        let body = RequestBody::new(manager, downstream, &stream, began, arrival.tunnel);
        request.body = Body::Stream(Box::new(body));
    }
    let (to_head, for_tunnel) = (request.method == Method::Head, arrival.tunnel);
    let outcome = await_response(manager, downstream, &stream, request, arrival).await;
    let response = match outcome {
        Outcome::Response(response) => response,
        Outcome::TimedOut(timer) => manager.timed_out(&stream, timer).await,
        Outcome::Gone => {
            guard.reset_by_peer();
            return Ok(Served::Last);
        }
        Outcome::Reset => {
            guard.reset_by_us();
            return Ok(Served::Last);
        }
    };
    let mut response = response;
    if let Some(tunnel) = response.tunnel.take() {
        let served = tunnel::serve(manager, downstream, &stream, response, tunnel, &mut guard).await;
        stream.clear_timeouts();
        return served;
    }
    // Nobody reads the request's body any more. What comes behind a request that is none is not to be trusted, and behind one
    // that asked for a tunnel it may be meant for that.
    let is_left =
        matches!(response.body, Body::Empty | Body::Full(_)) && !for_tunnel && response.status != 400;
    if is_left && !stream.is_request_complete() {
        poll_fn(|cx| downstream.take_what_is_there(cx, manager, &stream)).await;
    }
    let max_requests = manager.settings.max_requests_per_connection;
    let last = max_requests.is_some_and(|max| downstream.requests.get() >= max);
    if last {
        manager.stats.manager.downstream_cx_max_requests_reached.inc();
    }
    let draining = downstream.drain.is_draining() || downstream.closing.get();
    if draining {
        manager.stats.manager.downstream_cx_drain_close.inc();
    }
    // To HTTP/1.0 the end of a body without a length is the end of the connection.
    let until_close = version == Version::Http10 && response.body.remaining().is_none();
    let announce_close =
        close || last || draining || until_close || stream.is_last() || !stream.is_request_complete();
    let sent =
        send_response(manager, downstream, &stream, response, announce_close, to_head, &mut guard).await;
    stream.clear_timeouts();
    let reusable = sent && !announce_close && downstream.decoder.borrow().is_done();
    Ok(if reusable { Served::Next } else { Served::Last })
}

async fn await_response(
    manager: &Rc<Manager>,
    downstream: &Rc<Downstream>,
    stream: &Rc<StreamInfo>,
    request: Request,
    arrival: Arrival,
) -> Outcome {
    let mut respond = pin!(manager.respond(stream, request, arrival));
    let mut outcome = None;
    let mut interim = None::<Box<Outgoing>>;
    poll_fn(|cx| {
        if outcome.is_none()
            && let Poll::Ready(response) = respond.as_mut().poll(cx)
        {
            outcome = Some(match response {
                Ok(response) => Outcome::Response(response),
                Err(_) if downstream.guard.is_closed_by_peer() => Outcome::Gone,
                Err(_) => Outcome::Reset,
            });
        }
        if let Some(next) = manager.take_interim(stream) {
            let outgoing = interim.insert(Box::default());
            outgoing.start(Framing::None, false, |out| {
                write_response_head(next.status, &next.headers, manager.head_style(stream.version), out);
            });
        }
        if let Some(outgoing) = &mut interim
            && let Poll::Ready(sent) = downstream.poll_send(cx, outgoing, &mut Body::Empty, None)
        {
            downstream.count_sent(&manager.stats, outgoing.total());
            interim = None;
            if sent.is_err() {
                downstream.guard.closed_by_peer();
                return Poll::Ready(Outcome::Gone);
            }
        }
        if interim.is_none()
            && let Some(outcome) = outcome.take()
        {
            return Poll::Ready(outcome);
        }
        while let Poll::Ready(index) = downstream.deadlines.poll_expired(cx) {
            match StreamTimer::from_index(index) {
                Some(timer) if interim.is_some() => {
                    // After half a head nothing else can be said.
                    manager.note_timeout(stream, timer, true);
                    return Poll::Ready(Outcome::Reset);
                }
                Some(timer) => return Poll::Ready(Outcome::TimedOut(timer)),
                None => downstream.closing.set(true),
            }
        }
        if downstream.poll_abort(cx).is_ready() {
            downstream.guard.closed_by_peer();
            return Poll::Ready(Outcome::Gone);
        }
        Poll::Pending
    })
    .await
}

/// Sends a response. Gives whether it went out whole.
async fn send_response(
    manager: &Manager,
    downstream: &Downstream,
    stream: &Rc<StreamInfo>,
    mut response: Response,
    close: bool,
    to_head: bool,
    guard: &mut StreamGuard,
) -> bool {
    let http10 = stream.version == Version::Http10;
    if close || http10 {
        response.headers.set(HeaderId::CONNECTION, if close { b"close" } else { b"keep-alive" });
    }
    let has_length = response.headers.contains(HeaderId::CONTENT_LENGTH);
    let framing = response_framing(&mut response, to_head, http10);
    if framing == Framing::None {
        response.body = Body::Empty;
    }
    let status = response.status;
    let mut body = std::mem::replace(&mut response.body, Body::Empty);
    let mut outgoing = Outgoing::default();
    outgoing.start(framing, manager.settings.http1.enable_trailers, |out| {
        write_response_head(status, &response.headers, manager.head_style(stream.version), out)
    });
    stream.record.sent.headers.set(outgoing.header_bytes());
    if stream.keeps_response() {
        // What frames the message here is no header of it.
        response.headers.remove(HeaderId::TRANSFER_ENCODING);
        if !has_length {
            response.headers.remove(HeaderId::CONTENT_LENGTH);
        }
    }
    stream.keep_response(response.headers);
    guard.response_started(status);
    let sent = poll_fn(|cx| {
        if let Poll::Ready(sent) = downstream.poll_send(cx, &mut outgoing, &mut body, Some(stream)) {
            if let Err(SendError::Body(error)) = &sent {
                guard.upstream_failed(error);
            }
            return Poll::Ready(sent.map_err(|error| matches!(error, SendError::Io(_))));
        }
        while let Poll::Ready(index) = downstream.deadlines.poll_expired(cx) {
            match StreamTimer::from_index(index) {
                Some(timer) => {
                    manager.note_timeout(stream, timer, true);
                    return Poll::Ready(Err(false));
                }
                None => downstream.closing.set(true),
            }
        }
        if downstream.poll_abort(cx).is_ready() {
            return Poll::Ready(Err(true));
        }
        Poll::Pending
    })
    .await;
    downstream.count_sent(&manager.stats, outgoing.total());
    downstream.to_send.set(0);
    match sent {
        Ok(()) => {
            downstream.guard.set_active_request(false);
            guard.completed();
            true
        }
        Err(by_peer) => {
            if by_peer {
                downstream.guard.closed_by_peer();
                guard.reset_by_peer();
            } else {
                downstream.guard.set_active_request(false);
                guard.reset_by_us();
            }
            false
        }
    }
}

/// How the response's body goes out, and the header that says so (RFC 9112, section 6).
fn response_framing(response: &mut Response, to_head: bool, http10: bool) -> Framing {
    let headers = &mut response.headers;
    if response.status < 200 || response.status == 204 {
        headers.remove(HeaderId::CONTENT_LENGTH);
        return Framing::None;
    }
    if to_head && !http10 && response.status != 304 && !headers.contains(HeaderId::CONTENT_LENGTH) {
        // So it would be framed for GET.
        headers.set(HeaderId::TRANSFER_ENCODING, b"chunked");
    }
    if to_head || response.status == 304 {
        return Framing::None;
    }
    match response.body.remaining() {
        Some(length) => {
            if !headers.contains(HeaderId::CONTENT_LENGTH) {
                set_content_length(headers, length);
            }
            if length == 0 { Framing::None } else { Framing::Length(length) }
        }
        None if http10 => {
            headers.remove(HeaderId::CONTENT_LENGTH);
            Framing::UntilClose
        }
        None => {
            headers.remove(HeaderId::CONTENT_LENGTH);
            headers.set(HeaderId::TRANSFER_ENCODING, b"chunked");
            Framing::Chunked
        }
    }
}

/// Counts a request whose head broke off.
pub(super) fn cut(manager: &Rc<Manager>, downstream: &Downstream) {
    let info = Rc::clone(&downstream.info);
    let deadlines = Rc::clone(&downstream.deadlines);
    let stream = Rc::new(StreamInfo::new(info, Version::Http11, clock::now(), deadlines, manager.needs));
    StreamGuard::new(manager, &stream).reset_by_peer();
    downstream.guard.set_active_request(true);
}

/// Answers what never became a request, and counts it as one.
pub(super) async fn refuse(
    manager: &Rc<Manager>,
    downstream: &Rc<Downstream>,
    reply: LocalReply,
) -> Result<(), CloseReason> {
    let info = Rc::clone(&downstream.info);
    let deadlines = Rc::clone(&downstream.deadlines);
    let stream = Rc::new(StreamInfo::new(info, Version::Http11, clock::now(), deadlines, manager.needs));
    stream.record.received.wire.set(downstream.read.borrow().len() as u64);
    let mut guard = StreamGuard::new(manager, &stream);
    let response = manager.finish(&stream, reply.response(&stream)).await;
    stream.set_timeout(StreamTimer::Duration, manager.settings.delayed_close_timeout, clock::now());
    send_response(manager, downstream, &stream, response, true, false, &mut guard).await;
    stream.clear_timeouts();
    Ok(())
}
