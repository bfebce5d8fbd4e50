//! Filters that a program has besides proxyd's own, by the type of their settings.
//!
//! An explicit value: a program makes one and hands it to the server, which uses it to read configurations and to build
//! chains. Settings are any serde type; what stands beside `@type` is read as such.

use std::any::Any;
use std::collections::HashMap;
use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;

use proxy_config::{Extension, ExtensionKind, ExtensionTypes};
use proxy_net::{ListenerFilter, NetworkFilter};
use proxy_stats::Scope;
use proxy_upstream::ClusterNames;
use serde::de::DeserializeOwned;

use crate::http::{FilterContext, FilterWorker, HttpFilterPlan, ProcessFacts};

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
type PlanFilter<P> = dyn Fn(&Settings, &ConnectionContext<'_>) -> Planned<P> + Send + Sync;

/// How a worker's instance of a network filter is made.
pub type NetworkFilterPlan = Box<dyn Fn(&FilterWorker) -> Rc<dyn NetworkFilter> + Send + Sync>;
/// How a worker's instance of a listener filter is made.
pub type ListenerFilterPlan = Box<dyn Fn() -> Rc<dyn ListenerFilter> + Send + Sync>;

/// What a listener or network filter needs of main, where it is made for all workers.
pub struct ConnectionContext<'a> {
    /// Of all stats.
    pub root: &'a Scope,
    /// `listener.<address>.`.
    pub scope: &'a Scope,
    pub clusters: &'a ClusterNames,
    pub process: &'a ProcessFacts,
}

/// Filters by the types of their settings.
#[derive(Clone, Default)]
pub struct Extensions {
    types: ExtensionTypes,
    http_filters: HashMap<Box<str>, Arc<PlanHttpFilter>>,
    network_filters: HashMap<Box<str>, Arc<PlanFilter<NetworkFilterPlan>>>,
    listener_filters: HashMap<Box<str>, Arc<PlanFilter<ListenerFilterPlan>>>,
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
            Ok(Box::new(plan(typed(settings)?, context)?) as Box<dyn HttpFilterPlan>)
        };
        self.http_filters.insert(type_name.into(), Arc::new(plan));
        self
    }

    /// Adds a network filter. It may stand anywhere in a chain; the last one of a chain has to serve connections itself.
    #[must_use]
    pub fn network_filter<S, P>(
        mut self,
        type_name: &str,
        plan: impl Fn(Arc<S>, &ConnectionContext<'_>) -> Planned<P> + Send + Sync + 'static,
    ) -> Extensions
    where
        S: DeserializeOwned + Send + Sync + 'static,
        P: Fn(&FilterWorker) -> Rc<dyn NetworkFilter> + Send + Sync + 'static,
    {
        self.types.add::<S>(ExtensionKind::NetworkFilter, type_name);
        let plan = move |settings: &Settings, context: &ConnectionContext<'_>| {
            Ok(Box::new(plan(typed(settings)?, context)?) as NetworkFilterPlan)
        };
        self.network_filters.insert(type_name.into(), Arc::new(plan));
        self
    }

    /// Adds a listener filter.
    #[must_use]
    pub fn listener_filter<S, P>(
        mut self,
        type_name: &str,
        plan: impl Fn(Arc<S>, &ConnectionContext<'_>) -> Planned<P> + Send + Sync + 'static,
    ) -> Extensions
    where
        S: DeserializeOwned + Send + Sync + 'static,
        P: Fn() -> Rc<dyn ListenerFilter> + Send + Sync + 'static,
    {
        self.types.add::<S>(ExtensionKind::ListenerFilter, type_name);
        let plan = move |settings: &Settings, context: &ConnectionContext<'_>| {
            Ok(Box::new(plan(typed(settings)?, context)?) as ListenerFilterPlan)
        };
        self.listener_filters.insert(type_name.into(), Arc::new(plan));
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
        let plan =
            self.http_filters.get(&*extension.type_name).ok_or_else(|| PlanError::unknown(extension))?;
        plan(&extension.settings, context).map_err(|source| PlanError::new(extension, source))
    }

    /// Makes a network filter for all workers.
    ///
    /// # Errors
    /// What the filter says.
    pub fn plan_network_filter(
        &self,
        extension: &Extension,
        context: &ConnectionContext<'_>,
    ) -> Result<NetworkFilterPlan, PlanError> {
        let plan =
            self.network_filters.get(&*extension.type_name).ok_or_else(|| PlanError::unknown(extension))?;
        plan(&extension.settings, context).map_err(|source| PlanError::new(extension, source))
    }

    /// Makes a listener filter for all workers.
    ///
    /// # Errors
    /// What the filter says.
    pub fn plan_listener_filter(
        &self,
        extension: &Extension,
        context: &ConnectionContext<'_>,
    ) -> Result<ListenerFilterPlan, PlanError> {
        let plan =
            self.listener_filters.get(&*extension.type_name).ok_or_else(|| PlanError::unknown(extension))?;
        plan(&extension.settings, context).map_err(|source| PlanError::new(extension, source))
    }
}

fn typed<S: Send + Sync + 'static>(settings: &Settings) -> Planned<Arc<S>> {
    Arc::clone(settings).downcast().map_err(|_| "settings of another type".into())
}

impl PlanError {
    fn unknown(extension: &Extension) -> PlanError {
        PlanError::new(extension, "this program has no such filter".into())
    }

    fn new(extension: &Extension, source: Box<dyn Error + Send + Sync>) -> PlanError {
        PlanError { type_name: Arc::clone(&extension.type_name), source }
    }
}
