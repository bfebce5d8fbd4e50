//! `envoy.filters.network.set_filter_state`: leaves objects for the filters behind it and for formats.

use std::rc::Rc;
use std::sync::Arc;

use proxy_config::settings::{self, LogType};
use proxy_http::access_log::FormatContext;
use proxy_net::{
    CloseReason, Connection, ConnectionInfo, LocalBoxFuture, MovedConnection, NetworkFilter, NextNetwork,
    StreamRecord,
};

use crate::http::filter_state_object;

/// The filter.
pub struct SetFilterState {
    settings: Arc<settings::SetFilterState>,
    /// Its name, for formats.
    filter_chain: Rc<str>,
}

impl SetFilterState {
    pub fn new(settings: Arc<settings::SetFilterState>, filter_chain: Rc<str>) -> SetFilterState {
        SetFilterState { settings, filter_chain }
    }
}

impl NetworkFilter for SetFilterState {
    fn serve<'a>(
        &'a self,
        connection: Connection,
        next: NextNetwork<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CloseReason>> {
        let info = &connection.info;
        let none = StreamRecord::new(info.started);
        let record = info.record.as_deref().unwrap_or(&none);
        for value in &self.settings.values {
            let context = FormatContext::of_connection(info, record, &self.filter_chain, LogType::NotSet);
            if let Some(object) = filter_state_object(value, &context) {
                info.filter_state.set(&value.key, Rc::new(object));
            }
        }
        Box::pin(next.serve(connection))
    }

    /// What it leaves with a connection it leaves here as well.
    fn takes(&self, _moved: &MovedConnection, _info: &ConnectionInfo) -> bool {
        true
    }
}
