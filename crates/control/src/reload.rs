//! What came of reading the configuration again, as the running process tells `proxyctl`: one JSON object a line.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A reload is over, or is as far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// What differs is in use.
    Applied(Box<Applied>),
    /// Nothing has changed in the running process.
    Failed {
        /// Each as `file:line:column: error[code]: message`, if the configuration is wrong.
        errors: Vec<String>,
    },
    /// Connections of what was replaced or removed have ended.
    Drained,
}

/// What a reload has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    pub clusters: Changed,
    pub listeners: Changed,
    /// Listeners that route differently, and keep their connections.
    pub routes: Vec<String>,
    /// Listeners with other filter chains: connections of those that are as before go on.
    #[serde(default)]
    pub chains: Vec<String>,
    /// Fields of the bootstrap that differ and are as before: only another process can have them.
    pub needs_restart: Vec<String>,
    pub warnings: Vec<String>,
    /// From being asked for, in milliseconds.
    pub took_ms: u64,
}

/// Names of resources of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    pub added: Vec<String>,
    pub changed: Vec<String>,
    pub removed: Vec<String>,
}

impl Applied {
    /// Nothing is different from before.
    pub fn is_empty(&self) -> bool {
        self.clusters.is_empty()
            && self.listeners.is_empty()
            && self.routes.is_empty()
            && self.chains.is_empty()
    }

    /// One line for an operator.
    pub fn summary(&self) -> String {
        if self.is_empty() {
            return "nothing has changed".to_owned();
        }
        let mut parts = Vec::new();
        for (what, changed) in [("clusters", &self.clusters), ("listeners", &self.listeners)] {
            if !changed.is_empty() {
                parts.push(format!("{what}: {changed}"));
            }
        }
        if !self.routes.is_empty() {
            parts.push(format!("routes of {} listeners", self.routes.len()));
        }
        if !self.chains.is_empty() {
            parts.push(format!("filter chains of {} listeners", self.chains.len()));
        }
        parts.join("; ")
    }
}

impl Changed {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

impl fmt::Display for Changed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (added, changed, removed) = (self.added.len(), self.changed.len(), self.removed.len());
        write!(out, "{added} added, {changed} changed, {removed} removed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_says_what_there_is_to_say() {
        assert_eq!(Applied::default().summary(), "nothing has changed");
        let clusters = Changed { added: vec!["a".into()], ..Changed::default() };
        let applied = Applied { clusters, routes: vec!["main".into()], ..Applied::default() };
        assert_eq!(applied.summary(), "clusters: 1 added, 0 changed, 0 removed; routes of 1 listeners");
    }
}
