//! The processes of one base-id: the proxy that the test started, and those that took over from it, as `proxyctl` sees them.

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{Bootstrap, Proxy, eventually, proxyctl};

/// A proxyd and its successors, all of which end with the test.
pub struct Generations {
    first: Proxy,
}

/// A living process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Living {
    pub number: u64,
    pub epoch: u64,
    pub state: String,
    pub pid: u64,
    pub connections: u64,
}

impl Generations {
    /// Starts the first one and waits until it serves.
    #[must_use]
    pub fn start(bootstrap: &Bootstrap, arguments: &[&str]) -> Self {
        Self { first: Proxy::start_with(bootstrap, arguments) }
    }

    /// Runs `proxyctl` on this instance.
    #[must_use]
    pub fn control(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// As [`Generations::control`], and goes on meanwhile.
    #[must_use]
    pub fn control_meanwhile(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(proxyctl());
        command.args(arguments).arg("--run-dir").arg(self.directory().join("run")).stdin(Stdio::null());
        command
    }

    /// `proxyctl restart --hot` with more arguments; fails the test unless the new process leads.
    pub fn restart(&self, arguments: &[&str]) {
        let output = self.control(&[&["restart", "--hot"], arguments].concat());
        assert!(output.status.success(), "{output:?}\n{}", self.log());
    }

    /// All that live, the oldest first.
    #[must_use]
    pub fn living(&self) -> Vec<Living> {
        let output = self.control(&["epochs", "--json"]);
        let all: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        let generation = |value: &Value| Living {
            number: number(&value["generation"]),
            epoch: number(&value["epoch"]),
            state: value["state"].as_str().unwrap_or_default().to_owned(),
            pid: number(&value["pid"]),
            connections: number(&value["connections"]),
        };
        all.as_array().into_iter().flatten().map(generation).collect()
    }

    /// Waits until generation `number` is in `state`.
    pub fn becomes(&self, number: u64, state: &str) {
        eventually(&format!("generation {number} to be {state}"), || {
            self.living().iter().any(|one| one.number == number && one.state == state).then_some(())
        });
    }

    /// Waits until generation `number` leads and no other lives.
    #[must_use]
    pub fn only(&self, number: u64) -> Living {
        eventually(&format!("only generation {number} to live"), || match &self.living()[..] {
            [one] if one.number == number && one.state == "leads" => Some(one.clone()),
            _ => None,
        })
    }

    /// The configuration file that the first process was started with.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory().join("envoy.yaml")
    }

    /// A shell script beside the configuration, to stand for another version of the program.
    #[must_use]
    pub fn program(&self, name: &str, script: &str) -> String {
        let path = self.file(name, &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// A file beside the configuration.
    #[must_use]
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory().join(name);
        fs::write(&path, text).unwrap();
        display(&path)
    }
}

impl Deref for Generations {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        &self.first
    }
}

impl Drop for Generations {
    fn drop(&mut self) {
        for generation in self.living() {
            if let Ok(pid) = i32::try_from(generation.pid)
                && pid > 0
            {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

fn display(path: &Path) -> String {
    path.to_str().expect("test directories have plain names").to_owned()
}
