//! The end of a log: a file, a pipe, a terminal. Writing waits, but never without an end.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Destination;

/// What a log is written to.
pub(super) struct Target {
    pub(super) destination: Destination,
    /// `None`: a FIFO that had no reader; it is tried again.
    file: Option<File>,
    /// Not a regular file: it takes a piece at a time, and may take none.
    may_block: bool,
    /// The last write ended within a line.
    torn: bool,
}

impl Target {
    pub(super) fn open(destination: Destination) -> io::Result<Target> {
        let file = match &destination {
            Destination::File(path) => {
                let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
                match File::options().append(true).create(true).custom_flags(flags).open(path) {
                    Ok(file) => Some(file),
                    Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => None,
                    Err(error) => return Err(error),
                }
            }
            Destination::Stdout => Some(io::stdout().as_fd().try_clone_to_owned()?.into()),
            Destination::Stderr => Some(io::stderr().as_fd().try_clone_to_owned()?.into()),
        };
        let may_block = match &file {
            Some(file) => !file.metadata()?.is_file(),
            None => true,
        };
        Ok(Target { destination, file, may_block, torn: false })
    }

    /// Writes whole lines. `go_on` is asked from time to time while nothing can be written. On an error, gives what was
    /// not written besides.
    pub(super) fn write<'a>(
        &mut self,
        mut lines: &'a [u8],
        mut go_on: impl FnMut() -> bool,
    ) -> Result<(), (io::Error, &'a [u8])> {
        if self.file.is_none() {
            match Target::open(self.destination.clone()) {
                Ok(target) if target.file.is_some() => *self = target,
                Ok(_) => return Err((io::Error::other("nobody reads this FIFO"), lines)),
                Err(error) => return Err((error, lines)),
            }
        }
        let Some(file) = &self.file else { return Ok(()) };
        if self.torn {
            // The rest of that line is lost; this one begins on its own.
            self.torn = wait(file, self.may_block, &mut go_on).and_then(|()| (&*file).write(b"\n")).is_err();
        }
        while !lines.is_empty() {
            let piece = if self.may_block { piece(lines) } else { lines };
            let written = wait(file, self.may_block, &mut go_on).and_then(|()| (&*file).write(piece));
            match written {
                Ok(0) => return Err((io::ErrorKind::WriteZero.into(), lines)),
                Ok(count) => {
                    self.torn = lines[count - 1] != b'\n';
                    lines = &lines[count..];
                }
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                Err(error) => return Err((error, lines)),
            }
        }
        // A format need not end in a line feed: then nothing is torn.
        self.torn = false;
        Ok(())
    }
}

/// Waits until a piece can be written without blocking.
fn wait(file: &File, may_block: bool, go_on: &mut impl FnMut() -> bool) -> io::Result<()> {
    if !may_block {
        return Ok(());
    }
    loop {
        let mut asked = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut asked, PollTimeout::from(PATIENCE_MILLISECONDS)) {
            Ok(0) if !go_on() => return Err(io::ErrorKind::TimedOut.into()),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// As many whole lines as a pipe takes in one go, so that lines of several writers do not mix.
fn piece(lines: &[u8]) -> &[u8] {
    let most = &lines[..lines.len().min(PIPE_PIECE)];
    match most.iter().rposition(|&byte| byte == b'\n') {
        Some(end) => &most[..=end],
        None => most,
    }
}

/// What POSIX lets a pipe take at once (PIPE_BUF), and what Linux has room for when it says that it has.
const PIPE_PIECE: usize = 4096;
/// How long a stuck pipe is waited for before others are asked whether to go on.
const PATIENCE_MILLISECONDS: u8 = 100;
