//! A stream of HTTP/2 that is a stream of bytes: its host agreed to CONNECT, extended or not.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use proxy_http::Tunnel;
use proxy_http::body::{Body, BodyError, BodyStream, Frame};
use proxy_http::h2::BodyReceiver;
use proxy_http::tunnel::RawHost;
use proxy_net::AttemptGuard;

use super::Stream;
use crate::exchange::{ExchangeError, ResponseGuard};

/// What both halves share; the stream is reset when both are gone before its end.
struct Joint {
    stream: Box<Stream>,
    attempt: AttemptGuard,
    guard: Box<dyn ResponseGuard>,
    down_ended: bool,
    up_ended: bool,
}

/// From the host to the client.
struct Download {
    receiver: BodyReceiver,
    joint: Rc<RefCell<Joint>>,
}

/// From the client to the host.
struct Upload {
    body: Body,
    joint: Rc<RefCell<Joint>>,
}

pub(super) fn split(
    stream: Box<Stream>,
    body: Body,
    receiver: BodyReceiver,
    attempt: AttemptGuard,
    guard: Box<dyn ResponseGuard>,
) -> (Body, Box<dyn Tunnel>) {
    let joint = Joint { stream, attempt, guard, down_ended: false, up_ended: false };
    let joint = Rc::new(RefCell::new(joint));
    let download = Download { receiver, joint: Rc::clone(&joint) };
    (Body::Stream(Box::new(download)), Box::new(Upload { body, joint }))
}

impl Joint {
    fn end_if_both(&mut self) {
        if self.up_ended && self.down_ended {
            self.stream.ended = true;
        }
    }
}

impl BodyStream for Download {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let frame = ready!(self.receiver.poll_frame(cx));
        let joint = &mut *self.joint.borrow_mut();
        match &frame {
            Some(Ok(Frame::Data(chunk))) => joint.attempt.note(|attempt, _| {
                attempt.received.add_body(chunk.len() as u64);
                attempt.received.add_wire(chunk.len() as u64);
            }),
            Some(Ok(Frame::Trailers(_))) | None => {
                joint.down_ended = true;
                joint.guard.completed();
                joint.attempt.note(|attempt, now| attempt.receive_end.set_once(attempt.start, now));
                joint.end_if_both();
            }
            Some(Err(error)) => joint.stream.broke_off(error),
        }
        Poll::Ready(frame)
    }

    fn remaining(&self) -> Option<u64> {
        None
    }
}

impl Tunnel for Upload {
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let joint = &mut *self.joint.borrow_mut();
        match joint.stream.poll_send(cx, &mut self.body, &joint.attempt) {
            Err(ExchangeError::RequestBody(error)) => return Poll::Ready(Err(error)),
            // Told by the other half, if it matters there.
            Err(_) => joint.stream.sender = None,
            Ok(()) => {}
        }
        if let Some(sender) = &mut joint.stream.sender {
            // A host that has sent all it had may say that it wants no more.
            let _ = ready!(sender.poll_reset(cx));
            joint.stream.sender = None;
        }
        joint.up_ended = true;
        joint.end_if_both();
        Poll::Ready(Ok(()))
    }

    fn into_raw(self: Box<Self>, body: Body) -> Result<RawHost, (Box<dyn Tunnel>, Body)> {
        Err((self, body))
    }
}
