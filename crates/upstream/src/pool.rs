//! Connections of one worker to one host that wait for work, and requests that wait for a connection.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use proxy_config::settings::Priority;
use proxy_runtime::{Timer, clock};
use tokio::sync::oneshot;

use crate::breaker::Resource;
use crate::cluster::WorkerHost;
use crate::connect::{ConnectError, DestroyedBy, Purpose, connect};
use crate::h1::Client;
use crate::pending::PendingRequest;

/// HTTP/1 connections of a worker to a host.
#[derive(Default)]
pub struct Pool {
    /// The one used last is taken first, so that those not needed age.
    idle: RefCell<Vec<Client>>,
    waiting: RefCell<VecDeque<oneshot::Sender<Option<Client>>>>,
    /// Connections open to the host, idle or not.
    pub(crate) open: Cell<u32>,
    /// This pool is on its worker's list of those to sweep.
    swept: Cell<bool>,
}

/// A connection to send a request on.
pub struct Acquired {
    pub client: Client,
    /// It has served a request before: it may turn out to be closed by now.
    pub reused: bool,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    #[error("circuit breaker open: pending requests")]
    Overflow,
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

impl Pool {
    /// Drops what is idle; what waits is told to try again elsewhere.
    pub(crate) fn clear(&self) {
        self.idle.borrow_mut().clear();
        self.waiting.borrow_mut().clear();
    }

    /// A connection went away: one that waits may open another.
    pub(crate) fn connection_closed(&self) {
        self.open.set(self.open.get().saturating_sub(1));
        self.hand_over(None);
    }

    /// Hands `client` (`None`: leave to open one) to who has waited longest; gives it back when nobody waits.
    fn hand_over(&self, mut client: Option<Client>) -> Option<Client> {
        loop {
            let Some(waiter) = self.waiting.borrow_mut().pop_front() else { return client };
            match waiter.send(client) {
                Ok(()) => return None,
                Err(back) => client = back,
            }
        }
    }

    fn take_idle(&self) -> Option<Client> {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let mut client = self.idle.borrow_mut().pop()?;
            if client.is_fresh(&mut cx) {
                return Some(client);
            }
        }
    }

    /// Closes connections that the peer has closed or that have idled for too long. False: none is left.
    fn sweep(&self, idle_timeout: Option<Duration>) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let now = clock::now();
        let mut closed = Vec::new();
        let mut idle = self.idle.borrow_mut();
        let mut i = 0;
        while i < idle.len() {
            let expired =
                idle_timeout.is_some_and(|t| now.saturating_duration_since(idle[i].idle_since) >= t);
            if expired {
                idle[i].idle_timed_out();
            }
            if expired || !idle[i].is_fresh(&mut cx) {
                closed.push(idle.remove(i));
            } else {
                i += 1;
            }
        }
        let left = !idle.is_empty();
        drop(idle);
        drop(closed);
        left
    }
}

impl WorkerHost {
    /// A connection for one request: an idle one, a new one, or one that another request is done with.
    ///
    /// # Errors
    /// When circuit breakers are open, or connecting fails.
    pub async fn acquire(self: &Rc<Self>, priority: Priority) -> Result<Acquired, AcquireError> {
        if let Some(client) = self.pool.take_idle() {
            return Ok(Acquired { client, reused: true });
        }
        let stats = &self.cluster.stats;
        let breakers = &self.cluster.breakers;
        let pending = PendingRequest::begin(&self.cluster, priority).ok_or(AcquireError::Overflow)?;
        loop {
            let permit = match breakers.acquire(priority, Resource::Connections) {
                None if self.pool.open.get() == 0 => {
                    stats.upstream_cx_overflow.inc();
                    Some(breakers.acquire_anyway(priority, Resource::Connections))
                }
                permit => permit,
            };
            if let Some(permit) = permit {
                return match connect(self, permit, Purpose::Http1).await {
                    Ok((io, guard)) => {
                        pending.served();
                        Ok(Acquired { client: Client::new(io, guard), reused: false })
                    }
                    Err(error) => {
                        pending.ejected();
                        Err(error.into())
                    }
                };
            }
            stats.upstream_cx_overflow.inc();
            let (sender, receiver) = oneshot::channel();
            self.pool.waiting.borrow_mut().push_back(sender);
            if let Ok(Some(client)) = receiver.await {
                pending.served();
                return Ok(Acquired { client, reused: true });
            }
        }
    }

    /// Takes back a connection whose exchange has ended in good order.
    pub fn release(self: &Rc<Self>, client: Client) {
        let limit = self.cluster.settings.max_requests_per_connection;
        let spent = limit.is_some_and(|limit| client.requests() >= limit);
        let too_old = self
            .cluster
            .settings
            .max_connection_duration
            .is_some_and(|limit| clock::now().saturating_duration_since(client.opened()) >= limit);
        if spent {
            self.cluster.stats.upstream_cx_max_requests.inc();
        }
        if too_old {
            self.cluster.stats.upstream_cx_max_duration_reached.inc();
        }
        if self.retired.get() || spent || too_old {
            client.destroyed_by(DestroyedBy::Us);
            return;
        }
        let Some(mut client) = self.pool.hand_over(Some(client)) else { return };
        client.idle_since = clock::now();
        self.pool.idle.borrow_mut().push(client);
        if !self.pool.swept.replace(true) {
            sweep_later(self);
        }
    }
}

thread_local! {
    /// Hosts of this worker with idle connections; a task sweeps them while there are any.
    static SWEPT: RefCell<Vec<Weak<WorkerHost>>> = const { RefCell::new(Vec::new()) };
}

const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

fn sweep_later(host: &Rc<WorkerHost>) {
    let first = SWEPT.with_borrow_mut(|hosts| {
        hosts.push(Rc::downgrade(host));
        hosts.len() == 1
    });
    if first {
        tokio::task::spawn_local(sweep());
    }
}

async fn sweep() {
    let timer = Timer::new();
    loop {
        timer.set(clock::now() + SWEEP_INTERVAL);
        timer.expired().await;
        let hosts = SWEPT.take();
        let kept: Vec<_> = hosts
            .into_iter()
            .filter(|weak| {
                let Some(host) = weak.upgrade() else { return false };
                let left = host.pool.sweep(host.cluster.settings.idle_timeout);
                host.pool.swept.set(left);
                left
            })
            .collect();
        let none_left = SWEPT.with_borrow_mut(|hosts| {
            hosts.extend(kept);
            hosts.is_empty()
        });
        if none_left {
            return;
        }
    }
}
