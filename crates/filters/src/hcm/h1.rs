//! HTTP/1.1 to the client: one task per connection, one request at a time.
//!
//! Between requests a connection holds no buffer, no header block and no stream: what is kept is the socket, the
//! deadlines and this small state. Everything of a stream lives in one boxed future.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use proxy_http::body::{Body, BodyError, BodyStream, Frame};
use proxy_http::h1::body::BodyDecoder;
use proxy_http::h1::head::{Framing, HeadError, HeadLimits, RequestHead, may_be_complete, parse_request};
use proxy_http::h1::outgoing::{Outgoing, SendError};
use proxy_http::h1::write::{set_content_length, write_response_head};
use proxy_http::reply::LocalReply;
use proxy_http::stream::StreamDeadlines;
use proxy_http::{HeaderId, Method, Response, StreamInfo, StreamTimer, Version};
use proxy_net::buffer::ReadBuffer;
use proxy_net::{CloseReason, Connection, ConnectionInfo, Io, Limit};
use proxy_runtime::{DrainGuard, clock};

use super::{HttpStats, Manager};
use super::respond::{Arrival, StreamGuard};
use super::stats::ConnectionGuard;

/// The deadlines of a connection, behind those of its stream.
const IDLE: usize = 4;
const HEADERS: usize = 5;
const DURATION: usize = 6;

/// What a connection and the body of its current request share.
struct Downstream {
    io: RefCell<Io>,
    read: RefCell<ReadBuffer>,
    decoder: RefCell<BodyDecoder>,
    deadlines: Rc<StreamDeadlines>,
    info: Rc<ConnectionInfo>,
    guard: ConnectionGuard,
    drain: DrainGuard,
    closing_idle: DrainGuard,
    requests: Cell<u32>,
    /// No further request is taken after the current one.
    closing: Cell<bool>,
    counted: Cell<u64>,
}

/// What came at the start of a request.
enum Start {
    Head(Box<RequestHead>),
    Refused(LocalReply),
    /// Nothing more comes, or nothing more is taken.
    End,
}

pub(super) async fn serve(
    manager: &Rc<Manager>,
    connection: Connection,
    guard: ConnectionGuard,
) -> Result<(), CloseReason> {
    let Connection { io, prefix, info } = connection;
    let downstream = Rc::new(Downstream {
        io: RefCell::new(io),
        read: RefCell::new(prefix),
        decoder: RefCell::new(BodyDecoder::Done),
        deadlines: Rc::new(StreamDeadlines::new()),
        info,
        guard,
        drain: manager.drain.guard(),
        closing_idle: manager.closing.guard(),
        requests: Cell::new(0),
        closing: Cell::new(false),
        counted: Cell::new(0),
    });
    downstream.count_read(manager, &downstream.read.borrow());
    let settings = &manager.settings;
    if let Some(limit) = settings.max_connection_duration {
        downstream.deadlines.set(DURATION, clock::now() + limit);
    }
    loop {
        let start = downstream.next_request(manager).await?;
        let go_on = match start {
            Start::Head(head) => Box::pin(serve_stream(manager, &downstream, *head)).await?,
            Start::Refused(reply) => {
                Box::pin(refuse(manager, &downstream, reply)).await?;
                false
            }
            Start::End => return Ok(()),
        };
        if !go_on {
            return Box::pin(downstream.close(manager)).await;
        }
    }
}

impl Downstream {
    /// Waits for a request head; the connection idles here.
    async fn next_request(&self, manager: &Manager) -> Result<Start, CloseReason> {
        let settings = &manager.settings;
        let now = clock::now();
        if let Some(limit) = settings.idle_timeout {
            self.deadlines.set(IDLE, now + limit);
        }
        let limits = HeadLimits {
            bytes: settings.max_request_header_bytes as usize,
            lines: settings.max_request_headers as usize,
        };
        let mut seen = 0;
        let start = poll_fn(|cx| self.poll_request(cx, manager, limits, &mut seen)).await;
        self.deadlines.clear(IDLE);
        self.deadlines.clear(HEADERS);
        start
    }

    fn poll_request(
        &self,
        cx: &mut Context<'_>,
        manager: &Manager,
        limits: HeadLimits,
        seen: &mut usize,
    ) -> Poll<Result<Start, CloseReason>> {
        let stats = &manager.stats.manager;
        let mut read = self.read.borrow_mut();
        loop {
            if !read.is_empty() {
                match parse(&read, limits, seen) {
                    Ok(Some((start, length))) => {
                        read.consume(length);
                        return Poll::Ready(Ok(start));
                    }
                    Ok(None) => {}
                    Err(error) => {
                        if !matches!(error, HeadError::Version) {
                            stats.downstream_cx_protocol_error.inc();
                        }
                        return Poll::Ready(Ok(Start::Refused(LocalReply::Downstream(error))));
                    }
                }
                if let (Some(limit), false) = (manager.settings.request_headers_timeout, self.deadlines.is_set(HEADERS)) {
                    self.deadlines.set(HEADERS, clock::now() + limit);
                }
            }
            if let Poll::Ready(index) = self.deadlines.poll_expired(cx) {
                return Poll::Ready(self.idle_expired(manager, index, read.is_empty()));
            }
            if read.is_full() {
                read.reserve(limits.bytes);
            }
            match read.poll_fill(&mut self.io.borrow_mut(), cx, false) {
                Poll::Ready(Ok(count)) if count > 0 => self.count_read(manager, &read),
                Poll::Ready(_) => {
                    self.guard.closed_by_peer();
                    return Poll::Ready(Ok(Start::End));
                }
                Poll::Pending => {
                    ready!(if read.is_empty() { self.closing_idle.poll_draining(cx) } else { Poll::Pending });
                    stats.downstream_cx_drain_close.inc();
                    return Poll::Ready(Ok(Start::End));
                }
            }
        }
    }

    fn idle_expired(&self, manager: &Manager, index: usize, empty: bool) -> Result<Start, CloseReason> {
        let stats = &manager.stats.manager;
        match index {
            IDLE => {
                stats.downstream_cx_idle_timeout.inc();
                Err(CloseReason::Timeout(Limit::Idle))
            }
            HEADERS => {
                stats.downstream_rq_header_timeout.inc();
                Ok(Start::Refused(LocalReply::RequestHeadersTimeout))
            }
            _ => {
                stats.downstream_cx_max_duration_reached.inc();
                self.closing.set(true);
                if empty { Ok(Start::End) } else { Err(CloseReason::Timeout(Limit::Duration)) }
            }
        }
    }

    fn count_read(&self, manager: &Manager, read: &ReadBuffer) {
        let total = read.total();
        manager.stats.manager.downstream_cx_rx_bytes_total.add(total - self.counted.replace(total));
    }

    /// Ready when the client has gone away while it waits for its answer.
    fn poll_abort(&self, cx: &mut Context<'_>) -> Poll<()> {
        let (Ok(mut read), Ok(mut io)) = (self.read.try_borrow_mut(), self.io.try_borrow_mut()) else {
            return Poll::Pending;
        };
        // A body still to come, or the next request, is read by others; a close shows up there.
        if !self.decoder.borrow().is_done() || !read.is_empty() {
            return Poll::Pending;
        }
        match ready!(read.poll_fill(&mut io, cx, false)) {
            Ok(count) if count > 0 => Poll::Pending,
            Ok(_) | Err(_) => Poll::Ready(()),
        }
    }

    /// Ends the connection so that the client gets all that was sent: stop sending, then read on for a while.
    async fn close(&self, manager: &Manager) -> Result<(), CloseReason> {
        let limit = manager.settings.delayed_close_timeout.unwrap_or(Duration::ZERO);
        self.deadlines.clear_all();
        self.deadlines.set(IDLE, clock::now() + limit);
        poll_fn(|cx| {
            let mut io = self.io.borrow_mut();
            if ready!(io.poll_shutdown(cx)).is_err() {
                return Poll::Ready(());
            }
            loop {
                if self.deadlines.poll_expired(cx).is_ready() {
                    manager.stats.manager.downstream_cx_delayed_close_timeout.inc();
                    return Poll::Ready(());
                }
                let mut read = self.read.borrow_mut();
                read.clear();
                match ready!(read.poll_fill(&mut io, cx, false)) {
                    Ok(count) if count > 0 => {}
                    Ok(_) | Err(_) => return Poll::Ready(()),
                }
            }
        })
        .await;
        Ok(())
    }

    /// Sends what `outgoing` holds and what `body` gives, until the message is whole.
    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        outgoing: &mut Outgoing,
        body: &mut Body,
        stream: Option<&StreamInfo>,
    ) -> Poll<Result<(), SendError>> {
        loop {
            // The body may read from this very socket (its request still flows up), so it is not borrowed here.
            let filled = outgoing.poll_fill(cx, body, |count| {
                if let Some(stream) = stream {
                    stream.bytes_sent.set(stream.bytes_sent.get() + count as u64);
                    stream.touch(clock::now());
                }
            });
            ready!(outgoing.poll_flush(cx, &mut self.io.borrow_mut()))?;
            ready!(filled);
            if outgoing.is_done() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// Parses what may be the start of a request. `seen` bytes were looked at before.
fn parse(read: &ReadBuffer, limits: HeadLimits, seen: &mut usize) -> Result<Option<(Start, usize)>, HeadError> {
    let data = read.data();
    let before = std::mem::replace(seen, data.len());
    if before > 0 && data.len() <= limits.bytes && !may_be_complete(data, before) {
        return Ok(None);
    }
    Ok(parse_request(data, limits)?.map(|(head, length)| (Start::Head(Box::new(head)), length)))
}

/// The body of the current request.
struct RequestBody {
    downstream: Rc<Downstream>,
    stream: Rc<StreamInfo>,
    stats: Arc<HttpStats>,
    /// `enable_trailers`.
    trailers: bool,
    buffer_limit: u32,
}

impl BodyStream for RequestBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let d = &self.downstream;
        let mut decoder = d.decoder.borrow_mut();
        let mut read = d.read.borrow_mut();
        let mut frame = ready!(decoder.poll_frame(cx, &mut d.io.borrow_mut(), &mut read, self.buffer_limit));
        if matches!(frame, Some(Ok(Frame::Trailers(_)))) && !self.trailers {
            frame = None;
        }
        let total = read.total();
        self.stats.manager.downstream_cx_rx_bytes_total.add(total - d.counted.replace(total));
        let now = clock::now();
        match &frame {
            Some(Ok(Frame::Data(chunk))) => {
                self.stream.bytes_received.set(self.stream.bytes_received.get() + chunk.len() as u64);
                self.stream.touch(now);
            }
            Some(Err(BodyError::Closed | BodyError::Io(_))) => d.guard.closed_by_peer(),
            Some(Err(_)) => self.stats.manager.downstream_cx_protocol_error.inc(),
            _ => {}
        }
        if decoder.is_done() {
            self.stream.request_completed(now);
        }
        Poll::Ready(frame)
    }

    fn remaining(&self) -> Option<u64> {
        self.downstream.decoder.borrow().remaining()
    }
}

/// How far a stream came before it was to be answered.
enum Outcome {
    Response(Response),
    TimedOut(StreamTimer),
    /// The client went away or broke the protocol; nothing can be sent.
    Gone,
}

/// One request and its response. Gives whether another request may follow on the connection.
async fn serve_stream(manager: &Rc<Manager>, downstream: &Rc<Downstream>, head: RequestHead) -> Result<bool, CloseReason> {
    let now = clock::refresh();
    let RequestHead { mut request, framing, close, upgrade, absolute_form: _ } = head;
    downstream.requests.set(downstream.requests.get() + 1);
    let stream = Rc::new(StreamInfo::new(
        Rc::clone(&downstream.info),
        Version::Http11,
        now,
        Rc::clone(&downstream.deadlines),
    ));
    let mut guard = StreamGuard::new(manager, &stream);
    downstream.guard.set_active_request(true);
    manager.set_stream_timeouts(&stream, now);
    *downstream.decoder.borrow_mut() = BodyDecoder::new(framing);
    if framing == Framing::None {
        stream.request_completed(now);
    } else {
        if request.headers.value(HeaderId::EXPECT).is_some_and(|v| v.eq_ignore_ascii_case(b"100-continue")) {
            request.headers.remove(HeaderId::EXPECT);
            send_continue(downstream).await?;
        }
        request.body = Body::Stream(Box::new(RequestBody {
            downstream: Rc::clone(downstream),
            stream: Rc::clone(&stream),
            stats: Arc::clone(&manager.stats),
            trailers: manager.settings.http1.enable_trailers,
            buffer_limit: manager.buffer_limit,
        }));
    }
    let to_head = request.method == Method::Head;
    let arrival = Arrival { upgrade, connect: request.method == Method::Connect };
    let outcome = await_response(manager, downstream, &stream, request, arrival).await;
    let response = match outcome {
        Outcome::Response(response) => response,
        Outcome::TimedOut(timer) => manager.timed_out(&stream, timer).await,
        Outcome::Gone => {
            guard.reset_by_peer();
            return Ok(false);
        }
    };
    let max_requests = manager.settings.max_requests_per_connection;
    let last = max_requests.is_some_and(|max| downstream.requests.get() >= max);
    if last {
        manager.stats.manager.downstream_cx_max_requests_reached.inc();
    }
    let draining = downstream.drain.is_draining() || downstream.closing.get();
    if draining {
        manager.stats.manager.downstream_cx_drain_close.inc();
    }
    let announce_close = close || last || draining || !stream.is_request_complete();
    let sent = send_response(manager, downstream, &stream, response, announce_close, to_head, &mut guard).await;
    downstream.guard.set_active_request(false);
    stream.clear_timeouts();
    Ok(sent && !announce_close && downstream.decoder.borrow().is_done())
}

async fn await_response(
    manager: &Rc<Manager>,
    downstream: &Rc<Downstream>,
    stream: &Rc<StreamInfo>,
    request: proxy_http::Request,
    arrival: Arrival,
) -> Outcome {
    let mut respond = pin!(manager.respond(stream, request, arrival));
    poll_fn(|cx| {
        if let Poll::Ready(response) = respond.as_mut().poll(cx) {
            return Poll::Ready(response.map_or(Outcome::Gone, Outcome::Response));
        }
        while let Poll::Ready(index) = downstream.deadlines.poll_expired(cx) {
            match StreamTimer::from_index(index) {
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

async fn send_continue(downstream: &Downstream) -> Result<(), CloseReason> {
    let mut outgoing = Outgoing::default();
    outgoing.start(Framing::None, false, |out| out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n"));
    poll_fn(|cx| downstream.poll_send(cx, &mut outgoing, &mut Body::Empty, None))
        .await
        .map_err(|_| CloseReason::DownstreamProtocol("closed before 100 Continue"))
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
    if close {
        response.headers.set(HeaderId::CONNECTION, b"close");
    }
    let framing = response_framing(&mut response, to_head);
    if framing == Framing::None {
        response.body = Body::Empty;
    }
    let status = response.status;
    let mut body = std::mem::replace(&mut response.body, Body::Empty);
    let mut outgoing = Outgoing::default();
    outgoing.start(framing, manager.settings.http1.enable_trailers, |out| write_response_head(status, &response.headers, out));
    drop(response);
    guard.response_started(status);
    let sent = poll_fn(|cx| {
        if let Poll::Ready(sent) = downstream.poll_send(cx, &mut outgoing, &mut body, Some(stream)) {
            return Poll::Ready(sent.map_err(|error| matches!(error, SendError::Io(_))));
        }
        while let Poll::Ready(index) = downstream.deadlines.poll_expired(cx) {
            match StreamTimer::from_index(index) {
                Some(timer) => {
                    manager.note_timeout(stream, timer);
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
    manager.stats.manager.downstream_cx_tx_bytes_total.add(outgoing.total());
    match sent {
        Ok(()) => {
            guard.completed();
            true
        }
        Err(by_peer) => {
            if by_peer {
                downstream.guard.closed_by_peer();
                guard.reset_by_peer();
            } else {
                guard.reset_by_us();
            }
            false
        }
    }
}

/// How the response's body goes out, and the header that says so (RFC 9112, section 6).
fn response_framing(response: &mut Response, to_head: bool) -> Framing {
    let headers = &mut response.headers;
    if response.status < 200 || response.status == 204 {
        headers.remove(HeaderId::CONTENT_LENGTH);
        return Framing::None;
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
        None => {
            headers.remove(HeaderId::CONTENT_LENGTH);
            headers.set(HeaderId::TRANSFER_ENCODING, b"chunked");
            Framing::Chunked
        }
    }
}

/// Answers what never became a request, and counts it as one.
async fn refuse(manager: &Rc<Manager>, downstream: &Rc<Downstream>, reply: LocalReply) -> Result<(), CloseReason> {
    let info = Rc::clone(&downstream.info);
    let deadlines = Rc::clone(&downstream.deadlines);
    let stream = Rc::new(StreamInfo::new(info, Version::Http11, clock::now(), deadlines));
    let mut guard = StreamGuard::new(manager, &stream);
    let response = manager.finish(&stream, reply.response(&stream)).await;
    stream.set_timeout(StreamTimer::Duration, manager.settings.delayed_close_timeout, clock::now());
    send_response(manager, downstream, &stream, response, true, false, &mut guard).await;
    stream.clear_timeouts();
    Ok(())
}
