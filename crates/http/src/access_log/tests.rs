use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use proxy_config::lower::format::{FormatFacts, parse};
use proxy_config::settings::{
    AccessLogFilter, Comparison, ComparisonOperation, JsonFormat, LogNeeds, ResponseFlags,
};
use proxy_net::{Address, ConnectionId};
use proxy_runtime::clock;

use super::*;
use crate::message::{Method, Version};
use crate::stream::StreamDeadlines;

/// A stream, and what is left of its messages.
struct Told {
    stream: StreamInfo,
    request: Request,
    response: Headers,
    trailers: Headers,
    end: Instant,
}

impl Told {
    fn new() -> Told {
        let address = |text: &str| Address::Ip(text.parse().unwrap());
        let (local, remote) = (address("10.1.2.3:80"), address("192.168.77.9:4321"));
        let start = clock::now();
        let listener = Rc::from("web");
        let info = ConnectionInfo::accepted(ConnectionId(7), listener, local, remote, start, UNIX_EPOCH);
        let deadlines = Rc::new(StreamDeadlines::new());
        let needs = LogNeeds::default();
        let stream = StreamInfo::new(Rc::new(info), Version::Http11, start, deadlines, needs);
        let headers =
            [("user-agent", "say \"hi\"\t\u{1}"), ("x-request-id", "0000000a-1")].into_iter().collect();
        Told {
            stream,
            request: Request::new(Method::Get, Version::Http11, b"example.com", b"/p/q?a=1%202&b", headers),
            response: [("content-type", "application/grpc")].into_iter().collect(),
            trailers: [("grpc-status", "5")].into_iter().collect(),
            end: start + Duration::from_micros(1500),
        }
    }

    fn context(&self) -> FormatContext<'_> {
        FormatContext {
            connection: &self.stream.connection,
            record: &self.stream.record,
            stream: Some(&self.stream),
            request: Some(&self.request),
            response: Some(&self.response),
            response_status: self.stream.record.status.get(),
            trailers: Some(&self.trailers),
            local_reply_body: b"",
            filter_chain: "",
            log_type: LogType::DownstreamEnd,
            now: self.end,
            wall: UNIX_EPOCH + Duration::from_millis(1_795_500_478_057),
            random: 42,
        }
    }

    fn text(&self, format: &str) -> String {
        let mut out = Vec::new();
        write_text(&parse(format, &FormatFacts::default()).unwrap(), false, &self.context(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn json(&self, format: &str, omit_empty: bool) -> String {
        let format = JsonFormat::Format(parse(format, &FormatFacts::default()).unwrap());
        let object = JsonFormat::Object([("\"k\":".into(), format)].into());
        let mut out = Vec::new();
        json::write_line(&object, omit_empty, &self.context(), &mut out);
        String::from_utf8(out).unwrap()
    }
}

#[test]
fn values_and_what_stands_for_none() {
    let told = Told::new();
    assert_eq!(told.text("%REQ(:METHOD)% %REQ(NOPE?:PATH):4% %REQ(nope)%"), "GET /p/q -");
    assert_eq!(told.text("%PATH(NQ)% %QUERY_PARAM(a)% %QUERY_PARAM(b)% %QUERY_PARAM(c)%"), "/p/q 1 2  -");
    assert_eq!(told.text("%RESPONSE_FLAGS%%RESPONSE_CODE_DETAILS%%RESPONSE_CODE%%LOCAL_REPLY_BODY%"), "--0");
    assert_eq!(told.text("%CONNECTION_ID% %LISTENER_NAME% %FILTER_CHAIN_NAME%"), "7 web -");
    assert_eq!(told.text("%UPSTREAM_HOST%%UPSTREAM_CONNECTION_ID%%UPSTREAM_CLUSTER%"), "-0-");
}

#[test]
fn addresses_can_be_cut_to_networks() {
    let told = Told::new();
    assert_eq!(told.text("%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_PORT%"), "192.168.77.9:4321 80");
    assert_eq!(told.text("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"), "192.168.77.9");
    assert_eq!(told.text("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(16)%"), "192.168.0.0/16");
    assert_eq!(told.text("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(0)%"), "0.0.0.0/0");
}

#[test]
fn times_and_durations() {
    let told = Told::new();
    assert_eq!(told.text("%EMIT_TIME%"), "2026-11-24T06:07:58.057Z");
    assert_eq!(told.text("%START_TIME(%s.%6f %H%%)%"), "1795500478.055500 06%");
    assert_eq!(told.text("%EMIT_TIME(%c %z %j %e %Z)%"), "Tue Nov 24 06:07:58 2026 +0000 328 24 UTC");
    assert_eq!(told.text("%EMIT_TIME(%E4S %E*S %ET %3f)%"), "58.0570 58.057 T 057");
    assert_eq!(told.text("%DURATION% %REQUEST_DURATION%"), "1 -");
    told.stream.request_completed(told.end);
    assert_eq!(told.text("%COMMON_DURATION(DS_RX_BEG:DS_RX_END:us)% %REQUEST_DURATION%"), "1500 1");
    assert_eq!(told.text("%COMMON_DURATION(DS_RX_END:DS_RX_BEG:us)%"), "-");
}

#[test]
fn grpc_statuses_are_told_of_calls_only() {
    let told = Told::new();
    assert_eq!(told.text("%GRPC_STATUS% %GRPC_STATUS_NUMBER%"), "- -");
    told.stream.set_grpc(true);
    assert_eq!(
        told.text("%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)%"),
        "NotFound NOT_FOUND 5"
    );
}

#[test]
fn json_escapes_and_keeps_numbers() {
    let told = Told::new();
    assert_eq!(told.json("%REQ(user-agent)%", false), "{\"k\":\"say \\\"hi\\\"\\t\\u0001\"}\n");
    assert_eq!(told.json("%RESPONSE_CODE%", false), "{\"k\":0}\n");
    assert_eq!(told.json("%RESPONSE_CODE% ", false), "{\"k\":\"0 \"}\n");
    assert_eq!(told.json("%REQ(nope)%", false), "{\"k\":null}\n");
    assert_eq!(told.json("%REQ(nope)%", true), "{}\n");
    assert_eq!(told.json("%REQ(nope)%%REQ(nope)%", true), "{\"k\":\"\"}\n");
}

#[test]
fn flags_and_details_of_a_stream() {
    let told = Told::new();
    told.stream.set_flag(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
    told.stream.set_flag(ResponseFlags::NO_ROUTE_FOUND);
    told.stream.set_details("route_not_found");
    assert_eq!(
        told.text("%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%"),
        "UF,NR UpstreamConnectionFailure,NoRouteFound"
    );
    assert_eq!(told.text("%RESPONSE_CODE_DETAILS%"), "route_not_found");
}

#[test]
fn filters() {
    let told = Told::new();
    let passes = |filter: AccessLogFilter| filter::passes(&filter, &told.context());
    let at_least = |value| Comparison { operation: ComparisonOperation::GreaterOrEqual, value };
    assert!(
        passes(AccessLogFilter::Duration(at_least(1))) && !passes(AccessLogFilter::Duration(at_least(2)))
    );
    assert!(!passes(AccessLogFilter::Status(at_least(1))) && passes(AccessLogFilter::Status(at_least(0))));
    assert!(!passes(AccessLogFilter::Flags(None)));
    // The id begins with a hexadecimal 10.
    let sample = |numerator| AccessLogFilter::Sample { numerator, denominator: 100, independent: false };
    assert!(passes(sample(11)) && !passes(sample(10)));
    let status = |statuses, exclude| AccessLogFilter::GrpcStatus { statuses, exclude };
    assert!(passes(status(1 << 5, false)) && !passes(status(1 << 5, true)) && !passes(status(1, false)));
    let never = || AccessLogFilter::LogType { types: LogType::DownstreamStart.bit(), exclude: false };
    assert!(!passes(AccessLogFilter::And([AccessLogFilter::NotHealthCheck, never()].into())));
    assert!(passes(AccessLogFilter::Or([AccessLogFilter::NotHealthCheck, never()].into())));
}

#[test]
fn filter_state_in_json_is_a_json_value() {
    use proxy_config::settings::FilterStateKind;
    let told = Told::new();
    let set = |key: &str, kind| {
        let object = proxy_net::FilterStateText { kind, text: b"a\"b".as_slice().into() };
        told.stream.filter_data().state.set(key, Rc::new(object));
    };
    set("text", FilterStateKind::Text);
    set("cluster", FilterStateKind::TcpCluster);
    assert_eq!(told.text("%FILTER_STATE(text)% %FILTER_STATE(text:PLAIN)%"), "\"a\\\"b\" a\"b");
    assert_eq!(told.json("%FILTER_STATE(text)%", false), "{\"k\":\"a\\\"b\"}\n");
    assert_eq!(told.json("%FILTER_STATE(text:PLAIN):1%", false), "{\"k\":\"a\"}\n");
    assert_eq!(told.json("%FILTER_STATE(cluster)%", false), "{\"k\":null}\n");
    assert_eq!(told.json("%FILTER_STATE(cluster)%", true), "{}\n");
}
