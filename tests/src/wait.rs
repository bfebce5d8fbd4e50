//! The one way a test waits: ask again until the answer is there, never longer than [`PATIENCE`].

use std::time::{Duration, Instant};

/// How long anything in the suite may take before the test fails. It bounds hangs; no expectation is about it.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Asks until `answer` is there and returns it; panics naming `what` when patience runs out.
pub fn eventually<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = answer() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
