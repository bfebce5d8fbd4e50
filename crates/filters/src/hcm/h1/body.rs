//! The body of the request that an HTTP/1 connection is at.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use proxy_config::settings::UnderscoreAction;
use proxy_http::body::{BodyError, BodyStream, Frame};
use proxy_http::h1::body::BodyDecoder;
use proxy_http::h1::head::apply_underscores;
use proxy_http::{StreamInfo, Tunnelling};
use proxy_runtime::clock;

use super::Downstream;
use crate::hcm::{HttpStats, Manager};

/// The body of the current request.
pub(super) struct RequestBody {
    pub(super) downstream: Rc<Downstream>,
    pub(super) stream: Rc<StreamInfo>,
    pub(super) stats: Arc<HttpStats>,
    /// `enable_trailers`.
    pub(super) trailers: bool,
    pub(super) underscores: UnderscoreAction,
    pub(super) buffer_limit: u32,
    /// Bytes that had come on the connection before this request.
    pub(super) began: u64,
    /// The request asks to become a tunnel: after what its head announced comes nothing, until that is open.
    pub(super) tunnel: bool,
    /// What comes now is bytes of the tunnel.
    pub(super) raw: bool,
}

impl RequestBody {
    /// `began`: bytes that had come on the connection before this request.
    pub(super) fn new(
        manager: &Manager,
        downstream: &Rc<Downstream>,
        stream: &Rc<StreamInfo>,
        began: u64,
        tunnel: bool,
    ) -> RequestBody {
        RequestBody {
            downstream: Rc::clone(downstream),
            stream: Rc::clone(stream),
            stats: Arc::clone(&manager.stats),
            trailers: manager.settings.http1.enable_trailers,
            underscores: manager.settings.underscores,
            buffer_limit: manager.buffer_limit,
            began,
            tunnel,
            raw: false,
        }
    }
}

impl Downstream {
    /// Takes of the request's body what need not be waited for: mostly that is all, and the connection is good for another
    /// request. What is malformed ends it, and is nobody's concern any more.
    pub(super) fn take_what_is_there(
        &self,
        cx: &mut Context<'_>,
        manager: &Manager,
        stream: &StreamInfo,
    ) -> Poll<()> {
        let received = &stream.record.received;
        let began = self.consumed() - received.wire.get();
        let mut decoder = self.decoder.borrow_mut();
        let mut taken = 0;
        while taken < TAKEN
            && let Poll::Ready(Some(Ok(frame))) = decoder.poll_frame(
                cx,
                &mut self.io.borrow_mut(),
                &mut self.read.borrow_mut(),
                manager.buffer_limit,
            )
        {
            if let Frame::Data(chunk) = frame {
                received.add_body(chunk.len() as u64);
                taken += chunk.len();
            }
        }
        self.count_read(&manager.stats, self.read.borrow().total());
        received.wire.set(self.consumed() - began);
        if decoder.is_done() {
            stream.request_completed(clock::now());
        }
        Poll::Ready(())
    }
}

/// Bytes.
const TAKEN: usize = 64 << 10;

impl BodyStream for RequestBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let d = &self.downstream;
        let mut decoder = d.decoder.borrow_mut();
        if self.tunnel && !self.raw && decoder.is_done() {
            if self.stream.tunnel() != Tunnelling::Open {
                // Who opens it polls again.
                return Poll::Pending;
            }
            self.raw = true;
            *decoder = BodyDecoder::UntilClose;
        }
        let mut read = d.read.borrow_mut();
        let mut frame = ready!(decoder.poll_frame(cx, &mut d.io.borrow_mut(), &mut read, self.buffer_limit));
        if matches!(frame, Some(Ok(Frame::Trailers(_)))) && !self.trailers {
            frame = None;
        }
        if let Some(Ok(Frame::Trailers(trailers))) = &mut frame {
            match apply_underscores(trailers, self.underscores) {
                Ok(0) => {}
                Ok(dropped) => self.stats.http1().dropped_headers_with_underscores.add(dropped as u64),
                Err(_) => {
                    self.stats.http1().requests_rejected_with_underscores_in_headers.inc();
                    frame = Some(Err(BodyError::Malformed("an underscore in the name of a trailer")));
                }
            }
        }
        let total = read.total();
        d.count_read(&self.stats, total);
        self.stream.record.received.wire.set(total - read.len() as u64 - self.began);
        let now = clock::now();
        match &frame {
            Some(Ok(Frame::Data(chunk))) => {
                self.stream.record.received.add_body(chunk.len() as u64);
                self.stream.touch(now);
            }
            Some(Err(BodyError::Closed | BodyError::Io(_))) => d.guard.closed_by_peer(),
            Some(Err(_)) => self.stats.manager.downstream_cx_protocol_error.inc(),
            _ => {}
        }
        if decoder.is_done() && self.raw == self.tunnel {
            self.stream.request_completed(now);
        }
        Poll::Ready(frame)
    }

    fn remaining(&self) -> Option<u64> {
        if self.tunnel { None } else { self.downstream.decoder.borrow().remaining() }
    }

    fn is_raw(&self) -> bool {
        self.tunnel && self.downstream.decoder.borrow().is_done()
    }
}
