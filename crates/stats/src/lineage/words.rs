//! A small file mapped as words that several processes change.
#![allow(unsafe_code)] // maps memory

use std::fs::File;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// The first words of a file.
pub(super) struct Words {
    base: NonNull<AtomicU64>,
    count: NonZeroUsize,
}

// SAFETY: the mapping is only ever reached as atomics, and lives until the last owner drops it.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// Maps `count` words of `file`, which must be that long, have space behind them and never shrink: otherwise using
    /// them is SIGBUS.
    pub(super) fn map(file: &File, count: NonZeroUsize) -> Result<Words, Errno> {
        let length = count.saturating_mul(BYTES);
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh mapping at an address the kernel chooses touches no memory of ours.
        let base = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(Words { base: base.cast(), count })
    }
}

impl Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: mapped with this length, page-aligned, valid as atomics for any bytes, until `self` is dropped.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.count.get()) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: address and length are those of `map`; slices borrow `self`.
        let unmapped = unsafe { munmap(self.base.cast(), self.count.get() * BYTES.get()) };
        debug_assert!(unmapped.is_ok());
    }
}

const BYTES: NonZeroUsize = NonZeroUsize::new(size_of::<AtomicU64>()).expect("a word has bytes");
