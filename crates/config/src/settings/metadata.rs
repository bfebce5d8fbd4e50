//! Metadata of routes, clusters and hosts: for formats to tell.

use std::sync::Arc;

use serde_json::{Map, Value};

/// `envoy.config.core.v3.Metadata`: an object by namespace.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata(Option<Arc<Map<String, Value>>>);

impl Metadata {
    pub fn new(namespaces: Map<String, Value>) -> Metadata {
        Metadata((!namespaces.is_empty()).then(|| Arc::new(namespaces)))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// What stands at `path` in a namespace.
    pub fn find(&self, namespace: &str, path: &[Box<str>]) -> Option<&Value> {
        find(self.0.as_deref()?, namespace, path)
    }
}

/// What stands at `path` in a namespace of `namespaces`.
pub fn find<'v>(namespaces: &'v Map<String, Value>, namespace: &str, path: &[Box<str>]) -> Option<&'v Value> {
    path.iter().try_fold(namespaces.get(namespace)?, |value, key| value.get(&**key))
}
