//! A token bucket that all workers take from without a lock, for local rate limits of every kind.
//!
//! As Envoy's it fills continuously, at `tokens_per_fill` in `fill_interval`, and is full at first. The state is one number:
//! when it will be full again. Taking a token moves that moment away by what a token costs in time; a bucket whose moment is
//! farther off than filling it takes is empty.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use proxy_config::settings;
use proxy_runtime::Instant;

/// `envoy.type.v3.TokenBucket` of a local rate limit.
#[derive(Debug)]
#[repr(align(128))]
pub struct TokenBucket {
    start: Instant,
    /// Nanoseconds after the start; in the past for a full bucket.
    full_at: AtomicU64,
    /// Nanoseconds in which a token comes, at least 1.
    token: u64,
    /// Nanoseconds in which all come.
    whole: u64,
}

/// Buckets that filters have in common by the key they name (`share_key`), as long as one of them lives. For main.
#[derive(Debug, Default)]
pub struct SharedBuckets(HashMap<(Arc<str>, settings::TokenBucket), Weak<TokenBucket>>);

impl TokenBucket {
    /// Full at `now`.
    pub fn new(settings: settings::TokenBucket, now: Instant) -> TokenBucket {
        let token = nanoseconds(settings.fill_interval) / u64::from(settings.tokens_per_fill).max(1);
        // A bucket that takes more than 292 years to fill takes 292 years.
        let longest = u64::MAX / 2 / u64::from(settings.max_tokens).max(1);
        let token = token.clamp(1, longest);
        TokenBucket {
            start: now,
            full_at: AtomicU64::new(0),
            token,
            whole: token * u64::from(settings.max_tokens),
        }
    }

    /// How many tokens there are, and in how many whole seconds, rounded up, there is one; 0 if there is.
    pub fn left(&self, now: Instant) -> (u64, u64) {
        let missing = self.full_at.load(Relaxed).saturating_sub(now.nanoseconds_since(self.start));
        let left = self.whole.saturating_sub(missing) / self.token;
        let wait = if left > 0 { 0 } else { (missing + self.token).saturating_sub(self.whole) };
        (left, wait.div_ceil(1_000_000_000))
    }

    /// The most tokens it holds.
    pub fn size(&self) -> u64 {
        self.whole / self.token
    }

    /// Takes a token if there is one.
    pub fn take(&self, now: Instant) -> bool {
        self.take_many(1, now)
    }

    /// Takes so many tokens if there are as many, and none otherwise. As in Envoy, there are never none to take: 0 is refused.
    pub fn take_many(&self, count: u64, now: Instant) -> bool {
        let now = now.nanoseconds_since(self.start);
        let price = self.token.saturating_mul(count);
        let taken = self.full_at.fetch_update(Relaxed, Relaxed, |full_at| {
            let full_at = full_at.max(now).saturating_add(price);
            (full_at - now <= self.whole).then_some(full_at)
        });
        count > 0 && taken.is_ok()
    }

    /// Puts so many tokens back, up to what it holds.
    pub fn put_back(&self, count: u64) {
        let price = self.token.saturating_mul(count);
        let put_back = |full_at: u64| Some(full_at.saturating_sub(price));
        self.full_at.fetch_update(Relaxed, Relaxed, put_back).unwrap_or_default();
    }
}

impl SharedBuckets {
    /// The bucket of this key and these settings.
    pub fn bucket(
        &mut self,
        key: &Arc<str>,
        settings: settings::TokenBucket,
        now: Instant,
    ) -> Arc<TokenBucket> {
        self.0.retain(|_, bucket| bucket.strong_count() > 0);
        let slot = self.0.entry((Arc::clone(key), settings)).or_default();
        slot.upgrade().unwrap_or_else(|| {
            let bucket = Arc::new(TokenBucket::new(settings, now));
            *slot = Arc::downgrade(&bucket);
            bucket
        })
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(max_tokens: u32, tokens_per_fill: u32, milliseconds: u64) -> settings::TokenBucket {
        let fill_interval = Duration::from_millis(milliseconds);
        settings::TokenBucket { max_tokens, tokens_per_fill, fill_interval }
    }

    fn taken(bucket: &TokenBucket, now: Instant) -> usize {
        (0..100).take_while(|_| bucket.take(now)).count()
    }

    #[test]
    fn it_fills_continuously_up_to_its_size() {
        let start = Instant::now();
        let bucket = TokenBucket::new(settings(3, 2, 1000), start);
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(taken(&bucket, start), 3);
        assert_eq!(taken(&bucket, after(499)), 0);
        assert_eq!(taken(&bucket, after(500)), 1);
        assert_eq!(taken(&bucket, after(1499)), 1, "half a token stays");
        assert_eq!(taken(&bucket, after(1500)), 1);
        assert_eq!(taken(&bucket, after(60_000)), 3);
        assert_eq!(taken(&bucket, after(1000)), 0, "a thread whose clock is behind");
    }

    #[test]
    fn several_are_taken_together_or_not_at_all() {
        let start = Instant::now();
        let bucket = TokenBucket::new(settings(5, 1, 1000), start);
        assert!(bucket.take_many(3, start));
        assert!(!bucket.take_many(3, start));
        assert_eq!(bucket.left(start).0, 2);
        assert!(!bucket.take_many(0, start));
        assert!(!bucket.take_many(u64::MAX, start));
        bucket.put_back(1);
        assert_eq!(taken(&bucket, start), 3);
        bucket.put_back(u64::MAX);
        assert_eq!(taken(&bucket, start), 5);
    }

    #[test]
    fn odd_sizes_are_no_trouble() {
        let start = Instant::now();
        assert_eq!(taken(&TokenBucket::new(settings(0, 1, 50), start), start), 0);
        let huge = TokenBucket::new(settings(u32::MAX, u32::MAX, 50), start);
        assert_eq!(taken(&huge, start), 100);
        let slow = settings::TokenBucket { fill_interval: Duration::MAX, ..settings(2, 1, 0) };
        let slow = TokenBucket::new(slow, start);
        assert_eq!(taken(&slow, start), 2);
        assert_eq!(taken(&slow, start + Duration::from_hours(1000)), 0);
    }

    #[test]
    fn threads_take_no_token_twice() {
        let now = Instant::now();
        let bucket = TokenBucket::new(settings(1000, 1, 1_000_000), now);
        let take = || (0..1000).filter(|_| bucket.take(now)).count();
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1000);
    }

    #[test]
    fn buckets_are_shared_by_key_and_settings_while_somebody_has_them() {
        let (now, key) = (Instant::now(), Arc::<str>::from("key"));
        let mut shared = SharedBuckets::default();
        let one = shared.bucket(&key, settings(1, 1, 1000), now);
        assert!(Arc::ptr_eq(&one, &shared.bucket(&key, settings(1, 1, 1000), now)));
        assert!(!Arc::ptr_eq(&one, &shared.bucket(&key, settings(2, 1, 1000), now)));
        assert!(!Arc::ptr_eq(&one, &shared.bucket(&"other".into(), settings(1, 1, 1000), now)));
        assert!(one.take(now));
        drop(one);
        assert!(shared.bucket(&key, settings(1, 1, 1000), now).take(now), "a new one");
    }
}
