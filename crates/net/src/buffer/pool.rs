//! The pools of this thread, and what is taken from them.

use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};

use super::{LARGE, SMALL};

/// A buffer of a fixed size, owned until dropped, then back in this thread's pool. Its content is whatever its last
/// holder left.
pub struct Lease {
    bytes: Box<[u8]>,
}

/// A growing byte vector from the pool, empty when taken; for header blocks.
pub struct Arena {
    bytes: Vec<u8>,
}

/// How much lies in this thread's pools, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pooled {
    /// In small leases.
    pub small: usize,
    /// In large leases.
    pub large: usize,
    /// In arenas.
    pub arenas: usize,
}

#[derive(Default)]
struct Pools {
    small: Vec<Box<[u8]>>,
    large: Vec<Box<[u8]>>,
    arenas: Vec<Vec<u8>>,
    arena_bytes: usize,
}

/// What each pool keeps at most, in bytes per thread. More than steady load has in flight between two polls, because
/// freeing a large buffer may cost a madvise.
const SMALL_POOL: usize = 8 * 1024 * 1024;
const LARGE_POOL: usize = 16 * 1024 * 1024;
const ARENA_POOL: usize = 4 * 1024 * 1024;

/// An arena that grew past this is freed rather than kept.
const ARENA_KEPT: usize = 64 * 1024;

/// What a new arena starts with: most heads fit.
const ARENA_FIRST: usize = 1024;

impl Lease {
    /// A lease of [`SMALL`] bytes.
    pub fn small() -> Self {
        let bytes = POOLS.try_with(|pools| pools.borrow_mut().small.pop()).ok().flatten();
        Self { bytes: bytes.unwrap_or_else(|| fresh(SMALL)) }
    }

    /// A lease of [`LARGE`] bytes.
    pub fn large() -> Self {
        let bytes = POOLS.try_with(|pools| pools.borrow_mut().large.pop()).ok().flatten();
        Self { bytes: bytes.unwrap_or_else(|| fresh(LARGE)) }
    }

    /// A lease that holds at least `size` bytes. Past [`LARGE`] it is memory of its own that no pool keeps.
    pub fn at_least(size: usize) -> Self {
        if size <= SMALL {
            Self::small()
        } else if size <= LARGE {
            Self::large()
        } else {
            Self { bytes: fresh(size) }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // What no pool takes is freed after the borrow; so is everything on a thread that is ending.
        let _surplus = POOLS.try_with(|pools| pools.borrow_mut().keep(bytes));
    }
}

impl Deref for Lease {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Lease").field("size", &self.bytes.len()).finish()
    }
}

impl Arena {
    /// An empty arena with room that an earlier holder left.
    pub fn take() -> Self {
        let bytes = POOLS.try_with(|pools| {
            let mut pools = pools.borrow_mut();
            let bytes = pools.arenas.pop()?;
            pools.arena_bytes -= bytes.capacity();
            Some(bytes)
        });
        Self { bytes: bytes.ok().flatten().unwrap_or_else(|| Vec::with_capacity(ARENA_FIRST)) }
    }

    /// An empty arena without memory: for a field that has nothing yet.
    pub const fn unallocated() -> Self {
        Self { bytes: Vec::new() }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        let capacity = bytes.capacity();
        if capacity == 0 || capacity > ARENA_KEPT {
            return;
        }
        bytes.clear();
        let _surplus = POOLS.try_with(|pools| {
            let mut pools = pools.borrow_mut();
            if pools.arena_bytes + capacity > ARENA_POOL {
                return Some(bytes);
            }
            pools.arena_bytes += capacity;
            pools.arenas.push(bytes);
            None
        });
    }
}

impl Default for Arena {
    fn default() -> Self {
        Self::take()
    }
}

impl Deref for Arena {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Arena {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Arena")
            .field("length", &self.bytes.len())
            .field("capacity", &self.bytes.capacity())
            .finish()
    }
}

impl Pools {
    fn keep(&mut self, bytes: Box<[u8]>) -> Option<Box<[u8]>> {
        let (pool, cap) = match bytes.len() {
            SMALL => (&mut self.small, SMALL_POOL / SMALL),
            LARGE => (&mut self.large, LARGE_POOL / LARGE),
            _ => return Some(bytes),
        };
        if pool.len() >= cap {
            return Some(bytes);
        }
        pool.push(bytes);
        None
    }
}

/// What this thread's pools hold.
pub fn pooled() -> Pooled {
    let pooled = POOLS.try_with(|pools| {
        let pools = pools.borrow();
        Pooled {
            small: pools.small.len() * SMALL,
            large: pools.large.len() * LARGE,
            arenas: pools.arena_bytes,
        }
    });
    pooled.unwrap_or(Pooled { small: 0, large: 0, arenas: 0 })
}

fn fresh(size: usize) -> Box<[u8]> {
    // Zeroed pages come from the system untouched, so this costs no pass over the memory.
    vec![0; size].into_boxed_slice()
}

thread_local! {
    static POOLS: RefCell<Pools> = RefCell::new(Pools::default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_taken_next() {
        let mut first = Lease::small();
        first[0] = 7;
        drop(first);
        assert_eq!(pooled().small, SMALL);
        assert_eq!(Lease::small()[0], 7);
        let (first, second) = (Lease::small(), Lease::small());
        assert_eq!(pooled().small, 0);
        drop((first, second));
        assert_eq!(pooled().small, 2 * SMALL);
        assert_eq!(Lease::large().len(), LARGE);
        assert_eq!(pooled().large, LARGE);
    }

    #[test]
    fn pools_keep_no_more_than_their_cap() {
        let leases: Vec<Lease> = (0..SMALL_POOL / SMALL + 10).map(|_| Lease::small()).collect();
        drop(leases);
        assert_eq!(pooled().small, SMALL_POOL);
        let arenas: Vec<Arena> = (0..2 * ARENA_POOL / ARENA_FIRST).map(|_| Arena::take()).collect();
        drop(arenas);
        assert_eq!(pooled().arenas, ARENA_POOL);
        drop(Lease::at_least(LARGE + 1));
        assert_eq!(pooled().large, 0);
    }

    #[test]
    fn arenas_come_back_empty_and_oversized_ones_do_not() {
        let mut arena = Arena::take();
        arena.extend_from_slice(&[1; 5000]);
        let capacity = arena.capacity();
        drop(arena);
        let again = Arena::take();
        assert!(again.is_empty());
        assert_eq!(again.capacity(), capacity);
        drop(again);
        let before = pooled().arenas;
        let mut huge = Arena::unallocated();
        huge.resize(ARENA_KEPT + 1, 0);
        drop(huge);
        drop(Arena::unallocated());
        assert_eq!(pooled().arenas, before);
    }
}
