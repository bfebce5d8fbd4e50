//! The directory in which instances meet: whose it may be, where it is by default, and paths in it that fit a socket address.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, geteuid};

use crate::instance::BaseId;

/// An existing run directory that only its owner can enter.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Kept open: paths through it fit a socket address, whatever the length of `path`.
    directory: File,
}

/// Why a directory cannot be the run directory; always the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    #[error("run directory {}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("run directory {} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    #[error("run directory {} belongs to uid {owner}, not to uid {user}", path.display())]
    Owner { path: PathBuf, owner: u32, user: u32 },
    #[error(
        "run directory {} is open to others (mode {mode:04o}); make it 0700, or name a directory that does not exist yet",
        path.display()
    )]
    Open { path: PathBuf, mode: u32 },
}

impl RunDir {
    /// `$XDG_RUNTIME_DIR/proxyd` (`runtime_dir`, if absolute); else `/run/proxyd` for root, `/tmp/proxyd-UID` for others.
    #[must_use]
    pub fn default_path(runtime_dir: Option<&Path>) -> PathBuf {
        match runtime_dir.filter(|path| path.is_absolute()) {
            Some(path) => path.join("proxyd"),
            None if geteuid().is_root() => PathBuf::from("/run/proxyd"),
            None => PathBuf::from(format!("/tmp/proxyd-{}", geteuid())),
        }
    }

    /// Opens the directory for an instance, making it (not its parents) with mode 0700 if it does not exist.
    ///
    /// # Errors
    /// Whatever keeps it from being ours alone.
    pub fn create(path: &Path) -> Result<Self, RunDirError> {
        let made = DirBuilder::new().mode(0o700).create(path);
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(RunDirError::Io { path: path.to_owned(), error })
            }
            _ => Self::open_as(path, geteuid(), false),
        }
    }

    /// Opens an existing directory to look for instances; `None` if there is none. Root may look into another user's.
    ///
    /// # Errors
    /// As [`RunDir::create`]: whoever else could write there could put his own socket in an instance's place.
    pub fn open(path: &Path) -> Result<Option<Self>, RunDirError> {
        match Self::open_as(path, geteuid(), true) {
            Err(RunDirError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    fn open_as(path: &Path, user: Uid, root_may: bool) -> Result<Self, RunDirError> {
        let io_error = |error| RunDirError::Io { path: path.to_owned(), error };
        let directory = File::open(path).map_err(io_error)?;
        let found = directory.metadata().map_err(io_error)?;
        if !found.is_dir() {
            return Err(RunDirError::NotADirectory(path.to_owned()));
        }
        if found.uid() != user.as_raw() && !(root_may && user.is_root()) {
            return Err(RunDirError::Owner {
                path: path.to_owned(),
                owner: found.uid(),
                user: user.as_raw(),
            });
        }
        let mode = found.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(RunDirError::Open { path: path.to_owned(), mode });
        }
        Ok(Self { path: path.to_owned(), directory })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where `name` is, for messages.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Where `name` is, for `bind` and `connect`. Valid while `self` lives.
    pub(crate) fn socket_address(&self, name: &str) -> PathBuf {
        let direct = self.path.join(name);
        if direct.as_os_str().len() <= SOCKET_PATH_BYTES {
            return direct;
        }
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.directory.as_raw_fd()))
    }

    /// Names of the files in it, in no order.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.path)?;
        entries.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default())).collect()
    }
}

/// What the files in shared memory begin with that hold the stats of `base_id`: instances of one base-id in different run
/// directories do not know of each other.
#[must_use]
pub fn stats_prefix(run_dir: &Path, base_id: BaseId) -> String {
    let path = fs::canonicalize(run_dir).unwrap_or_else(|_| run_dir.to_owned());
    // FNV-1a: another build of the programs must come to the same result.
    let hash = path
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    format!("proxyd_{base_id}_{hash:08x}_")
}

/// `sun_path` less its final zero.
const SOCKET_PATH_BYTES: usize = 107;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn is_made_for_the_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        RunDir::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
        RunDir::create(&path).unwrap();
        assert!(RunDir::open(&path).unwrap().is_some());
        assert!(RunDir::open(&parent.path().join("none")).unwrap().is_none());
    }

    #[test]
    fn a_prefix_is_that_of_the_directory_however_it_is_called() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        RunDir::create(&path).unwrap();
        let prefix = stats_prefix(&path, BaseId(7));
        assert!(prefix.starts_with("proxyd_7_") && prefix.ends_with('_'));
        assert_eq!(stats_prefix(&parent.path().join("./run/"), BaseId(7)), prefix);
        assert_ne!(stats_prefix(parent.path(), BaseId(7)), prefix);
    }

    #[test]
    fn one_that_others_can_enter_is_refused_and_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("shared");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let error = RunDir::create(&path).unwrap_err();
        assert!(matches!(error, RunDirError::Open { mode: 0o755, .. }), "{error}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o755);
    }

    #[test]
    fn a_file_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        fs::write(&path, "").unwrap();
        assert!(matches!(RunDir::create(&path), Err(RunDirError::NotADirectory(_))));
    }

    #[test]
    fn the_default_ignores_a_relative_runtime_directory() {
        assert_eq!(RunDir::default_path(Some(Path::new("/x"))), Path::new("/x/proxyd"));
        assert!(RunDir::default_path(Some(Path::new("x"))).is_absolute());
    }
}
