//! Whoever started the process and wants to know how it goes: systemd, by `sd_notify(3)`, and the supervisor of
//! `--supervise`. Both hear the same turns of a life; neither is needed for it.
//!
//! A hot restart is one service: every generation speaks for it, so a unit needs `NotifyAccess=all`. Who leads without a
//! supervisor names itself as main process; under a supervisor that stays the main process.

use std::cell::Cell;
use std::env;
use std::fmt::Write;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use proxy_control::Supervisor;
use tracing::{debug, warn};

/// The service manager of this process, if it has one.
pub(crate) struct ServiceManager {
    notified: Option<SocketAddr>,
    supervisor: Option<Supervisor>,
    /// For status lines: what leads.
    name: String,
    /// A hot restart has been announced, and not yet its end.
    reloading: Cell<bool>,
}

impl ServiceManager {
    /// By `NOTIFY_SOCKET` and the supervisor's variable. `name` is what a status line calls this process.
    pub(crate) fn from_environment(name: String) -> ServiceManager {
        let named = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty());
        let notified = named.and_then(|path| {
            let address = address(path.as_bytes());
            address.inspect_err(|error| warn!(target: "main", %error, "NOTIFY_SOCKET cannot be used")).ok()
        });
        ServiceManager {
            notified,
            supervisor: Supervisor::from_environment(),
            name,
            reloading: Cell::new(false),
        }
    }

    /// Who starts other generations, if not this process.
    pub(crate) fn supervisor(&self) -> Option<Supervisor> {
        self.supervisor.clone()
    }

    /// This process serves and leads: from its start, or in place of another one.
    pub(crate) fn leads(&self, in_place_of_another: bool) {
        self.reloading.set(false);
        let mut state = format!("READY=1\nSTATUS={} leads", self.name);
        if in_place_of_another && self.supervisor.is_none() {
            // The formatter of a String does not fail.
            let _ = write!(state, "\nMAINPID={}", std::process::id());
        }
        self.notify(state);
        if let Some(supervisor) = self.supervisor.clone() {
            tokio::task::spawn_local(async move {
                if let Err(error) = supervisor.leads().await {
                    warn!(target: "main", %error, "the supervisor does not hear that this process leads");
                }
            });
        }
    }

    /// A hot restart has begun.
    pub(crate) fn restarts(&self) {
        self.reloading.set(true);
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
        let micros = now.as_micros();
        self.notify(format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS={} hands over", self.name));
    }

    /// It has come to nothing.
    pub(crate) fn goes_on(&self) {
        if self.reloading.replace(false) {
            self.notify(format!("READY=1\nSTATUS={} leads", self.name));
        }
    }

    /// Another process leads. It says so itself, but maybe to another service manager: of its own container.
    pub(crate) fn handed_over(&self) {
        if self.reloading.replace(false) {
            self.notify("READY=1".to_owned());
        }
    }

    /// The service ends. Not to be said of a process that has handed over.
    pub(crate) fn stops(&self) {
        self.notify(format!("STOPPING=1\nSTATUS={} drains", self.name));
    }

    /// Never waits: should the service manager's queue be full, a thread does.
    fn notify(&self, state: String) {
        let Some(address) = self.notified.clone() else { return };
        debug!(target: "main", state, "tells the service manager");
        match send(&address, &state, Waiting::No) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::task::spawn_blocking(move || told(send(&address, &state, Waiting::Yes)));
            }
            sent => told(sent),
        }
    }
}

#[derive(PartialEq, Eq)]
enum Waiting {
    No,
    Yes,
}

fn send(address: &SocketAddr, state: &str, waiting: Waiting) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(waiting == Waiting::No)?;
    socket.set_write_timeout(Some(LIMIT))?;
    socket.send_to_addr(state.as_bytes(), address).map(drop)
}

fn told(sent: io::Result<()>) {
    if let Err(error) = sent {
        warn!(target: "main", %error, "the service manager does not hear of this process");
    }
}

/// A path, or a name in the abstract space behind `@`.
fn address(name: &[u8]) -> io::Result<SocketAddr> {
    match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "it is no UNIX socket")),
    }
}

/// How long a thread waits for a service manager that does not read.
const LIMIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_paths_or_abstract() {
        assert!(address(b"/run/notify").unwrap().as_pathname().is_some());
        assert_eq!(address(b"@name").unwrap().as_abstract_name(), Some(&b"name"[..]));
        assert!(address(b"vsock:2:1234").is_err());
    }

    #[tokio::test]
    async fn a_full_queue_holds_nobody_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let reader = UnixDatagram::bind(&path).unwrap();
        let address = address(path.as_os_str().as_bytes()).unwrap();
        let mut filled = 0;
        while send(&address, "x", Waiting::No).is_ok() {
            filled += 1;
        }
        let manager = ServiceManager {
            notified: Some(address),
            supervisor: None,
            name: "generation 1".to_owned(),
            reloading: Cell::new(false),
        };
        manager.stops();
        let read = tokio::task::spawn_blocking(move || {
            let mut text = [0; 100];
            (0..filled).for_each(|_| assert_eq!(reader.recv(&mut text).unwrap(), 1));
            let length = reader.recv(&mut text).unwrap();
            String::from_utf8_lossy(&text[..length]).into_owned()
        });
        assert_eq!(read.await.unwrap(), "STOPPING=1\nSTATUS=generation 1 drains");
    }
}
