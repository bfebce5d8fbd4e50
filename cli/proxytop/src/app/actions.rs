//! What may be done to the proxy, if `--allow-actions` allows it, and only after "yes".

use super::{App, Effect, Mode};

/// Something that changes the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Drain,
    FailHealthChecks,
    PassHealthChecks,
    LogLevel(&'static str),
    RestartHot,
}

impl Action {
    /// In the menu.
    pub(crate) const MENU: [&'static str; 5] = [
        "drain: connections are ended as they become idle",
        "fail health checks: load balancers turn away",
        "pass health checks again",
        "change the log level",
        "restart hot: a new process takes over",
    ];

    pub(crate) const LEVELS: [&'static str; 7] =
        ["trace", "debug", "info", "warning", "error", "critical", "off"];

    /// As asked.
    pub(crate) fn question(self) -> String {
        match self {
            Action::Drain => {
                "Drain the listeners? New connections are refused after the drain time.".to_owned()
            }
            Action::FailHealthChecks => "Fail health checks? Load balancers will turn away.".to_owned(),
            Action::PassHealthChecks => "Pass health checks again?".to_owned(),
            Action::LogLevel(level) => format!("Set the level of all loggers to {level}?"),
            Action::RestartHot => {
                "Restart hot? A new process reads the configuration and takes over.".to_owned()
            }
        }
    }

    /// Path and query of its POST.
    pub(crate) fn target(self) -> String {
        match self {
            Action::Drain => "/drain_listeners?graceful".to_owned(),
            Action::FailHealthChecks => "/healthcheck/fail".to_owned(),
            Action::PassHealthChecks => "/healthcheck/ok".to_owned(),
            Action::LogLevel(level) => format!("/logging?level={level}"),
            Action::RestartHot => "/restart?within_ms=60000".to_owned(),
        }
    }
}

impl App {
    pub(super) fn open_menu(&mut self) {
        if self.allow_actions {
            self.mode = Mode::Menu(0);
        } else {
            self.message = "actions are off: start proxytop with --allow-actions".to_owned();
        }
    }

    /// A line of the menu was chosen.
    pub(super) fn choose_action(&mut self, line: usize) {
        self.mode = match line {
            0 => Mode::Confirm(Action::Drain),
            1 => Mode::Confirm(Action::FailHealthChecks),
            2 => Mode::Confirm(Action::PassHealthChecks),
            3 => Mode::Levels(2),
            _ => Mode::Confirm(Action::RestartHot),
        };
    }

    /// The question was answered.
    pub(super) fn confirmed(&mut self, action: Action, yes: bool) -> Option<Effect> {
        self.mode = Mode::Table;
        self.message = if yes { "asking the proxy".to_owned() } else { "nothing was done".to_owned() };
        yes.then_some(Effect::Act(action))
    }
}
