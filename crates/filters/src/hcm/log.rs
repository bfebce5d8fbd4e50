//! The access logs of a connection manager and of its router.

use std::rc::Rc;

use proxy_config::settings::{LogNeeds, LogType};
use proxy_http::access_log::{AccessLogs, FormatContext};
use proxy_http::{Request, StreamInfo};
use proxy_net::UpstreamAttempt;

/// What a connection manager tells of its streams.
#[derive(Default)]
pub struct ManagerLogs {
    /// `access_log`.
    pub access: AccessLogs,
    /// `flush_access_log_on_new_request`.
    pub at_start: bool,
    /// `upstream_log` of the router, by [`ChainIndex`](proxy_http::filter::ChainIndex).
    pub upstream: Vec<AccessLogs>,
    pub filter_chain: Rc<str>,
}

impl ManagerLogs {
    /// What they need to be kept of a stream.
    pub(super) fn needs(&self) -> LogNeeds {
        // What upstream logs need of the response is a copy that the router keeps.
        let upstream = LogNeeds { response: false, trailers: false, ..self.upstream_needs() };
        self.access.needs().with(upstream)
    }

    /// Whether the headers of a host's response are told.
    pub(crate) fn need_upstream_response(&self) -> bool {
        self.upstream_needs().response
    }

    fn upstream_needs(&self) -> LogNeeds {
        self.upstream.iter().fold(LogNeeds::default(), |needs, logs| needs.with(logs.needs()))
    }

    /// A request has come and its route is known.
    pub(super) fn stream_started(&self, stream: &StreamInfo, request: &Request) {
        if self.at_start {
            let context = self.context(stream, LogType::DownstreamStart);
            self.access.log(&FormatContext { request: Some(request), ..context });
        }
    }

    /// Nothing more happens on the stream. Called exactly once for each.
    pub(super) fn stream_ended(&self, stream: &StreamInfo) {
        let upstream = self.upstream_of(stream);
        if self.access.is_empty() && upstream.is_none() {
            return;
        }
        let kept = stream.kept();
        let context = self.context(stream, LogType::DownstreamEnd);
        let context = FormatContext { request: kept.request.as_deref(), ..context };
        if let Some(upstream) = upstream {
            for attempt in stream.record.attempts() {
                let response = kept.upstream_response.as_ref();
                attempt_ended(upstream, &attempt, &FormatContext { response, ..context });
            }
        }
        self.access.log(&FormatContext {
            response: kept.response.as_ref(),
            trailers: kept.trailers.as_ref(),
            ..context
        });
    }

    /// The stream goes on in another process, which knows nothing of the attempts before the one that serves it.
    pub(super) fn stream_moved(&self, stream: &StreamInfo) {
        let Some(upstream) = self.upstream_of(stream) else { return };
        let kept = stream.kept();
        let context = self.context(stream, LogType::DownstreamEnd);
        let context = FormatContext { request: kept.request.as_deref(), ..context };
        if let Some((_, failed)) = stream.record.attempts().split_last() {
            failed.iter().for_each(|attempt| attempt_ended(upstream, attempt, &context));
        }
    }

    fn upstream_of(&self, stream: &StreamInfo) -> Option<&AccessLogs> {
        self.upstream.get(usize::from(stream.filter_chain().0)).filter(|logs| !logs.is_empty())
    }

    /// What header values tell of a stream.
    pub(super) fn format_context<'a>(&'a self, stream: &'a StreamInfo) -> FormatContext<'a> {
        self.context(stream, LogType::NotSet)
    }

    fn context<'a>(&'a self, stream: &'a StreamInfo, log_type: LogType) -> FormatContext<'a> {
        FormatContext::of_stream(stream, &self.filter_chain, log_type)
    }
}

/// Tells an upstream log of an attempt; `context` is that of its stream.
fn attempt_ended(logs: &AccessLogs, attempt: &Rc<UpstreamAttempt>, context: &FormatContext<'_>) {
    let record = attempt.as_stream(context.record);
    let answered = record.status.get() > 0;
    logs.log(&FormatContext {
        record: &record,
        response: context.response.filter(|_| answered),
        log_type: LogType::UpstreamEnd,
        ..*context
    });
}
