//! What the files of a lineage are called, and opening them without trusting whoever else may write to the directory.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;

/// Where a lineage lies: a directory, such as `/dev/shm`, and what its files begin with.
///
/// `<prefix>control` lists the segments that count, `<prefix><generation>` is the segment of one process, and
/// `<prefix>base_<number>` holds what dead ones have counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineagePath {
    pub directory: PathBuf,
    pub prefix: String,
}

/// The lineages with a control file in `directory`, whatever their base-id: see
/// [`LineageReader::base_id`](crate::LineageReader::base_id).
pub fn find_lineages(directory: &Path) -> io::Result<Vec<LineagePath>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if let Some(prefix) = name.to_str().and_then(|name| name.strip_suffix(CONTROL)) {
            found.push(LineagePath { directory: directory.to_owned(), prefix: prefix.to_owned() });
        }
    }
    found.sort_unstable();
    Ok(found)
}

impl LineagePath {
    pub(crate) fn control(&self) -> PathBuf {
        self.file(CONTROL)
    }

    /// The segment of a generation.
    pub fn segment(&self, generation: u64) -> PathBuf {
        self.file(&generation.to_string())
    }

    pub(crate) fn base(&self, number: u64) -> PathBuf {
        self.file(&format!("{BASE}{number}"))
    }

    /// Generations that there are files of, listed or not.
    pub(super) fn segments(&self) -> io::Result<Vec<u64>> {
        Ok(self.suffixes()?.iter().filter_map(|suffix| number(suffix)).collect())
    }

    /// Numbers of base files, published or not.
    pub(super) fn bases(&self) -> io::Result<Vec<u64>> {
        Ok(self.suffixes()?.iter().filter_map(|suffix| number(suffix.strip_prefix(BASE)?)).collect())
    }

    fn suffixes(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.directory)?.map(|entry| Ok(entry?.file_name()));
        let suffix = |name: OsString| name.to_str()?.strip_prefix(&self.prefix).map(str::to_owned);
        entries.filter_map(|name: io::Result<_>| name.map(suffix).transpose()).collect()
    }

    fn file(&self, suffix: &str) -> PathBuf {
        self.directory.join(format!("{}{suffix}", self.prefix))
    }
}

/// Opens a file that only we may have written. `/dev/shm` is open to everybody.
pub(super) fn open_own(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    // Not blocking: somebody may have put a FIFO there.
    options.custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits());
    let file = options.open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.uid() != geteuid().as_raw() || metadata.mode() & 0o022 != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others may write to it"));
    }
    Ok(file)
}

/// Removes a file; gone already is as good.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Only as we write it: one generation has one name.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

const CONTROL: &str = "control";
const BASE: &str = "base_";
