//! Locks that say whether a process lives: open-file-description locks, which end with the last descriptor of whoever took
//! them and can be asked about without being taken.

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// Takes the lock of the whole file; `false` if another holds it.
pub(crate) fn try_take(file: &File) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file())) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether another open file holds the lock.
pub(crate) fn is_held(file: &File) -> io::Result<bool> {
    let mut lock = whole_file();
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0, // must be zero for this kind of lock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_does_not_take() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let open =
            || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let (one, two) = (open(), open());
        assert!(!is_held(&one).unwrap());
        assert!(try_take(&two).unwrap());
        assert!(is_held(&one).unwrap());
        assert!(!try_take(&one).unwrap());
        drop(two);
        assert!(!is_held(&one).unwrap());
        assert!(try_take(&one).unwrap());
    }
}
