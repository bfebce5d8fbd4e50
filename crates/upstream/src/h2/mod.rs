//! HTTP/2 to a host: connections that many requests share, each driven by a task of its own.
//!
//! [`client`] is a connection and its task, [`exchange`] one request and its response. Here is the pool: one connection
//! per worker and host, another only when the peer takes no more streams on those there are.

pub mod client;
pub mod exchange;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use proxy_config::settings::{Http2Options, Priority};
use tokio::sync::oneshot;

pub use client::Client;
pub use exchange::Exchange;

use crate::breaker::{BreakerGuard, Resource};
use crate::cluster::WorkerHost;
use crate::connect::{ConnectError, Purpose, connect};
use crate::pending::PendingRequest;
use crate::pool::AcquireError;

/// HTTP/2 connections of a worker to a host.
#[derive(Default)]
pub struct Pool {
    clients: RefCell<Vec<Rc<Client>>>,
    connecting: Cell<bool>,
    waiting: RefCell<Vec<oneshot::Sender<Result<(), Unreachable>>>>,
}

/// A [`ConnectError`] that can be told to all who wait.
#[derive(Clone, Copy)]
enum Unreachable {
    TimedOut,
    Failed(io::ErrorKind),
}

impl Pool {
    /// Opens no more streams on any connection; what waits is told to try again elsewhere.
    pub(crate) fn clear(&self) {
        let clients = std::mem::take(&mut *self.clients.borrow_mut());
        clients.iter().for_each(|client| client.leave());
        self.waiting.borrow_mut().clear();
    }

    /// Takes a connection out: it is closed, or is to be.
    fn remove(&self, client: &Rc<Client>) {
        let removed = {
            let mut clients = self.clients.borrow_mut();
            clients.iter().position(|known| Rc::ptr_eq(known, client)).map(|at| clients.remove(at))
        };
        drop(removed);
    }

    /// A connection on which the peer takes another stream.
    fn with_room(&self) -> Option<Rc<Client>> {
        self.clients.borrow().iter().find(|client| client.has_room()).cloned()
    }

    /// The connection with the fewest streams; another one waits there until the peer takes it.
    fn least_used(&self) -> Option<Rc<Client>> {
        let clients = self.clients.borrow();
        clients.iter().filter(|client| client.is_open()).min_by_key(|client| client.streams()).cloned()
    }

    fn tell_waiting(&self, outcome: Result<(), Unreachable>) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        for waiter in waiting {
            // One that has gone away needs no answer.
            let _ = waiter.send(outcome);
        }
    }
}

impl WorkerHost {
    /// A connection for one more stream.
    ///
    /// # Errors
    /// When circuit breakers are open, or connecting fails: then for all that wait, as in Envoy.
    pub async fn acquire_http2(
        self: &Rc<Self>,
        priority: Priority,
        options: &Http2Options,
    ) -> Result<Rc<Client>, AcquireError> {
        let pool = &self.http2;
        if let Some(client) = pool.with_room() {
            return Ok(client);
        }
        let stats = &self.cluster.stats;
        let breakers = &self.cluster.breakers;
        let pending = PendingRequest::begin(&self.cluster, priority).ok_or(AcquireError::Overflow)?;
        loop {
            if let Some(client) = pool.with_room() {
                pending.served();
                return Ok(client);
            }
            if !pool.connecting.get() {
                match breakers.acquire(priority, Resource::Connections) {
                    Some(permit) => self.begin_connect(permit, options),
                    None => {
                        stats.upstream_cx_overflow.inc();
                        if let Some(client) = pool.least_used() {
                            pending.served();
                            return Ok(client);
                        }
                        self.begin_connect(breakers.acquire_anyway(priority, Resource::Connections), options);
                    }
                }
            }
            let (sender, receiver) = oneshot::channel();
            pool.waiting.borrow_mut().push(sender);
            if let Ok(Err(unreachable)) = receiver.await {
                pending.ejected();
                return Err(AcquireError::Connect(unreachable.into()));
            }
        }
    }

    /// Connects in a task of its own: whoever asked for it may go away, and others wait for it too.
    fn begin_connect(self: &Rc<Self>, permit: BreakerGuard, options: &Http2Options) {
        self.http2.connecting.set(true);
        let (host, options) = (Rc::clone(self), options.clone());
        tokio::task::spawn_local(async move {
            let connected = match connect(&host, permit, Purpose::Http2).await {
                Ok((io, guard)) => client::open(io, guard, &options).await,
                Err(error) => Err(error),
            };
            let pool = &host.http2;
            pool.connecting.set(false);
            match connected {
                Ok(driver) => {
                    let client = Rc::clone(driver.client());
                    pool.clients.borrow_mut().push(Rc::clone(&client));
                    pool.tell_waiting(Ok(()));
                    driver.run().await;
                    pool.remove(&client);
                }
                Err(error) => pool.tell_waiting(Err(Unreachable::from(error))),
            }
        });
    }
}

impl From<ConnectError> for Unreachable {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::TimedOut => Unreachable::TimedOut,
            ConnectError::Failed(error) => Unreachable::Failed(error.kind()),
        }
    }
}

impl From<Unreachable> for ConnectError {
    fn from(unreachable: Unreachable) -> Self {
        match unreachable {
            Unreachable::TimedOut => ConnectError::TimedOut,
            Unreachable::Failed(kind) => ConnectError::Failed(kind.into()),
        }
    }
}
