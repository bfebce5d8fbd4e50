//! What the program says: results to standard output, trouble to standard error. A reader that goes away (`| head`) is no trouble.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

#[derive(Debug, Default)]
pub(crate) struct Output {
    closed: bool,
}

impl Output {
    /// One line of result.
    pub(crate) fn line(&mut self, text: &str) {
        if !self.closed {
            self.closed = writeln!(io::stdout(), "{text}").is_err();
        }
    }

    /// Whether nobody reads the results any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether a person reads the results, who has not asked for no colours (no-color.org).
    pub(crate) fn has_colours(&self) -> bool {
        let refused = ["NO_COLOR", "TERM"].map(std::env::var_os);
        let [no_colour, terminal] = refused;
        let wanted =
            no_colour.is_none_or(|value| value.is_empty()) && terminal.is_none_or(|name| name != "dumb");
        wanted && io::stdout().is_terminal()
    }

    /// Empties the terminal before the next result; something else gets a blank line.
    pub(crate) fn next_page(&mut self) {
        self.line(if io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" });
    }

    /// A result for programs.
    pub(crate) fn json(&mut self, value: &Value) {
        self.line(&format!("{value:#}"));
    }

    /// One of many results for programs: on one line.
    pub(crate) fn json_line(&mut self, value: &Value) {
        self.line(&value.to_string());
    }

    /// Trouble.
    pub(crate) fn tell(&mut self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
    }
}
