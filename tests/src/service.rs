//! proxyd as a service of several processes: generations that share a configuration, a run directory, counters and a
//! base-id, each started as a test wants it, for instance in namespaces of its own.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::{BaseId, Bootstrap, Message, Program, Wire, eventually, proxyd};

/// What generations share.
pub struct Service {
    directory: TempDir,
    /// In memory: on a busy disk a thread may wait for seconds to write a page that is on its way there.
    shm: TempDir,
    base_id: BaseId,
    started: AtomicUsize,
}

/// A process of a service. With it end its children: a supervisor's generations, or a program that another one runs.
pub struct Generation {
    process: Child,
    log: PathBuf,
}

impl Service {
    /// A service that runs on `bootstrap`, with nothing started.
    #[must_use]
    pub fn new(bootstrap: &Bootstrap) -> Service {
        let directory = TempDir::new().unwrap();
        let shm = TempDir::new_in("/dev/shm").unwrap();
        let service = Service { directory, shm, base_id: BaseId::unused(), started: AtomicUsize::new(0) };
        service.configure(bootstrap);
        service
    }

    /// What the next generation runs on.
    pub fn configure(&self, bootstrap: &Bootstrap) {
        fs::write(self.directory.path().join("envoy.yaml"), bootstrap.to_yaml()).unwrap();
    }

    /// The directory of the service's files; its run directory is `run` in there.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The directory of its counters.
    #[must_use]
    pub fn shm(&self) -> &Path {
        self.shm.path()
    }

    /// Starts proxyd with more arguments.
    #[must_use]
    pub fn start(&self, arguments: &[&str]) -> Generation {
        self.start_under(&[], arguments, &[])
    }

    /// Starts proxyd by way of `wrapper`, a program and its arguments, and with more environment variables.
    #[must_use]
    pub fn start_under(
        &self,
        wrapper: &[&str],
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Generation {
        let number = self.started.fetch_add(1, Ordering::SeqCst) + 1;
        let log = self.path().join(format!("log.{number}"));
        let words: Vec<OsString> =
            wrapper.iter().map(OsString::from).chain(self.command_line(arguments)).collect();
        let output = File::create(&log).unwrap();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).envs(variables.iter().copied());
        command.stdout(output.try_clone().unwrap()).stderr(output);
        Generation { process: command.spawn().unwrap(), log }
    }

    fn command_line(&self, arguments: &[&str]) -> Vec<OsString> {
        let file = |name: &str| self.path().join(name).into_os_string();
        let program = match Program::under_test() {
            Program::Proxyd(program) => program.clone(),
            Program::Envoy(_) => proxyd(),
        };
        let mut words = vec![program.into_os_string(), "run".into(), "-c".into(), file("envoy.yaml")];
        words.extend(["--run-dir".into(), file("run"), "--shm-dir".into(), self.shm().into()]);
        words.extend(["--admin-address-path".into(), file("admin")]);
        words.extend(["--base-id".into(), self.base_id.to_string().into()]);
        if !arguments.contains(&"--concurrency") {
            words.extend(["--concurrency".into(), "2".into()]);
        }
        words.extend(arguments.iter().map(OsString::from));
        words
    }

    /// A GET on the admin port, which generations pass on.
    #[must_use]
    pub fn admin_get(&self, target: &str) -> Message {
        let address: SocketAddr = eventually("the admin port's address", || {
            fs::read_to_string(self.path().join("admin")).ok()?.parse().ok()
        });
        Wire::connect(address)
            .ask(format!("GET {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"))
    }

    /// Waits until a counter or gauge has `value`.
    pub fn stat_becomes(&self, name: &str, value: u64) {
        let line = format!("{name}: {value}");
        eventually(&line, || {
            self.admin_get("/stats").text().lines().any(|found| found == line).then_some(())
        });
    }
}

impl Generation {
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The processes that this one has started.
    #[must_use]
    pub fn children(&self) -> Vec<u32> {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().map(|child| child.parse().unwrap()).collect()
    }

    pub fn signal(&self, signal: Signal) {
        send(self.pid(), signal);
    }

    /// Waits until the log has `text`.
    pub fn says(&mut self, text: &str) {
        eventually(&format!("'{text}' in the log"), || {
            let log = self.log();
            let ended = self.process.try_wait().unwrap();
            assert!(
                log.contains(text) || ended.is_none(),
                "it ended with {ended:?} without '{text}':\n{log}"
            );
            log.contains(text).then_some(())
        });
    }

    /// Waits for the process to end by itself.
    pub fn exit(&mut self) -> ExitStatus {
        let process = &mut self.process;
        eventually("the process to exit", || process.try_wait().unwrap())
    }

    /// What it has written to standard output and error.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if self.process.try_wait().unwrap().is_none() {
            for child in self.children() {
                send(child, Signal::SIGKILL);
            }
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
        if std::thread::panicking() {
            println!("--- {}\n{}---", self.log.display(), self.log());
        }
    }
}

fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("Linux pids fit"));
    signal::kill(pid, signal).unwrap();
}
