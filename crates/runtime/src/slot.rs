//! Thread-local copies of a value that main replaces as a whole (Envoy's thread-local slots, read-copy-update).
//!
//! Main publishes; every worker gets the value posted into its own table and reads it without atomics. A stream
//! takes a [`Snapshot`] once and keeps it to its end. Threads that are neither main nor a worker read the published
//! value under a lock, so a reader works everywhere.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::mailbox::{OnAllWorkers, Sender, countdown};
use crate::workers::Workers;

/// The writing end, on main. Dropping it clears every worker's copy; readers that are left fall back to the last
/// value.
pub struct Slot<T: Send + Sync + 'static> {
    shared: Arc<Shared<T>>,
    workers: Vec<Sender>,
}

/// The reading end; may be sent to any thread and cloned freely.
pub struct SlotReader<T: Send + Sync + 'static> {
    shared: Arc<Shared<T>>,
}

/// A value as it was when read. Cloning it counts a reference of this thread only.
pub struct Snapshot<T>(Local<T>);

/// A count of this thread over one of all threads: copying it costs no atomic operation, which is the point.
#[allow(clippy::redundant_allocation)]
type Local<T> = Rc<Arc<T>>;

struct Shared<T> {
    id: u64,
    latest: Mutex<Arc<T>>,
}

impl<T: Send + Sync + 'static> Slot<T> {
    /// A slot with its first value, on its way to every worker. What is posted later finds it there.
    pub fn new(workers: &Workers, value: Arc<T>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::new(Shared { id, latest: Mutex::new(Arc::clone(&value)) });
        let slot = Self { shared, workers: workers.senders() };
        drop(slot.publish(value));
        slot
    }

    /// Replaces the value: here at once, on the workers in the order of publication. Resolves when every worker holds
    /// it, or a newer one.
    pub fn publish(&self, value: Arc<T>) -> OnAllWorkers {
        let id = self.shared.id;
        *self.shared.latest.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&value);
        let (copy, published) = countdown();
        for worker in &self.workers {
            let (value, copy) = (Arc::clone(&value), copy.clone());
            worker.post(Box::new(move || {
                store(id, value);
                drop(copy);
            }));
        }
        store(id, value);
        drop(copy);
        published
    }

    /// A reading end.
    pub fn reader(&self) -> SlotReader<T> {
        SlotReader { shared: Arc::clone(&self.shared) }
    }

    /// The value last published.
    pub fn latest(&self) -> Arc<T> {
        self.shared.latest()
    }
}

impl<T: Send + Sync + 'static> Drop for Slot<T> {
    fn drop(&mut self) {
        let id = self.shared.id;
        for worker in &self.workers {
            worker.post(Box::new(move || forget(id)));
        }
        forget(id);
    }
}

impl<T: Send + Sync + 'static> SlotReader<T> {
    /// This thread's current value.
    pub fn get(&self) -> Snapshot<T> {
        let local = TABLE.try_with(|table| table.borrow().get(&self.shared.id).cloned()).ok().flatten();
        match local.map(Rc::downcast::<Arc<T>>) {
            Some(Ok(value)) => Snapshot(value),
            _ => Snapshot(Rc::new(self.shared.latest())),
        }
    }
}

impl<T> Shared<T> {
    fn latest(&self) -> Arc<T> {
        Arc::clone(&self.latest.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T> Snapshot<T> {
    /// The value in a form that other threads may hold.
    pub fn to_arc(&self) -> Arc<T> {
        Arc::clone(&self.0)
    }

    /// Whether both are the same publication.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T: Send + Sync + 'static> Clone for SlotReader<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Clone for Snapshot<T> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<T> Deref for Snapshot<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Snapshot<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self.0, formatter)
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Slot<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Slot").field("id", &self.shared.id).finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for SlotReader<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SlotReader").field("id", &self.shared.id).finish_non_exhaustive()
    }
}

/// Drops every copy of this thread, while other thread-locals that destructors may reach still live.
pub(crate) fn clear() {
    let table = TABLE.try_with(|table| std::mem::take(&mut *table.borrow_mut()));
    drop(table);
}

// The old value is dropped outside the borrow: its destructor may read another slot.
fn store<T: Send + Sync + 'static>(id: u64, value: Arc<T>) {
    let old = TABLE.try_with(|table| table.borrow_mut().insert(id, Rc::new(value)));
    drop(old);
}

fn forget(id: u64) {
    let old = TABLE.try_with(|table| table.borrow_mut().remove(&id));
    drop(old);
}

/// Ids are counted up and never chosen from outside, so spreading their bits is all a hash has to do.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = (self.0 ^ id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

type Table = HashMap<u64, Rc<dyn Any>, BuildHasherDefault<IdHasher>>;

thread_local! {
    static TABLE: RefCell<Table> = RefCell::new(Table::default());
}
