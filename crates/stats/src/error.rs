//! What can go wrong with a store of our own, and with a segment file that somebody else wrote.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

/// A store could not be set up. A full file system is not among these: that falls back to private memory
/// (see [`Backing`](crate::Backing)).
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// The caller asked for no thread, or for more than a segment can hold.
    #[error("stats need 1 to {max} threads, not {threads}")]
    Threads { threads: usize, max: usize },
    /// The segment file cannot be created. A file of the same name counts: generations are never reused.
    #[error("cannot create stats segment {}: {source}", path.display())]
    CreateFile { path: PathBuf, source: io::Error },
    /// The kernel refused address space or an anonymous file.
    #[error("cannot map stats memory ({what}): {source}")]
    Memory { what: &'static str, source: Errno },
}

/// A segment file cannot be read. Nothing in the file can cause more than one of these.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be opened or read.
    #[error("cannot read stats segment: {0}")]
    Io(#[from] io::Error),
    /// Not a segment, or its writer has not finished the header.
    #[error("not a stats segment")]
    NotASegment,
    /// Written by a program with another layout.
    #[error("stats segment has layout version {found}, this program reads {expected}")]
    Version { found: u32, expected: u32 },
    /// The file contradicts itself.
    #[error("stats segment is corrupt: {0}")]
    Corrupt(&'static str),
    /// The writer changed scopes faster than they could be read.
    #[error("stats segment kept changing while it was read")]
    Busy,
}

/// Something about a lineage that was gone around. Deserves a warning each.
#[derive(Debug, thiserror::Error)]
pub enum LineageWarning {
    /// No control file or segment could be made or used: stats are private, and begin at zero.
    #[error(
        "stats are in private memory, so other programs cannot read them and a successor begins at zero: {0}"
    )]
    Alone(#[source] io::Error),
    /// The control file could not be used. What lies around it counts.
    #[error("the control file of the stats was replaced: {0}")]
    ControlReplaced(#[source] ReadError),
    /// What earlier processes have counted cannot be read.
    #[error("counts of earlier processes are lost: {0}")]
    BaseLost(#[source] ReadError),
    /// The segment of a dead process cannot be read.
    #[error("counts of generation {generation} are lost: {error}")]
    SegmentLost { generation: u64, error: ReadError },
    /// Segments of dead processes stay, and still count.
    #[error("stats segments of dead processes stay: {0}")]
    NotFolded(#[source] io::Error),
    /// Files that do not count any more stay.
    #[error("old stats files stay: {0}")]
    NotRemoved(#[source] io::Error),
}
