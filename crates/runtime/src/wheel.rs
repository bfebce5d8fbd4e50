//! The timer wheel itself: which entries are due at which tick. No clock, no waker policy, no runtime.
//!
//! One level of [`SLOTS`] ticks. An entry whose deadline lies farther ahead waits in the last slot and moves on when
//! that fires; an entry whose deadline was moved back or cleared stays where it is and is put right when its slot
//! fires. So the common case, a deadline set and cleared for each request, costs stores only.

use std::task::Waker;

/// A moment as a count of ticks since the wheel was made.
pub(crate) type Tick = u32;

/// No deadline.
pub(crate) const NEVER: Tick = Tick::MAX;

/// The farthest moment a deadline may name; 8.7 years of 64 ms.
pub(crate) const LAST: Tick = Tick::MAX - 1;

const SLOTS: usize = 1024;
const NONE: u32 = u32::MAX;

/// The entries of one thread.
pub(crate) struct Wheel {
    nodes: Vec<Node>,
    free: u32,
    live: usize,
    heads: Box<[u32; SLOTS]>,
    /// Entries up to and including this tick have fired.
    turned: Tick,
    armed: usize,
}

struct Node {
    next: u32,
    previous: u32,
    /// The tick whose slot holds the entry; [`NEVER`] when it is in none.
    slot: Tick,
    deadline: Tick,
    waker: Option<Waker>,
}

impl Wheel {
    pub(crate) fn new() -> Self {
        Self { nodes: Vec::new(), free: NONE, live: 0, heads: Box::new([NONE; SLOTS]), turned: 0, armed: 0 }
    }

    /// A new entry without deadline. `None` when four billion exist.
    pub(crate) fn insert(&mut self) -> Option<u32> {
        let node = Node { next: NONE, previous: NONE, slot: NEVER, deadline: NEVER, waker: None };
        let index = if self.free == NONE {
            let index = u32::try_from(self.nodes.len()).ok().filter(|index| *index != NONE)?;
            self.nodes.push(node);
            index
        } else {
            let index = self.free;
            self.free = self.node(index).next;
            *self.node_mut(index) = node;
            index
        };
        self.live += 1;
        Some(index)
    }

    /// Takes an entry away; returns its waker, to be dropped outside of any borrow.
    pub(crate) fn remove(&mut self, index: u32) -> Option<Waker> {
        self.disarm(index);
        let free = self.free;
        let node = self.node_mut(index);
        let waker = node.waker.take();
        node.next = free;
        self.free = index;
        self.live -= 1;
        if self.live == 0 {
            // A burst of connections does not keep its table.
            self.nodes = Vec::new();
            self.free = NONE;
        }
        waker
    }

    pub(crate) fn deadline(&self, index: u32) -> Tick {
        self.node(index).deadline
    }

    /// Sets the deadline. True when that was all; otherwise the entry waits in no slot early enough, and
    /// [`Wheel::rearm`] must follow.
    pub(crate) fn store(&mut self, index: u32, deadline: Tick) -> bool {
        let deadline = deadline.min(LAST);
        let node = self.node_mut(index);
        node.deadline = deadline;
        node.slot <= deadline
    }

    /// Moves the entry to the slot of its deadline.
    pub(crate) fn rearm(&mut self, index: u32, now: Tick) {
        self.disarm(index);
        self.arm(index, now);
    }

    pub(crate) fn clear(&mut self, index: u32) {
        self.node_mut(index).deadline = NEVER;
    }

    /// Remembers whom to wake; returns the waker that this replaces.
    pub(crate) fn wake_at_deadline(&mut self, index: u32, waker: &Waker) -> Option<Waker> {
        match &mut self.node_mut(index).waker {
            Some(kept) if kept.will_wake(waker) => None,
            kept => kept.replace(waker.clone()),
        }
    }

    /// Turns to `now`: collects the wakers of what is due, and moves on what is not. An entry that fired is in no
    /// slot but keeps its deadline until its owner has seen it.
    pub(crate) fn turn(&mut self, now: Tick, due: &mut Vec<Waker>) {
        let first = self.turned;
        if now <= first {
            return;
        }
        // What moves on is armed relative to `now`, so it never lands in a slot still to be visited.
        self.turned = now;
        let ticks = (now - first).min(SLOTS as u32);
        for tick in 1..=ticks {
            let slot = slot_of(first.wrapping_add(tick));
            let mut index = std::mem::replace(&mut self.heads[slot], NONE);
            while index != NONE {
                self.armed -= 1;
                let node = self.node_mut(index);
                let next = node.next;
                node.slot = NEVER;
                if node.deadline <= now {
                    due.extend(node.waker.take());
                } else if node.deadline != NEVER {
                    self.arm(index, now);
                }
                index = next;
            }
        }
    }

    /// The tick to turn to next; `None` when no entry waits and the wheel may sleep.
    pub(crate) fn next(&self) -> Option<Tick> {
        (self.armed > 0).then(|| self.turned.saturating_add(1))
    }

    fn arm(&mut self, index: u32, now: Tick) {
        if self.armed == 0 {
            // Nothing to fire in between, so a wheel that has slept need not visit what it slept through.
            self.turned = self.turned.max(now);
        }
        let (earliest, farthest) =
            (self.turned.saturating_add(1), self.turned.saturating_add(SLOTS as u32 - 1));
        let node = self.node_mut(index);
        let tick = node.deadline.clamp(earliest, farthest);
        node.slot = tick;
        let slot = slot_of(tick);
        let head = std::mem::replace(&mut self.heads[slot], index);
        let node = self.node_mut(index);
        node.next = head;
        node.previous = NONE;
        if head != NONE {
            self.node_mut(head).previous = index;
        }
        self.armed += 1;
    }

    fn disarm(&mut self, index: u32) {
        let node = self.node_mut(index);
        if node.slot == NEVER {
            return;
        }
        let slot = slot_of(std::mem::replace(&mut node.slot, NEVER));
        let (next, previous) = (node.next, node.previous);
        if next != NONE {
            self.node_mut(next).previous = previous;
        }
        if previous != NONE {
            self.node_mut(previous).next = next;
        } else {
            self.heads[slot] = next;
        }
        self.armed -= 1;
    }

    fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    fn node_mut(&mut self, index: u32) -> &mut Node {
        &mut self.nodes[index as usize]
    }
}

fn slot_of(tick: Tick) -> usize {
    tick as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn set(wheel: &mut Wheel, index: u32, deadline: Tick, now: Tick) -> bool {
        let stored = wheel.store(index, deadline);
        if !stored {
            wheel.rearm(index, now);
        }
        stored
    }

    /// The earliest tick at which something lies in a slot.
    fn earliest(wheel: &Wheel) -> Option<Tick> {
        let slots = wheel.nodes.iter().map(|node| node.slot).filter(|slot| *slot != NEVER);
        let earliest = slots.min();
        assert_eq!(earliest.is_some(), wheel.next().is_some());
        earliest
    }

    fn fired(wheel: &mut Wheel, now: Tick) -> usize {
        let mut due = Vec::new();
        wheel.turn(now, &mut due);
        due.len()
    }

    fn entry(wheel: &mut Wheel, deadline: Tick, now: Tick) -> u32 {
        let index = wheel.insert().unwrap();
        set(wheel, index, deadline, now);
        wheel.wake_at_deadline(index, Waker::noop());
        index
    }

    #[test]
    fn fires_at_its_tick_and_not_before() {
        let mut wheel = Wheel::new();
        let index = entry(&mut wheel, 10, 0);
        assert_eq!(earliest(&wheel), Some(10));
        assert_eq!(fired(&mut wheel, 9), 0);
        assert_eq!(fired(&mut wheel, 10), 1);
        assert_eq!(earliest(&wheel), None);
        assert_eq!(wheel.deadline(index), 10);
        wheel.remove(index);
        assert!(wheel.nodes.is_empty());
    }

    #[test]
    fn setting_later_is_a_store_and_the_stale_firing_moves_on() {
        let mut wheel = Wheel::new();
        let index = entry(&mut wheel, 10, 0);
        assert!(set(&mut wheel, index, 50, 5));
        assert_eq!(fired(&mut wheel, 10), 0);
        assert_eq!(earliest(&wheel), Some(50));
        assert!(!set(&mut wheel, index, 20, 10));
        assert_eq!(earliest(&wheel), Some(20));
        assert_eq!(fired(&mut wheel, 20), 1);
    }

    #[test]
    fn a_deadline_beyond_the_wheel_arrives_in_steps() {
        let mut wheel = Wheel::new();
        entry(&mut wheel, 3000, 0);
        let mut wakes = 0;
        while let Some(next) = earliest(&wheel) {
            wakes += 1;
            let count = fired(&mut wheel, next);
            assert_eq!(count, usize::from(next == 3000));
        }
        assert_eq!(wakes, 3);
    }

    #[test]
    fn a_cleared_deadline_fires_nobody_and_lets_the_wheel_sleep() {
        let mut wheel = Wheel::new();
        let index = entry(&mut wheel, 10, 0);
        wheel.clear(index);
        assert_eq!(fired(&mut wheel, 2000), 0);
        assert_eq!(earliest(&wheel), None);
        // Asleep for long: the next deadline counts from now, not from where the wheel stopped.
        set(&mut wheel, index, 900_000, 899_990);
        assert_eq!(earliest(&wheel), Some(900_000));
    }

    #[test]
    fn a_deadline_in_the_past_fires_at_the_next_tick() {
        let mut wheel = Wheel::new();
        entry(&mut wheel, 500, 490);
        entry(&mut wheel, 3, 490);
        assert_eq!(earliest(&wheel), Some(491));
        assert_eq!(fired(&mut wheel, 491), 1);
    }

    #[test]
    fn a_late_turn_fires_everything_once() {
        let mut wheel = Wheel::new();
        for deadline in 1..2000 {
            entry(&mut wheel, deadline, 0);
        }
        assert_eq!(fired(&mut wheel, 1500), 1500);
        assert_eq!(fired(&mut wheel, 10_000), 499);
    }

    proptest! {
        /// Whatever is done, every entry's deadline wakes its owner at the first turn that reaches it.
        #[test]
        fn behaves_as_a_list_of_deadlines(
            steps in prop::collection::vec((0_u8..5, 0_usize..6, 0_u32..4000), 1..200),
        ) {
            let mut wheel = Wheel::new();
            let counts: Vec<_> = (0..6).map(|_| Arc::new(Count::default())).collect();
            let mut entries: Vec<u32> = (0..6).map(|_| wheel.insert().unwrap()).collect();
            let mut model = [NEVER; 6];
            let (mut now, mut woken) = (0, [0_usize; 6]);
            for (kind, which, amount) in steps {
                match kind {
                    0 | 1 => {
                        model[which] = now + amount;
                        set(&mut wheel, entries[which], now + amount, now);
                    }
                    2 => {
                        model[which] = NEVER;
                        wheel.clear(entries[which]);
                    }
                    3 => {
                        wheel.remove(entries[which]);
                        entries[which] = wheel.insert().unwrap();
                        model[which] = NEVER;
                    }
                    _ => {
                        now += 1 + amount;
                        for (count, index) in counts.iter().zip(&entries) {
                            wheel.wake_at_deadline(*index, &Waker::from(Arc::clone(count)));
                        }
                        let mut due = Vec::new();
                        wheel.turn(now, &mut due);
                        due.into_iter().for_each(Waker::wake);
                        for (entry, deadline) in model.iter_mut().enumerate() {
                            if *deadline <= now {
                                woken[entry] += 1;
                                *deadline = NEVER;
                                wheel.clear(entries[entry]);
                            }
                        }
                    }
                }
                for (count, expected) in counts.iter().zip(woken) {
                    prop_assert_eq!(count.0.load(Ordering::Relaxed), expected);
                }
                prop_assert_eq!(earliest(&wheel).is_some(), wheel.armed > 0);
                prop_assert!(model.iter().all(|at| *at == NEVER || earliest(&wheel).is_some_and(|next| next <= (*at).max(now + 1))));
            }
        }
    }
}
