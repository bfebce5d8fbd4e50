//! The access log of a `tcp_proxy`.

use std::rc::Rc;

use proxy_config::settings::{LogType, ResponseFlags};
use proxy_http::access_log::{AccessLogs, FormatContext};
use proxy_net::{ConnectionInfo, StreamRecord};
use proxy_runtime::clock;
use proxy_upstream::connect::ConnectError;
use proxy_upstream::tcp::TcpConnectError;

/// What a `tcp_proxy` tells of its connections.
#[derive(Default)]
pub struct TcpLogs {
    pub access: AccessLogs,
    /// `flush_access_log_on_connected`.
    pub at_start: bool,
    pub filter_chain: Rc<str>,
}

/// A connection being served; its line is written when this is dropped, however the connection ends.
pub(super) struct LoggedConnection<'a> {
    logs: &'a TcpLogs,
    info: Rc<ConnectionInfo>,
    /// It goes on in another process, which will write its line.
    moved: bool,
}

impl<'a> LoggedConnection<'a> {
    pub(super) fn new(logs: &'a TcpLogs, info: Rc<ConnectionInfo>) -> LoggedConnection<'a> {
        LoggedConnection { logs, info, moved: false }
    }

    /// The connection goes on in another process.
    pub(super) fn moved(mut self) {
        self.moved = true;
    }

    /// The upstream connection is made.
    pub(super) fn connected(&self) {
        if self.logs.at_start {
            self.log(LogType::TcpUpstreamConnected);
        }
    }

    /// No upstream connection could be made.
    pub(super) fn refused(&self, error: &TcpConnectError) {
        let Some(record) = &self.info.record else { return };
        record.set_flag(match error {
            TcpConnectError::NoHealthyUpstream => ResponseFlags::NO_HEALTHY_UPSTREAM,
            TcpConnectError::Overflow => ResponseFlags::UPSTREAM_OVERFLOW,
            TcpConnectError::Connect(ConnectError::Failed(_) | ConnectError::TimedOut)
            | TcpConnectError::NoTunnel => {
                ResponseFlags::UPSTREAM_CONNECTION_FAILURE.with(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED)
            }
        });
    }

    pub(super) fn set_flag(&self, flag: ResponseFlags) {
        if let Some(record) = &self.info.record {
            record.set_flag(flag);
        }
    }

    fn log(&self, log_type: LogType) {
        if let Some(record) = self.info.record.as_deref().filter(|_| !self.logs.access.is_empty()) {
            self.logs.access.log(&self.context(record, log_type));
        }
    }

    /// What is to be told of the connection now.
    pub(super) fn context<'b>(&'b self, record: &'b StreamRecord, log_type: LogType) -> FormatContext<'b> {
        FormatContext::of_connection(&self.info, record, &self.logs.filter_chain, log_type)
    }
}

impl Drop for LoggedConnection<'_> {
    fn drop(&mut self) {
        if self.moved {
            return;
        }
        if let Some(record) = &self.info.record {
            record.end.set(record.start, clock::now());
        }
        self.log(LogType::TcpConnectionEnd);
    }
}
