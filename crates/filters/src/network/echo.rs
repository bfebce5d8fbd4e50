//! `envoy.filters.network.echo`: sends back what it gets.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use proxy_net::buffer::ReadBuffer;
use proxy_net::{CloseReason, Connection, Io, LocalBoxFuture, NetworkFilter, NextNetwork};

/// The filter; terminal.
pub struct Echo;

/// Nothing is read before all that was read is sent.
struct Echoing {
    io: Io,
    held: ReadBuffer,
    sent: u64,
}

impl Echoing {
    /// Ready when the peer has ended, and has had all of it.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        loop {
            while !self.held.is_empty() {
                let count = ready!(self.io.poll_write(context, self.held.data()))?;
                self.held.consume(count);
                self.sent += count as u64;
            }
            if ready!(self.held.poll_fill(&mut self.io, context, false))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl NetworkFilter for Echo {
    fn serve<'a>(
        &'a self,
        connection: Connection,
        _next: NextNetwork<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CloseReason>> {
        Box::pin(async move {
            let Connection { io, prefix, info, .. } = connection;
            let mut echoing = Echoing { io, held: prefix, sent: 0 };
            let ended = poll_fn(|context| echoing.poll(context)).await;
            if let Some(record) = &info.record {
                record.received.set_all(echoing.sent + echoing.held.len() as u64);
                record.sent.set_all(echoing.sent);
            }
            ended.map_err(CloseReason::Downstream)
        })
    }
}
