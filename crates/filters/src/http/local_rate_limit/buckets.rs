//! The buckets of one local rate limit, and which of them a request takes from.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use proxy_config::settings::{self, LimitDescriptor};
use proxy_runtime::Instant;

use super::describe::Description;
use crate::token_bucket::TokenBucket;

pub(super) struct Buckets {
    default: DefaultBucket,
    /// In the order of the settings' descriptors.
    of_descriptors: Vec<DescriptorBuckets>,
}

enum DefaultBucket {
    /// There is none.
    Unlimited,
    /// One that holds nothing; it is never told of, as in Envoy.
    Never,
    Bucket(Arc<TokenBucket>),
}

enum DescriptorBuckets {
    One(Arc<TokenBucket>),
    /// One for each value that is in use. All workers share them, and requests with new values change the table, so there
    /// is a lock; it is held for a look-up only.
    Each(Mutex<BucketsByValue>),
}

/// At most so many buckets, of which the one that was not used for longest goes.
#[derive(Default)]
struct BucketsByValue {
    buckets: HashMap<Arc<[u8]>, (Arc<TokenBucket>, u64)>,
    /// By when they were used last.
    order: BTreeMap<u64, Arc<[u8]>>,
    uses: u64,
}

/// What becomes of a request.
pub(super) enum Verdict {
    Allowed,
    /// It is one too many for descriptors in shadow mode alone.
    Shadowed,
    Refused,
}

/// The bucket that decided, to be told of.
pub(super) struct Decided {
    pub(super) bucket: Arc<TokenBucket>,
    /// What the descriptor says about being told of.
    pub(super) tells: Option<bool>,
}

/// A descriptor of the settings that describes a request.
struct Matched<'d> {
    bucket: Arc<TokenBucket>,
    settings: &'d LimitDescriptor,
    description: Description<'d>,
}

impl Buckets {
    /// Full ones.
    pub(super) fn new(settings: &settings::LocalRateLimit, now: Instant) -> Buckets {
        let of_descriptor = |descriptor: &LimitDescriptor| {
            if has_wildcards(descriptor) {
                DescriptorBuckets::Each(Mutex::default())
            } else {
                DescriptorBuckets::One(Arc::new(TokenBucket::new(descriptor.bucket, now)))
            }
        };
        Buckets {
            default: match settings.bucket {
                None => DefaultBucket::Unlimited,
                Some(bucket) if bucket.max_tokens == 0 => DefaultBucket::Never,
                Some(bucket) => DefaultBucket::Bucket(Arc::new(TokenBucket::new(bucket, now))),
            },
            of_descriptors: settings.descriptors.iter().map(of_descriptor).collect(),
        }
    }

    /// Takes from every bucket that `descriptions` lead to, those whose tokens come slowest first, and from the default one
    /// where that counts.
    pub(super) fn take<'d>(
        &self,
        settings: &'d settings::LocalRateLimit,
        descriptions: impl Iterator<Item = Description<'d>>,
        now: Instant,
    ) -> (Verdict, Option<Decided>) {
        let mut matched: Vec<Matched<'d>> =
            descriptions.filter_map(|description| self.find(settings, description, now)).collect();
        if matched.len() > 1 {
            let time = |bucket: settings::TokenBucket| bucket.fill_interval / bucket.tokens_per_fill;
            matched.sort_by_key(|matched| std::cmp::Reverse(time(matched.settings.bucket)));
        }
        let mut shadowed = None;
        for (index, Matched { bucket, settings, description }) in matched.iter().enumerate() {
            if description.puts_back {
                bucket.put_back(description.hits);
            } else if bucket.take_many(description.hits, now) {
            } else if settings.shadow {
                shadowed.get_or_insert(index);
            } else {
                return (Verdict::Refused, Some(matched.swap_remove(index).into()));
            }
        }
        let by_default = matched.is_empty() || settings.always_default;
        let default = match &self.default {
            DefaultBucket::Bucket(bucket) if by_default => {
                let decided = || Decided { bucket: Arc::clone(bucket), tells: None };
                if !bucket.take(now) {
                    return (Verdict::Refused, Some(decided()));
                }
                matched.is_empty().then(decided)
            }
            DefaultBucket::Never if by_default => return (Verdict::Refused, None),
            _ => None,
        };
        let verdict = if shadowed.is_some() { Verdict::Shadowed } else { Verdict::Allowed };
        let index = shadowed.unwrap_or(0);
        let decided = if index < matched.len() { Some(matched.swap_remove(index).into()) } else { default };
        (verdict, decided)
    }

    /// The descriptor that a request has all entries of; one without wildcards, if there is one.
    fn find<'d>(
        &self,
        settings: &'d settings::LocalRateLimit,
        description: Description<'d>,
        now: Instant,
    ) -> Option<Matched<'d>> {
        let mut with_wildcards = None;
        for (settings, buckets) in settings.descriptors.iter().zip(&self.of_descriptors) {
            if !description.fits(settings) {
                continue;
            }
            match buckets {
                DescriptorBuckets::One(bucket) => {
                    return Some(Matched { bucket: Arc::clone(bucket), settings, description });
                }
                DescriptorBuckets::Each(buckets) => {
                    with_wildcards = with_wildcards.or(Some((settings, buckets)))
                }
            }
        }
        let (descriptor, buckets) = with_wildcards?;
        let mut buckets = buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket =
            buckets.bucket(&description.wildcards(descriptor), descriptor.bucket, settings.max_dynamic, now);
        Some(Matched { bucket, settings: descriptor, description })
    }
}

impl From<Matched<'_>> for Decided {
    fn from(matched: Matched<'_>) -> Decided {
        Decided { bucket: matched.bucket, tells: matched.description.tells }
    }
}

impl BucketsByValue {
    fn bucket(
        &mut self,
        value: &[u8],
        settings: settings::TokenBucket,
        most: usize,
        now: Instant,
    ) -> Arc<TokenBucket> {
        self.uses += 1;
        if let Some((bucket, used)) = self.buckets.get_mut(value) {
            if let Some(value) = self.order.remove(used) {
                self.order.insert(self.uses, value);
            }
            *used = self.uses;
            return Arc::clone(bucket);
        }
        if self.buckets.len() >= most
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.buckets.remove(&oldest);
        }
        let (value, bucket) = (Arc::<[u8]>::from(value), Arc::new(TokenBucket::new(settings, now)));
        self.order.insert(self.uses, Arc::clone(&value));
        self.buckets.insert(value, (Arc::clone(&bucket), self.uses));
        bucket
    }
}

fn has_wildcards(descriptor: &LimitDescriptor) -> bool {
    descriptor.entries.iter().any(|(_, value)| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_value_that_was_not_used_for_longest_is_forgotten() {
        let now = Instant::now();
        let fill_interval = Duration::from_secs(1000);
        let settings = settings::TokenBucket { max_tokens: 1, tokens_per_fill: 1, fill_interval };
        let mut buckets = BucketsByValue::default();
        let mut take = |value: &str| buckets.bucket(value.as_bytes(), settings, 2, now).take(now);
        assert_eq!(["a", "b", "a", "c", "a", "b"].map(&mut take), [true, true, false, true, false, true]);
        for number in 0..1000 {
            take(&number.to_string());
        }
        assert_eq!((buckets.buckets.len(), buckets.order.len()), (2, 2));
    }
}
