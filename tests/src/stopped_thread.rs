//! One thread of a process, stopped in the middle of what it does, as a debugger stops it.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::eventually;

/// Stopped until dropped, or until the process ends. For the thread of the test that made it.
#[derive(Debug)]
pub struct StoppedThread(Pid);

impl StoppedThread {
    /// Stops the thread of this name in the middle of something, so that `shows` comes true. There has to be traffic
    /// that keeps the thread busy: in some places it looks idle, not stuck, and then it goes on until the next try.
    pub(crate) fn stall(process: u32, name: &str, shows: impl Fn() -> bool) -> Self {
        eventually(&format!("thread {name} to be seen to stand still"), || {
            let stopped = Self::stop(thread_of(process, name)?);
            let doing = fs::read_to_string(format!("/proc/{process}/task/{}/syscall", stopped.0)).ok()?;
            let call: i64 = doing.split_whitespace().next()?.parse().ok()?;
            let begin = Instant::now();
            while !WAITS.contains(&call) && begin.elapsed() < TRY {
                if shows() {
                    return Some(stopped);
                }
                std::thread::park_timeout(Duration::from_millis(5));
            }
            None
        })
    }

    fn stop(thread: Pid) -> Self {
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Self(thread)
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        // It is dead when the process is; then it is for us to bury it, or the process would never be gone.
        if ptrace::detach(self.0, None).is_err() {
            let _ = waitpid(self.0, Some(WaitPidFlag::__WALL));
        }
    }
}

fn thread_of(process: u32, name: &str) -> Option<Pid> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).ok()?;
    threads.flatten().find_map(|thread| {
        let comm = fs::read_to_string(thread.path().join("comm")).ok()?;
        let id = thread.file_name().to_str()?.parse().ok()?;
        (comm.trim_end() == name).then(|| Pid::from_raw(id))
    })
}

/// How long a try may take; many fit into [`crate::PATIENCE`].
const TRY: Duration = Duration::from_secs(2);

/// `epoll_wait`, `epoll_pwait` and `epoll_pwait2`.
#[cfg(target_arch = "x86_64")]
const WAITS: [i64; 3] = [232, 281, 441];
#[cfg(not(target_arch = "x86_64"))]
const WAITS: [i64; 2] = [22, 441];
