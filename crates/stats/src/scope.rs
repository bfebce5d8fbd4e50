//! A scope: the part of a name that stats share, and the life of those stats.

use std::fmt;
use std::sync::Arc;

use crate::matcher::StatsMatcher;
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
pub struct Scope {
    inner: Arc<ScopeInner>,
    /// Of this handle and of what is made through it.
    matcher: Option<Arc<StatsMatcher>>,
}

pub(crate) struct ScopeInner {
    shared: Arc<Shared>,
    id: u32,
    incarnation: Incarnation,
    /// Kept, not used: a parent lives as long as its children.
    _parent: Option<Arc<ScopeInner>>,
}

impl Scope {
    pub(crate) fn root(shared: &Arc<Shared>) -> Scope {
        Scope { inner: ScopeInner::open(shared, "", None), matcher: None }
    }

    /// The same scope for somebody whose stats have a matcher of their own: it decides in place of the store's on what
    /// is made through the returned handle and its child scopes.
    pub fn restricted(&self, matcher: impl Fn(&str) -> bool + Send + Sync + 'static) -> Scope {
        Scope { inner: self.inner.clone(), matcher: Some(Arc::new(matcher)) }
    }

    /// The scope `name` under this one: its stats are called this scope's prefix, `name`, a dot, and theirs. A dot at
    /// either end of `name` is as good as none, and colons become `_`, as in Envoy (`Utility::sanitizeStatsName`).
    pub fn scope(&self, name: &str) -> Scope {
        let name = sanitized(name);
        if name.is_empty() {
            return self.clone();
        }
        let whole = format!("{}{name}", self.prefix());
        let prefix = format!("{}.", bounded(&whole));
        let inner = ScopeInner::open(&self.inner.shared, &prefix, Some(self.inner.clone()));
        Scope { inner, matcher: self.matcher.clone() }
    }

    /// The counter of this name; the same one for everybody who asks.
    pub fn counter(&self, name: &str) -> Counter {
        let slot = self.resolve(name, MetricKind::Counter);
        Counter(self.inner.shared.segment().handle(slot))
    }

    /// The gauge of this name. If it exists, its import mode stays as it is.
    pub fn gauge(&self, name: &str, mode: ImportMode) -> Gauge {
        let slot = self.resolve(name, MetricKind::Gauge(mode));
        Gauge(self.inner.shared.segment().handle(slot))
    }

    /// The histogram of this name.
    pub fn histogram(&self, name: &str) -> Histogram {
        let slot = self.resolve(name, MetricKind::Histogram);
        Histogram(self.inner.shared.segment().handle(slot))
    }

    /// The text readout of this name.
    pub fn text_readout(&self, name: &str) -> TextReadout {
        let slot = self.resolve(name, MetricKind::TextReadout);
        TextReadout { scope: self.clone(), slot }
    }

    /// What the names of this scope's stats start with; ends in a dot unless empty.
    pub fn prefix(&self) -> String {
        self.inner.shared.lock().prefix(self.inner.id).to_owned()
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    /// Makes the stats of these names that do not exist.
    pub(crate) fn make(&self, kind: MetricKind, names: &[&str]) {
        let mut directory = self.inner.shared.lock();
        for name in names {
            directory.resolve(
                self.inner.shared.segment(),
                self.inner.id,
                name,
                kind,
                self.matcher.as_deref(),
            );
        }
    }

    fn resolve(&self, name: &str, kind: MetricKind) -> u32 {
        let ScopeInner { shared, id, incarnation, .. } = &*self.inner;
        let matcher = self.matcher.as_deref();
        let look_up = || shared.lock().resolve(shared.segment(), *id, name, kind, matcher);
        // What is remembered of a scope holds for handles without a matcher.
        if matcher.is_some() { look_up() } else { remembered::slot(*incarnation, name, kind, look_up) }
    }
}

impl ScopeInner {
    fn open(shared: &Arc<Shared>, prefix: &str, parent: Option<Arc<ScopeInner>>) -> Arc<ScopeInner> {
        let mut directory = shared.lock();
        let (id, handle) = directory.open(prefix);
        // A handle that is the last one when it is dropped takes the lock: it leaves this function alive.
        if let Some(living) = handle.upgrade() {
            drop(directory);
            return living;
        }
        let incarnation = directory.revive(id);
        let inner = Arc::new(ScopeInner { shared: shared.clone(), id, incarnation, _parent: parent });
        directory.attach(id, Arc::downgrade(&inner));
        inner
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
