//! HTTP/1.1 to a host: a connection, and one exchange of request and response on it.
//!
//! [`tunnel`] is what becomes of an exchange whose host agrees to a stream of bytes.
//!
//! Plain I/O that belongs to the task of the stream: one poll sends more of the request and reads more of the
//! response, so that a body still flows up while the answer streams down.

pub mod tunnel;

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use proxy_http::body::{Body, BodyError, BodyStream, Frame};
use proxy_http::h1::body::BodyDecoder;
use proxy_http::h1::head::{
    Framing, HeadError, HeadLimits, ResponseHead, header_bytes, may_be_complete, parse_response,
};
use proxy_http::h1::outgoing::{Outgoing, SendError};
use proxy_http::h1::write::{HeadStyle, write_request_head};
use proxy_http::tunnel::{TunnelRequest, names_upgrade};
use proxy_http::websocket;
use proxy_http::{HeaderId, Headers, Interim, Method, Request, Tunnel, Version};
use proxy_net::buffer::ReadBuffer;
use proxy_net::pipe::{PIPE_SIZE, Pipe};
use proxy_net::{AttemptGuard, Io};
use proxy_runtime::Instant;

use crate::cluster::WorkerHost;
use crate::connect::{ConnectionGuard, DestroyedBy};
use crate::exchange::{ExchangeError, Interims, ResponseGuard};

/// An open connection.
pub struct Client {
    io: Io,
    read: ReadBuffer,
    guard: ConnectionGuard,
    pub idle_since: Instant,
}

impl Client {
    pub(crate) fn new(io: Io, guard: ConnectionGuard) -> Client {
        Client { io, read: ReadBuffer::default(), idle_since: guard.facts.opened, guard }
    }

    pub fn opened(&self) -> Instant {
        self.guard.facts.opened
    }

    /// Requests sent on it so far.
    pub fn requests(&self) -> u32 {
        self.guard.requests()
    }

    pub fn host(&self) -> &Rc<WorkerHost> {
        &self.guard.host
    }

    /// Whether an idle connection may be used: not closed by the peer, and nothing unasked-for came.
    /// Costs no system call unless there is something to read.
    pub(crate) fn is_fresh(&mut self, cx: &mut Context<'_>) -> bool {
        if self.io.poll_read_ready(cx).is_pending() {
            return true;
        }
        match self.read.poll_fill(&mut self.io, cx, false) {
            Poll::Pending => true,
            Poll::Ready(Ok(count)) => {
                if count > 0 {
                    self.guard.host.cluster.stats.upstream_cx_protocol_error.inc();
                } else {
                    self.guard.set_destroyed_by(DestroyedBy::Peer);
                }
                false
            }
            Poll::Ready(Err(_)) => {
                self.guard.set_destroyed_by(DestroyedBy::Peer);
                false
            }
        }
    }

    pub(crate) fn destroyed_by(&self, by: DestroyedBy) {
        self.guard.set_destroyed_by(by);
    }

    pub(crate) fn idle_timed_out(&self) {
        self.guard.host.cluster.stats.upstream_cx_idle_timeout.inc();
    }
}

/// One request and its response on a connection.
pub struct Exchange {
    client: Client,
    outgoing: Outgoing,
    body: Body,
    /// Writing failed: the request will not be whole, but an answer may have been sent before.
    write_failed: bool,
    attempt: AttemptGuard,
    sent_before: u64,
    read_before: u64,
    to_head: bool,
    /// The host is asked for a stream of bytes both ways.
    tunnel: Option<TunnelRequest>,
    /// The client spoke HTTP/2 and knows nothing of WebSocket's key.
    keyed: bool,
    /// What is sent is no request, so no response is waited for.
    raw: bool,
    seen: usize,
    interims: Interims,
    limits: HeadLimits,
}

impl Exchange {
    /// Begins to send `request`, whose body is left [`Body::Empty`].
    pub fn new(
        client: Client,
        request: &mut Request,
        attempt: AttemptGuard,
        tunnel: Option<TunnelRequest>,
    ) -> Exchange {
        attempt.note(|attempt, _| attempt.protocol.set(Some(Version::Http11.as_str())));
        let body = std::mem::replace(&mut request.body, Body::Empty);
        let framing = match tunnel {
            // All that the client sends goes out as it is; what comes when is up to the body.
            Some(_) => Framing::UntilClose,
            None => request_framing(request, &body),
        };
        let keyed = tunnel == Some(TunnelRequest::Upgrade)
            && request.version == Version::Http2
            && websocket::is_asked_for(&request.headers)
            && !request.headers.contains(websocket::KEY);
        if keyed {
            request.headers.append(websocket::KEY, &websocket::key(fastrand::u128(..)));
        }
        let mut outgoing = Outgoing::default();
        let options = &client.guard.host.cluster.settings.http1;
        let style = HeadStyle { http10: false, case: options.header_case };
        outgoing.start(framing, options.enable_trailers, |out| write_request_head(request, style, out));
        let to_head = request.method == Method::Head;
        Exchange { to_head, tunnel, keyed, ..Exchange::of(client, outgoing, body, attempt) }
    }

    /// Sends nothing of `request` but its body, as it is. The host is taken to agree.
    pub(crate) fn raw(client: Client, request: &mut Request, attempt: AttemptGuard) -> Exchange {
        let body = std::mem::replace(&mut request.body, Body::Empty);
        let mut outgoing = Outgoing::default();
        outgoing.start(Framing::UntilClose, false, |_| ());
        let tunnel = Some(TunnelRequest::Connect);
        Exchange { tunnel, raw: true, ..Exchange::of(client, outgoing, body, attempt) }
    }

    fn of(client: Client, outgoing: Outgoing, body: Body, attempt: AttemptGuard) -> Exchange {
        client.guard.count_requests(1);
        client.guard.set_active_request(true);
        attempt.note(|attempt, now| client.guard.facts.describe(attempt, now));
        let settings = &client.guard.host.cluster.settings;
        let limits = HeadLimits {
            bytes: settings.max_response_header_bytes as usize,
            lines: settings.max_response_headers as usize,
        };
        Exchange {
            sent_before: 0,
            read_before: client.read.total(),
            to_head: false,
            tunnel: None,
            keyed: false,
            raw: false,
            client,
            outgoing,
            body,
            write_failed: false,
            attempt,
            seen: 0,
            interims: Interims::default(),
            limits,
        }
    }

    /// Whether any byte of the request has left, so that the host may have acted on it.
    pub fn has_written(&self) -> bool {
        self.outgoing.total() > 0
    }

    /// See [`crate::exchange::Exchange::take_unsent_body`].
    pub fn take_unsent_body(&mut self) -> Option<Body> {
        let taken = self.outgoing.take_unsent()?;
        Some(Body::chained(taken, std::mem::replace(&mut self.body, Body::Empty)))
    }

    /// See [`crate::exchange::Exchange::take_interim`].
    pub fn take_interim(&mut self) -> Option<Box<Interim>> {
        self.interims.take()
    }

    /// See [`crate::exchange::Exchange::poll_head`].
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, ExchangeError>> {
        let _ = self.poll_send(cx)?;
        if self.raw {
            let (headers, framing) = (Headers::new(), Framing::UntilClose);
            return Poll::Ready(Ok(ResponseHead { status: 200, headers, framing, close: true }));
        }
        loop {
            if !self.client.read.is_empty() {
                match self.parse()? {
                    Some(mut head) if (100..200).contains(&head.status) => {
                        if head.status == 101 && self.opens_tunnel(&head) && names_upgrade(&head.headers) {
                            if self.keyed {
                                head.headers.remove(websocket::ACCEPT);
                            }
                            return Poll::Ready(Ok(head));
                        }
                        if head.status == 101 {
                            return Poll::Ready(Err(ExchangeError::Malformed(HeadError::Malformed(
                                "101 unasked for",
                            ))));
                        }
                        self.interims.push(head.status, || head.headers)?;
                        continue;
                    }
                    Some(head) => return Poll::Ready(Ok(head)),
                    None => {}
                }
            }
            let client = &mut self.client;
            if client.read.is_full() {
                client.read.reserve(self.limits.bytes);
            }
            match ready!(client.read.poll_fill(&mut client.io, cx, false)) {
                Ok(count) if count > 0 => {}
                Ok(_) | Err(_) if !client.read.is_empty() => {
                    client.guard.host.cluster.stats.upstream_cx_protocol_error.inc();
                    self.count_read();
                    self.client.guard.set_destroyed_by(DestroyedBy::Peer);
                    return Poll::Ready(Err(ExchangeError::Malformed(HeadError::Malformed(
                        "ends within a head",
                    ))));
                }
                Ok(_) | Err(_) => {
                    self.count_read();
                    self.client.guard.set_destroyed_by(DestroyedBy::Peer);
                    return Poll::Ready(Err(ExchangeError::Closed));
                }
            }
        }
    }

    fn parse(&mut self) -> Result<Option<ResponseHead>, ExchangeError> {
        let data = self.client.read.data();
        if self.seen > 0 && !may_be_complete(data, self.seen) && data.len() <= self.limits.bytes {
            self.seen = data.len();
            return Ok(None);
        }
        match parse_response(data, self.limits, &self.client.guard.host.cluster.settings.http1, self.to_head)
        {
            Ok(Some((head, length))) => {
                self.attempt.note(|attempt, now| {
                    attempt.receive_begin.set_once(attempt.start, now);
                    attempt.received.headers.set(header_bytes(&data[..length]));
                });
                self.client.read.consume(length);
                self.seen = 0;
                Ok(Some(head))
            }
            Ok(None) => {
                self.seen = data.len();
                Ok(None)
            }
            Err(error) => {
                self.count_read();
                self.client.guard.host.cluster.stats.upstream_cx_protocol_error.inc();
                Err(ExchangeError::Malformed(error))
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, ExchangeError> {
        if self.outgoing.is_done() || self.write_failed {
            return Ok(Poll::Ready(()));
        }
        let polled = self.outgoing.poll_send(cx, &mut self.client.io, &mut self.body);
        let sent = self.outgoing.total();
        self.client.guard.host.cluster.stats.upstream_cx_tx_bytes_total.add(sent - self.sent_before);
        self.sent_before = sent;
        self.client.guard.set_to_send(self.outgoing.waiting());
        self.attempt.note(|attempt, now| {
            if sent > 0 {
                attempt.send_begin.set_once(attempt.start, now);
            }
            attempt.sent.headers.set(self.outgoing.header_bytes());
            attempt.sent.body.set(self.outgoing.body_bytes());
            attempt.sent.wire.set(sent);
            if polled.is_ready() {
                attempt.send_end.set_once(attempt.start, now);
            }
        });
        match polled {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Ok(())) => Ok(Poll::Ready(())),
            Poll::Ready(Err(SendError::Io(_))) => {
                self.write_failed = true;
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Err(SendError::Body(error))) => Err(ExchangeError::RequestBody(error)),
        }
    }

    fn count_read(&mut self) {
        let total = self.client.read.total();
        let count = total - self.read_before;
        self.client.guard.host.cluster.stats.upstream_cx_rx_bytes_total.add(count);
        self.attempt.note(|attempt, _| attempt.received.add_wire(count));
        self.read_before = total;
        self.client.guard.set_received(self.client.read.len());
    }

    /// Whether a response agrees to the tunnel that was asked for.
    pub fn opens_tunnel(&self, head: &ResponseHead) -> bool {
        self.tunnel.is_some_and(|tunnel| tunnel.is_accepted_by(head.status))
    }

    /// Both halves of the exchange; `guard` is kept to the end of both.
    pub fn into_tunnel(
        mut self,
        head: &ResponseHead,
        guard: Box<dyn ResponseGuard>,
    ) -> (Body, Box<dyn Tunnel>) {
        self.count_read();
        let framing = if self.opens_tunnel(head) { Framing::UntilClose } else { head.framing };
        tunnel::split(self, BodyDecoder::new(framing), guard)
    }

    /// What a tunnel that the host has agreed to is made of: the socket, what was read from it, and who counts.
    pub(crate) fn into_socket(mut self) -> (Io, ReadBuffer, ConnectionGuard, AttemptGuard) {
        self.count_read();
        let Client { io, read, guard, .. } = self.client;
        (io, read, guard, self.attempt)
    }

    /// The response's body; takes the connection along, and gives it back to the pool at the end.
    pub fn into_body(mut self, head: &ResponseHead, guard: Box<dyn ResponseGuard>) -> Body {
        let decoder = BodyDecoder::new(head.framing);
        self.count_read();
        if head.close {
            self.client.guard.host.cluster.stats.upstream_cx_close_notify.inc();
        }
        let closes = head.close.then_some(match head.framing {
            Framing::UntilClose => DestroyedBy::Peer,
            Framing::None | Framing::Length(_) | Framing::Chunked => DestroyedBy::Us,
        });
        if decoder.is_done() {
            self.finish(closes, &*guard);
            return Body::Empty;
        }
        // Most answers are small and came whole with their head: the connection is free at once.
        if let Framing::Length(length) = head.framing
            && self.client.read.len() as u64 >= length
            && self.outgoing.is_done()
        {
            let chunk = self.client.read.take_chunk(length as usize);
            self.attempt.note(|attempt, _| attempt.received.add_body(length));
            self.finish(closes, &*guard);
            return Body::Full(chunk);
        }
        Body::Stream(Box::new(ResponseBody { exchange: Some(self), decoder, closes, guard }))
    }

    /// The response is complete. `closes`: the connection ends with it.
    fn finish(mut self, closes: Option<DestroyedBy>, guard: &dyn ResponseGuard) {
        self.count_read();
        guard.completed();
        self.attempt.note(|attempt, now| attempt.receive_end.set(attempt.start, now));
        let whole = self.outgoing.is_done() && self.client.read.is_empty();
        if !self.client.read.is_empty() {
            self.client.guard.host.cluster.stats.upstream_cx_protocol_error.inc();
        }
        self.client.guard.set_active_request(!self.outgoing.is_done());
        match closes {
            Some(by) => self.client.guard.set_destroyed_by(by),
            None if whole => {
                let host = Rc::clone(&self.client.guard.host);
                host.release(self.client);
            }
            None => {}
        }
    }
}

/// A response body that arrives from the host.
struct ResponseBody {
    exchange: Option<Exchange>,
    decoder: BodyDecoder,
    closes: Option<DestroyedBy>,
    guard: Box<dyn ResponseGuard>,
}

impl ResponseBody {
    fn finish_if_done(&mut self) {
        if self.decoder.is_done()
            && let Some(exchange) = self.exchange.take()
        {
            exchange.finish(self.closes, &*self.guard);
        }
    }
}

impl BodyStream for ResponseBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let Some(exchange) = &mut self.exchange else { return Poll::Ready(None) };
        if let Err(ExchangeError::RequestBody(error)) = exchange.poll_send(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        let client = &mut exchange.client;
        let limit = client.guard.host.cluster.settings.buffer_limit;
        let mut frame = ready!(self.decoder.poll_frame(cx, &mut client.io, &mut client.read, limit));
        if matches!(frame, Some(Ok(Frame::Trailers(_))))
            && !client.guard.host.cluster.settings.http1.enable_trailers
        {
            frame = None;
        }
        exchange.count_read();
        match &frame {
            Some(Err(BodyError::Closed | BodyError::Io(_))) => client_closed(&mut self.exchange),
            Some(Err(_)) => {}
            Some(Ok(Frame::Data(chunk))) => {
                exchange.attempt.note(|attempt, _| attempt.received.add_body(chunk.len() as u64));
                self.finish_if_done();
            }
            _ => self.finish_if_done(),
        }
        Poll::Ready(frame)
    }

    fn remaining(&self) -> Option<u64> {
        self.decoder.remaining()
    }

    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Option<Poll<Result<usize, BodyError>>> {
        let exchange = self.exchange.as_mut()?;
        let BodyDecoder::Length(left) = &mut self.decoder else { return None };
        let allowed = exchange.client.guard.host.cluster.settings.buffer_limit as usize;
        if !exchange.client.read.is_empty() || allowed < PIPE_SIZE {
            return None;
        }
        if let Err(ExchangeError::RequestBody(error)) = exchange.poll_send(cx) {
            return Some(Poll::Ready(Err(error)));
        }
        let limit = usize::try_from(*left).unwrap_or(usize::MAX);
        let spliced = match pipe.poll_fill(&exchange.client.io, cx, limit) {
            Poll::Pending => return Some(Poll::Pending),
            Poll::Ready(Ok(count)) if count > 0 => count,
            Poll::Ready(Ok(_)) => {
                client_closed(&mut self.exchange);
                return Some(Poll::Ready(Err(BodyError::Closed)));
            }
            Poll::Ready(Err(error)) => {
                client_closed(&mut self.exchange);
                return Some(Poll::Ready(Err(BodyError::Io(error))));
            }
        };
        exchange.client.guard.host.cluster.stats.upstream_cx_rx_bytes_total.add(spliced as u64);
        exchange.attempt.note(|attempt, _| {
            attempt.received.add_wire(spliced as u64);
            attempt.received.add_body(spliced as u64);
        });
        *left -= spliced as u64;
        if *left == 0 {
            self.decoder = BodyDecoder::Done;
            self.finish_if_done();
        }
        Some(Poll::Ready(Ok(spliced)))
    }
}

/// The host closed the connection within a body whose end it had announced.
fn client_closed(exchange: &mut Option<Exchange>) {
    if let Some(exchange) = exchange.take() {
        exchange.client.guard.host.cluster.stats.upstream_cx_protocol_error.inc();
        exchange.client.guard.set_destroyed_by(DestroyedBy::Peer);
    }
}

/// How the request's body goes out: with the length the client gave, or in chunks.
fn request_framing(request: &mut Request, body: &Body) -> Framing {
    if let Some(length) = body.remaining() {
        let usually_bodiless = [Method::Get, Method::Head, Method::Delete, Method::Trace, Method::Connect];
        if (length > 0 || !usually_bodiless.contains(&request.method))
            && !request.headers.contains(HeaderId::CONTENT_LENGTH)
        {
            proxy_http::h1::write::set_content_length(&mut request.headers, length);
        }
        return if length == 0 { Framing::None } else { Framing::Length(length) };
    }
    request.headers.remove(HeaderId::CONTENT_LENGTH);
    request.headers.append(HeaderId::TRANSFER_ENCODING, b"chunked");
    Framing::Chunked
}
