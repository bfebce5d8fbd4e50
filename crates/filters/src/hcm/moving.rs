//! A connection of HTTP/1 on its way to another process, between two requests or before the first.

use std::os::fd::AsFd;
use std::time::Duration;

use prost::Message;
use proxy_net::buffer::ReadBuffer;
use proxy_net::{Connection, ConnectionInfo, Io, MovedConnection, MovedKind, Receipt};
use proxy_runtime::clock;

use super::Manager;

/// What the connection manager of another process tells of a connection.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct MovedHttp {
    /// Requests it has served. 0: it has not even said which version of HTTP it is.
    #[prost(uint32, tag = "1")]
    pub(super) requests: u32,
    /// Until `max_connection_duration`, in milliseconds.
    #[prost(uint64, optional, tag = "2")]
    left_ms: Option<u64>,
}

impl MovedHttp {
    pub(super) fn new(requests: u32, left: Option<Duration>) -> MovedHttp {
        MovedHttp { requests, left_ms: left.map(|left| left.as_millis() as u64) }
    }

    /// What the connection's own manager says of itself; `None` if another process has not told of it.
    pub(super) fn of(connection: &mut Connection) -> Option<MovedHttp> {
        let moved = connection.moved.take()?;
        MovedHttp::decode(&*moved.state).ok()
    }

    /// Until `max_connection_duration`.
    pub(super) fn left(&self) -> Option<Duration> {
        self.left_ms.map(Duration::from_millis)
    }
}

impl Manager {
    /// Offers a connection to the next process. With a receipt it is that one's, once it has been dropped here.
    /// `prefix` is at most [`SMALL`](proxy_net::buffer::SMALL) long, to fit a message.
    pub(super) async fn offer(
        &self,
        io: &Io,
        prefix: &ReadBuffer,
        info: &ConnectionInfo,
        state: MovedHttp,
    ) -> Option<Receipt> {
        let moved = MovedConnection::new(info, prefix, MovedKind::Http, state.encode_to_vec(), clock::now());
        match self.handover.offer(moved.encode_to_vec(), &[io.as_fd()]).await {
            Ok(receipt) => receipt,
            Err(error) => {
                tracing::debug!(target: "restart", %error, "a connection cannot be offered");
                None
            }
        }
    }
}
