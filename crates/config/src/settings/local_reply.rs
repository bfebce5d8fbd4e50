//! Answers of the proxy's own: what a configuration makes of them.

use bytes::Bytes;

use super::{AccessLogFilter, HeaderMutations, LineFormat};

/// `envoy.extensions.filters.network.http_connection_manager.v3.LocalReplyConfig`.
#[derive(Debug)]
pub struct LocalReplyConfig {
    /// The first whose filter lets the answer pass counts.
    pub mappers: Vec<ReplyMapper>,
    /// `None`: the text as it is.
    pub body_format: Option<BodyFormat>,
}

/// `ResponseMapper`.
#[derive(Debug)]
pub struct ReplyMapper {
    pub filter: AccessLogFilter,
    /// `status_code`.
    pub status: Option<u16>,
    pub body: Option<Bytes>,
    /// `body_format_override`.
    pub body_format: Option<BodyFormat>,
    /// `headers_to_add`.
    pub headers: HeaderMutations,
}

/// A format and what the body that it makes is called.
#[derive(Debug)]
pub struct BodyFormat {
    pub format: LineFormat,
    /// `text/plain`, or `application/json`, when unset.
    pub content_type: Bytes,
}

impl LocalReplyConfig {
    /// See [`Operator::tells_of_record`](super::Operator::tells_of_record).
    pub fn tells_of_record(&self) -> bool {
        let overrides = self.mappers.iter().filter_map(|mapper| mapper.body_format.as_ref());
        self.body_format.iter().chain(overrides).any(|body| body.format.tells_of_record())
            || self.mappers.iter().any(|mapper| mapper.headers.tells_of_record())
    }
}
