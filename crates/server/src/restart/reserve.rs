//! Descriptors that are kept for a restart: a process that has used up all others must still be replaceable.

use std::fs::File;
use std::os::fd::OwnedFd;

use nix::sys::resource::{Resource, getrlimit};

/// Taken out of reach of connections until it is dropped.
#[derive(Debug)]
pub(super) struct Reserve(#[expect(dead_code, reason = "there to be closed")] Vec<OwnedFd>);

impl Reserve {
    /// As many as there are and a small process can spare.
    pub(super) fn take() -> Reserve {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
        let count = MOST.min(usize::try_from(limit).unwrap_or(usize::MAX) / PART);
        let Ok(nothing) = File::open("/dev/null") else { return Reserve(Vec::new()) };
        let nothing = OwnedFd::from(nothing);
        Reserve((0..count).map_while(|_| nothing.try_clone().ok()).collect())
    }
}

/// The channel, and duplicates of listening sockets on their way.
const MOST: usize = 64;
const PART: usize = 8;
