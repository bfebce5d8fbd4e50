//! Filters that a program has besides proxyd's own, by the type of their settings.
//!
//! An explicit value: a program makes one and hands it to the server, which uses it to read configurations and to build
//! chains. Settings are any serde type; what stands beside `@type` is read as such.

use std::any::Any;
use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use proxy_config::{Extension, ExtensionKind, ExtensionTypes};
use serde::de::DeserializeOwned;

use crate::http::{FilterContext, HttpFilterPlan};

/// Why a filter could not be made from settings that could be read.
#[derive(Debug, thiserror::Error)]
#[error("{type_name}: {source}")]
pub struct PlanError {
    type_name: Arc<str>,
    source: Box<dyn Error + Send + Sync>,
}

type Planned<P> = Result<P, Box<dyn Error + Send + Sync>>;
type PlanHttpFilter = dyn Fn(&Settings, &FilterContext<'_>) -> Planned<Box<dyn HttpFilterPlan>> + Send + Sync;
type Settings = Arc<dyn Any + Send + Sync>;

/// Filters by the types of their settings.
#[derive(Clone, Default)]
pub struct Extensions {
    types: ExtensionTypes,
    http_filters: HashMap<Box<str>, Arc<PlanHttpFilter>>,
}

impl Extensions {
    /// Adds an HTTP filter. `type_name` is what follows the last slash of its settings' type URL.
    #[must_use]
    pub fn http_filter<S, P>(
        mut self,
        type_name: &str,
        plan: impl Fn(Arc<S>, &FilterContext<'_>) -> Planned<P> + Send + Sync + 'static,
    ) -> Extensions
    where
        S: DeserializeOwned + Send + Sync + 'static,
        P: HttpFilterPlan + 'static,
    {
        self.types.add::<S>(ExtensionKind::HttpFilter, type_name);
        let plan = move |settings: &Settings, context: &FilterContext<'_>| {
            let settings = Arc::clone(settings).downcast().map_err(|_| "settings of another type")?;
            Ok(Box::new(plan(settings, context)?) as Box<dyn HttpFilterPlan>)
        };
        self.http_filters.insert(type_name.into(), Arc::new(plan));
        self
    }

    /// Adds a type that may stand in `typed_per_filter_config`. The filter finds it, as an `S`, by
    /// [`RouteEntry::filter_config`](proxy_http::route::RouteEntry::filter_config).
    #[must_use]
    pub fn route_settings<S: DeserializeOwned + Send + Sync + 'static>(
        mut self,
        type_name: &str,
    ) -> Extensions {
        self.types.add::<S>(ExtensionKind::RouteFilter, type_name);
        self
    }

    /// For reading configurations.
    pub fn types(&self) -> Arc<ExtensionTypes> {
        Arc::new(self.types.clone())
    }

    pub(crate) fn plan_http_filter(
        &self,
        extension: &Extension,
        context: &FilterContext<'_>,
    ) -> Result<Box<dyn HttpFilterPlan>, PlanError> {
        let Some(plan) = self.http_filters.get(&*extension.type_name) else {
            return Err(PlanError::new(extension, "is no HTTP filter of this program".into()));
        };
        plan(&extension.settings, context).map_err(|source| PlanError::new(extension, source))
    }
}

impl PlanError {
    fn new(extension: &Extension, source: Box<dyn Error + Send + Sync>) -> PlanError {
        PlanError { type_name: Arc::clone(&extension.type_name), source }
    }
}
