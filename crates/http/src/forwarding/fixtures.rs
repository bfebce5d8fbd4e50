//! Settings for tests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proxy_config::settings::*;

pub(crate) fn connection_manager() -> HttpConnectionManager {
    HttpConnectionManager {
        stat_prefix: String::new(),
        codec: CodecType::Auto,
        http1: Http1Options::default(),
        http2: Http2Options::default(),
        access_logs: Arc::default(),
        proxy_interim: false,
        proxy_status: None,
        safe_connection_duration: false,
        local_replies: None,
        access_log_options: AccessLogOptions::default(),
        routes: Arc::default(),
        filters: Vec::new(),
        server: ServerHeader { name: Bytes::from_static(b"envoy"), mode: ServerHeaderMode::Overwrite },
        use_remote_address: false,
        xff_trusted_hops: 0,
        skip_xff_append: false,
        internal_addresses: Vec::new(),
        internal_unix_sockets: false,
        forwarding: Forwarding::default(),
        generate_request_id: false,
        preserve_external_request_id: false,
        request_id_in_response: false,
        path: PathNormalization::default(),
        max_request_header_bytes: 60 << 10,
        max_request_headers: 100,
        underscores: UnderscoreAction::Allow,
        max_requests_per_connection: None,
        idle_timeout: None,
        max_connection_duration: None,
        max_stream_duration: None,
        stream_idle_timeout: None,
        stream_flush_timeout: None,
        request_timeout: None,
        request_headers_timeout: None,
        drain_timeout: Duration::from_secs(5),
        delayed_close_timeout: None,
        upgrades: Vec::new(),
    }
}
