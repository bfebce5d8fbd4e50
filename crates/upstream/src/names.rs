//! Numbers for cluster names, so that the data path never looks a name up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use proxy_http::route::ClusterId;

/// Hands out numbers; a name keeps its number for the life of the process, also when no cluster has it (yet).
#[derive(Clone, Default)]
pub struct ClusterNames(Arc<Mutex<HashMap<Arc<str>, ClusterId>>>);

impl ClusterNames {
    pub fn id(&self, name: &Arc<str>) -> ClusterId {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = ClusterId(ids.len() as u32);
        *ids.entry(Arc::clone(name)).or_insert(next)
    }
}
