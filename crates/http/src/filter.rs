//! The contract of HTTP filters.
//!
//! A chain is built once from configuration and shared by all streams of a worker. `request` runs in order,
//! `response` over all filters in reverse, also for a reply made by one of them, as Envoy does.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use crate::message::{Request, Response};
use crate::stream::StreamInfo;

/// What a filter gives back: at once, or after waiting. Only waiting allocates.
pub enum Filtered<'a, T> {
    Now(T),
    Later(Pin<Box<dyn Future<Output = T> + 'a>>),
}

/// What becomes of a request after a filter has seen it.
pub enum Flow {
    Continue,
    /// Answer with this; neither later filters nor the upstream see the request.
    Reply(Response),
}

/// The stream is to be reset; its response flags say why.
#[derive(Debug)]
pub struct Reset;

/// A filter between the connection manager and the router.
pub trait HttpFilter {
    /// Sees the request; may change head, body (by wrapping it) and stream state.
    fn request<'a>(
        &'a self,
        _stream: &'a Rc<StreamInfo>,
        _request: &'a mut Request,
    ) -> Filtered<'a, Result<Flow, Reset>> {
        Filtered::Now(Ok(Flow::Continue))
    }

    /// Sees the response; may change head and body (by wrapping it).
    fn response<'a>(
        &'a self,
        _stream: &'a Rc<StreamInfo>,
        _response: &'a mut Response,
    ) -> Filtered<'a, Result<(), Reset>> {
        Filtered::Now(Ok(()))
    }

    /// Called exactly once, when the stream has ended, also when it was aborted.
    fn end(&self, _stream: &Rc<StreamInfo>) {}
}

/// What ends a chain: takes the request's body away and comes back with the response.
/// Dropping the future, or later the response's body, cancels what it began.
pub trait TerminalFilter {
    fn serve<'a>(
        &'a self,
        stream: &'a Rc<StreamInfo>,
        request: &'a mut Request,
    ) -> Filtered<'a, Result<Response, Reset>>;
}
