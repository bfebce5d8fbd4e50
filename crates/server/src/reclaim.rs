//! Giving the stats slots of what is gone to new stats, once no thread can count in them any more.

use std::cell::Cell;
use std::rc::Rc;

use proxy_runtime::Workers;
use proxy_stats::Store;

/// Shared by the managers; lives on main.
#[derive(Clone)]
pub(crate) struct Reclaimer {
    store: Store,
    workers: Rc<Workers>,
    /// A pass will start that covers all that has been dropped and posted by then.
    wanted: Rc<Cell<bool>>,
}

impl Reclaimer {
    pub(crate) fn new(store: Store, workers: Rc<Workers>) -> Reclaimer {
        Reclaimer { store, workers, wanted: Rc::default() }
    }

    /// Frees the slots of what has been dropped here, and of what workers drop on account of messages posted so far.
    /// What a stream still holds is covered by a later call.
    pub(crate) fn soon(&self) {
        if self.wanted.replace(true) {
            return;
        }
        let Reclaimer { store, workers, wanted } = self.clone();
        tokio::task::spawn_local(async move {
            wanted.set(false);
            // Workers drop theirs, which releases slots; then none of them is in the middle of using one.
            workers.post_all_then(|| {}).await;
            let epoch = store.retire();
            // Nor has one recorded anything for a histogram that it has not handed over.
            let workers_store = store.clone();
            workers.post_all_then(move || workers_store.hand_over()).await;
            store.hand_over();
            store.reclaim(epoch);
        });
    }
}
