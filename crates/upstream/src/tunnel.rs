//! Streams of bytes that go through a proxy upstream: an HTTP request for each, which that proxy must agree to.
//!
//! Over HTTP/1.1, CONNECT leaves a socket and nothing else; the others stay halves of an exchange.

use std::future::poll_fn;
use std::rc::Rc;

use proxy_config::settings::Priority;
use proxy_http::body::Body;
use proxy_http::h1::head::ResponseHead;
use proxy_http::{Method, Request, Tunnel, Version};
use proxy_net::buffer::ReadBuffer;
use proxy_net::{AttemptGuard, Io, StreamRecord};
use proxy_runtime::clock;
use proxy_stats::GaugeGuard;

use crate::breaker::{BreakerGuard, Resource};
use crate::cluster::{Cluster, WorkerHost};
use crate::exchange::{Exchange, ExchangeError, ResponseGuard};
use crate::host::HostStat;
use crate::pool::AcquireError;
use crate::tcp::{TcpConnectError, TcpGuard};

/// A tunnel that the proxy upstream has agreed to.
pub enum OpenTunnel {
    Socket {
        io: Io,
        /// Read from it already.
        read: ReadBuffer,
        guard: TcpGuard,
        attempt: AttemptGuard,
    },
    Halves {
        /// What comes from the host.
        body: Body,
        /// `None`: the host takes nothing any more.
        tunnel: Option<Box<dyn Tunnel>>,
    },
}

/// Counts a tunnel's request while it lives.
struct ActiveTunnel {
    host: Rc<WorkerHost>,
    _breaker: BreakerGuard,
    _active: GaugeGuard,
}

/// What one attempt gave.
enum Failure {
    /// Another attempt would give the same.
    Final(TcpConnectError),
    Attempt(TcpConnectError),
    /// A pooled connection turned out to be closed; that is no one's fault.
    Stale,
}

impl Cluster {
    /// Asks hosts for a tunnel, each attempt the one whose turn it is then, in the version that the cluster speaks.
    /// `request` makes what is sent; its body is not touched before the tunnel is open. `record` hears of the attempts.
    ///
    /// # Errors
    /// When there is no host, a circuit breaker is open, or `max_attempts` have failed.
    pub async fn open_tunnel(
        &self,
        max_attempts: u32,
        record: Option<&StreamRecord>,
        request: &dyn Fn() -> Request,
    ) -> Result<OpenTunnel, TcpConnectError> {
        let mut left = max_attempts.max(1);
        let mut stale = 0;
        loop {
            if let Some(record) = record {
                record.attempt_count.set(record.attempt_count.get() + 1);
            }
            match self.try_tunnel(record, request()).await {
                Ok(tunnel) => return Ok(tunnel),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Stale) if stale < MAX_STALE => stale += 1,
                Err(Failure::Stale) if left > 1 => left -= 1,
                Err(Failure::Attempt(_)) if left > 1 => left -= 1,
                Err(failure) => {
                    self.info.stats.upstream_cx_connect_attempts_exceeded.inc();
                    return Err(match failure {
                        Failure::Final(error) | Failure::Attempt(error) => error,
                        Failure::Stale => TcpConnectError::NoTunnel,
                    });
                }
            }
        }
    }

    async fn try_tunnel(
        &self,
        record: Option<&StreamRecord>,
        mut request: Request,
    ) -> Result<OpenTunnel, Failure> {
        let Some(host) = self.pick() else {
            self.info.stats.upstream_cx_none_healthy.inc();
            return Err(Failure::Final(TcpConnectError::NoHealthyUpstream));
        };
        let attempt = record.map(|record| record.begin_attempt(Rc::clone(&host) as _, clock::now()));
        let guard = AttemptGuard::new(attempt.clone());
        // A cluster that speaks its clients' version speaks HTTP/2 where there is no such client, as in Envoy.
        let link = match host.link(Version::Http2, Priority::Default).await {
            Ok(link) => link,
            Err(AcquireError::Overflow) => return Err(Failure::Final(TcpConnectError::Overflow)),
            Err(AcquireError::Connect(error)) => {
                guard.note(|attempt, now| {
                    attempt.ready.set(attempt.start, now);
                    *attempt.failure.borrow_mut() = error.transport_failure();
                });
                return Err(Failure::Attempt(TcpConnectError::Connect(error)));
            }
        };
        let reused = link.reused;
        let active = ActiveTunnel::begin(&host).ok_or(Failure::Final(TcpConnectError::Overflow))?;
        let connect = request.method == Method::Connect;
        let mut exchange = Exchange::new(link, &mut request, None, guard, connect);
        let head = match poll_fn(|cx| exchange.poll_head(cx)).await {
            Ok(head) => head,
            Err(ExchangeError::Closed) if reused => return Err(Failure::Stale),
            Err(_) => return Err(Failure::Attempt(TcpConnectError::NoTunnel)),
        };
        if !agrees(&exchange, &head) {
            if let Some(attempt) = attempt {
                *attempt.failure.borrow_mut() = Some(format!("tunnel_response:{}", head.status).into());
            }
            return Err(Failure::Attempt(TcpConnectError::NoTunnel));
        }
        Ok(match exchange {
            Exchange::Http1(exchange) if connect => {
                let (io, read, guard, attempt) = exchange.into_socket();
                OpenTunnel::Socket { io, read, guard: TcpGuard::tunnelled(guard), attempt }
            }
            exchange => {
                let (body, tunnel) = exchange.into_tunnel(&head, Box::new(active));
                OpenTunnel::Halves { body, tunnel }
            }
        })
    }
}

/// Over HTTP/1.1 any 2xx agrees, over HTTP/2 only 200, as in Envoy.
fn agrees(exchange: &Exchange, head: &ResponseHead) -> bool {
    match exchange {
        Exchange::Http1(_) => (200..300).contains(&head.status),
        Exchange::Http2(_) => head.status == 200,
    }
}

impl ActiveTunnel {
    fn begin(host: &Rc<WorkerHost>) -> Option<ActiveTunnel> {
        let cluster = &host.cluster;
        let Some(breaker) = cluster.breakers.acquire(Priority::Default, Resource::Requests) else {
            cluster.stats.upstream_rq_active_overflow.inc();
            return None;
        };
        cluster.stats.upstream_rq_total.inc();
        host.add(HostStat::RqTotal, 1);
        host.add(HostStat::RqActive, 1);
        let active = GaugeGuard::new(cluster.stats.upstream_rq_active);
        Some(ActiveTunnel { host: Rc::clone(host), _breaker: breaker, _active: active })
    }
}

impl ResponseGuard for ActiveTunnel {
    fn completed(&self) {}
}

impl Drop for ActiveTunnel {
    fn drop(&mut self) {
        self.host.add(HostStat::RqActive, -1);
    }
}

/// How many pooled connections may turn out to be closed before that counts as a failed attempt.
const MAX_STALE: u32 = 2;
