//! Sharing a listener's connections among workers so that none has more than it must (Envoy's `exact_balance`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use proxy_runtime::WorkerIndex;

/// How many connections of a listener each worker has. Every accept looks at all of them, so they lie together.
#[derive(Debug)]
pub struct Balance(Box<[AtomicU32]>);

/// One connection of a worker, for as long as it lives. May be sent to that worker.
#[derive(Debug)]
pub struct BalancedConnection {
    balance: Arc<Balance>,
    worker: WorkerIndex,
}

impl Balance {
    /// For so many workers, of which none has a connection.
    pub fn new(workers: usize) -> Arc<Balance> {
        Arc::new(Balance((0..workers).map(|_| AtomicU32::new(0)).collect()))
    }

    /// Gives a connection to the worker that has the fewest; to `accepting` if no other has fewer. Takes no lock: who
    /// is overtaken by another worker looks again.
    pub fn assign(self: &Arc<Self>, accepting: WorkerIndex) -> BalancedConnection {
        loop {
            let mut worker = accepting;
            let mut fewest = self.of(accepting).load(Relaxed);
            for (index, count) in (0..).map(WorkerIndex).zip(&self.0) {
                let count = count.load(Relaxed);
                if count < fewest {
                    (worker, fewest) = (index, count);
                }
            }
            // A count that has changed meanwhile was not what this was decided on.
            if self.of(worker).compare_exchange(fewest, fewest + 1, Relaxed, Relaxed).is_ok() {
                return BalancedConnection { balance: Arc::clone(self), worker };
            }
        }
    }

    /// Counts a connection that `worker` has already.
    pub fn add(self: &Arc<Self>, worker: WorkerIndex) -> BalancedConnection {
        self.of(worker).fetch_add(1, Relaxed);
        BalancedConnection { balance: Arc::clone(self), worker }
    }

    fn of(&self, worker: WorkerIndex) -> &AtomicU32 {
        &self.0[usize::from(worker.0)]
    }
}

impl BalancedConnection {
    /// Who is to serve it.
    pub fn worker(&self) -> WorkerIndex {
        self.worker
    }
}

impl Drop for BalancedConnection {
    fn drop(&mut self) {
        self.balance.of(self.worker).fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(balance: &Balance) -> Vec<u32> {
        balance.0.iter().map(|count| count.load(Relaxed)).collect()
    }

    #[test]
    fn the_fewest_come_first_and_the_accepting_worker_before_its_equals() {
        let balance = Balance::new(3);
        let last = WorkerIndex(2);
        let one = balance.assign(last);
        assert_eq!(one.worker(), last);
        let two = balance.assign(last);
        assert_eq!(two.worker(), WorkerIndex(0));
        let _moved = balance.add(WorkerIndex(1));
        let _moved_too = balance.add(WorkerIndex(1));
        drop(two);
        let _three = balance.assign(WorkerIndex(1));
        assert_eq!(counts(&balance), [1, 2, 1]);
    }

    #[test]
    fn workers_that_accept_at_once_share_exactly() {
        let balance = Balance::new(4);
        let accept = |worker| {
            let balance = Arc::clone(&balance);
            move || (0..1000).map(|_| balance.assign(WorkerIndex(worker))).collect::<Vec<_>>()
        };
        let held: Vec<_> = std::thread::scope(|scope| {
            // Two of them do all the accepting.
            let threads: Vec<_> = (0..2).map(|worker| scope.spawn(accept(worker))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(counts(&balance), [500; 4]);
        drop(held);
        assert_eq!(counts(&balance), [0; 4]);
    }
}
