//! Signals, received on main: which there are, and what a proxy does about each.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// A signal to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: drain, then end.
    Terminate,
    /// SIGINT: the same.
    Interrupt,
    /// SIGHUP: read the configuration again.
    Hangup,
    /// SIGUSR1: open log files anew.
    User1,
    /// SIGUSR2: start a process that takes over from this one.
    User2,
}

/// The signals of this process as they come. Several of a kind that arrive before they are looked at are one.
#[derive(Debug)]
pub struct Signals {
    terminate: Stream,
    interrupt: Stream,
    hangup: Stream,
    user1: Stream,
    user2: Stream,
}

impl Signals {
    /// Takes the signals over from their default actions, for good. Within main's runtime.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next signal. May be dropped and asked again without losing one.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            biased;
            Some(()) = self.terminate.recv() => Signal::Terminate,
            Some(()) = self.interrupt.recv() => Signal::Interrupt,
            Some(()) = self.hangup.recv() => Signal::Hangup,
            Some(()) = self.user1.recv() => Signal::User1,
            Some(()) = self.user2.recv() => Signal::User2,
            else => std::future::pending().await, // the runtime is ending
        }
    }
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Drain for at most `--shutdown-time-s`, then exit with 0.
    ShutDown,
    /// The second request to end: exit now, with this code.
    ExitNow(u8),
    ReopenLogs,
    /// Start a process that takes over from this one.
    RestartHot,
    /// Read the configuration again.
    Reload,
}

/// Knows whether the process is ending already.
#[derive(Debug, Default)]
pub struct Ending {
    asked: bool,
}

impl Ending {
    /// The end was asked for by other means (`/quitquitquit`, `proxyctl stop`): the next SIGTERM is the second one.
    pub fn begin(&mut self) {
        self.asked = true;
    }

    /// What to do about `signal`.
    pub fn handle(&mut self, signal: Signal) -> Action {
        match signal {
            Signal::Terminate | Signal::Interrupt if self.asked => Action::ExitNow(exit_code(signal)),
            Signal::Terminate | Signal::Interrupt => {
                self.asked = true;
                Action::ShutDown
            }
            Signal::Hangup => Action::Reload,
            Signal::User1 => Action::ReopenLogs,
            Signal::User2 => Action::RestartHot,
        }
    }
}

/// 128 and the signal's number, as shells report it.
fn exit_code(signal: Signal) -> u8 {
    match signal {
        Signal::Hangup => 129,
        Signal::Interrupt => 130,
        Signal::User1 => 138,
        Signal::User2 => 140,
        Signal::Terminate => 143,
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal as Number, raise};

    use super::*;

    #[test]
    fn the_second_request_to_end_is_obeyed_at_once() {
        let mut ending = Ending::default();
        assert_eq!(ending.handle(Signal::User1), Action::ReopenLogs);
        assert_eq!(ending.handle(Signal::User2), Action::RestartHot);
        assert_eq!(ending.handle(Signal::Terminate), Action::ShutDown);
        assert_eq!(ending.handle(Signal::Hangup), Action::Reload);
        assert_eq!(ending.handle(Signal::Interrupt), Action::ExitNow(130));
        let mut ending = Ending::default();
        ending.begin();
        assert_eq!(ending.handle(Signal::Terminate), Action::ExitNow(143));
    }

    #[test]
    fn signals_arrive() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut signals = Signals::new().unwrap();
            for (number, expected) in [
                (Number::SIGUSR2, Signal::User2),
                (Number::SIGHUP, Signal::Hangup),
                (Number::SIGTERM, Signal::Terminate),
            ] {
                raise(number).unwrap();
                assert_eq!(signals.next().await, expected);
            }
        });
    }
}
