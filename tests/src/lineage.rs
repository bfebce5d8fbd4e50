//! Several generations of one proxy: processes that take over from each other, and what goes wrong with them.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::{BaseId, Bootstrap, Message, Signal, Wire, eventually, proxyd};

/// The directories and base-id that generations share.
pub struct Lineage {
    directory: TempDir,
    base_id: BaseId,
    /// The listener `main`.
    pub main: SocketAddr,
    started: AtomicU32,
}

/// How to start one.
#[derive(Debug, Default, Clone)]
pub struct Start {
    arguments: Vec<String>,
    fault: Option<String>,
    /// As the shell's `ulimit` has it.
    limits: Vec<String>,
}

/// One process of them.
pub struct Member {
    process: Child,
    log: PathBuf,
    admin: PathBuf,
}

impl Lineage {
    /// `bootstrap` has a listener `main` at `main`.
    #[must_use]
    pub fn of(bootstrap: &Bootstrap, main: SocketAddr) -> Self {
        let generations = Self {
            directory: TempDir::new().unwrap(),
            base_id: BaseId::unused(),
            main,
            started: AtomicU32::new(0),
        };
        fs::create_dir(generations.shm()).unwrap();
        generations.configure(bootstrap);
        generations
    }

    /// What those that are started from now on have.
    pub fn configure(&self, bootstrap: &Bootstrap) {
        fs::write(self.config(), bootstrap.to_yaml()).unwrap();
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("envoy.yaml")
    }

    /// `--run-dir`.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// `--shm-dir`.
    #[must_use]
    pub fn shm(&self) -> PathBuf {
        self.directory.path().join("shm")
    }

    /// Where the generation of this number waits for the next one.
    #[must_use]
    pub fn restart_socket(&self, generation: u32) -> PathBuf {
        self.run_dir().join(format!("{}.{generation}.restart", self.base_id))
    }

    /// Starts a process; does not wait for anything.
    #[must_use]
    pub fn start(&self, start: &Start) -> Member {
        let number = self.started.fetch_add(1, Ordering::SeqCst);
        let log = self.directory.path().join(format!("log.{number}"));
        let admin = self.directory.path().join(format!("admin.{number}"));
        let limits: String = start.limits.iter().map(|limit| format!("ulimit {limit} && ")).collect();
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(format!("{limits} exec \"$@\"")).arg("sh").arg(proxyd()).arg("run");
        command.arg("-c").arg(self.config()).arg("--run-dir").arg(self.run_dir());
        command.arg("--shm-dir").arg(self.shm()).arg("--admin-address-path").arg(&admin);
        command.args(["--base-id", &self.base_id.to_string(), "-l", "debug"]);
        if !start.arguments.iter().any(|argument| argument == "--concurrency") {
            command.args(["--concurrency", "2"]);
        }
        command.args(&start.arguments);
        if let Some(fault) = &start.fault {
            command.env("PROXYD_FAULT", fault);
        }
        let output = File::create(&log).unwrap();
        let process = command.stdout(output.try_clone().unwrap()).stderr(output).spawn().unwrap();
        Member { process, log, admin }
    }

    /// The first one, serving.
    #[must_use]
    pub fn first(&self, start: &Start) -> Member {
        let mut first = self.start(start);
        first.says(" serving");
        first
    }

    /// The next one, which leads.
    #[must_use]
    pub fn next(&self) -> Member {
        let mut next = self.start(&Start::next());
        next.leads();
        next
    }

    /// One that finds nobody to take over from.
    #[must_use]
    pub fn next_after_the_end(&self) -> Member {
        self.first(&Start::next())
    }

    /// Nothing is left of processes that have ended.
    pub fn assert_nothing_left(&self) {
        let start = format!("{}.start", self.base_id);
        let left: Vec<_> = [names(&self.run_dir()), names(&self.shm())].concat();
        assert!(left.iter().all(|name| *name == start), "left: {left:?}");
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

impl Start {
    /// A process that takes over at once, if there is one to take over from.
    #[must_use]
    pub fn next() -> Self {
        Self::default().with(&["--restart-epoch", "auto", "--confirm-after", "0.1"])
    }

    /// More command line arguments.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// It goes wrong there: `PLACE:crash` or `PLACE:stop`.
    #[must_use]
    pub fn fault(mut self, fault: &str) -> Self {
        self.fault = Some(fault.to_owned());
        self
    }

    /// What `ulimit` is to set.
    #[must_use]
    pub fn limit(mut self, limit: &str) -> Self {
        self.limits.push(limit.to_owned());
        self
    }
}

impl Member {
    /// Waits until it leads.
    pub fn leads(&mut self) {
        self.says(LEADS);
    }

    /// Waits until it leads or has ended. Whether it leads.
    pub fn settles(&mut self) -> bool {
        eventually("the process to lead or to end", || {
            let ended = self.has_ended();
            let leads = self.log().contains(LEADS);
            (leads || ended).then_some(leads)
        })
    }

    /// Waits until its log says `text`.
    pub fn says(&mut self, text: &str) {
        eventually(&format!("the log to say {text:?}"), || {
            // In this order: what it says last counts.
            let ended = self.process.try_wait().unwrap();
            let said = self.log().contains(text);
            assert!(said || ended.is_none(), "ended with {ended:?} before it said {text:?}:\n{}", self.log());
            said.then_some(())
        });
    }

    /// Waits until the whole process is stopped.
    pub fn is_stopped(&mut self) {
        eventually("the process to stop", || {
            assert!(self.process.try_wait().unwrap().is_none(), "it ended:\n{}", self.log());
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).ok()?;
            stat.rsplit_once(") ")?.1.starts_with('T').then_some(())
        });
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    /// Waits for it to end.
    pub fn exit(&mut self) -> ExitStatus {
        eventually("the process to end", || self.process.try_wait().unwrap())
    }

    /// Ends it in good order.
    pub fn end(mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.exit();
        assert!(status.success(), "{status}:\n{}", self.log());
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).expect("Linux pids fit");
        signal::kill(Pid::from_raw(pid), signal).unwrap();
    }

    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// A GET on its admin port, which whoever accepts there answers.
    #[must_use]
    pub fn admin_get(&self, target: &str) -> Message {
        let address: SocketAddr = fs::read_to_string(&self.admin).unwrap().trim().parse().unwrap();
        Wire::connect(address)
            .ask(format!("GET {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"))
    }

    /// The value of a counter or gauge, 0 while it does not exist.
    #[must_use]
    pub fn stat(&self, name: &str) -> u64 {
        let all = self.admin_get("/stats");
        let line = all.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            println!("--- {}\n{}---", self.log.display(), self.log());
        }
    }
}

const LEADS: &str = "this process leads";
