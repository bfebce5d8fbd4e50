//! One thread of a process, stopped in the middle of what it does, as a debugger stops it.

use std::fs;

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::eventually;

/// Stopped until dropped, or until the process ends. For the thread of the test that made it.
#[derive(Debug)]
pub struct StoppedThread(Pid);

impl StoppedThread {
    /// Stops the thread of this name while it runs: one that waits for events looks idle, not stuck. There has to be
    /// traffic that keeps it busy.
    pub(crate) fn stop_busy(process: u32, name: &str) -> Self {
        eventually(&format!("thread {name} to be stopped while it runs"), || {
            let stopped = Self::stop(thread_of(process, name)?);
            let doing = fs::read_to_string(format!("/proc/{process}/task/{}/syscall", stopped.0)).ok()?;
            let call: i64 = doing.split_whitespace().next()?.parse().ok()?;
            (!WAITS.contains(&call)).then_some(stopped)
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

/// `epoll_wait`, `epoll_pwait` and `epoll_pwait2`.
#[cfg(target_arch = "x86_64")]
const WAITS: [i64; 3] = [232, 281, 441];
#[cfg(not(target_arch = "x86_64"))]
const WAITS: [i64; 2] = [22, 441];
