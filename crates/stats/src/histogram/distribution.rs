//! How often which values came: sorted buckets, and what can be said of them.

use super::bucket::{BUCKETS, BucketIndex};

/// Counts per bucket, in the order of values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Ascending, no count is 0.
    buckets: Vec<(BucketIndex, u64)>,
}

/// Values from `lower` up to, but not including, `lower + width`; only 0 where `width` is 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    pub lower: f64,
    pub width: f64,
    pub count: u64,
}

impl Bucket {
    /// Of the two bounds the harmonic mean, which is what Envoy's library takes for the middle.
    fn middle(self) -> f64 {
        let upper = self.lower + self.width;
        if upper == 0.0 { 0.0 } else { self.lower + self.width * (self.lower / (self.lower + upper)) }
    }
}

impl Distribution {
    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, (_, count)| sum.wrapping_add(*count))
    }

    /// Sum of the values, as far as buckets can tell: each counts as the middle of its bucket.
    pub fn sum(&self) -> f64 {
        // From 0, not from the -0 that `Iterator::sum` begins with.
        self.buckets().fold(0.0, |sum, bucket| sum + bucket.middle() * bucket.count as f64)
    }

    /// The value that a share of `quantile` (0 to 1) of the values does not exceed; NaN when there are none.
    /// The values of a bucket count as spread evenly within it.
    pub fn quantile(&self, quantile: f64) -> f64 {
        let rank = (quantile * self.count() as f64).ceil().max(1.0);
        let mut before = 0.0;
        for bucket in self.buckets() {
            let count = bucket.count as f64;
            if before + count >= rank {
                return bucket.lower + bucket.width * ((rank - before) / (count + 1.0));
            }
            before += count;
        }
        self.buckets().last().map_or(f64::NAN, |bucket| bucket.lower + bucket.width)
    }

    /// How many values are at most `bound`; a bucket counts as a whole where it begins, as in Envoy.
    pub fn count_up_to(&self, bound: f64) -> u64 {
        let within = self.buckets().take_while(|bucket| bucket.lower <= bound);
        within.fold(0, |sum, bucket| sum.wrapping_add(bucket.count))
    }

    /// The buckets that hold something, in the order of values.
    pub fn buckets(&self) -> impl Iterator<Item = Bucket> + '_ {
        let bucket = |(index, count): &(BucketIndex, u64)| Bucket {
            lower: index.lower(),
            width: index.width(),
            count: *count,
        };
        self.buckets.iter().map(bucket)
    }

    /// The empty one.
    pub(crate) fn none() -> &'static Distribution {
        const NONE: &Distribution = &Distribution { buckets: Vec::new() };
        NONE
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Distribution) {
        other.buckets.iter().for_each(|(bucket, count)| self.add(*bucket, *count));
    }

    /// What was recorded since it was `earlier`; all of it if something has gone since, as after a reset.
    #[must_use]
    pub fn since(&self, earlier: &Distribution) -> Distribution {
        let mut before = earlier.buckets.iter().peekable();
        let mut buckets = Vec::new();
        for (bucket, count) in &self.buckets {
            let known = before.next_if(|(index, _)| index <= bucket);
            let known = match known {
                Some((index, known)) if index == bucket && known <= count => *known,
                Some(_) => return self.clone(),
                None => 0,
            };
            if *count > known {
                buckets.push((*bucket, count - known));
            }
        }
        if before.next().is_some() { self.clone() } else { Distribution { buckets } }
    }

    pub(crate) fn add(&mut self, bucket: BucketIndex, count: u64) {
        match self.buckets.binary_search_by_key(&bucket, |(index, _)| *index) {
            Ok(at) => self.buckets[at].1 = self.buckets[at].1.wrapping_add(count),
            Err(at) => self.buckets.insert(at, (bucket, count)),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.buckets.clear();
    }

    /// As in a segment: a word of 8 bytes per bucket, its number above its count.
    pub(crate) fn encode(&self, into: &mut Vec<u8>) {
        for (bucket, count) in &self.buckets {
            let word = u64::from(bucket.0) << COUNT_BITS | (*count).min(COUNT_MASK);
            into.extend_from_slice(&word.to_ne_bytes());
        }
    }

    /// What [`Distribution::encode`] wrote; None if it did not.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Distribution> {
        let (words, []) = bytes.as_chunks::<8>() else { return None };
        let mut buckets = Vec::with_capacity(words.len());
        for word in words {
            let word = u64::from_ne_bytes(*word);
            let (bucket, count) = (BucketIndex((word >> COUNT_BITS) as u16), word & COUNT_MASK);
            let ascends = buckets.last().is_none_or(|(last, _)| *last < bucket);
            if !ascends || bucket.0 >= BUCKETS || count == 0 {
                return None;
            }
            buckets.push((bucket, count));
        }
        Some(Distribution { buckets })
    }
}

/// Of a word in a segment. 2^48 values are nine years of a million a second.
const COUNT_BITS: u32 = 48;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Distribution {
        let mut distribution = Distribution::default();
        values.into_iter().for_each(|value| distribution.add(BucketIndex::of(value), 1));
        distribution
    }

    #[test]
    fn quantiles_are_those_of_envoy() {
        // `upstream_rq_per_cx` of eight connections with a request each, and one value, as Envoy 1.40 prints them.
        let ones = of([1; 8]);
        for (quantile, expected) in [
            (0.0, 1.011111111111111),
            (0.25, 1.0222222222222221),
            (0.5, 1.0444444444444445),
            (0.9, 1.0888888888888888),
        ] {
            assert_eq!(ones.quantile(quantile), expected);
        }
        assert_eq!(of([3]).quantile(0.5), 3.05);
        assert_eq!(of([0, 0, 3]).quantile(0.5), 0.0);
        assert!(of([]).quantile(0.5).is_nan());
    }

    #[test]
    fn counts_and_sums_come_from_buckets() {
        let distribution = of([0, 1, 5, 5, 1234]);
        assert_eq!(distribution.count(), 5);
        assert_eq!(distribution.count_up_to(0.5), 1);
        assert_eq!(distribution.count_up_to(1.0), 2);
        assert_eq!(distribution.count_up_to(10.0), 4);
        assert_eq!(distribution.count_up_to(f64::INFINITY), 5);
        // Of the values 0 (five times), 1, 4 and 5, as Envoy 1.40 prints it.
        assert_eq!(of([0, 0, 0, 0, 0, 1, 4, 5]).sum(), 10.146506714163479);
    }

    #[test]
    fn merging_is_recording_all_in_one() {
        let mut merged = of([1, 2, 300]);
        merged.merge(&of([2, 70, 300_000]));
        assert_eq!(merged, of([1, 2, 2, 70, 300, 300_000]));
    }

    #[test]
    fn segments_hold_what_was_put_there_or_nothing() {
        let distribution = of([0, 7, 7, u64::MAX]);
        let mut bytes = Vec::new();
        distribution.encode(&mut bytes);
        assert_eq!(Distribution::decode(&bytes), Some(distribution));
        assert_eq!(Distribution::decode(&bytes[1..]), None);
        assert_eq!(Distribution::decode(&[0xff; 8]), None);
        assert_eq!(Distribution::decode(&[0; 8]), None);
        bytes.extend_from_within(..8);
        assert_eq!(Distribution::decode(&bytes), None);
        assert_eq!(Distribution::decode(&[]), Some(Distribution::default()));
    }
}
