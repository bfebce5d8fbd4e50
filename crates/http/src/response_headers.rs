//! What the connection manager and the router do to the headers of every response on its way downstream.

use std::time::Duration;

use proxy_config::settings::{HttpConnectionManager, ServerHeaderMode};

use crate::forwarding::append_via;
use crate::headers::Headers;
use crate::message::Response;
use crate::name::HeaderId;

/// What a response depends on beside its settings.
#[derive(Clone, Copy, Debug)]
pub struct ResponseContext<'a> {
    /// The time as `date` has it (RFC 9110, section 5.6.7).
    pub date: &'a [u8],
    /// The request's id, as it went upstream.
    pub request_id: Option<&'a [u8]>,
    /// The request had `x-envoy-force-trace`: its sender wants the id back.
    pub force_trace: bool,
    /// The response agrees to an upgrade.
    pub upgraded: bool,
}

/// Makes a response ready to be sent (Envoy's `mutateResponseHeaders`): hop-by-hop headers go, `date`, `server` and, where
/// asked for, `x-request-id` come. Headers that an upstream's `connection` names stay, as in Envoy. Not for 1xx
/// responses other than 101.
pub fn prepare_response(
    response: &mut Response,
    settings: &HttpConnectionManager,
    context: &ResponseContext<'_>,
) {
    let headers = &mut response.headers;
    for id in HOP_BY_HOP {
        if !context.upgraded || !matches!(id, HeaderId::CONNECTION | HeaderId::UPGRADE) {
            headers.remove(id);
        }
    }
    if !headers.contains(HeaderId::DATE) {
        headers.append(HeaderId::DATE, context.date);
    }
    match settings.server.mode {
        ServerHeaderMode::Overwrite => headers.set(HeaderId::SERVER, &settings.server.name),
        ServerHeaderMode::AppendIfAbsent if headers.contains(HeaderId::SERVER) => {}
        ServerHeaderMode::AppendIfAbsent => headers.append(HeaderId::SERVER, &settings.server.name),
        ServerHeaderMode::PassThrough => {}
    }
    if let Some(via) = &settings.forwarding.via {
        append_via(headers, via);
    }
    if let Some(id) = context.request_id
        && (settings.request_id_in_response || context.force_trace)
    {
        headers.set(HeaderId::X_REQUEST_ID, id);
    }
}

/// Makes the headers of a response ahead of the final one ready to be sent: hop-by-hop headers go, and what would frame a
/// body that there is not.
pub fn prepare_interim(headers: &mut Headers) {
    for id in HOP_BY_HOP {
        headers.remove(id);
    }
    headers.remove(HeaderId::CONTENT_LENGTH);
}

/// `x-envoy-upstream-service-time`: milliseconds from the end of the request to the head of the response. The router's,
/// before response headers of the route are added; not to be called under `suppress_envoy_headers`.
pub fn set_service_time(headers: &mut Headers, elapsed: Duration) {
    let mut digits = itoa::Buffer::new();
    headers.set(HeaderId::X_ENVOY_UPSTREAM_SERVICE_TIME, digits.format(elapsed.as_millis()).as_bytes());
}

const HOP_BY_HOP: [HeaderId; 5] = [
    HeaderId::CONNECTION,
    HeaderId::KEEP_ALIVE,
    HeaderId::PROXY_CONNECTION,
    HeaderId::TRANSFER_ENCODING,
    HeaderId::UPGRADE,
];

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proxy_config::settings::ServerHeader;

    use super::*;
    use crate::forwarding::fixtures::connection_manager;
    use crate::route::fixtures::lines;

    const CONTEXT: ResponseContext<'_> =
        ResponseContext { date: b"today", request_id: Some(b"id"), force_trace: false, upgraded: false };

    fn prepared(
        settings: &HttpConnectionManager,
        context: &ResponseContext<'_>,
        from: &[(&str, &str)],
    ) -> String {
        let mut response = Response::new(200);
        response.headers = from.iter().copied().collect();
        prepare_response(&mut response, settings, context);
        let lines = lines(&response.headers);
        lines.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }

    fn with_mode(mode: ServerHeaderMode) -> HttpConnectionManager {
        let server = ServerHeader { name: Bytes::from_static(b"envoy"), mode };
        HttpConnectionManager { server, ..connection_manager() }
    }

    /// The lines that Envoy 1.40 removed, and those it passed on.
    #[test]
    fn hop_by_hop_headers_stay_behind() {
        let from = [
            ("date", "long ago"),
            ("keep-alive", "1"),
            ("proxy-connection", "2"),
            ("upgrade", "x"),
            ("transfer-encoding", "chunked"),
            ("connection", "x-nom"),
            ("x-nom", "1"),
            ("trailer", "t"),
            ("te", "q"),
            ("x-request-id", "upstream"),
        ];
        let expected = "date=long ago x-nom=1 trailer=t te=q x-request-id=upstream server=envoy";
        assert_eq!(prepared(&with_mode(ServerHeaderMode::Overwrite), &CONTEXT, &from), expected);
    }

    #[test]
    fn server_and_date_follow_the_settings() {
        use ServerHeaderMode::*;
        for (mode, from, expected) in [
            (Overwrite, &[("server", "theirs")][..], "date=today server=envoy"),
            (AppendIfAbsent, &[("server", "theirs")], "server=theirs date=today"),
            (AppendIfAbsent, &[], "date=today server=envoy"),
            (PassThrough, &[("server", "theirs")], "server=theirs date=today"),
            (PassThrough, &[], "date=today"),
        ] {
            assert_eq!(prepared(&with_mode(mode), &CONTEXT, from), expected);
        }
    }

    #[test]
    fn the_request_id_comes_back_where_asked_for() {
        let plain = with_mode(ServerHeaderMode::PassThrough);
        let asked = HttpConnectionManager {
            request_id_in_response: true,
            ..with_mode(ServerHeaderMode::PassThrough)
        };
        let forced = ResponseContext { force_trace: true, ..CONTEXT };
        assert_eq!(prepared(&plain, &CONTEXT, &[]), "date=today");
        assert_eq!(prepared(&asked, &CONTEXT, &[]), "date=today x-request-id=id");
        assert_eq!(prepared(&plain, &forced, &[("x-request-id", "u")]), "date=today x-request-id=id");
    }

    #[test]
    fn service_time_replaces_the_upstreams_own() {
        let mut headers: Headers = [("x-envoy-upstream-service-time", "77")].into_iter().collect();
        set_service_time(&mut headers, Duration::from_micros(12_900));
        assert_eq!(lines(&headers), [("x-envoy-upstream-service-time", "12")]);
    }
}
