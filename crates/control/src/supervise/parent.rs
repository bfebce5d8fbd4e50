//! The supervising process: one thread, no timers, no state but which generations live and which of them leads.
//!
//! It restarts nothing: who runs it (a container's runtime, systemd) has rules for that, and sees from the exit code that
//! there is something to do. When the leader fails and nobody is there to lead, generations that only drain are told to
//! end, because a service that nobody serves must not look alive.

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::message::{self, Body, MESSAGE_BYTES, NotSpawned, PROTOCOL, Spawn, Spawned, Unknown};
use super::{Ended, VARIABLE};
use crate::instance::GENERATIONS;

/// The generations of a supervisor.
struct Generations {
    /// Living ones, the newest last.
    living: Vec<Generation>,
    /// Who said last that it leads; it may have ended since.
    leader: Option<Pid>,
    /// How the leader ended, and how the last of all did.
    leader_ended: Option<Ended>,
    last_ended: Ended,
    /// Told to end: no generation is added any more.
    ending: bool,
}

struct Generation {
    pid: Pid,
    /// None once the generation has closed its end.
    channel: Option<OwnedFd>,
    /// Who asked for it, under which number.
    asked_by: Option<(Pid, u64)>,
}

/// Starts `program` with `arguments` as the first generation and serves it and its successors until none lives. Returns the exit
/// code: that of the generation that led last, 128 + n if signal n ended it. To be called before there are threads.
///
/// # Errors
/// The first generation cannot be started, or the system refuses what a supervisor needs.
pub fn run(program: &Path, arguments: &[OsString]) -> io::Result<u8> {
    let mut mask = SigSet::empty();
    FORWARDED.iter().chain(&[Signal::SIGCHLD]).for_each(|signal| mask.add(*signal));
    // Blocked signals wait in the descriptor; as PID 1, too, where others would be lost.
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut generations = Generations::new();
    generations.spawn(program, arguments, None)?;
    loop {
        generations.wait(&signals)?;
        generations.hear_all();
        while let Some(received) = signals.read_signal()? {
            if let Ok(signal) = Signal::try_from(received.ssi_signo as i32) {
                generations.forward(signal);
            }
        }
        generations.reap();
        if generations.living.is_empty() {
            return Ok(generations.code());
        }
    }
}

impl Generations {
    fn new() -> Generations {
        Generations {
            living: Vec::new(),
            leader: None,
            leader_ended: None,
            last_ended: Ended::Unknown,
            ending: false,
        }
    }

    /// Starts a generation: with an end of a channel, a signal mask that blocks nothing, and a process group of its own, or else
    /// a terminal's Ctrl-C would reach it twice.
    fn spawn(
        &mut self,
        program: &Path,
        arguments: &[OsString],
        asked_by: Option<(Pid, u64)>,
    ) -> io::Result<Pid> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        let number = theirs.as_raw_fd();
        let mut actions = PosixSpawnFileActions::init()?;
        // Onto itself: takes close-on-exec off, in the child alone.
        actions.add_dup2(number, number)?;
        let mut attributes = PosixSpawnAttr::init()?;
        attributes
            .set_flags(PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK | PosixSpawnFlags::POSIX_SPAWN_SETPGROUP)?;
        attributes.set_sigmask(&SigSet::empty())?;
        attributes.set_pgroup(Pid::from_raw(0))?;
        let words = std::iter::once(program.as_os_str()).chain(arguments.iter().map(OsString::as_os_str));
        let words = words.map(|word| CString::new(word.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let environment = environment(number)?;
        let pid = posix_spawn(program, &actions, &attributes, &words, &environment)?;
        self.living.push(Generation { pid, channel: Some(ours), asked_by });
        Ok(pid)
    }

    /// Waits until there is something to do.
    fn wait(&self, signals: &SignalFd) -> io::Result<()> {
        let channels =
            self.living.iter().filter_map(|generation| generation.channel.as_ref()).map(AsFd::as_fd);
        let descriptors = std::iter::once(signals.as_fd()).chain(channels);
        let mut polled: Vec<_> =
            descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)).collect();
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn hear_all(&mut self) {
        let pids: Vec<Pid> = self.living.iter().map(|generation| generation.pid).collect();
        for pid in pids {
            while let Some(heard) = self.hear(pid) {
                match heard {
                    Some(Body::Leads(_)) => self.led_by(pid),
                    Some(Body::Spawn(request)) => self.spawn_for(pid, request),
                    _ => self.tell(pid, Body::Unknown(Unknown {})),
                }
            }
        }
    }

    /// What a generation has said next, `Some(None)` if it is not understood.
    fn hear(&mut self, pid: Pid) -> Option<Option<Body>> {
        let generation = self.living.iter_mut().find(|generation| generation.pid == pid)?;
        let channel = generation.channel.as_ref()?;
        let mut bytes = vec![0; MESSAGE_BYTES];
        match recv(channel.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            Err(Errno::EAGAIN | Errno::EINTR) => None,
            // No message is empty: that is end of file.
            Ok(0) | Err(_) => {
                generation.channel = None;
                None
            }
            Ok(length) => Some(message::decode(&bytes[..length])),
        }
    }

    fn led_by(&mut self, pid: Pid) {
        self.leader = Some(pid);
        self.leader_ended = None;
    }

    fn spawn_for(&mut self, pid: Pid, request: Spawn) {
        let Spawn { protocol, id, program, arguments } = request;
        let started = if protocol != PROTOCOL {
            Err(format!(
                "the supervisor speaks version {PROTOCOL} of its protocol, the new process {protocol}"
            ))
        } else if self.ending {
            Err("the supervisor has been told to end".to_owned())
        } else if self.living.len() > GENERATIONS {
            Err(format!("{} processes live already: the oldest has to end first", self.living.len()))
        } else {
            let program = OsString::from_vec(program);
            let arguments: Vec<_> = arguments.into_iter().map(OsString::from_vec).collect();
            let spawned = self.spawn(Path::new(&program), &arguments, Some((pid, id)));
            spawned.map_err(|error| format!("{}: {error}", program.display()))
        };
        self.tell(
            pid,
            match started {
                Ok(started) => Body::Spawned(Spawned { id, pid: started.as_raw() as u32 }),
                Err(text) => Body::NotSpawned(NotSpawned { id, text }),
            },
        );
    }

    /// A generation that does not read what it asked for has asked for the last time.
    fn tell(&mut self, pid: Pid, body: Body) {
        let Some(generation) = self.living.iter_mut().find(|generation| generation.pid == pid) else {
            return;
        };
        if let Some(channel) = &generation.channel {
            let sent = send(channel.as_raw_fd(), &message::encode(body), MsgFlags::MSG_NOSIGNAL);
            if sent.is_err() {
                generation.channel = None;
            }
        }
    }

    /// Everybody ends, and writes to other log files; the rest is for the leader.
    fn forward(&mut self, signal: Signal) {
        match signal {
            Signal::SIGTERM | Signal::SIGINT => {
                self.ending = true;
                self.send_all(signal);
            }
            Signal::SIGUSR1 => self.send_all(signal),
            Signal::SIGHUP | Signal::SIGUSR2 => {
                let leader = self.living.iter().find(|generation| Some(generation.pid) == self.leader);
                if let Some(generation) = leader.or(self.living.last()) {
                    send_signal(generation.pid, signal);
                }
            }
            _ => {}
        }
    }

    fn send_all(&self, signal: Signal) {
        self.living.iter().for_each(|generation| send_signal(generation.pid, signal));
    }

    /// Buries whoever has ended: generations, and as PID 1 everybody's orphans.
    fn reap(&mut self) {
        loop {
            let (pid, ended) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Ended::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Ended::Signal(signal as i32)),
                // Nobody is left to wait for, whatever became of them.
                Err(Errno::ECHILD) => return self.living.clear(),
                Ok(_) | Err(_) => return,
            };
            // What it said at last.
            while let Some(heard) = self.hear(pid) {
                if let Some(Body::Leads(_)) = heard {
                    self.led_by(pid);
                }
            }
            self.ended(pid, ended);
        }
    }

    fn ended(&mut self, pid: Pid, ended: Ended) {
        let Some(at) = self.living.iter().position(|generation| generation.pid == pid) else { return };
        let generation = self.living.remove(at);
        self.last_ended = ended;
        if let Some((asker, id)) = generation.asked_by {
            self.tell(asker, Body::Ended(ended.message(id)));
        }
        if self.leader != Some(pid) {
            return;
        }
        self.leader_ended = Some(ended);
        if ended != Ended::Code(0) && !self.ending {
            say(format_args!("the process that led, {pid}, {ended}"));
            // Younger ones may yet lead.
            let nobody_younger = at == self.living.len();
            if nobody_younger {
                self.forward(Signal::SIGTERM);
            }
        }
    }

    fn code(&self) -> u8 {
        match self.leader_ended.unwrap_or(self.last_ended) {
            Ended::Code(code) => code as u8,
            Ended::Signal(number) => 128u8.wrapping_add(number as u8),
            Ended::Unknown => 1,
        }
    }
}

impl Ended {
    fn message(self, id: u64) -> message::Ended {
        match self {
            Ended::Code(code) => message::Ended { id, code: Some(code), signal: None },
            Ended::Signal(signal) => message::Ended { id, code: None, signal: Some(signal) },
            Ended::Unknown => message::Ended { id, code: None, signal: None },
        }
    }
}

/// That of this process, and the number of the channel.
fn environment(number: i32) -> io::Result<Vec<CString>> {
    let inherited = std::env::vars_os().filter(|(name, _)| name != VARIABLE);
    let all = inherited.chain([(VARIABLE.into(), number.to_string().into())]);
    let mut environment = Vec::new();
    for (name, value) in all {
        environment.push(CString::new([name.as_bytes(), b"=", OsStr::as_bytes(&value)].concat())?);
    }
    Ok(environment)
}

/// To a child that has not been waited for, so the pid is its own.
fn send_signal(pid: Pid, signal: Signal) {
    if let Err(error) = kill(pid, signal) {
        say(format_args!("{signal} does not reach {pid}: {error}"));
    }
}

fn say(text: std::fmt::Arguments<'_>) {
    // Nobody to tell if standard error is gone.
    let _ = writeln!(io::stderr(), "proxyd: supervisor: {text}");
}

const FORWARDED: [Signal; 5] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];
