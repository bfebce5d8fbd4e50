//! Places where a process under test dies or stops, as `PROXYD_FAULT=PLACE:crash` or `PLACE:stop` says. Programs that are not
//! built for tests have none of this.

/// A step of a restart after which something may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    ChildBeforeHello,
    ChildAfterWelcome,
    ChildBeforeServing,
    ChildBeforeConfirm,
    /// The leader word says so already.
    ChildLeadsUntold,
    ChildAfterConfirm,
    /// It has accepted a connection that is not released yet.
    ChildAccepted,
    ParentAfterHello,
    ParentAfterSockets,
    /// It has not heard yet that the child accepts.
    ParentBeforeStopped,
    ParentAfterConfirm,
    /// A connection has been offered.
    ParentOffered,
    /// The connection is closed here already.
    ParentBeforeRelease,
}

/// To be called at each of them.
#[cfg(not(debug_assertions))]
pub(crate) fn at(_place: Place) {}

/// To be called at each of them.
#[cfg(debug_assertions)]
pub(crate) fn at(place: Place) {
    use std::sync::atomic::{AtomicBool, Ordering};

    use nix::sys::signal::{Signal, kill};

    /// Once is enough.
    static HAPPENED: AtomicBool = AtomicBool::new(false);

    let Ok(wanted) = std::env::var("PROXYD_FAULT") else { return };
    let (signal, name) = match wanted.split_once(':') {
        Some((name, "crash")) => (Signal::SIGKILL, name),
        Some((name, "stop")) => (Signal::SIGSTOP, name),
        _ => return,
    };
    if name == format!("{place:?}") && !HAPPENED.swap(true, Ordering::Relaxed) {
        // To the process, all threads of it.
        let _ = kill(nix::unistd::Pid::this(), signal);
    }
}
