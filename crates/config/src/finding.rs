//! What loading has to say about a configuration: findings, each with its field path and, where the
//! message came from a text file, the place one would edit.
//!
//! Reading never stops at the first problem, so everything that inspects a message takes a
//! [`Findings`] and goes on. A [`Path`] lives on the stack and is rendered only for a finding.

use std::fmt;
use std::sync::Arc;

use crate::codes::Code;
use crate::excerpt::Secret;
use crate::locate::Locator;

/// How bad a finding is: an error refuses the configuration, a warning does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Error,
    Warning,
}

/// A place in a text file; line and column count from 1, the column in characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub file: Arc<str>,
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One step of a [`Path`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    Root,
    /// A message field under its proto name (snake_case).
    Field(&'a str),
    /// An element of a repeated field.
    Index(usize),
    /// An entry of a map field or Struct.
    Key(&'a str),
}

/// Where in a message something is: a list linked through the stack, nothing is allocated.
#[derive(Debug, Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

impl<'a> Path<'a> {
    pub const fn root() -> Path<'static> {
        Path { parent: None, step: Step::Root }
    }

    /// The field `name` (proto name) of the message here.
    pub fn field<'b>(&'b self, name: &'b str) -> Path<'b> {
        Path { parent: Some(self), step: Step::Field(name) }
    }

    /// The element `index` of the repeated field here.
    pub fn index(&self, index: usize) -> Path<'_> {
        Path { parent: Some(self), step: Step::Index(index) }
    }

    /// The entry `key` of the map field here.
    pub fn key<'b>(&'b self, key: &'b str) -> Path<'b> {
        Path { parent: Some(self), step: Step::Key(key) }
    }

    /// The steps from the root to here, without [`Step::Root`].
    pub fn steps(&self) -> Vec<Step<'a>> {
        let mut steps = Vec::new();
        let mut here = Some(self);
        while let Some(path) = here {
            if path.step != Step::Root {
                steps.push(path.step);
            }
            here = path.parent;
        }
        steps.reverse();
        steps
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for step in self.steps() {
            match step {
                Step::Root => continue,
                Step::Field(name) if first => out.write_str(name)?,
                Step::Field(name) => write!(out, ".{name}")?,
                Step::Index(index) => write!(out, "[{index}]")?,
                Step::Key(key) => write!(out, "[{key:?}]")?,
            }
            first = false;
        }
        Ok(())
    }
}

/// One thing found wrong or doubtful.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub code: Code,
    /// The field path, `static_resources.listeners[0].name`; empty for the document as a whole.
    pub path: String,
    /// None for binary messages and for files that cannot be read.
    pub place: Option<Place>,
    /// For a human; never holds the value of a sensitive field.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// The line of `place`, where the source was text.
    pub excerpt: Option<Excerpt>,
}

/// A line of a source, without what is secret in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    pub line: String,
    /// Characters before the place.
    pub indent: usize,
    /// Characters of the word at the place, at least 1.
    pub length: usize,
}

impl Finding {
    /// Without a hint.
    pub(crate) fn new(
        severity: Severity,
        code: Code,
        path: String,
        place: Option<Place>,
        message: String,
    ) -> Finding {
        Finding { severity, code, path, place, message, hint: None, excerpt: None }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(out, "{place}: ")?;
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(out, "{severity}[{}]: {}", self.code, self.message)?;
        if !self.path.is_empty() {
            write!(out, " (at {})", self.path)?;
        }
        if let Some(hint) = &self.hint {
            write!(out, "; {hint}")?;
        }
        Ok(())
    }
}

/// Collects findings and gives each its place.
#[derive(Debug, Default)]
pub struct Findings {
    locator: Locator,
    list: Vec<Finding>,
    /// Places whose text must not be shown.
    secrets: Vec<Secret>,
    errors: usize,
    omitted: usize,
}

impl Findings {
    /// Places are looked up through `locator`; `Locator::default()` knows none (binary messages).
    pub fn new(locator: Locator) -> Findings {
        Findings { locator, ..Findings::default() }
    }

    pub fn error(&mut self, path: &Path<'_>, code: Code, message: impl fmt::Display) {
        self.add(Severity::Error, path, code, message);
    }

    pub fn warning(&mut self, path: &Path<'_>, code: Code, message: impl fmt::Display) {
        self.add(Severity::Warning, path, code, message);
    }

    /// As `error` or `warning`, with the severity decided by the caller.
    pub fn add(&mut self, severity: Severity, path: &Path<'_>, code: Code, message: impl fmt::Display) {
        if !self.has_room(severity) {
            return;
        }
        let place = self.locator.place(path);
        self.push(Finding::new(severity, code, path.to_string(), place, message.to_string()));
    }

    /// An error with a hint, which is asked for only if the finding is kept.
    pub(crate) fn hinted_error(
        &mut self,
        path: &Path<'_>,
        code: Code,
        message: impl fmt::Display,
        hint: impl FnOnce() -> Option<String>,
    ) {
        if !self.has_room(Severity::Error) {
            return;
        }
        let place = self.locator.place(path);
        let hint = hint();
        let plain = Finding::new(Severity::Error, code, path.to_string(), place, message.to_string());
        self.push(Finding { hint, ..plain });
    }

    /// As `add`, but shown at the key of the field at `path` rather than its value.
    pub fn add_at_key(
        &mut self,
        severity: Severity,
        path: &Path<'_>,
        code: Code,
        message: impl fmt::Display,
    ) {
        if !self.has_room(severity) {
            return;
        }
        let place = self.locator.key_place(path);
        self.push(Finding::new(severity, code, path.to_string(), place, message.to_string()));
    }

    /// Whether an error is known already from which one at `path` would only follow: at `path` or below
    /// it, or because the message around it could not be read at all.
    pub fn explains(&self, path: &Path<'_>) -> bool {
        if self.errors == 0 || self.is_full() {
            return false;
        }
        let around = path.parent.map(Path::to_string);
        let path = path.to_string();
        self.list.iter().filter(|finding| finding.severity == Severity::Error).any(|finding| {
            let below = finding.path.strip_prefix(path.as_str());
            below.is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
                || (finding.code == Code::TYPE_MISMATCH && around.as_ref() == Some(&finding.path))
        })
    }

    /// Adds a finding that knows its place already.
    pub fn push(&mut self, finding: Finding) {
        if self.has_room(finding.severity) {
            self.errors += usize::from(finding.severity == Severity::Error);
            self.list.push(finding);
        }
    }

    /// These lines of a source are not to be shown.
    pub(crate) fn hide(&mut self, secret: Secret) {
        self.secrets.push(secret);
    }

    pub(crate) fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Nothing more is kept.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= MAX_FINDINGS
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Finding> {
        self.list.iter()
    }

    /// The same findings looked up in other sources from here on.
    pub fn set_locator(&mut self, locator: Locator) {
        self.locator = locator;
    }

    /// All findings in the order of their places, those without one last.
    pub fn into_vec(mut self) -> Vec<Finding> {
        self.list.sort_by(|a, b| match (&a.place, &b.place) {
            (Some(a), Some(b)) => a.cmp(b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
        if self.omitted > 0 {
            let message = format!("{} more findings are not shown", self.omitted);
            let severity = if self.errors > 0 { Severity::Error } else { Severity::Warning };
            self.list.push(Finding::new(severity, Code::TOO_MANY, String::new(), None, message));
        }
        self.list
    }

    /// Whether one more is kept; else it is counted. An error takes the place of a warning.
    fn has_room(&mut self, severity: Severity) -> bool {
        if !self.is_full() {
            return true;
        }
        self.omitted += 1;
        let warning = self.list.iter().rposition(|finding| finding.severity == Severity::Warning);
        if let (Severity::Error, Some(warning)) = (severity, warning) {
            self.list.swap_remove(warning);
            return true;
        }
        self.errors += usize::from(severity == Severity::Error);
        false
    }
}

/// Findings kept per load; a file may break a rule in each of a million lines.
pub const MAX_FINDINGS: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_like_the_file() {
        let root = Path::root();
        let listeners = root.field("static_resources");
        let listeners = listeners.field("listeners");
        let listener = listeners.index(3);
        let metadata = listener.field("metadata");
        assert_eq!(metadata.key("a.b").to_string(), "static_resources.listeners[3].metadata[\"a.b\"]");
        assert_eq!(root.to_string(), "");
    }

    #[test]
    fn findings_are_bounded_and_an_omitted_error_is_still_an_error() {
        let mut findings = Findings::default();
        for _ in 0..MAX_FINDINGS {
            findings.warning(&Path::root(), Code::DEPRECATED, "old");
        }
        assert!(!findings.has_errors());
        findings.error(&Path::root(), Code::INVALID, "bad");
        assert!(findings.has_errors());
        for _ in 0..MAX_FINDINGS {
            findings.warning(&Path::root(), Code::DEPRECATED, "old");
        }
        let all = findings.into_vec();
        assert_eq!(all.len(), MAX_FINDINGS + 1);
        assert!(all.iter().any(|finding| finding.code == Code::INVALID));
        assert!(all[MAX_FINDINGS].message.starts_with("1001 more"), "{}", all[MAX_FINDINGS].message);
    }
}
