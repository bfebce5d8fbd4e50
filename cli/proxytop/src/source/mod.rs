//! Where looks come from, shared memory or an admin port, and who answers what they do not hold. Recorded looks are no source: see
//! `record.rs`.

pub(crate) mod admin;
pub(crate) mod ask;
pub(crate) mod instances;
pub(crate) mod process;
pub(crate) mod quantiles;
pub(crate) mod shared;
pub(crate) mod tail;

use crate::snapshot::Snapshot;

/// Something that can be looked at. Never fails: trouble is part of what is seen.
pub(crate) trait Source: Send {
    /// Looks once. `at_ms`: milliseconds since 1970.
    fn look(&mut self, at_ms: u64) -> Snapshot;
}
