//! Which slots are free. Slots are handed out in blocks, so that "whose is it" costs one word for several slots.

use crate::layout::{Area, BLOCK_SLOTS};
use crate::segment::Segment;

/// Consecutive blocks of one scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

impl Extent {
    pub(crate) fn blocks(self) -> std::ops::Range<u32> {
        self.first..self.first + self.count
    }

    pub(crate) fn slots(self) -> std::ops::Range<u32> {
        self.first * BLOCK_SLOTS..(self.first + self.count) * BLOCK_SLOTS
    }
}

/// The blocks of one half of the slots: of the file, or of private memory.
pub(crate) struct Blocks {
    start: u32,
    first: u32,
    end: u32,
    next: u32,
    free: Vec<u32>,
}

impl Blocks {
    /// Blocks `start..end`; of these the first `taken` are never handed out.
    pub(crate) fn new(start: u32, end: u32, taken: u32) -> Blocks {
        let first = start + taken;
        Blocks { start, first, end, next: first, free: Vec::new() }
    }

    /// Blocks that were ever handed out. Others may have no space behind them: even reading those is SIGBUS on a full
    /// tmpfs.
    pub(crate) fn used(&self) -> std::ops::Range<u32> {
        self.first..self.next
    }

    /// A block with zeroed cells and memory behind it. None when all are in use or the file cannot grow.
    pub(crate) fn take(&mut self, segment: &Segment) -> Option<u32> {
        if let Some(block) = self.free.pop() {
            return Some(block);
        }
        if self.next == self.end {
            return None;
        }
        if self.next < segment.geometry().slots / BLOCK_SLOTS {
            let blocks = u64::from(self.next) + 1;
            let slots = blocks * u64::from(BLOCK_SLOTS);
            segment.reserve(Area::Owners, blocks).ok()?;
            segment.reserve(Area::Descriptors, slots).ok()?;
            segment.reserve(Area::Columns, slots).ok()?;
        }
        self.next += 1;
        Some(self.next - 1)
    }

    pub(crate) fn owns(&self, block: u32) -> bool {
        (self.start..self.end).contains(&block)
    }

    pub(crate) fn give_back(&mut self, extent: Extent) {
        // Lowest on top: reused in order, so that a scope's blocks are again neighbours.
        self.free.extend(extent.blocks().rev());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_without_space_behind_them_are_never_looked_at() {
        assert!(Blocks::new(0, 8, 1).used().is_empty());
        assert!(Blocks::new(8, 16, 1).used().is_empty());
    }
}
