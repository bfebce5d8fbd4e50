//! A running proxy: started on a bootstrap, ready when the test gets it, killed when the test lets go.

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::Instant;

use nix::sys::signal;
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

pub use nix::sys::signal::Signal;

use crate::{BaseId, Bootstrap, Message, PATIENCE, Program, StoppedThread, Wire, eventually};

/// A proxy process with its own directory.
pub struct Proxy {
    process: Child,
    directory: TempDir,
    admin: SocketAddr,
    listeners: HashMap<String, SocketAddr>,
    base_id: BaseId,
}

impl Proxy {
    /// Starts the program under test on `bootstrap` and waits until `/ready` says so.
    #[must_use]
    pub fn start(bootstrap: &Bootstrap) -> Self {
        Self::start_with(bootstrap, &[])
    }

    /// As [`Proxy::start`], but of another program that has proxyd's command line.
    #[must_use]
    pub fn start_program(program: &Path, bootstrap: &Bootstrap) -> Self {
        Self::start_of(&Program::Proxyd(program.to_owned()), bootstrap, &[])
    }

    /// As [`Proxy::start`], with more command line arguments.
    #[must_use]
    pub fn start_with(bootstrap: &Bootstrap, arguments: &[&str]) -> Self {
        Self::start_of(Program::under_test(), bootstrap, arguments)
    }

    fn start_of(program: &Program, bootstrap: &Bootstrap, arguments: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join(CONFIG), bootstrap.to_yaml()).unwrap();
        let base_id = BaseId::unused();
        let (process, admin) = launch(program, directory.path(), &base_id, arguments);
        let mut proxy = Self { process, directory, admin, listeners: HashMap::new(), base_id };
        proxy.serving();
        proxy
    }

    /// Kills the process without warning and starts the same once more, in the same place.
    pub fn kill_and_start_again(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        fs::remove_file(self.directory.path().join("admin")).unwrap();
        (self.process, self.admin) = launch(Program::under_test(), self.directory.path(), &self.base_id, &[]);
        self.serving();
    }

    fn serving(&mut self) {
        eventually("/ready to say LIVE", || {
            self.assert_running();
            (self.admin_get("/ready").status() == 200).then_some(())
        });
        self.listeners = self.listener_addresses();
    }

    /// Where the admin port is.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Where the listener called `name` is.
    #[must_use]
    pub fn listener(&self, name: &str) -> SocketAddr {
        *self.listeners.get(name).unwrap_or_else(|| panic!("no listener {name} in {:?}", self.listeners))
    }

    /// A new connection to the listener `main`.
    #[must_use]
    pub fn connect(&self) -> Wire {
        Wire::connect(self.listener("main"))
    }

    /// One GET for `target` at `example.com` over a connection of its own.
    #[must_use]
    pub fn get(&self, target: &str) -> Message {
        self.get_with(target, "")
    }

    /// As [`Proxy::get`], with more header lines, each ended by CRLF.
    #[must_use]
    pub fn get_with(&self, target: &str, lines: &str) -> Message {
        self.connect().ask(format!("GET {target} HTTP/1.1\r\nhost: example.com\r\n{lines}\r\n"))
    }

    /// A GET on the admin port.
    #[must_use]
    pub fn admin_get(&self, target: &str) -> Message {
        self.admin_request("GET", target)
    }

    /// A POST without a body on the admin port.
    #[must_use]
    pub fn admin_post(&self, target: &str) -> Message {
        self.admin_request("POST", target)
    }

    fn admin_request(&self, method: &str, target: &str) -> Message {
        let host = self.admin;
        Wire::connect(self.admin).ask(format!(
            "{method} {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        ))
    }

    /// The value of a counter or gauge, 0 while it does not exist.
    #[must_use]
    pub fn stat(&self, name: &str) -> u64 {
        let all = self.admin_get("/stats");
        let line = all.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.map_or(0, |value| {
            value.trim().parse().unwrap_or_else(|_| panic!("{name} is no number: {value}"))
        })
    }

    /// Waits until a counter or gauge has `value`: a proxy may count a moment after the client has its answer.
    pub fn stat_becomes(&self, name: &str, value: u64) {
        eventually(&format!("{name} to be {value}"), || (self.stat(name) == value).then_some(()));
    }

    /// The resident memory of the process in bytes.
    #[must_use]
    pub fn resident_bytes(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a running process has VmRSS");
        1024 * line.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).expect("Linux pids fit");
        signal::kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Stops one of its threads, which has to be busy, so that `shows` comes true; see [`StoppedThread`].
    #[must_use]
    pub fn stall(&self, thread: &str, shows: impl Fn() -> bool) -> StoppedThread {
        StoppedThread::stall(self.process.id(), thread, shows)
    }

    /// Waits for the process to end by itself.
    pub fn exit(&mut self) -> ExitStatus {
        let process = &mut self.process;
        eventually("the proxy to exit", || process.try_wait().unwrap())
    }

    /// Fails the test with the proxy's log if the process is gone.
    pub fn assert_running(&mut self) {
        if let Some(status) = self.process.try_wait().unwrap() {
            panic!("the proxy ended with {status}:\n{}", self.log());
        }
    }

    /// What the process has written to standard output and error.
    #[must_use]
    pub fn log(&self) -> String {
        read_log(self.directory.path())
    }

    /// Names of the files that this instance has in shared memory.
    #[must_use]
    pub fn shared_files(&self) -> Vec<String> {
        self.base_id.shared_files().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
    }

    /// The directory of this process, for sockets and files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn listener_addresses(&self) -> HashMap<String, SocketAddr> {
        let answer: Value = serde_json::from_str(self.admin_get("/listeners?format=json").text()).unwrap();
        let statuses = answer["listener_statuses"].as_array().cloned().unwrap_or_default();
        let address = |status: &Value| {
            let socket = &status["local_address"]["socket_address"];
            let ip = socket["address"].as_str()?.parse().ok()?;
            let port = u16::try_from(socket["port_value"].as_u64()?).ok()?;
            Some((status["name"].as_str()?.to_owned(), SocketAddr::new(ip, port)))
        };
        statuses.iter().filter_map(address).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            println!("--- the proxy's log\n{}---", self.log());
        }
    }
}

fn launch(program: &Program, directory: &Path, base_id: &BaseId, arguments: &[&str]) -> (Child, SocketAddr) {
    let log = File::options().create(true).append(true).open(directory.join("log")).unwrap();
    let mut command = program.serve(&directory.join(CONFIG), directory, base_id);
    command.args(arguments).stdout(log.try_clone().unwrap()).stderr(log);
    let mut process = command.spawn().unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
    let admin = wait_for_admin(&mut process, directory);
    (process, admin)
}

fn wait_for_admin(process: &mut Child, directory: &Path) -> SocketAddr {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ended = process.try_wait().unwrap();
        let written = fs::read_to_string(directory.join("admin")).unwrap_or_default();
        if let Ok(address) = written.trim().parse() {
            return address;
        }
        if ended.is_some() || Instant::now() > deadline {
            let _ = process.kill();
            let _ = process.wait();
            panic!("the proxy did not start ({ended:?}):\n{}", read_log(directory));
        }
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
}

fn read_log(directory: &Path) -> String {
    fs::read_to_string(directory.join("log")).unwrap_or_default()
}

const CONFIG: &str = "envoy.yaml";
