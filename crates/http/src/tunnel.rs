//! Requests that become streams of bytes both ways: upgrades (RFC 9110, section 7.8), CONNECT (section 9.3.6) and
//! extended CONNECT (RFC 8441).
//!
//! Inside the proxy all of them have the form of HTTP/1.1: an extended CONNECT is a GET with `upgrade`, and who accepts it
//! answers 101. Only the codecs of HTTP/2 know the other form. Until the host agrees, the body of such a request
//! yields nothing but what its head announced: what a client sends too early waits, and never reaches a host that
//! might take it for another request.

use std::task::{Context, Poll};

use proxy_net::Io;
use proxy_net::buffer::ReadBuffer;

use crate::body::{Body, BodyError, BodyStream, Frame};
use crate::forwarding::nominated;
use crate::headers::Headers;
use crate::message::Method;
use crate::name::HeaderId;

/// How far a stream is on its way to be a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Tunnelling {
    /// It is request and response.
    #[default]
    No,
    /// The request asks for it, and configuration allows it.
    Asked,
    /// The host has agreed.
    Open,
}

/// The way from the client to the host; the way back is a response's body.
pub trait Tunnel {
    /// Passes on what comes from the client. Ready when that has ended and the host knows; not to be polled after that.
    ///
    /// # Errors
    /// The client failed: the stream is not whole.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>>;

    /// The host's socket, if there is nothing between it and the client's but this and `body`, the way back. Only
    /// before anything was polled.
    ///
    /// # Errors
    /// Both halves as they were, if there is.
    fn into_raw(self: Box<Self>, body: Body) -> Result<RawHost, (Box<dyn Tunnel>, Body)>;
}

/// A host's end of a tunnel that is nothing but a socket.
pub struct RawHost {
    pub io: Io,
    /// Read from it already.
    pub read: ReadBuffer,
    pub keeper: Box<dyn RawKeeper>,
}

/// Counts a tunnel's connection to a host for as long as it lives.
pub trait RawKeeper {
    /// So many bytes more have gone to the host and come from it.
    fn moved_bytes(&self, sent: u64, received: u64);

    /// So many bytes wait for the host, and for the client.
    fn set_waiting(&self, for_host: usize, for_client: usize);

    /// Both ways have ended, the host's last or not.
    fn completed(&self, by_host: bool);

    /// The host failed.
    fn failed(&self);

    /// The connection goes on in another process, which will count its end.
    fn moved(&self);

    /// The cluster's `per_connection_buffer_limit_bytes`.
    fn buffer_limit(&self) -> u32;

    /// The names of cluster and host.
    fn place(&self) -> (String, String);
}

/// A body that takes the other way along, for a response that is answered as any other. What the client has not sent by
/// its end is not sent.
pub fn joined(body: Body, tunnel: Option<Box<dyn Tunnel>>) -> Body {
    match tunnel {
        Some(_) => Body::Stream(Box::new(Joined { body, tunnel })),
        None => body,
    }
}

struct Joined {
    body: Body,
    tunnel: Option<Box<dyn Tunnel>>,
}

impl BodyStream for Joined {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if let Some(tunnel) = &mut self.tunnel
            && let Poll::Ready(sent) = tunnel.poll_upload(cx)
        {
            self.tunnel = None;
            if let Err(error) = sent {
                return Poll::Ready(Some(Err(error)));
            }
        }
        self.body.poll_frame(cx)
    }

    fn remaining(&self) -> Option<u64> {
        None
    }
}

/// In which form a host is asked for a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelRequest {
    Upgrade,
    Connect,
}

impl TunnelRequest {
    /// What a request with this method is that is to become a tunnel.
    pub fn of(method: &Method) -> TunnelRequest {
        if *method == Method::Connect { TunnelRequest::Connect } else { TunnelRequest::Upgrade }
    }

    /// Whether an HTTP/1.1 response with this status agrees.
    pub fn is_accepted_by(self, status: u16) -> bool {
        match self {
            TunnelRequest::Upgrade => status == 101,
            TunnelRequest::Connect => (200..300).contains(&status),
        }
    }
}

/// Whether a message says that its connection changes to another protocol.
pub fn names_upgrade(headers: &Headers) -> bool {
    headers.joined(HeaderId::UPGRADE).is_some_and(|protocol| !protocol.is_empty())
        && nominated::tokens(headers).any(|token| token.eq_ignore_ascii_case(b"upgrade"))
}

/// Gives a message the headers that say so.
pub fn set_upgrade(headers: &mut Headers, protocol: &[u8]) {
    headers.set(HeaderId::UPGRADE, protocol);
    headers.set(HeaderId::CONNECTION, b"upgrade");
}
