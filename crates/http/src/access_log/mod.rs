//! Access logs on a worker: which streams get a line, and the line.
//!
//! Formats come compiled from the settings. [`write_text`] serves whoever needs one filled in, not only logs. What is
//! told is in the [`FormatContext`]; writing reads no clock and draws nothing at random.

mod filter;
mod json;
mod operator;
mod text;
mod time;

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use proxy_config::settings::{self, LineFormat, LineKind, LogNeeds, LogType};
use proxy_net::{ConnectionInfo, StreamRecord};
use proxy_runtime::log_file::{LineBuffer, LogFile};
use proxy_runtime::{Instant, clock};

use crate::headers::Headers;
use crate::message::Request;
use crate::stream::StreamInfo;

pub use filter::passes;
pub use operator::{write_details, write_network};
pub use text::write_text;

/// What a format is filled in from.
#[derive(Clone, Copy)]
pub struct FormatContext<'a> {
    pub connection: &'a ConnectionInfo,
    pub record: &'a StreamRecord,
    /// The HTTP stream, if it is about one.
    pub stream: Option<&'a StreamInfo>,
    pub request: Option<&'a Request>,
    pub response: Option<&'a Headers>,
    /// Of `response`; 0 without one.
    pub response_status: u16,
    pub trailers: Option<&'a Headers>,
    /// The text of a local reply, while its body is made of it.
    pub local_reply_body: &'a [u8],
    pub filter_chain: &'a str,
    pub log_type: LogType,
    pub now: Instant,
    /// `now` on the wall clock.
    pub wall: SystemTime,
    /// Drawn for this line.
    pub random: u128,
}

impl<'a> FormatContext<'a> {
    /// What is to be told of a connection that is no HTTP.
    pub fn of_connection(
        connection: &'a ConnectionInfo,
        record: &'a StreamRecord,
        filter_chain: &'a str,
        log_type: LogType,
    ) -> FormatContext<'a> {
        FormatContext {
            connection,
            record,
            stream: None,
            request: None,
            response: None,
            response_status: 0,
            trailers: None,
            local_reply_body: b"",
            filter_chain,
            log_type,
            now: clock::now(),
            wall: clock::system_now(),
            random: fastrand::u128(..),
        }
    }

    /// What is to be told of `stream` now, but for its messages.
    pub fn of_stream(stream: &'a StreamInfo, filter_chain: &'a str, log_type: LogType) -> FormatContext<'a> {
        FormatContext {
            stream: Some(stream),
            response_status: stream.record.status.get(),
            ..FormatContext::of_connection(&stream.connection, &stream.record, filter_chain, log_type)
        }
    }
}

/// The access logs of one `access_log` field, as main knows them: each with its open file.
#[derive(Clone, Debug, Default)]
pub struct AccessLogPlan {
    pub settings: Arc<[settings::AccessLog]>,
    /// In the order of `settings`.
    pub files: Vec<LogFile>,
}

/// A worker's access logs of one `access_log` field.
#[derive(Default)]
pub struct AccessLogs {
    settings: Arc<[settings::AccessLog]>,
    buffers: Vec<Rc<LineBuffer>>,
    needs: LogNeeds,
}

impl AccessLogs {
    /// Those of `plan`, on this worker.
    pub fn new(plan: &AccessLogPlan) -> AccessLogs {
        AccessLogs {
            settings: Arc::clone(&plan.settings),
            buffers: plan.files.iter().map(LogFile::on_this_worker).collect(),
            needs: plan.settings.iter().fold(LogNeeds::default(), |needs, log| needs.with(log.needs)),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    /// What they need to be kept of a stream.
    pub fn needs(&self) -> LogNeeds {
        self.needs
    }

    /// Writes the lines of a stream: one to each log that wants it.
    pub fn log(&self, context: &FormatContext<'_>) {
        for (log, buffer) in self.settings.iter().zip(&self.buffers) {
            if log.filter.as_ref().is_none_or(|filter| filter::passes(filter, context)) {
                buffer.append(|out| write_line(&log.format, context, out));
            }
        }
    }
}

/// Fills `format` in; JSON ends with a line feed.
pub fn write_line(format: &LineFormat, context: &FormatContext<'_>, out: &mut Vec<u8>) {
    match &format.kind {
        LineKind::Text(text) => write_text(text, format.omit_empty, context, out),
        LineKind::Json(json) => json::write_line(json, format.omit_empty, context, out),
    }
}

#[cfg(test)]
mod tests;
