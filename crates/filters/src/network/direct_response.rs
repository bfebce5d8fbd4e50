//! `envoy.filters.network.direct_response`: says one thing and closes.

use std::future::poll_fn;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use proxy_net::{CloseReason, Connection, Limit, LocalBoxFuture, NetworkFilter, NextNetwork};
use proxy_runtime::{Timer, clock};

use super::lingering;

/// The filter; terminal.
pub struct DirectResponse(Bytes);

impl DirectResponse {
    pub fn new(response: Bytes) -> DirectResponse {
        DirectResponse(response)
    }

    async fn answer(&self, connection: &mut Connection) -> Result<(), CloseReason> {
        let io = &mut connection.io;
        let timer = Timer::new();
        timer.set(clock::now() + WRITE_LIMIT);
        let mut left = &*self.0;
        poll_fn(|context| {
            while !left.is_empty() {
                match io.poll_write(context, left) {
                    Poll::Pending => {
                        ready!(timer.poll_expired(context));
                        return Poll::Ready(Err(CloseReason::Timeout(Limit::Idle)));
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(CloseReason::Downstream(error))),
                    Poll::Ready(Ok(count)) => {
                        left = left.get(count..).unwrap_or_default();
                        timer.set(clock::now() + WRITE_LIMIT);
                    }
                }
            }
            io.poll_shutdown(context).map_err(CloseReason::Downstream)
        })
        .await
    }
}

impl NetworkFilter for DirectResponse {
    fn serve<'a>(
        &'a self,
        mut connection: Connection,
        _next: NextNetwork<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CloseReason>> {
        Box::pin(async move {
            self.answer(&mut connection).await?;
            if let Some(record) = &connection.info.record {
                record.set_details("direct_response");
                record.sent.set_all(self.0.len() as u64);
            }
            // Closed with unread bytes it would be reset, and the peer might lose the answer.
            lingering(&mut connection.io, LINGER_LIMIT).await;
            Ok(())
        })
    }
}

/// How long a peer may take none of it.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// How long a peer may leave its own side open.
const LINGER_LIMIT: Duration = Duration::from_secs(1);
