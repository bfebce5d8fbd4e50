//! One request and its response at a host, whatever version is spoken there.

use std::rc::Rc;
use std::task::{Context, Poll};

use proxy_config::settings::{Priority, UpstreamProtocol};
use proxy_http::body::{Body, BodyError};
use proxy_http::h1::head::{HeadError, ResponseHead};
use proxy_http::h2::StreamMetadata;
use proxy_http::tunnel::TunnelRequest;
use proxy_http::{Headers, Interim, Request, Tunnel, Version};
use proxy_net::AttemptGuard;

use crate::breaker::Resource;
use crate::cluster::WorkerHost;
use crate::connect::{Purpose, connect};
use crate::pending::PendingRequest;
use crate::pool::AcquireError;
use crate::{h1, h2};

/// What to send a request on.
pub struct Link {
    connection: LinkConnection,
    /// It has served a request before: it may turn out to be closed by now.
    pub reused: bool,
}

enum LinkConnection {
    /// No HTTP at all: the body's bytes and nothing else.
    Raw(h1::Client),
    Http1(h1::Client),
    Http2(Rc<h2::Client>),
}

/// One request and its response on a connection.
#[expect(clippy::large_enum_variant, reason = "HTTP/1 is the common case and shall cost no allocation")]
pub enum Exchange {
    Http1(h1::Exchange),
    Http2(h2::Exchange),
}

/// Responses ahead of the final one.
#[derive(Default)]
pub(crate) struct Interims {
    count: u32,
    /// Boxed: seldom there, and exchanges are moved about.
    first: Option<Box<Interim>>,
}

impl Interims {
    /// Counts one and keeps the first.
    ///
    /// # Errors
    /// When a host sends them without end.
    pub(crate) fn push(
        &mut self,
        status: u16,
        headers: impl FnOnce() -> Headers,
    ) -> Result<(), ExchangeError> {
        self.count += 1;
        match self.count {
            1 => self.first = Some(Box::new(Interim { status, headers: headers() })),
            count if count > MAX_INTERIMS => {
                return Err(ExchangeError::Malformed(HeadError::Malformed("too many interim responses")));
            }
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn take(&mut self) -> Option<Box<Interim>> {
        self.first.take()
    }
}

/// No host has that much to say before it answers.
const MAX_INTERIMS: u32 = 100;

/// Why an exchange gave no response.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The host closed the connection before it had begun to answer.
    #[error("the upstream closed the connection")]
    Closed,
    #[error("malformed response: {0}")]
    Malformed(HeadError),
    /// The request's own body failed: the client is gone, or at fault.
    #[error("request body: {0}")]
    RequestBody(BodyError),
    /// The host reset the stream.
    #[error("the upstream reset the stream ({0})")]
    Reset(::h2::Reason),
    /// The host says that it has not looked at the request.
    #[error("the upstream refused the stream")]
    Refused,
    /// The request has no form in the version that the host speaks.
    #[error("the request cannot be sent in HTTP/2")]
    Unsendable,
}

impl WorkerHost {
    /// A connection for a request that came in as `version`.
    ///
    /// # Errors
    /// When circuit breakers are open, or connecting fails.
    pub async fn link(self: &Rc<Self>, version: Version, priority: Priority) -> Result<Link, AcquireError> {
        let options = match &self.cluster.settings.protocol {
            UpstreamProtocol::Http2(options) => Some(options),
            UpstreamProtocol::SameAsDownstream(options) if version == Version::Http2 => Some(options),
            UpstreamProtocol::Http1 | UpstreamProtocol::SameAsDownstream(_) => None,
        };
        Ok(match options {
            Some(options) => {
                let client = self.acquire_http2(priority, options).await?;
                Link { reused: client.is_used(), connection: LinkConnection::Http2(client) }
            }
            None => {
                let acquired = self.acquire(priority).await?;
                Link { connection: LinkConnection::Http1(acquired.client), reused: acquired.reused }
            }
        })
    }
}

impl Link {
    /// Waits until it is known whether the connection can carry upgrades; over HTTP/2 that is for the host to say.
    pub async fn takes_upgrades(&self) -> bool {
        match &self.connection {
            LinkConnection::Raw(_) | LinkConnection::Http1(_) => true,
            LinkConnection::Http2(client) => client.takes_extended_connect().await,
        }
    }
}

impl WorkerHost {
    /// A connection for the bytes of one request's body, never used again. A full cluster refuses at once.
    ///
    /// # Errors
    /// When circuit breakers are open, or connecting fails.
    pub async fn link_raw(self: &Rc<Self>, priority: Priority) -> Result<Link, AcquireError> {
        let Some(permit) = self.cluster.breakers.acquire(priority, Resource::Connections) else {
            self.cluster.stats.upstream_cx_overflow.inc();
            return Err(AcquireError::Overflow);
        };
        let pending = PendingRequest::begin(&self.cluster, priority).ok_or(AcquireError::Overflow)?;
        match connect(self, permit, Purpose::Tcp).await {
            Ok((io, guard)) => {
                pending.served();
                let client = h1::Client::new(io, guard);
                Ok(Link { connection: LinkConnection::Raw(client), reused: false })
            }
            Err(error) => {
                pending.ejected();
                Err(error.into())
            }
        }
    }
}

/// Kept until a response has ended, and told if that was in good order.
pub trait ResponseGuard {
    /// The response has come whole.
    fn completed(&self);
}

impl Exchange {
    /// Begins to send `request`, whose body is left [`Body::Empty`]. `attempt` hears how it goes.
    /// `metadata`: that of the client's stream. With `tunnel` the host is asked for a stream of bytes both ways.
    pub fn new(
        link: Link,
        request: &mut Request,
        metadata: Option<&StreamMetadata>,
        attempt: AttemptGuard,
        tunnel: bool,
    ) -> Exchange {
        let tunnel = tunnel.then(|| TunnelRequest::of(&request.method));
        if let Some(metadata) = metadata
            && !matches!(link.connection, LinkConnection::Http2(_))
        {
            metadata.forward_to(None);
        }
        match link.connection {
            LinkConnection::Raw(client) => Exchange::Http1(h1::Exchange::raw(client, request, attempt)),
            LinkConnection::Http1(client) => {
                Exchange::Http1(h1::Exchange::new(client, request, attempt, tunnel))
            }
            LinkConnection::Http2(client) => {
                Exchange::Http2(h2::Exchange::new(&client, request, metadata, attempt, tunnel))
            }
        }
    }

    /// Whether the host may have acted on the request.
    pub fn has_written(&self) -> bool {
        match self {
            Exchange::Http1(exchange) => exchange.has_written(),
            Exchange::Http2(exchange) => exchange.has_written(),
        }
    }

    /// The request's body as it was before [`Exchange::new`], if nothing at all has been written.
    pub fn take_unsent_body(&mut self) -> Option<Body> {
        match self {
            Exchange::Http1(exchange) => exchange.take_unsent_body(),
            Exchange::Http2(exchange) => exchange.take_unsent_body(),
        }
    }

    /// Sends what it can and resolves with the head of the final response; of those ahead of it only the first is kept.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, ExchangeError>> {
        match self {
            Exchange::Http1(exchange) => exchange.poll_head(cx),
            Exchange::Http2(exchange) => exchange.poll_head(cx),
        }
    }

    /// The first response ahead of the final one, once it has come.
    pub fn take_interim(&mut self) -> Option<Box<Interim>> {
        match self {
            Exchange::Http1(exchange) => exchange.take_interim(),
            Exchange::Http2(exchange) => exchange.take_interim(),
        }
    }

    /// Whether a response agrees to the tunnel that was asked for.
    pub fn opens_tunnel(&self, head: &ResponseHead) -> bool {
        match self {
            Exchange::Http1(exchange) => exchange.opens_tunnel(head),
            Exchange::Http2(exchange) => exchange.opens_tunnel(head),
        }
    }

    /// The two ways of the exchange, each for itself: of a tunnel that the response agreed to, or of a request whose body
    /// goes on while its answer comes. `guard` is kept to the end of both.
    pub fn into_tunnel(
        self,
        head: &ResponseHead,
        guard: Box<dyn ResponseGuard>,
    ) -> (Body, Option<Box<dyn Tunnel>>) {
        match self {
            Exchange::Http1(exchange) => {
                let (body, tunnel) = exchange.into_tunnel(head, guard);
                (body, Some(tunnel))
            }
            Exchange::Http2(exchange) => exchange.into_tunnel(guard),
        }
    }

    /// The response's body, which goes on sending the request's; `guard` is kept to its end.
    pub fn into_body(self, head: &ResponseHead, guard: Box<dyn ResponseGuard>) -> Body {
        match self {
            Exchange::Http1(exchange) => exchange.into_body(head, guard),
            Exchange::Http2(exchange) => exchange.into_body(head, guard),
        }
    }
}
