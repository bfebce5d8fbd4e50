//! What the directory knows of one scope.

use std::sync::Weak;

use hashbrown::HashMap;

use crate::blocks::Extent;
use crate::names::Place;
use crate::remembered::Incarnation;
use crate::scope::ScopeInner;

/// A scope and the blocks of slots it owns.
pub(super) struct ScopeEntry {
    /// Ends in a dot unless empty.
    pub(super) prefix: Box<str>,
    pub(super) handle: Weak<ScopeInner>,
    /// Of the latest handle, so that a late close of an earlier one does no harm.
    pub(super) incarnation: Incarnation,
    pub(super) generation: u32,
    pub(super) first: Extent,
    /// Next slot of the half-filled block in each pool; none if at a block's border.
    pub(super) fill: [u32; 2],
    pub(super) place: Option<Box<Place>>,
    pub(super) rare: Option<Box<Rare>>,
}

/// What most scopes do not need.
#[derive(Default)]
pub(super) struct Rare {
    pub(super) more: Vec<Extent>,
    /// Scopes that own slots which this one uses.
    pub(super) lenders: Vec<u32>,
    /// Uses of own slots by other scopes.
    pub(super) lent: u32,
    pub(super) closed: bool,
    /// Slot by suffix and class, in large scopes.
    pub(super) index: HashMap<u32, u32>,
}

impl ScopeEntry {
    pub(super) fn extents(&self) -> impl Iterator<Item = Extent> + '_ {
        let more = self.rare.as_deref().map_or(&[][..], |rare| &rare.more);
        std::iter::once(self.first).chain(more.iter().copied()).filter(|extent| extent.count != 0)
    }

    pub(super) fn push_block(&mut self, block: u32) {
        if self.first.count == 0 {
            self.first = Extent { first: block, count: 1 };
            return;
        }
        let more = self.rare.as_deref_mut().and_then(|rare| rare.more.last_mut());
        let last = match more {
            Some(last) => last,
            None => &mut self.first,
        };
        if last.first + last.count == block {
            last.count += 1;
        } else {
            self.rare.get_or_insert_default().more.push(Extent { first: block, count: 1 });
        }
    }
}

impl Rare {
    pub(super) fn blocks(&self) -> u32 {
        self.more.iter().map(|extent| extent.count).sum()
    }
}
