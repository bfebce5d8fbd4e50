//! All stats in the order of their names, without ever sorting all of them: a proxy may have a million.
//!
//! Scopes are put in the order of their prefixes, which are much fewer. A scope's stats are read when no smaller name can
//! follow from the scopes that were read before, and merged with those of its parents.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;

use crate::metric::{Metric, MetricKind};
use crate::store::Shared;
use crate::walk::{Copies, MetricId};

/// What comes first of two names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameOrder {
    /// By bytes.
    Bytes,
    /// By the parts between dots: `a.z` before `a-b.a`.
    Parts,
}

/// A walk in the order of names. Stats that come or go meanwhile may or may not be seen; all others are seen
/// once. Takes the store's lock for one scope at a time.
pub struct SortedWalk {
    shared: Arc<Shared>,
    wanted: fn(MetricKind) -> bool,
    order: NameOrder,
    prefixes: String,
    scopes: std::vec::IntoIter<ScopeAhead>,
    open: BinaryHeap<Reverse<OpenScope>>,
}

/// A scope not yet read.
struct ScopeAhead {
    id: u32,
    prefix: Range<u32>,
}

/// The rest of a scope's stats; never empty.
struct OpenScope {
    stats: Copies,
    order: NameOrder,
    next: usize,
}

impl NameOrder {
    fn compare(self, one: &str, other: &str) -> Ordering {
        match self {
            Self::Bytes => one.cmp(other),
            Self::Parts => {
                let key = |byte| if byte == b'.' { 0 } else { byte };
                one.bytes().map(key).cmp(other.bytes().map(key))
            }
        }
    }
}

impl SortedWalk {
    /// Over stats of the kinds that `wanted` says.
    pub(crate) fn new(shared: Arc<Shared>, order: NameOrder, wanted: fn(MetricKind) -> bool) -> SortedWalk {
        let (mut prefixes, mut scopes, mut next) = (String::new(), Vec::new(), 0);
        loop {
            let directory = shared.lock();
            let ids = next..directory.scope_count().min(next + SCOPES_AT_ONCE);
            if ids.is_empty() {
                break;
            }
            next = ids.end;
            for id in ids.filter(|id| directory.owns_slots(*id)) {
                let start = prefixes.len() as u32;
                prefixes.push_str(directory.prefix(id));
                scopes.push(ScopeAhead { id, prefix: start..prefixes.len() as u32 });
            }
        }
        scopes.sort_unstable_by(|one, two| order.compare(one.prefix(&prefixes), two.prefix(&prefixes)));
        SortedWalk { shared, wanted, order, prefixes, scopes: scopes.into_iter(), open: BinaryHeap::new() }
    }

    /// Visits the next stat. False when there are no more.
    pub fn advance(&mut self, mut visit: impl FnMut(MetricId, &Metric<'_>)) -> bool {
        while let Some(ahead) = self.scopes.as_slice().first() {
            let smallest = self.open.peek().map(|Reverse(scope)| scope.name());
            let prefix = ahead.prefix(&self.prefixes);
            if smallest.is_some_and(|name| self.order.compare(name, prefix).is_lt()) {
                break;
            }
            self.open_next();
        }
        let Some(mut smallest) = self.open.peek_mut() else { return false };
        let scope = &mut smallest.0;
        scope.stats.visit_one(scope.next, &mut visit);
        scope.next += 1;
        if scope.next == scope.stats.len() {
            std::collections::binary_heap::PeekMut::pop(smallest);
        }
        true
    }

    fn open_next(&mut self) {
        let Some(ahead) = self.scopes.next() else { return };
        let mut stats = Copies::default();
        let directory = self.shared.lock();
        // Another scope may have got the id since.
        if directory.prefix(ahead.id) == ahead.prefix(&self.prefixes) {
            stats.begin(directory.interval());
            for slot in directory.slots_of(self.shared.segment(), ahead.id, self.wanted) {
                stats.add(self.shared.segment(), &directory, slot, &mut |_, _, _| true);
            }
        }
        drop(directory);
        if stats.len() > 0 {
            stats.sort_by_name(|one, two| self.order.compare(one, two));
            self.open.push(Reverse(OpenScope { stats, order: self.order, next: 0 }));
        }
    }
}

impl ScopeAhead {
    fn prefix<'a>(&self, prefixes: &'a str) -> &'a str {
        &prefixes[self.prefix.start as usize..self.prefix.end as usize]
    }
}

impl OpenScope {
    fn name(&self) -> &str {
        self.stats.name(self.next)
    }
}

impl Ord for OpenScope {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order.compare(self.name(), other.name())
    }
}

impl PartialOrd for OpenScope {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for OpenScope {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for OpenScope {}

const SCOPES_AT_ONCE: u32 = 512;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{ImportMode, Store, StoreOptions};

    fn names(store: &Store, order: NameOrder, wanted: fn(MetricKind) -> bool) -> Vec<String> {
        let (mut walk, mut names) = (store.sorted(order, wanted), Vec::new());
        while walk.advance(|_, metric| names.push(metric.name.to_owned())) {}
        names
    }

    #[test]
    fn kinds_are_chosen_and_slots_found_again() {
        let store = Store::create(StoreOptions::private(1)).unwrap();
        let scope = store.root().scope("a");
        scope.gauge("gauge", ImportMode::Accumulate).set(3);
        scope.histogram("histogram").record(1);
        let counter = scope.counter("counter");
        assert_eq!(names(&store, NameOrder::Bytes, |kind| kind == MetricKind::Histogram), ["a.histogram"]);
        let (mut walk, mut slots) =
            (store.sorted(NameOrder::Bytes, |kind| kind != MetricKind::Histogram), Vec::new());
        while walk.advance(|id, _| slots.push(id.slot())) {}
        counter.add(7);
        let mut seen = Vec::new();
        store.revisit(&slots, |metric| seen.push((metric.name.to_owned(), metric.value.number())));
        assert_eq!(seen, [("a.counter".to_owned(), Some(7)), ("a.gauge".to_owned(), Some(3))]);
        drop(scope);
        store.revisit(&slots, |metric| panic!("{metric:?} is gone"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Prefixes that contain each other, and names that fall between those of a nested scope.
        #[test]
        fn every_stat_comes_once_in_the_order_of_names(
            made in proptest::collection::vec(("[a-c-]{0,2}(\\.[a-c-]{1,2}){0,2}", "[a-c-]{1,2}(\\.[a-c-]{1,2}){0,2}"), 0..40)
        ) {
            let store = Store::create(StoreOptions::private(1)).unwrap();
            let scopes: Vec<_> = made.iter().map(|(scope, name)| (store.root().scope(scope), name)).collect();
            scopes.iter().for_each(|(scope, name)| scope.counter(name).inc());
            let mut expected = Vec::new();
            store.for_each(|metric| expected.push(metric.name.to_owned()));
            expected.sort_unstable();
            prop_assert_eq!(names(&store, NameOrder::Bytes, |_| true), &expected[..]);
            expected.sort_by(|one, two| one.split('.').cmp(two.split('.')));
            prop_assert_eq!(names(&store, NameOrder::Parts, |_| true), expected);
        }
    }
}
