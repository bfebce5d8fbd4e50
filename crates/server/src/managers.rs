//! The managers of clusters and listeners for whoever runs them without a whole process: tests, and other front ends.
//!
//! Everything here is called on main, inside a [`proxy_runtime::local_runtime`].

pub use crate::clusters::ClusterManager;
pub use crate::listeners::{ListenerError, ListenerManager};
pub use crate::run::start_workers;
