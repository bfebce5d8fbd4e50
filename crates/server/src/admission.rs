//! Which accepted connections are served, and by which worker: limits for all listeners and for one, and exact balance. What
//! is not configured costs a branch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use proxy_net::{Balance, BalancedConnection};
use proxy_runtime::{Peers, WorkerIndex};

/// What a listener goes by.
#[derive(Clone, Default)]
pub(crate) struct Admission {
    /// Over all listeners; `None` for those that it does not concern.
    pub global: Option<Arc<ConnectionLimit>>,
    /// Of this listener.
    pub own: Option<Arc<ConnectionLimit>>,
    pub balance: Option<Balancing>,
}

/// The workers that share a listener's connections.
#[derive(Clone)]
pub(crate) struct Balancing {
    pub counts: Arc<Balance>,
    pub peers: Peers,
}

/// At most so many connections at a time, over all workers; alone on its cache line.
#[repr(align(128))]
pub(crate) struct ConnectionLimit {
    open: AtomicU64,
    limit: u64,
}

/// What a connection holds for as long as it lives, on whichever worker; nothing where nothing is configured.
pub(crate) struct Admitted(Option<Box<Held>>);

struct Held {
    _global: Option<LimitedConnection>,
    _own: Option<LimitedConnection>,
    balanced: Option<BalancedConnection>,
}

/// Why a connection is closed as soon as it is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// There are too many on all listeners.
    Global,
    /// There are too many on this one.
    Own,
}

struct LimitedConnection(Arc<ConnectionLimit>);

impl Admission {
    /// A connection that `worker` has accepted.
    pub(crate) fn admit(&self, worker: WorkerIndex) -> Result<Admitted, Overflow> {
        if self.admits_all() {
            return Ok(Admitted(None));
        }
        let take = |limit: &Arc<ConnectionLimit>, otherwise| limit.take().ok_or(otherwise);
        let global = self.global.as_ref().map(|limit| take(limit, Overflow::Global)).transpose()?;
        let own = self.own.as_ref().map(|limit| take(limit, Overflow::Own)).transpose()?;
        let balanced = self.balance.as_ref().map(|balancing| balancing.counts.assign(worker));
        Ok(Admitted(Some(Box::new(Held { _global: global, _own: own, balanced }))))
    }

    /// A connection of another process that goes on here: it counts, whatever the limit.
    pub(crate) fn admit_anyway(&self, worker: WorkerIndex) -> Admitted {
        let held = || Held {
            _global: self.global.as_ref().map(ConnectionLimit::take_anyway),
            _own: self.own.as_ref().map(ConnectionLimit::take_anyway),
            balanced: self.balance.as_ref().map(|balancing| balancing.counts.add(worker)),
        };
        Admitted((!self.admits_all()).then(|| Box::new(held())))
    }

    fn admits_all(&self) -> bool {
        self.global.is_none() && self.own.is_none() && self.balance.is_none()
    }
}

impl Admitted {
    /// Who is to serve the connection, if not `accepting`.
    pub(crate) fn elsewhere(&self, accepting: WorkerIndex) -> Option<WorkerIndex> {
        let balanced = self.0.as_ref()?.balanced.as_ref()?;
        Some(balanced.worker()).filter(|worker| *worker != accepting)
    }
}

impl ConnectionLimit {
    pub(crate) fn new(limit: u64) -> Arc<ConnectionLimit> {
        Arc::new(ConnectionLimit { open: AtomicU64::new(0), limit })
    }

    fn take(self: &Arc<Self>) -> Option<LimitedConnection> {
        let taken = self.open.fetch_update(Relaxed, Relaxed, |open| (open < self.limit).then_some(open + 1));
        taken.is_ok().then(|| LimitedConnection(Arc::clone(self)))
    }

    fn take_anyway(self: &Arc<Self>) -> LimitedConnection {
        self.open.fetch_add(1, Relaxed);
        LimitedConnection(Arc::clone(self))
    }
}

impl Drop for LimitedConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_limit_refuses_the_other_does_not_count() {
        let admission = Admission {
            global: Some(ConnectionLimit::new(3)),
            own: Some(ConnectionLimit::new(1)),
            balance: None,
        };
        let worker = WorkerIndex(0);
        let one = admission.admit(worker).ok();
        assert_eq!(admission.admit(worker).err(), Some(Overflow::Own));
        assert_eq!(admission.global.as_ref().unwrap().open.load(Relaxed), 1);
        let moved = [admission.admit_anyway(worker), admission.admit_anyway(worker)];
        assert_eq!(admission.admit(worker).err(), Some(Overflow::Global));
        drop((one, moved));
        assert!(admission.admit(worker).is_ok());
        assert!(Admission::default().admit(worker).is_ok());
    }
}
