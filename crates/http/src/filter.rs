//! The contract of HTTP filters.
//!
//! A chain is built once from configuration and shared by all streams of a worker, so a filter keeps what it knows of one
//! stream in that stream ([`StreamInfo::filter_local`]). `request` runs in order, `response` over all filters in reverse, also
//! for a reply made by one of them, as Envoy does.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use crate::message::{Request, Response};
use crate::stream::StreamInfo;

/// A filter's place among all of its connection manager's: by it settings of routes and what is kept for a stream are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilterIndex(pub u8);

/// One of a connection manager's chains of filters ([`HttpConnectionManager::filter_chains`]): that of `http_filters`, unless
/// an upgrade has its own.
///
/// [`HttpConnectionManager::filter_chains`]: proxy_config::settings::HttpConnectionManager::filter_chains
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainIndex(pub u8);

/// Some filters of a connection manager, which has at most [`MAX_HTTP_FILTERS`](proxy_config::settings::MAX_HTTP_FILTERS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilterSet(u64);

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

/// A filter between the connection manager and the router. Requests whose route disables it never come to it.
pub trait HttpFilter {
    /// Sees the request; may change head, body (by wrapping it) and stream state, and have the route found anew
    /// ([`StreamInfo::clear_route`]).
    fn request<'a>(
        &'a self,
        _stream: &'a Rc<StreamInfo>,
        _request: &'a mut Request,
    ) -> Filtered<'a, Result<Flow, Reset>> {
        Filtered::Now(Ok(Flow::Continue))
    }

    /// Sees the response; may change head and body (by wrapping it), or put another in its place. It may not have seen the
    /// request: an earlier filter, or the connection manager, may have answered that. Responses ahead of the final one (1xx)
    /// pass filters by.
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

impl FilterSet {
    pub fn insert(&mut self, filter: FilterIndex) {
        self.0 |= 1 << (filter.0 & 63);
    }

    pub fn contains(self, filter: FilterIndex) -> bool {
        self.0 & (1 << (filter.0 & 63)) != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub fn with(self, others: FilterSet) -> FilterSet {
        FilterSet(self.0 | others.0)
    }

    #[must_use]
    pub fn without(self, others: FilterSet) -> FilterSet {
        FilterSet(self.0 & !others.0)
    }
}
