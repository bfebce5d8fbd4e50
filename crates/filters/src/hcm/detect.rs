//! Which HTTP version a client speaks: told by the first bytes of its connection.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, ready};

use proxy_net::{CloseReason, Connection, Limit, Mobility, Receipt};
use proxy_runtime::{Timer, clock};

use super::moving::MovedHttp;
use super::stats::ConnectionGuard;
use super::{Manager, QUIET_BEFORE_CLOSE};

/// What the first bytes are the beginning of.
pub(super) enum Detected {
    Http1,
    Http2,
    /// Another process waits for them now, once the connection has been dropped here.
    Moved(Receipt),
    /// The connection ended, or was to end, before anything came.
    Nothing,
}

/// What waiting for the first bytes came to.
enum Waited {
    Detected(Detected),
    /// The connection is to be offered to another process.
    Wanted,
}

/// Waits for the first bytes of a connection; they stay in its prefix.
pub(super) async fn detect(
    manager: &Rc<Manager>,
    connection: &mut Connection,
    guard: &ConnectionGuard,
    mobility: &Mobility,
) -> Result<Detected, CloseReason> {
    loop {
        match wait(manager, connection, guard, mobility).await? {
            Waited::Detected(detected) => return Ok(detected),
            Waited::Wanted => {
                let Connection { io, prefix, info, .. } = &*connection;
                match manager.offer(io, prefix, info, MovedHttp::default()).await {
                    Some(receipt) => return Ok(Detected::Moved(receipt)),
                    None => mobility.stay(),
                }
            }
        }
    }
}

async fn wait(
    manager: &Rc<Manager>,
    connection: &mut Connection,
    guard: &ConnectionGuard,
    mobility: &Mobility,
) -> Result<Waited, CloseReason> {
    let stats = &manager.stats.manager;
    let closing = manager.closing.guard();
    let opened = clock::now();
    let idle = Timer::new();
    if let Some(limit) = manager.settings.idle_timeout {
        idle.set(opened + limit);
    }
    poll_fn(|cx| {
        let Connection { io, prefix, .. } = connection;
        loop {
            if let Some(detected) = judge(prefix.data()) {
                return Poll::Ready(Ok(Waited::Detected(detected)));
            }
            if idle.poll_expired(cx).is_ready() {
                if closing.is_draining() {
                    stats.downstream_cx_drain_close.inc();
                    return Poll::Ready(Ok(Waited::Detected(Detected::Nothing)));
                }
                stats.downstream_cx_idle_timeout.inc();
                return Poll::Ready(Err(CloseReason::Timeout(Limit::Idle)));
            }
            match prefix.poll_fill(io, cx, false) {
                // Counted by the codec, which finds these bytes in the prefix.
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(_) => {
                    guard.closed_by_peer();
                    return Poll::Ready(Ok(Waited::Detected(Detected::Nothing)));
                }
                Poll::Pending => {
                    if mobility.poll_wanted(cx).is_ready() {
                        return Poll::Ready(Ok(Waited::Wanted));
                    }
                    if !mobility.stays() {
                        ready!(closing.poll_draining(cx));
                    }
                    let quiet_until = opened + QUIET_BEFORE_CLOSE;
                    if clock::now() < quiet_until {
                        idle.set(quiet_until);
                        return Poll::Pending;
                    }
                    stats.downstream_cx_drain_close.inc();
                    return Poll::Ready(Ok(Waited::Detected(Detected::Nothing)));
                }
            }
        }
    })
    .await
}

/// `None`: more must come before it can be told.
fn judge(data: &[u8]) -> Option<Detected> {
    if data.starts_with(PREFACE) {
        return Some(Detected::Http2);
    }
    (!PREFACE.starts_with(data)).then_some(Detected::Http1)
}

/// As much of the client's preface (RFC 9113, section 3.4) as Envoy looks at.
const PREFACE: &[u8] = b"PRI * HTTP/2";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preface_is_told_from_requests_as_soon_as_they_differ() {
        let told = |data: &[u8]| judge(data).map(|detected| matches!(detected, Detected::Http2));
        assert_eq!(told(b""), None);
        assert_eq!(told(b"P"), None);
        assert_eq!(told(b"PRI * HTTP/"), None);
        assert_eq!(told(b"PRI * HTTP/2.0\r\n"), Some(true));
        assert_eq!(told(b"PO"), Some(false));
        assert_eq!(told(b"G"), Some(false));
        assert_eq!(told(b"\0"), Some(false));
    }
}
