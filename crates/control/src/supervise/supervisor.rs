//! A generation's view of its supervisor.
#![allow(unsafe_code)] // a descriptor that a parent process has handed over by its number

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{MsgFlags, SockType, getsockopt, recv, send, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::message::{self, Body, Leads, MESSAGE_BYTES, PROTOCOL, Spawn};
use super::{Ended, VARIABLE};
use crate::restart::channel::register;

/// The process that started this one and starts the next.
#[derive(Debug, Clone)]
pub struct Supervisor(Rc<Link>);

#[derive(Debug)]
struct Link {
    socket: AsyncFd<OwnedFd>,
    next_id: Cell<u64>,
    asked: RefCell<HashMap<u64, Asked>>,
    arrived: Notify,
}

/// What has been said about a process that was asked for.
#[derive(Debug, Default)]
struct Asked {
    started: Option<Result<u32, SpawnError>>,
    ended: Option<Ended>,
}

/// A process that the supervisor has started. Dropping it only means that nobody wants to know how it ends.
#[derive(Debug)]
pub struct Spawned {
    /// In the PID namespace that supervisor and generations share.
    pub pid: u32,
    request: Request,
}

/// A request that answers are kept for.
#[derive(Debug)]
struct Request {
    link: Rc<Link>,
    id: u64,
}

/// Why there is no new process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    /// It cannot be started, or the supervisor will not.
    #[error("{0}")]
    Refused(String),
    #[error("the supervisor does not know this request: it is of another version")]
    NotUnderstood,
    #[error("the arguments have {0} bytes, which is too much")]
    TooLarge(usize),
    #[error("the supervisor is gone")]
    Gone,
    #[error("the supervisor cannot be talked to: {0}")]
    Io(Errno),
}

impl Supervisor {
    /// The supervisor of this process, if it has one. Within a runtime.
    #[must_use]
    pub fn from_environment() -> Option<Supervisor> {
        Supervisor::new(inherited()?).ok()
    }

    fn new(socket: OwnedFd) -> io::Result<Supervisor> {
        Ok(Supervisor(Rc::new(Link {
            socket: register(socket)?,
            next_id: Cell::new(0),
            asked: RefCell::default(),
            arrived: Notify::new(),
        })))
    }

    /// Has the supervisor start `program`, which becomes a generation like this one: of the supervisor's environment, limits,
    /// cgroup and standard streams.
    ///
    /// # Errors
    /// It has not been started.
    pub async fn spawn(&self, program: &Path, arguments: &[OsString]) -> Result<Spawned, SpawnError> {
        let id = self.0.next_id.replace(self.0.next_id.get() + 1);
        self.0.asked.borrow_mut().insert(id, Asked::default());
        let request = Request { link: Rc::clone(&self.0), id };
        let arguments = arguments.iter().map(|argument| argument.as_bytes().to_owned()).collect();
        let program = program.as_os_str().as_bytes().to_owned();
        self.0.send(Body::Spawn(Spawn { protocol: PROTOCOL, id, program, arguments })).await?;
        let pid = request.answer(|asked| asked.started.take()).await??;
        Ok(Spawned { pid, request })
    }

    /// Tells the supervisor that this process leads: it gets the signals, and its end is the service's.
    ///
    /// # Errors
    /// There is none any more.
    pub async fn leads(&self) -> Result<(), SpawnError> {
        self.0.send(Body::Leads(Leads {})).await
    }
}

impl Spawned {
    /// How the process ended, once it has.
    pub async fn wait(self) -> Ended {
        self.request.answer(|asked| asked.ended.take()).await.unwrap_or(Ended::Unknown)
    }
}

impl Request {
    /// What `pick` finds among the answers. Of several that wait, whoever comes first reads for all.
    async fn answer<T>(&self, pick: impl Fn(&mut Asked) -> Option<T>) -> Result<T, SpawnError> {
        loop {
            if let Some(found) = self.link.asked.borrow_mut().get_mut(&self.id).and_then(&pick) {
                return Ok(found);
            }
            let arrived = self.link.arrived.notified();
            tokio::select! {
                read = self.link.receive() => {
                    self.link.arrived.notify_waiters();
                    read?;
                }
                () = arrived => {}
            }
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.link.asked.borrow_mut().remove(&self.id);
    }
}

impl Link {
    async fn send(&self, body: Body) -> Result<(), SpawnError> {
        let bytes = message::encode(body);
        if bytes.len() > MESSAGE_BYTES {
            return Err(SpawnError::TooLarge(bytes.len()));
        }
        let sent = self.socket.async_io(Interest::WRITABLE, |socket| {
            Ok(send(socket.as_raw_fd(), &bytes, MsgFlags::MSG_NOSIGNAL)?)
        });
        sent.await.map(drop).map_err(|error| SpawnError::from(&error))
    }

    /// Reads one message and keeps what it says, if that is still of interest.
    async fn receive(&self) -> Result<(), SpawnError> {
        let received = self.socket.async_io(Interest::READABLE, |socket| {
            let mut bytes = vec![0; MESSAGE_BYTES];
            let length = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
            bytes.truncate(length);
            Ok(bytes)
        });
        let bytes = received.await.map_err(|error| SpawnError::from(&error))?;
        if bytes.is_empty() {
            // No message is empty: that is end of file.
            return Err(SpawnError::Gone);
        }
        let mut asked = self.asked.borrow_mut();
        match message::decode(&bytes) {
            Some(Body::Spawned(spawned)) => {
                asked.entry(spawned.id).and_modify(|asked| asked.started = Some(Ok(spawned.pid)));
            }
            Some(Body::NotSpawned(refused)) => {
                let error = SpawnError::Refused(refused.text);
                asked.entry(refused.id).and_modify(|asked| asked.started = Some(Err(error)));
            }
            Some(Body::Ended(ended)) => {
                asked.entry(ended.id).and_modify(|asked| asked.ended = Some(Ended::from(&ended)));
            }
            // It does not say to what: to each request that is open.
            Some(Body::Unknown(_)) => {
                asked.values_mut().for_each(|asked| asked.started = Some(Err(SpawnError::NotUnderstood)));
            }
            Some(Body::Spawn(_) | Body::Leads(_)) | None => {}
        }
        Ok(())
    }
}

impl From<&io::Error> for SpawnError {
    fn from(error: &io::Error) -> SpawnError {
        match error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw) {
            Errno::EPIPE | Errno::ECONNRESET => SpawnError::Gone,
            errno => SpawnError::Io(errno),
        }
    }
}

impl From<&message::Ended> for Ended {
    fn from(ended: &message::Ended) -> Ended {
        match (ended.code, ended.signal) {
            (Some(code), _) => Ended::Code(code),
            (None, Some(signal)) => Ended::Signal(signal),
            (None, None) => Ended::Unknown,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Code(code) => write!(out, "exited with {code}"),
            Ended::Signal(number) => match nix::sys::signal::Signal::try_from(*number) {
                Ok(signal) => write!(out, "was ended by {signal}"),
                Err(_) => write!(out, "was ended by signal {number}"),
            },
            Ended::Unknown => out.write_str("ended"),
        }
    }
}

/// Whether this process is a generation of a supervisor.
#[must_use]
pub fn is_supervised() -> bool {
    inherited().is_some()
}

/// A duplicate of the descriptor that the environment names, if it is what it should be.
fn inherited() -> Option<OwnedFd> {
    let number: RawFd = std::env::var(VARIABLE).ok()?.parse().ok()?;
    if number <= nix::libc::STDERR_FILENO {
        return None;
    }
    // SAFETY: the borrow ends in this function. Nothing in this process owns an inherited descriptor, so nobody closes it; a
    // number that names nothing is answered with EBADF.
    let named = unsafe { BorrowedFd::borrow_raw(number) };
    let duplicate = fcntl(named, FcntlArg::F_DUPFD_CLOEXEC(nix::libc::STDERR_FILENO + 1)).ok()?;
    // SAFETY: the kernel has just made it, for nobody else.
    let duplicate = unsafe { OwnedFd::from_raw_fd(duplicate) };
    if getsockopt(&duplicate, sockopt::SockType) != Ok(SockType::SeqPacket) {
        return None;
    }
    // Processes that this one starts are no generations.
    fcntl(named, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    Some(duplicate)
}
