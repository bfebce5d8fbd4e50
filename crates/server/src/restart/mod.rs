//! Hot restart: one generation hands over to the next, and can take everything back until the next one leads.
//!
//! `child` is the side of the new process, `parent` that of the old one; a process is the one first and the other
//! later. `sockets` is how listening sockets travel, `offers` and `arrivals` how connections do. `restarts` is what the
//! operator asks for, `spawn` how the new process is started. What the two say is in `proxy_control::restart`.

mod arrivals;
mod child;
mod fault;
mod heart;
mod leadership;
mod offers;
mod parent;
mod reserve;
mod restarts;
mod sockets;
mod spawn;

use std::time::Duration;

use proxy_control::restart::{Body, Channel, ChannelError, Received};

pub(crate) use arrivals::Arrivals;
pub use child::ChildError;
pub(crate) use child::Predecessor;
pub(crate) use leadership::{Leadership, Name};
pub(crate) use offers::{Offering, Offers, Tally};
pub(crate) use parent::{Event, Successors};
pub(crate) use restarts::{Moving, Restarts};
pub(crate) use sockets::Inherited;

/// How long one side waits for the other to say what it has to say at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// How often a child says that it is there, until it leads.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// A child that has said nothing for this long is dead, or might as well be: clients may be waiting for it.
const SILENCE_LIMIT: Duration = Duration::from_secs(2);
/// The same, while the parent accepts and nobody waits.
const BUILD_LIMIT: Duration = Duration::from_secs(5);

/// Why a conversation between generations broke off.
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error("the other generation said nothing for {0:?}")]
    Silence(Duration),
    #[error("the other generation said something out of turn ({0})")]
    Unexpected(&'static str),
}

/// The next message, within `limit`.
async fn next(channel: &Channel, limit: Duration) -> Result<Received, TalkError> {
    match tokio::time::timeout(limit, channel.receive()).await {
        Ok(received) => Ok(received?),
        Err(_) => Err(TalkError::Silence(limit)),
    }
}

/// Sends a message without descriptors, within the limit for answers: a hung reader must not hang the writer.
async fn say(channel: &Channel, body: Body) -> Result<(), TalkError> {
    match tokio::time::timeout(ANSWER_LIMIT, channel.send(body, &[])).await {
        Ok(sent) => Ok(sent?),
        Err(_) => Err(TalkError::Silence(ANSWER_LIMIT)),
    }
}

/// What a message is called, for errors.
fn called(body: &Body) -> &'static str {
    match body {
        Body::Hello(_) => "Hello",
        Body::Welcome(_) => "Welcome",
        Body::Refused(_) => "Refused",
        Body::SocketsWanted(_) => "SocketsWanted",
        Body::Sockets(_) => "Sockets",
        Body::Serving(_) => "Serving",
        Body::Stopped(_) => "Stopped",
        Body::Heartbeat(_) => "Heartbeat",
        Body::Confirm(_) => "Confirm",
        Body::Offer(_) => "Offer",
        Body::Accept(_) => "Accept",
        Body::Refuse(_) => "Refuse",
        Body::Release(_) => "Release",
        Body::Withdraw(_) => "Withdraw",
        Body::StopOffering(_) => "StopOffering",
        Body::End(_) => "End",
        Body::Unknown(_) => "Unknown",
        Body::GiveUp(_) => "GiveUp",
    }
}
