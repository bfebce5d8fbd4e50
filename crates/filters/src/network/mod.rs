//! Network filters in front of others, which turn connections away, and two that answer by themselves.
//!
//! Main makes the part that workers share, each worker its own instance of it.

mod connection_limit;
mod direct_response;
mod echo;
mod local_ratelimit;
mod rbac;
mod set_filter_state;

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use proxy_net::buffer::ReadBuffer;
use proxy_net::{CloseReason, Connection, Io, NextNetwork};
use proxy_runtime::{Timer, clock};

pub use connection_limit::ConnectionLimit;
pub use direct_response::DirectResponse;
pub use echo::Echo;
pub use local_ratelimit::LocalRateLimit;
pub use rbac::Rbac;
pub use set_filter_state::SetFilterState;

/// Ends a connection that a filter does not let through: at once, or when `delay` has passed, so that a client that comes
/// again and again cannot do so as fast as it likes.
async fn turn_away(
    mut connection: Connection,
    next: NextNetwork<'_>,
    delay: Option<Duration>,
    reason: &'static str,
) -> Result<(), CloseReason> {
    if let Some(delay) = delay {
        connection.prefix.clear();
        lingering(&mut connection.io, delay).await;
    }
    next.turned_away(&connection.info);
    Err(CloseReason::Denied(reason))
}

/// Waits for `limit`, or until the peer ends or fails. What comes meanwhile is thrown away; one that sends a lot is not
/// read any more.
async fn lingering(io: &mut Io, limit: Duration) {
    let timer = Timer::new();
    timer.set(clock::now() + limit);
    let mut left = MOST_THROWN_AWAY;
    poll_fn(|context| {
        if left > 0 && poll_throw_away(io, &mut left, context).is_ready() {
            return Poll::Ready(());
        }
        timer.poll_expired(context)
    })
    .await;
}

/// Ready when the peer has ended or failed.
fn poll_throw_away(io: &mut Io, left: &mut usize, context: &mut Context<'_>) -> Poll<()> {
    while *left > 0 {
        let mut buffer = ReadBuffer::new();
        match std::task::ready!(buffer.poll_fill(io, context, false)) {
            Ok(0) | Err(_) => return Poll::Ready(()),
            Ok(count) => *left = left.saturating_sub(count),
        }
    }
    Poll::Pending
}

/// Bytes.
const MOST_THROWN_AWAY: usize = 64 << 10;
