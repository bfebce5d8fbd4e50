//! Histograms, in the five steps of Envoy's design:
//!
//! 1. each thread records into a set of its own ([`recording`]), with no lock and no atomic;
//! 2. at a flush main posts [`Store::hand_over`](crate::Store::hand_over) to every thread, which swaps its set for an
//!    empty one;
//! 3. threads go on recording into the new one;
//! 4. main merges the sets that were handed over into the interval's and the cumulative distribution ([`merge`]), and
//!    writes the latter to the segment;
//! 5. readers see merged distributions only ([`distribution`]).

mod bucket;
mod distribution;
mod merge;
mod recording;

pub use distribution::{Bucket, Distribution};
pub(crate) use merge::Merged;
pub use merge::{HistogramValue, Interval, Merge};
pub(crate) use recording::{Counts, Recording};
