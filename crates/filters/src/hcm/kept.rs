//! What outlives its message because an access log, or an answer of the proxy's own, tells of it.

use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use proxy_http::body::{Body, BodyError, BodyStream, Frame};
use proxy_http::{Headers, Method, Request, StreamInfo};
use proxy_net::pipe::Pipe;

/// A request on its way. However the way ends, its head is there for the log then.
pub(super) struct HeldRequest<'a> {
    stream: &'a StreamInfo,
    request: Request,
    answered: bool,
}

/// A response's body of which the trailers are kept.
struct TrailerWatch {
    body: Body,
    stream: Rc<StreamInfo>,
}

impl<'a> HeldRequest<'a> {
    pub(super) fn new(stream: &'a StreamInfo, request: Request) -> HeldRequest<'a> {
        HeldRequest { stream, request, answered: false }
    }

    /// There is a response. Whose request is dropped without one may still be told of it, when a limit passed.
    pub(super) fn answered(&mut self) {
        self.answered = true;
    }
}

impl Deref for HeldRequest<'_> {
    type Target = Request;

    fn deref(&self) -> &Request {
        &self.request
    }
}

impl DerefMut for HeldRequest<'_> {
    fn deref_mut(&mut self) -> &mut Request {
        &mut self.request
    }
}

impl Drop for HeldRequest<'_> {
    fn drop(&mut self) {
        if !self.answered || self.stream.keeps_request() {
            let empty = Request::new(Method::Get, self.request.version, b"", b"", Headers::new());
            let mut request = std::mem::replace(&mut self.request, empty);
            request.body = Body::Empty;
            self.stream.keep_request(request);
        }
    }
}

/// Has the trailers of `body` kept, if a log tells of them. None come from a socket that has become a tunnel, and what
/// wraps that would keep its bytes from going the shortest way.
pub(super) fn watch_trailers(stream: &Rc<StreamInfo>, body: &mut Body) {
    if stream.needs().trailers && matches!(body, Body::Stream(_)) && !body.is_raw() {
        let inner = std::mem::replace(body, Body::Empty);
        *body = Body::Stream(Box::new(TrailerWatch { body: inner, stream: Rc::clone(stream) }));
    }
}

impl BodyStream for TrailerWatch {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let frame = ready!(self.body.poll_frame(cx));
        if let Some(Ok(Frame::Trailers(trailers))) = &frame {
            self.stream.kept().trailers = Some(trailers.copy());
        }
        Poll::Ready(frame)
    }

    fn remaining(&self) -> Option<u64> {
        self.body.remaining()
    }

    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Option<Poll<Result<usize, BodyError>>> {
        self.body.poll_splice(cx, pipe)
    }
}
