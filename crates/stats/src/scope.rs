//! A scope: the part of a name that stats share, and the life of those stats.

use std::fmt;
use std::sync::Arc;

use crate::metric::{Counter, Gauge, Histogram, ImportMode, MetricKind, TextReadout};
use crate::names::{bounded, sanitized};
use crate::remembered::{self, Incarnation};
use crate::store::Shared;

/// Stats under one prefix. They live until the last clone, child scope and [`TextReadout`] of it is gone.
/// A [`Counter`], [`Gauge`] or [`Histogram`] does not keep them alive: hold the scope beside them, as
/// [`stats_block!`](crate::stats_block) does; `root.scope("a").counter("b")` is gone at the end of the statement.
/// Two scopes of the same prefix are the same scope. Making and dropping one takes the store's lock; so does a look-up,
/// unless this thread remembers the answer.
#[derive(Clone)]
pub struct Scope(Arc<ScopeInner>);

pub(crate) struct ScopeInner {
    shared: Arc<Shared>,
    id: u32,
    incarnation: Incarnation,
    /// Kept, not used: a parent lives as long as its children.
    _parent: Option<Scope>,
}

impl Scope {
    pub(crate) fn root(shared: &Arc<Shared>) -> Scope {
        Scope::open(shared, "", None)
    }

    /// The scope `name` under this one: its stats are called this scope's prefix, `name`, a dot, and theirs. A dot at
    /// either end of `name` is as good as none, and colons become `_`, as in Envoy (`Utility::sanitizeStatsName`).
    pub fn scope(&self, name: &str) -> Scope {
        let name = sanitized(name);
        if name.is_empty() {
            return self.clone();
        }
        let whole = format!("{}{name}", self.prefix());
        Scope::open(&self.0.shared, &format!("{}.", bounded(&whole)), Some(self.clone()))
    }

    fn open(shared: &Arc<Shared>, prefix: &str, parent: Option<Scope>) -> Scope {
        let mut directory = shared.lock();
        let (id, handle) = directory.open(prefix);
        // A handle that is the last one when it is dropped takes the lock: it leaves this function alive.
        if let Some(living) = handle.upgrade() {
            drop(directory);
            return Scope(living);
        }
        let incarnation = directory.revive(id);
        let inner = Arc::new(ScopeInner { shared: shared.clone(), id, incarnation, _parent: parent });
        directory.attach(id, Arc::downgrade(&inner));
        Scope(inner)
    }

    /// The counter of this name; the same one for everybody who asks.
    pub fn counter(&self, name: &str) -> Counter {
        let slot = self.resolve(name, MetricKind::Counter);
        Counter(self.0.shared.segment().handle(slot))
    }

    /// The gauge of this name. If it exists, its import mode stays as it is.
    pub fn gauge(&self, name: &str, mode: ImportMode) -> Gauge {
        let slot = self.resolve(name, MetricKind::Gauge(mode));
        Gauge(self.0.shared.segment().handle(slot))
    }

    /// The histogram of this name.
    pub fn histogram(&self, name: &str) -> Histogram {
        let slot = self.resolve(name, MetricKind::Histogram);
        Histogram(self.0.shared.segment().handle(slot))
    }

    /// The text readout of this name.
    pub fn text_readout(&self, name: &str) -> TextReadout {
        let slot = self.resolve(name, MetricKind::TextReadout);
        TextReadout { scope: self.clone(), slot }
    }

    /// What the names of this scope's stats start with; ends in a dot unless empty.
    pub fn prefix(&self) -> String {
        self.0.shared.lock().prefix(self.0.id).to_owned()
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// Makes the stats of these names that do not exist.
    pub(crate) fn make(&self, kind: MetricKind, names: &[&str]) {
        let mut directory = self.0.shared.lock();
        for name in names {
            directory.resolve(self.0.shared.segment(), self.0.id, name, kind);
        }
    }

    fn resolve(&self, name: &str, kind: MetricKind) -> u32 {
        let ScopeInner { shared, id, incarnation, .. } = &*self.0;
        remembered::slot(*incarnation, name, kind, || {
            shared.lock().resolve(shared.segment(), *id, name, kind)
        })
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Scope").field(&self.prefix()).finish()
    }
}

impl Drop for ScopeInner {
    fn drop(&mut self) {
        self.shared.lock().close(self.shared.segment(), self.id, self.incarnation);
    }
}
