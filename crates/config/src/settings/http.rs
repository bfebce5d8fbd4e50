//! The HTTP connection manager and its protocol options.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{
    AccessLog, AccessLogOptions, Cidr, Forwarding, HttpFilter, LocalReplyConfig, RouteConfiguration,
};

/// `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.
#[derive(Debug)]
pub struct HttpConnectionManager {
    pub stat_prefix: String,
    pub codec: CodecType,
    /// `http_protocol_options`.
    pub http1: Http1Options,
    pub http2: Http2Options,
    pub routes: Arc<RouteConfiguration>,
    /// In order; the last one is the terminal filter.
    pub filters: Vec<HttpFilter>,
    pub server: ServerHeader,
    pub use_remote_address: bool,
    pub xff_trusted_hops: u32,
    pub skip_xff_append: bool,
    /// `internal_address_config.cidr_ranges`: clients there count as internal; none when unset.
    pub internal_addresses: Vec<Cidr>,
    /// `internal_address_config.unix_sockets`: so do clients that come over a UNIX socket.
    pub internal_unix_sockets: bool,
    pub forwarding: Forwarding,
    /// `generate_request_id`, true when unset.
    pub generate_request_id: bool,
    /// `preserve_external_request_id`.
    pub preserve_external_request_id: bool,
    /// `always_set_request_id_in_response`.
    pub request_id_in_response: bool,
    pub path: PathNormalization,
    /// `max_request_headers_kb`, in bytes; 60 KiB when unset.
    pub max_request_header_bytes: u32,
    /// `common_http_protocol_options.max_headers_count`, 100 when unset.
    pub max_request_headers: u32,
    /// `common_http_protocol_options.headers_with_underscores_action`.
    pub underscores: UnderscoreAction,
    /// `common_http_protocol_options.max_requests_per_connection`.
    pub max_requests_per_connection: Option<u32>,
    /// `common_http_protocol_options.idle_timeout`: 1 h when unset.
    pub idle_timeout: Option<Duration>,
    /// `common_http_protocol_options.max_connection_duration`.
    pub max_connection_duration: Option<Duration>,
    /// `common_http_protocol_options.max_stream_duration`.
    pub max_stream_duration: Option<Duration>,
    /// `stream_idle_timeout`: 5 min when unset.
    pub stream_idle_timeout: Option<Duration>,
    /// `stream_flush_timeout`: how long an HTTP/2 client may take for the end of a response that the host is done with;
    /// `stream_idle_timeout` when unset.
    pub stream_flush_timeout: Option<Duration>,
    pub request_timeout: Option<Duration>,
    pub request_headers_timeout: Option<Duration>,
    /// `http1_safe_max_connection_duration`: an HTTP/1 connection that has reached its duration ends with its next response.
    pub safe_connection_duration: bool,
    /// `drain_timeout`: between the two GOAWAYs; 5 s when unset.
    pub drain_timeout: Duration,
    /// `upgrade_configs`.
    pub upgrades: Vec<UpgradeConfig>,
    /// `delayed_close_timeout`: 1 s when unset.
    pub delayed_close_timeout: Option<Duration>,
    /// `access_log`.
    pub access_logs: Arc<[AccessLog]>,
    pub access_log_options: AccessLogOptions,
    /// `proxy_100_continue`: the first 1xx of a host is passed on, and the host tells the client to go on.
    pub proxy_interim: bool,
    /// `proxy_status_config`.
    pub proxy_status: Option<ProxyStatus>,
    /// `local_reply_config`.
    pub local_replies: Option<LocalReplyConfig>,
}

/// `HttpConnectionManager.UpgradeConfig`: what becomes of requests that ask for one upgrade.
#[derive(Debug)]
pub struct UpgradeConfig {
    /// What stands in `upgrade`, in any case; `CONNECT` for that method.
    pub kind: Box<str>,
    /// Routes may say otherwise.
    pub enabled: bool,
    /// A chain for these streams in place of `http_filters`; empty where they have none of their own.
    pub filters: Vec<HttpFilter>,
    /// Which of [`HttpConnectionManager::filter_chains`] serves them.
    pub chain: u8,
}

impl HttpConnectionManager {
    /// All its chains of HTTP filters: that of `http_filters` first, then those that upgrades have of their own.
    pub fn filter_chains(&self) -> impl Iterator<Item = &[HttpFilter]> {
        let of_upgrades = self.upgrades.iter().map(|upgrade| upgrade.filters.as_slice());
        std::iter::once(self.filters.as_slice()).chain(of_upgrades.filter(|chain| !chain.is_empty()))
    }
}

/// `HttpConnectionManager.ProxyStatusConfig`: what `proxy-status` (RFC 9209) says of errors.
#[derive(Debug)]
pub struct ProxyStatus {
    pub name: Bytes,
    /// Not `remove_details`.
    pub details: bool,
    /// Not `remove_connection_termination_details`.
    pub termination_details: bool,
    /// Not `remove_response_flags`.
    pub response_flags: bool,
    /// `set_recommended_response_code`.
    pub recommended_code: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CodecType {
    /// HTTP/2 when the connection opens with its preface, HTTP/1.1 otherwise.
    #[default]
    Auto,
    Http1,
    Http2,
}

/// `server_name` and `server_header_transformation`.
#[derive(Debug, Clone)]
pub struct ServerHeader {
    /// "envoy" when unset.
    pub name: Bytes,
    pub mode: ServerHeaderMode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerHeaderMode {
    #[default]
    Overwrite,
    AppendIfAbsent,
    PassThrough,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct PathNormalization {
    /// `normalize_path`; false when unset (no runtime).
    pub normalize: bool,
    pub merge_slashes: bool,
    pub escaped_slashes: EscapedSlashes,
}

/// `path_with_escaped_slashes_action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EscapedSlashes {
    #[default]
    KeepUnchanged,
    RejectRequest,
    UnescapeAndRedirect,
    UnescapeAndForward,
}

/// `envoy.config.core.v3.Http1ProtocolOptions`, both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http1Options {
    /// `enable_trailers`: without it trailers read from HTTP/1 are dropped and none are written to it.
    pub enable_trailers: bool,
    /// `accept_http_10`; of connection managers only.
    pub accept_http_10: bool,
    /// `default_host_for_http_10`: the host of HTTP/1.0 requests that name none; empty: they are refused.
    pub default_host_for_http_10: Cow<'static, str>,
    /// `allow_absolute_url` is false: a target in absolute form is taken for a path, which no route has.
    pub refuse_absolute_url: bool,
    /// `allow_chunked_length`: `content-length` beside `transfer-encoding` is ignored instead of refused.
    pub allow_chunked_length: bool,
    /// `header_key_format`.
    pub header_case: HeaderCase,
    /// `override_stream_error_on_invalid_http_message`, of connection managers only: an answer of 400 does not end the connection
    /// if the request was read whole.
    pub stream_error_on_invalid_message: bool,
}

impl Http1Options {
    /// Those of a configuration that says nothing about them.
    pub const PLAIN: Http1Options = Http1Options {
        enable_trailers: false,
        accept_http_10: false,
        default_host_for_http_10: Cow::Borrowed(""),
        refuse_absolute_url: false,
        allow_chunked_length: false,
        header_case: HeaderCase::Lower,
        stream_error_on_invalid_message: false,
    };
}

impl Default for Http1Options {
    fn default() -> Self {
        Self::PLAIN
    }
}

/// How names of headers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeaderCase {
    #[default]
    Lower,
    /// `proper_case_words`: `Content-Type`.
    Proper,
    /// `envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig`: names that are read are
    /// remembered as they were, and written so on the other side, if that is HTTP/1.
    Preserve {
        /// `forward_reason_phrase`: so is the reason phrase of responses.
        reason: bool,
        /// `formatter_type_on_envoy_headers` is `PROPER_CASE`: names that were not read are written so.
        proper: bool,
    },
}

/// `headers_with_underscores_action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnderscoreAction {
    #[default]
    Allow,
    RejectRequest,
    DropHeader,
}

/// `envoy.config.core.v3.Http2ProtocolOptions`, both sides.
#[derive(Debug, Clone)]
pub struct Http2Options {
    /// 1024 when unset, as Envoy 1.40 announces.
    pub max_concurrent_streams: u32,
    /// Bytes; 16 MiB when unset.
    pub initial_stream_window: u32,
    /// Bytes; 24 MiB when unset.
    pub initial_connection_window: u32,
    /// `connection_keepalive`.
    pub keepalive: Option<Http2Keepalive>,
    /// `hpack_table_size`, 4096 when unset.
    pub hpack_table_size: u32,
    /// `max_outbound_frames`, 10,000 when unset: frames of any kind that wait for the peer to read.
    pub max_outbound_frames: u32,
    /// `max_outbound_control_frames`, 1,000 when unset: pings, SETTINGS and resets.
    pub max_outbound_control_frames: u32,
    /// `max_consecutive_inbound_frames_with_empty_payload`, 1 when unset.
    pub max_empty_frames: u32,
    /// `max_inbound_priority_frames_per_stream`, 100 when unset.
    pub max_priority_frames: u32,
    /// `max_inbound_window_update_frames_per_data_frame_sent`, 10 when unset.
    pub max_window_updates: u32,
    /// `override_stream_error_on_invalid_http_message`.
    pub stream_error_on_invalid_message: bool,
    /// `allow_connect`: clients may upgrade (RFC 8441). Hosts are asked for it only if they say that they know it.
    pub allow_connect: bool,
    /// `max_metadata_size` where `allow_metadata` is said: of a stream's METADATA blocks together. Bytes; 1 MiB when unset.
    pub max_metadata_size: Option<u64>,
    /// `custom_settings_parameters`, without those that have a field of their own: identifier and value.
    pub custom_settings: Box<[(u16, u32)]>,
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 1024,
            initial_stream_window: 16 << 20,
            initial_connection_window: 24 << 20,
            keepalive: None,
            hpack_table_size: 4096,
            max_outbound_frames: 10_000,
            max_outbound_control_frames: 1000,
            max_empty_frames: 1,
            max_priority_frames: 100,
            max_window_updates: 10,
            stream_error_on_invalid_message: false,
            allow_connect: false,
            max_metadata_size: None,
            custom_settings: Box::default(),
        }
    }
}

/// `envoy.config.core.v3.KeepaliveSettings`.
#[derive(Debug, Clone)]
pub struct Http2Keepalive {
    /// `None`: only `connection_idle_interval` applies.
    pub interval: Option<Duration>,
    pub timeout: Duration,
    /// Percent of `interval` added at random; 15 when unset.
    pub interval_jitter_percent: f64,
    /// Ping before the first stream after this long without one.
    pub idle_interval: Option<Duration>,
}
