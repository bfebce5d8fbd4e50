//! Which stats there are: what the configuration rejects takes no slot, and its handles count nowhere.

use std::fmt;

/// Says by its full name whether a stat is to exist (Envoy: `StatsMatcher`).
pub trait StatsMatcher: fmt::Debug + Send + Sync {
    /// Asked with the store's lock held, whenever somebody asks for the stat: never on the data path.
    fn accepts(&self, name: &str) -> bool;
}
