//! The access log of a listener: a line per connection, when it has ended.

use std::rc::Rc;

use proxy_config::settings::{LogType, ResponseFlags};
use proxy_http::access_log::{AccessLogs, FormatContext};
use proxy_net::ConnectionInfo;
use proxy_runtime::clock;

/// A connection; its line is written when this is dropped, however the connection ends. Costs nothing without a log.
pub(crate) struct LoggedConnection(Option<Logged>);

struct Logged {
    logs: Rc<AccessLogs>,
    filter_chain: Box<str>,
    info: Rc<ConnectionInfo>,
    /// It goes on in another process, which will write its line.
    moved: bool,
}

impl LoggedConnection {
    pub(crate) fn new(
        logs: &Rc<AccessLogs>,
        filter_chain: &str,
        info: Rc<ConnectionInfo>,
    ) -> LoggedConnection {
        LoggedConnection((!logs.is_empty()).then(|| Logged {
            logs: Rc::clone(logs),
            filter_chain: filter_chain.into(),
            info,
            moved: false,
        }))
    }

    /// The connection goes on in another process.
    pub(crate) fn moved(mut self) {
        if let Some(logged) = &mut self.0 {
            logged.moved = true;
        }
    }

    /// No filter chain takes it.
    pub(crate) fn not_served(&self) {
        if let Some(record) = self.0.as_ref().and_then(|logged| logged.info.record.as_ref()) {
            record.set_flag(ResponseFlags::NO_ROUTE_FOUND);
            record.set_details("filter_chain_not_found");
        }
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        if self.moved {
            return;
        }
        let Some(record) = &self.info.record else { return };
        record.end.set_once(record.start, clock::now());
        self.logs.log(&FormatContext::of_connection(&self.info, record, &self.filter_chain, LogType::NotSet));
    }
}
