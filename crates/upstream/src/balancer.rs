//! Round robin over the usable hosts of the lowest priority that has any.
//!
//! With weights it is earliest deadline first, as in Envoy: a host of weight 2 comes up twice as often as one of
//! weight 1, evenly spread. Each worker has its own and starts at a random place, so that workers do not march in
//! step.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use crate::cluster::WorkerHost;

/// Picks the next host by its index.
#[derive(Default)]
pub(crate) struct RoundRobin {
    usable: Vec<u32>,
    next: usize,
    /// (deadline, order, index into `usable`, period); empty while all weights are the same.
    weighted: BinaryHeap<Reverse<(u64, u32, u32, u64)>>,
}

impl RoundRobin {
    pub(crate) fn new(hosts: &[Rc<WorkerHost>]) -> RoundRobin {
        let weights = hosts.iter().map(|h| (h.host.is_usable(), h.host.priority, h.host.weight));
        Self::from_weights(weights, fastrand::usize(..))
    }

    /// From (usable, priority, weight) of each host.
    fn from_weights(hosts: impl Iterator<Item = (bool, u32, u32)> + Clone, seed: usize) -> RoundRobin {
        let usable = || hosts.clone().enumerate().filter(|(_, (usable, ..))| *usable);
        let Some(priority) = usable().map(|(_, (_, priority, _))| priority).min() else {
            return RoundRobin::default();
        };
        let chosen: Vec<(u32, u32)> = usable()
            .filter(|(_, (_, p, _))| *p == priority)
            .map(|(index, (.., weight))| (index as u32, weight.max(1)))
            .collect();
        let same = chosen.iter().all(|(_, weight)| *weight == chosen[0].1);
        let mut robin = RoundRobin {
            next: seed % chosen.len(),
            usable: chosen.iter().map(|(index, _)| *index).collect(),
            weighted: BinaryHeap::new(),
        };
        if !same {
            for (order, (_, weight)) in chosen.iter().enumerate() {
                let period = (1 << 32) / u64::from(*weight);
                robin.weighted.push(Reverse((period, order as u32, order as u32, period)));
            }
            for _ in 0..seed % chosen.len() {
                robin.next();
            }
        }
        robin
    }

    pub(crate) fn next(&mut self) -> Option<usize> {
        if let Some(Reverse((deadline, order, index, period))) = self.weighted.pop() {
            self.weighted.push(Reverse((deadline + period, order, index, period)));
            return Some(self.usable[index as usize] as usize);
        }
        let index = *self.usable.get(self.next)?;
        self.next = (self.next + 1) % self.usable.len();
        Some(index as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picks(hosts: &[(bool, u32, u32)], n: usize) -> Vec<usize> {
        let mut robin = RoundRobin::from_weights(hosts.iter().copied(), 0);
        (0..n).filter_map(|_| robin.next()).collect()
    }

    #[test]
    fn equal_hosts_take_turns() {
        assert_eq!(picks(&[(true, 0, 1), (true, 0, 1), (true, 0, 1)], 6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn weights_are_kept_and_spread() {
        let picks = picks(&[(true, 0, 1), (true, 0, 3)], 8);
        assert_eq!(picks.iter().filter(|i| **i == 1).count(), 6);
        assert!(picks.windows(2).all(|w| w != [0, 0]));
    }

    #[test]
    fn unusable_hosts_and_higher_priorities_are_left_out() {
        assert_eq!(picks(&[(false, 0, 1), (true, 1, 1), (true, 2, 1)], 2), [1, 1]);
        assert_eq!(picks(&[(false, 0, 1)], 2), [0; 0]);
    }
}
