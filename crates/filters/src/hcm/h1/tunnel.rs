//! An HTTP/1 connection that has become a stream of bytes: after 101, or 2xx to CONNECT.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use proxy_http::body::{Body, BodyError};
use proxy_http::h1::head::Framing;
use proxy_http::h1::outgoing::{Outgoing, SendError};
use proxy_http::h1::write::write_response_head;
use proxy_http::{HeaderId, Response, StreamInfo, StreamTimer, Tunnel};
use proxy_net::{CloseReason, Limit};

use super::raw::Raw;
use super::{Downstream, Served};
use crate::hcm::Manager;
use crate::hcm::respond::StreamGuard;

/// Both ways of the stream, as seen from the client.
struct Halves<'a> {
    manager: &'a Manager,
    downstream: &'a Downstream,
    stream: &'a StreamInfo,
    outgoing: Outgoing,
    body: Body,
    tunnel: Box<dyn Tunnel>,
    counted: u64,
    down: Half,
    up: Half,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Open,
    /// All that came has been written; the end has not been told.
    Written,
    Ended,
}

/// Why it did not end both ways.
enum Failure {
    Client(io::Error),
    Host(BodyError),
    Limit(StreamTimer),
}

/// Relays until both ways have ended. The head of `response` goes first.
pub(super) async fn serve(
    manager: &Rc<Manager>,
    downstream: &Rc<Downstream>,
    stream: &Rc<StreamInfo>,
    mut response: Response,
    tunnel: Box<dyn Tunnel>,
    guard: &mut StreamGuard,
) -> Result<Served, CloseReason> {
    // Neither says anything about a tunnel (RFC 9110, section 9.3.6).
    response.headers.remove(HeaderId::CONTENT_LENGTH);
    response.headers.remove(HeaderId::TRANSFER_ENCODING);
    let status = response.status;
    let mut outgoing = Outgoing::default();
    let style = manager.head_style(stream.version);
    outgoing.start(Framing::UntilClose, false, |out| {
        write_response_head(status, &response.headers, style, out);
    });
    stream.record.sent.headers.set(outgoing.header_bytes());
    stream.keep_response(response.headers);
    guard.response_started(status);
    let (tunnel, body) = match tunnel.into_raw(response.body) {
        Ok(host) => {
            let mut raw = Raw::new(manager, downstream, stream, host);
            raw.send_head(outgoing, guard).await?;
            return Box::pin(raw.run(guard)).await;
        }
        Err(halves) => halves,
    };
    let (down, up) = (Half::Open, Half::Open);
    let mut halves = Halves { manager, downstream, stream, outgoing, body, tunnel, counted: 0, down, up };
    let ended = poll_fn(|cx| halves.poll(cx)).await;
    downstream.to_send.set(0);
    match ended {
        Ok(()) => {
            downstream.guard.set_active_request(false);
            guard.completed();
            Ok(Served::Last)
        }
        Err(Failure::Client(error)) => {
            downstream.guard.closed_by_peer();
            guard.reset_by_peer();
            Err(CloseReason::Downstream(error))
        }
        Err(Failure::Host(error)) => {
            guard.upstream_failed(&error);
            guard.reset_by_us();
            // What breaks off must not look whole; it fails only if the client is gone as well.
            let _ = downstream.io.borrow().reset_on_close();
            Err(CloseReason::Upstream(cause(error)))
        }
        Err(Failure::Limit(timer)) => {
            manager.note_timeout(stream, timer, true);
            guard.reset_by_us();
            Err(CloseReason::Timeout(Limit::Idle))
        }
    }
}

fn cause(error: BodyError) -> io::Error {
    match error {
        BodyError::Io(error) => error,
        _ => io::ErrorKind::ConnectionAborted.into(),
    }
}

impl Halves<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.poll_down(cx)?;
        self.poll_up(cx)?;
        if self.down == Half::Ended && self.up == Half::Ended {
            return Poll::Ready(Ok(()));
        }
        while let Poll::Ready(index) = self.downstream.deadlines.poll_expired(cx) {
            match StreamTimer::from_index(index) {
                Some(timer) => return Poll::Ready(Err(Failure::Limit(timer))),
                // The connection ends with its stream, and not before.
                None => self.downstream.closing.set(true),
            }
        }
        Poll::Pending
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let downstream = self.downstream;
        if self.down == Half::Open {
            let sent = downstream.poll_send(cx, &mut self.outgoing, &mut self.body, Some(self.stream));
            let total = self.outgoing.total();
            downstream.count_sent(&self.manager.stats, total - self.counted);
            self.counted = total;
            match sent {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(())) => self.down = Half::Written,
                Poll::Ready(Err(SendError::Io(error))) => return Err(Failure::Client(error)),
                Poll::Ready(Err(SendError::Body(error))) => return Err(Failure::Host(error)),
            }
        }
        if self.down == Half::Written
            && let Poll::Ready(told) = downstream.io.borrow_mut().poll_shutdown(cx)
        {
            told.map_err(Failure::Client)?;
            self.down = Half::Ended;
        }
        Ok(())
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        if self.up == Half::Open
            && let Poll::Ready(sent) = self.tunnel.poll_upload(cx)
        {
            sent.map_err(|error| Failure::Client(cause(error)))?;
            self.up = Half::Ended;
        }
        Ok(())
    }
}
