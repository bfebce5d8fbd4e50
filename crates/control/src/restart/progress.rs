//! How a hot restart is going, as the running process tells `proxyctl` and other programs: one JSON object a line.

use serde::{Deserialize, Serialize};

/// One step, and when it was reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    #[serde(flatten)]
    pub step: Step,
    /// Since the restart was asked for, in milliseconds.
    pub elapsed_ms: u64,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The new program looks at the configuration.
    Validating { program: String },
    /// It can run it. The last step of a dry run.
    Validated,
    /// The new process runs.
    Spawned { pid: u32 },
    /// It has asked to take over.
    Greeted { generation: u64, version: String },
    /// It has listening sockets of the old process.
    SocketsPassed { sockets: usize },
    /// It accepts connections, the old process does not. All can still be taken back.
    Serving,
    /// The new process leads.
    Leads,
    /// What became of the old process's connections so far.
    Moved(Moved),
    /// The old process has handed over all it could; what is left ends there.
    Done(Moved),
    /// Asked to roll back, the new process does not take over, and ends with what it has accepted.
    GivenUp,
    /// The old process goes on as before.
    Failed { reason: String },
}

/// Connections of a process that leads no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The new process has them.
    pub moved: u64,
    /// It did not take them.
    pub refused: u64,
    /// The old process has taken them back.
    pub withdrawn: u64,
    /// Still in the old process, for whatever reason.
    pub left: u64,
}

/// What a generation says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub state: Standing,
    /// `--restart-epoch` as it came out.
    pub epoch: u32,
    pub version: String,
    /// In its own PID namespace.
    pub pid: u32,
    /// Downstream connections.
    pub connections: u64,
    /// Of the process, in milliseconds.
    pub age_ms: u64,
    /// What it counts is in private memory, for lack of space: nobody can read it there, and a successor begins at 0.
    #[serde(default)]
    pub private_stats: bool,
}

/// The place of a generation among those of its base-id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It does not accept yet.
    Starting,
    /// It accepts, and can still be rolled back to the one before.
    ServingNotConfirmed,
    Leads,
    /// It accepts no more, and ends with its last connection.
    Draining,
}

impl Progress {
    /// As it goes over the wire, with the end of line.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("numbers and text are valid JSON");
        line.push('\n');
        line
    }

    /// Reads a line; `None`: a step of another version.
    #[must_use]
    pub fn of_line(line: &str) -> Option<Progress> {
        serde_json::from_str(line).ok()
    }
}

impl Standing {
    /// As shown to people, and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Standing::Starting => "starting",
            Standing::ServingNotConfirmed => "serving-not-confirmed",
            Standing::Leads => "leads",
            Standing::Draining => "draining",
        }
    }
}

impl Status {
    /// Reads an answer; `None`: it is of another version.
    #[must_use]
    pub fn of_json(text: &str) -> Option<Status> {
        serde_json::from_str(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_as_they_were_written() {
        let counts = Moved { moved: 3, refused: 1, withdrawn: 0, left: 2 };
        for (step, line) in [
            (Step::Spawned { pid: 7 }, "{\"step\":\"spawned\",\"pid\":7,\"elapsed_ms\":5}\n"),
            (Step::Serving, "{\"step\":\"serving\",\"elapsed_ms\":5}\n"),
            (
                Step::Done(counts),
                "{\"step\":\"done\",\"moved\":3,\"refused\":1,\"withdrawn\":0,\"left\":2,\"elapsed_ms\":5}\n",
            ),
        ] {
            let progress = Progress { step, elapsed_ms: 5 };
            assert_eq!(progress.to_line(), line);
            assert_eq!(Progress::of_line(line), Some(progress));
        }
        assert_eq!(Progress::of_line("{\"step\":\"danced\",\"elapsed_ms\":5}"), None);
    }

    #[test]
    fn standings_have_one_name() {
        for standing in
            [Standing::Starting, Standing::ServingNotConfirmed, Standing::Leads, Standing::Draining]
        {
            assert_eq!(serde_json::to_value(standing).unwrap(), standing.name());
        }
    }
}
