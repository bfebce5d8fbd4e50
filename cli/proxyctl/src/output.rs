//! What the program says: results to standard output, trouble to standard error. A reader that goes away (`| head`) is no trouble.

use std::io::{self, Write};

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

    /// A result for programs.
    pub(crate) fn json(&mut self, value: &Value) {
        self.line(&format!("{value:#}"));
    }

    /// Trouble.
    pub(crate) fn tell(&mut self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
    }
}
