//! Which bucket a value falls into: circllhist's log-linear buckets, two significant decimal digits, for whole numbers.
//!
//! Buckets are numbered so that their order is that of the values: 0 holds nothing but 0, then come 90 of each power of
//! ten, which hold the leading digits 10 to 99.

/// Number of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BucketIndex(pub(crate) u16);

/// Buckets of one power of ten.
pub(crate) const PER_DECADE: usize = 90;
/// Powers of ten that a `u64` can reach.
pub(crate) const DECADES: usize = 20;
/// Numbers below this are those of buckets.
pub(crate) const BUCKETS: u16 = 1 + (DECADES * PER_DECADE) as u16;

impl BucketIndex {
    pub(crate) const ZERO: BucketIndex = BucketIndex(0);

    /// The bucket of `value`: what comes after its two leading digits is cut off.
    #[inline]
    pub(crate) fn of(value: u64) -> BucketIndex {
        match value {
            0 => BucketIndex::ZERO,
            1..10 => BucketIndex::from_digits(0, value as u16 * 10),
            10..100 => BucketIndex::from_digits(1, value as u16),
            _ => {
                let decade = value.ilog10();
                BucketIndex::from_digits(decade as usize, (value / 10_u64.pow(decade - 1)) as u16)
            }
        }
    }

    pub(crate) fn from_place(decade: usize, place: usize) -> BucketIndex {
        BucketIndex::from_digits(decade, place as u16 + 10)
    }

    fn from_digits(decade: usize, digits: u16) -> BucketIndex {
        BucketIndex(1 + (decade * PER_DECADE) as u16 + digits - 10)
    }

    /// Power of ten and place in it; None for the bucket of 0.
    #[inline]
    pub(crate) fn place(self) -> Option<(usize, usize)> {
        let index = usize::from(self.0).checked_sub(1)?;
        Some((index / PER_DECADE, index % PER_DECADE))
    }

    /// The smallest value in it.
    pub(crate) fn lower(self) -> f64 {
        self.place().map_or(0.0, |(decade, place)| (place + 10) as f64 * width_in(decade))
    }

    /// How far it reaches; 0 for the bucket of 0.
    pub(crate) fn width(self) -> f64 {
        self.place().map_or(0.0, |(decade, _)| width_in(decade))
    }
}

fn width_in(decade: usize) -> f64 {
    // A division for the first decade: 0.1 times 30 is not 3.
    if decade == 0 { 0.1 } else { 10_f64.powi(decade as i32 - 1) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_leading_digits_name_the_bucket() {
        let place = |value| BucketIndex::of(value).place();
        assert_eq!(place(0), None);
        assert_eq!(place(1), Some((0, 0)));
        assert_eq!(place(9), Some((0, 80)));
        assert_eq!(place(10), Some((1, 0)));
        assert_eq!(place(99), Some((1, 89)));
        assert_eq!(place(12_345), Some((4, 2)));
        assert_eq!(place(u64::MAX), Some((19, 8)));
        assert!(BucketIndex::of(u64::MAX).0 < BUCKETS);
    }

    proptest! {
        #[test]
        fn a_value_lies_in_its_bucket_and_order_is_kept(value: u64, other: u64) {
            let bucket = BucketIndex::of(value);
            let value_f64 = value as f64;
            // Beyond 2^53 a float is only near the value.
            prop_assert!(bucket.lower() <= value_f64 * (1.0 + 1e-15));
            prop_assert!(value_f64 * (1.0 - 1e-15) < bucket.lower() + bucket.width() || value == 0);
            prop_assert_eq!(bucket < BucketIndex::of(other), bucket != BucketIndex::of(other) && value < other);
        }
    }
}
