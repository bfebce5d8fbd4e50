//! Which stats there are: what the configuration rejects takes no slot, and its handles count nowhere.

/// Says by its full name whether a stat is to exist (Envoy: `StatsMatcher`). Asked with the store's lock held, when a
/// stat is looked up: never on the data path.
pub type StatsMatcher = dyn Fn(&str) -> bool + Send + Sync;
