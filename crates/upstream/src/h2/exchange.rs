//! One request and its response as a stream of an HTTP/2 connection.

mod tunnel;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, StreamId};
use proxy_http::body::{Body, BodyError, BodyStream, Frame};
use proxy_http::h1::head::{Framing, HeadError, ResponseHead};
use proxy_http::h2::convert::{content_length, headers_from_map, request_to_http};
use proxy_http::h2::{BodyReceiver, BodySender, SendError, StreamMetadata};
use proxy_http::tunnel::{TunnelRequest, set_upgrade};
use proxy_http::{HeaderId, Headers, Interim, Request, Tunnel, Version, websocket};
use proxy_net::AttemptGuard;

use super::client::{Client, OpenStream, is_wire_error};
use crate::exchange::{ExchangeError, Interims, ResponseGuard};

/// One request and its response. Dropping it before the response has ended resets the stream.
pub struct Exchange {
    state: State,
    body: Body,
    /// The host may have acted on the request.
    maybe_processed: bool,
    max_lines: usize,
    attempt: AttemptGuard,
    tunnel: Option<TunnelRequest>,
    /// What an upgrade is to.
    protocol: Option<Box<[u8]>>,
    /// The client spoke HTTP/1.1 and waits for this.
    accept: Option<websocket::Accept>,
    interims: Interims,
}

enum State {
    Failed(ExchangeError),
    Open(Box<Stream>),
    /// The failure has been told.
    Over,
}

struct Stream {
    response: ResponseFuture,
    received: Option<RecvStream>,
    sender: Option<BodySender>,
    /// Goes to the client and comes from there until dropped.
    metadata: Option<StreamMetadata>,
    open: OpenStream,
    /// The response has ended, or the host has reset the stream.
    ended: bool,
}

impl Exchange {
    /// Begins to send `request`, whose body is left [`Body::Empty`].
    pub fn new(
        client: &Rc<Client>,
        request: &mut Request,
        metadata: Option<&StreamMetadata>,
        attempt: AttemptGuard,
        tunnel: Option<TunnelRequest>,
    ) -> Exchange {
        attempt.note(|attempt, now| {
            client.facts().describe(attempt, now);
            attempt.protocol.set(Some(Version::Http2.as_str()));
            attempt.send_begin.set(attempt.start, now);
            // What HPACK made of it is known to `h2` alone.
            attempt.sent.headers.set(request.header_bytes());
            attempt.sent.wire.set(request.header_bytes());
        });
        let body = std::mem::replace(&mut request.body, Body::Empty);
        let max_lines = client.host.cluster.settings.max_response_headers as usize;
        let protocol = (tunnel == Some(TunnelRequest::Upgrade))
            .then(|| request.headers.joined(HeaderId::UPGRADE).unwrap_or_default().into());
        let key = request.headers.value(websocket::KEY);
        let key = key.filter(|_| protocol.is_some() && websocket::is_asked_for(&request.headers));
        let accept = key.map(websocket::accept);
        let bodiless = body.is_empty() && !metadata.is_some_and(StreamMetadata::has_come);
        let opened = Stream::open(client, request, protocol.as_deref(), bodiless);
        let (state, maybe_processed) = match opened {
            Ok(mut stream) => {
                stream.metadata = join_metadata(client, metadata, stream.response.stream_id());
                (State::Open(Box::new(stream)), true)
            }
            Err(error) => (State::Failed(error), false),
        };
        let interims = Interims::default();
        Exchange { state, body, maybe_processed, max_lines, attempt, tunnel, protocol, accept, interims }
    }

    /// Whether the host may have acted on the request.
    pub fn has_written(&self) -> bool {
        self.maybe_processed
    }

    /// See [`crate::exchange::Exchange::take_unsent_body`]: where the stream never came to be.
    pub fn take_unsent_body(&mut self) -> Option<Body> {
        let never_opened = matches!(self.state, State::Failed(_) | State::Over);
        never_opened.then(|| std::mem::replace(&mut self.body, Body::Empty))
    }

    /// See [`crate::exchange::Exchange::take_interim`].
    pub fn take_interim(&mut self) -> Option<Box<Interim>> {
        self.interims.take()
    }

    /// See [`crate::exchange::Exchange::poll_head`].
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, ExchangeError>> {
        let State::Open(stream) = &mut self.state else {
            let failed = std::mem::replace(&mut self.state, State::Over);
            return Poll::Ready(Err(match failed {
                State::Failed(error) => error,
                State::Open(_) | State::Over => ExchangeError::Closed,
            }));
        };
        stream.poll_send(cx, &mut self.body, &self.attempt)?;
        // What went wrong is told by the response itself.
        while let Poll::Ready(Some(Ok(interim))) = stream.response.poll_informational(cx) {
            self.interims.push(interim.status().as_u16(), || headers_from_map(interim.headers()))?;
        }
        let response = match ready!(Pin::new(&mut stream.response).poll(cx)) {
            Ok(response) => response,
            Err(error) => {
                let error = stream.failed(error);
                self.maybe_processed = !matches!(error, ExchangeError::Refused);
                return Poll::Ready(Err(error));
            }
        };
        if response.headers().len() > self.max_lines {
            return Poll::Ready(Err(ExchangeError::Malformed(HeadError::TooManyLines)));
        }
        let mut headers = headers_from_map(response.headers());
        let mut status = response.status().as_u16();
        if !is_framed_once(&headers, status) {
            stream.open.client.host.cluster.http2_stats().rx_messaging_error.inc();
            return Poll::Ready(Err(ExchangeError::Malformed(HeadError::Malformed("content-length"))));
        }
        self.attempt.note(|attempt, now| {
            attempt.receive_begin.set_once(attempt.start, now);
            attempt.received.headers.set(headers.byte_size() as u64 + 10);
            attempt.received.wire.set(attempt.received.headers.get());
        });
        if let Some(protocol) = self.protocol.as_deref().filter(|_| (200..300).contains(&status)) {
            // In the form that HTTP/1.1 has for it (RFC 8441, section 5).
            status = 101;
            set_upgrade(&mut headers, protocol);
            if let Some(accept) = self.accept.filter(|_| !headers.contains(websocket::ACCEPT)) {
                headers.append(websocket::ACCEPT, &accept);
            }
        }
        let received = stream.received.insert(response.into_body());
        let framing = if received.is_end_stream() {
            Framing::None
        } else {
            content_length(&headers).map_or(Framing::UntilClose, Framing::Length)
        };
        Poll::Ready(Ok(ResponseHead { status, headers, framing, close: false }))
    }

    /// Whether a response agrees to the tunnel that was asked for.
    pub fn opens_tunnel(&self, head: &ResponseHead) -> bool {
        self.tunnel.is_some_and(|tunnel| tunnel.is_accepted_by(head.status))
    }

    /// Both halves of the tunnel that the host has agreed to; `guard` is kept to the end of both. One that has ended
    /// already is none.
    pub fn into_tunnel(self, guard: Box<dyn ResponseGuard>) -> (Body, Option<Box<dyn Tunnel>>) {
        let State::Open(mut stream) = self.state else { return (Body::Empty, None) };
        let Some(received) = stream.received.take() else { return (Body::Empty, None) };
        let (body, tunnel) =
            tunnel::split(stream, self.body, BodyReceiver::new(received, None), self.attempt, guard);
        (body, Some(tunnel))
    }

    /// The response's body; takes the stream along.
    pub fn into_body(self, head: &ResponseHead, guard: Box<dyn ResponseGuard>) -> Body {
        let State::Open(mut stream) = self.state else { return Body::Empty };
        let Some(received) = stream.received.take() else { return Body::Empty };
        if received.is_end_stream() {
            stream.ended = true;
            guard.completed();
            self.attempt.note(|attempt, now| attempt.receive_end.set(attempt.start, now));
            return Body::Empty;
        }
        let length = if let Framing::Length(length) = head.framing { Some(length) } else { None };
        let receiver = BodyReceiver::new(received, length);
        let (body, attempt) = (self.body, self.attempt);
        Body::Stream(Box::new(ResponseBody { stream, body, receiver, attempt, guard }))
    }
}

impl Stream {
    fn open(
        client: &Rc<Client>,
        request: &Request,
        upgrade: Option<&[u8]>,
        bodiless: bool,
    ) -> Result<Stream, ExchangeError> {
        let head = request_to_http(request, upgrade).map_err(|_| ExchangeError::Unsendable)?;
        let Some((mut send, open)) = client.begin() else { return Err(ExchangeError::Refused) };
        match send.send_request(head, bodiless) {
            Ok((response, send)) => {
                let sender = (!bodiless).then(|| BodySender::new(send, &client.queue, false));
                Ok(Stream { response, received: None, sender, metadata: None, open, ended: false })
            }
            Err(_) => {
                client.leave();
                Err(ExchangeError::Refused)
            }
        }
    }

    /// Sends what it can of the request's body; only that body's own failure is an error.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Body,
        attempt: &AttemptGuard,
    ) -> Result<(), ExchangeError> {
        let Some(sender) = &mut self.sender else {
            attempt.note(|attempt, now| attempt.send_end.set_once(attempt.start, now));
            return Ok(());
        };
        let sent = sender.poll_send(cx, body, |count| {
            attempt.note(|attempt, _| {
                attempt.sent.add_body(count as u64);
                attempt.sent.add_wire(count as u64);
            });
        });
        match sent {
            Poll::Pending => Ok(()),
            Poll::Ready(Ok(())) => {
                attempt.note(|attempt, now| attempt.send_end.set_once(attempt.start, now));
                self.sender = None;
                Ok(())
            }
            Poll::Ready(Err(SendError::Peer(_))) => {
                // What it says about the response is asked next; a host may answer early and take no more.
                self.sender = None;
                *body = Body::Empty;
                Ok(())
            }
            Poll::Ready(Err(SendError::Body(error))) => {
                sender.reset(Reason::CANCEL);
                Err(ExchangeError::RequestBody(error))
            }
        }
    }

    /// What became of a stream that ended before its response began.
    fn failed(&mut self, error: h2::Error) -> ExchangeError {
        self.ended = true;
        if is_wire_error(&error) {
            // No socket fails so: it is what the wire found out.
            return ExchangeError::Malformed(HeadError::Malformed("HTTP/2"));
        }
        if error.is_io() {
            self.open.client.host.cluster.stats.upstream_rq_pending_failure_eject.inc();
            return ExchangeError::Closed;
        }
        let cluster = &self.open.client.host.cluster;
        match error.reason() {
            Some(Reason::REFUSED_STREAM) if error.is_reset() && error.is_remote() => {
                cluster.http2_stats().stream_refused_errors.inc();
                ExchangeError::Refused
            }
            // Only streams that the host says it has not looked at end so.
            Some(_) if error.is_go_away() && error.is_remote() => ExchangeError::Refused,
            Some(reason) if error.is_remote() => {
                self.count_reset(reason);
                ExchangeError::Reset(reason)
            }
            Some(_) if error.is_library() => {
                cluster.http2_stats().rx_messaging_error.inc();
                ExchangeError::Malformed(HeadError::Malformed("HTTP/2 response"))
            }
            _ => ExchangeError::Closed,
        }
    }

    /// The response ended before its end.
    fn broke_off(&mut self, error: &BodyError) {
        self.ended = true;
        match error {
            BodyError::Reset(reason) => self.count_reset(*reason),
            BodyError::Closed => {
                self.open.client.host.cluster.stats.upstream_rq_pending_failure_eject.inc();
            }
            _ => {}
        }
    }

    fn count_reset(&self, reason: Reason) {
        let cluster = &self.open.client.host.cluster;
        if reason == Reason::NO_ERROR {
            cluster.stats.upstream_rq_rx_reset_no_error.inc();
        }
        cluster.stats.upstream_rq_rx_reset.inc();
        cluster.http2_stats().rx_reset.inc();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.ended {
            let cluster = &self.open.client.host.cluster;
            cluster.stats.upstream_rq_tx_reset.inc();
        }
    }
}

/// Has METADATA pass between the client's stream and this one, as far as both take it.
fn join_metadata(
    client: &Client,
    theirs: Option<&StreamMetadata>,
    stream: StreamId,
) -> Option<StreamMetadata> {
    let ours = client.wire.metadata(stream);
    if let Some(theirs) = theirs {
        theirs.forward_to(ours.as_ref());
    }
    if let Some(ours) = &ours {
        ours.forward_to(theirs);
    }
    ours
}

/// Whether a response says at most once how long it is, and nothing where it has no body. `h2` compares lengths with
/// bodies only.
fn is_framed_once(headers: &Headers, status: u16) -> bool {
    let lengths = headers.values(HeaderId::CONTENT_LENGTH).count();
    lengths <= 1 && (status != 204 || content_length(headers).is_none_or(|length| length == 0))
}

/// A response body that arrives from the host.
struct ResponseBody {
    receiver: BodyReceiver,
    stream: Box<Stream>,
    body: Body,
    attempt: AttemptGuard,
    guard: Box<dyn ResponseGuard>,
}

impl ResponseBody {
    /// The response has come whole; told once, however often the body is polled after that.
    fn end(&mut self) {
        if !std::mem::replace(&mut self.stream.ended, true) {
            self.guard.completed();
        }
    }
}

impl BodyStream for ResponseBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Err(ExchangeError::RequestBody(error)) =
            self.stream.poll_send(cx, &mut self.body, &self.attempt)
        {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = ready!(self.receiver.poll_frame(cx));
        match &frame {
            Some(Err(error)) => self.stream.broke_off(error),
            Some(Ok(Frame::Trailers(_))) | None => self.end(),
            Some(Ok(Frame::Data(chunk))) => {
                self.attempt.note(|attempt, _| {
                    attempt.received.add_body(chunk.len() as u64);
                    attempt.received.add_wire(chunk.len() as u64);
                });
                if self.receiver.is_ended() {
                    self.end();
                }
            }
        }
        if self.stream.ended {
            self.attempt.note(|attempt, now| attempt.receive_end.set_once(attempt.start, now));
        }
        Poll::Ready(frame)
    }

    fn remaining(&self) -> Option<u64> {
        self.receiver.remaining()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_says_at_most_once_how_long_it_is() {
        for (status, lengths, expected) in [
            (200, &[][..], true),
            (200, &["2"], true),
            (200, &["2", "2"], false),
            (204, &["0"], true),
            (204, &["2"], false),
            (304, &["2"], true),
        ] {
            let headers: Headers = lengths.iter().map(|length| ("content-length", *length)).collect();
            assert_eq!(is_framed_once(&headers, status), expected, "{status} {lengths:?}");
        }
    }
}
