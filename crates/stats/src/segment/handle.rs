//! A thread's own column of a segment, and the handles that count in it.
#![allow(unsafe_code)] // reads a thread's column through a pointer kept valid by the binding

use std::cell::{Cell, RefCell};
use std::ptr::null;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, PoisonError, RwLock, Weak};

use super::{Extra, Segment};
use crate::histogram::Recording;

/// A slot of a segment. Outlived by its segment or not, using it is sound: the fast path asks whether the thread is
/// bound to that very segment, the slow one whether the segment still exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    segment: u32,
    slot: u32,
}

impl Handle {
    /// Adds `amount`, wrapping. A load and a store of the thread's own cell.
    #[inline]
    pub(crate) fn add(self, amount: u64) {
        let bound = BOUND.get();
        if bound.segment != self.segment {
            return self.add_unbound(amount);
        }
        // SAFETY: `BOUND` names this segment, so this thread's binding keeps its mapping alive, and `Segment::handle`
        // checked the slot against the length of a column of that segment (ids are never reused).
        let cell = unsafe { &*bound.column.add(self.slot as usize) };
        // No read-modify-write: `claimed` sees to it that no other thread writes to this column.
        cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    #[cold]
    fn add_unbound(self, amount: u64) {
        if let Some(segment) = self.segment() {
            segment.extra_cell(Extra::Unbound, self.slot as usize).fetch_add(amount, Relaxed);
        }
    }

    /// Records a value of a histogram in memory of this thread.
    #[inline]
    pub(crate) fn record(self, value: u64) {
        let recorded = BINDING.try_with(|own| match &mut *own.borrow_mut() {
            Some(own) if own.segment.id == self.segment => {
                own.recording.record(self.slot, value);
                true
            }
            _ => false,
        });
        if recorded != Ok(true) {
            self.record_unbound(value);
        }
    }

    #[cold]
    fn record_unbound(self, value: u64) {
        if let Some(segment) = self.segment() {
            segment.unbound.lock().unwrap_or_else(PoisonError::into_inner).record(self.slot, value);
        }
    }

    /// Sum over all threads; 0 when the segment is gone.
    pub(crate) fn sum(self) -> u64 {
        self.segment().map_or(0, |segment| segment.sum(self.slot))
    }

    /// See [`Segment::set`].
    pub(crate) fn set(self, value: u64) {
        if let Some(segment) = self.segment() {
            segment.set(self.slot, value);
        }
    }

    fn segment(self) -> Option<Arc<Segment>> {
        let all = REGISTRY.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|(id, _)| *id == self.segment)?.1.upgrade()
    }
}

/// What the fast path reads. Has no destructor, so reading it is one access relative to the thread pointer.
#[derive(Clone, Copy)]
struct Bound {
    segment: u32,
    column: *const AtomicU64,
}

/// Keeps the memory behind [`Bound`] alive, and clears it before letting go.
struct Binding {
    segment: Arc<Segment>,
    column: usize,
    /// Histograms of this thread since it handed over last.
    recording: Recording,
}

impl Drop for Binding {
    fn drop(&mut self) {
        BOUND.set(NOWHERE);
        self.segment.accept(std::mem::take(&mut self.recording));
        self.segment.claimed[self.column].store(false, Release);
    }
}

thread_local! {
    static BOUND: Cell<Bound> = const { Cell::new(NOWHERE) };
    static BINDING: RefCell<Option<Binding>> = const { RefCell::new(None) };
}

impl Segment {
    /// Makes the calling thread count in column `index` until it ends or is bound again. False if the column does
    /// not exist or another thread has it: then nothing changes.
    pub(crate) fn bind(self: &Arc<Self>, index: usize) -> bool {
        let already = BINDING.with_borrow(|own| {
            own.as_ref().is_some_and(|own| own.column == index && Arc::ptr_eq(&own.segment, self))
        });
        if already {
            return true;
        }
        if self.claimed.get(index).is_none_or(|claimed| claimed.swap(true, Acquire)) {
            return false;
        }
        let binding = Binding { segment: self.clone(), column: index, recording: Recording::default() };
        // Dropping the old binding clears `BOUND`, so the new one is entered afterwards.
        drop(BINDING.replace(Some(binding)));
        BOUND.set(Bound { segment: self.id, column: self.column(index).as_ptr() });
        true
    }

    /// A handle to a slot of this segment.
    pub(crate) fn handle(&self, slot: u32) -> Handle {
        assert!((slot as usize) < self.slots(), "slots come from the pools, which end at the geometry");
        Handle { segment: self.id, slot }
    }

    /// Column of the calling thread, if it is bound to this segment.
    pub(crate) fn bound_column(&self) -> Option<usize> {
        BINDING.with_borrow(|own| own.as_ref().filter(|own| own.segment.id == self.id).map(|own| own.column))
    }

    /// Swaps what the calling thread has recorded in histograms of this segment for nothing.
    pub(crate) fn hand_over(&self) {
        let recording = BINDING.with_borrow_mut(|own| {
            own.as_mut().filter(|own| own.segment.id == self.id).map(|own| std::mem::take(&mut own.recording))
        });
        self.accept(recording.unwrap_or_default());
    }
}

/// Makes a segment known to threads that are not bound to it.
pub(super) fn register(segment: &Arc<Segment>) {
    let mut all = REGISTRY.write().unwrap_or_else(PoisonError::into_inner);
    all.push((segment.id, Arc::downgrade(segment)));
}

pub(super) fn unregister(id: u32) {
    REGISTRY.write().unwrap_or_else(PoisonError::into_inner).retain(|(other, _)| *other != id);
}

/// The id of one segment more; never one that was used before.
pub(super) fn next_id() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let id = NEXT.fetch_add(1, Relaxed);
    assert!(id != NOWHERE.segment && id < u32::MAX / 2, "a process makes a handful of stores");
    id
}

/// Living segments by id: for threads without a binding, and for reading a value. Not on the data path.
static REGISTRY: RwLock<Vec<(u32, Weak<Segment>)>> = RwLock::new(Vec::new());

const NOWHERE: Bound = Bound { segment: 0, column: null() };
