//! A connection of HTTP/1 on its way to another process: between two requests or before the first, or as a tunnel.

use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

use prost::Message;
use proxy_config::settings::{FilterStateKind, Http1Options};
use proxy_http::filter::ChainIndex;
use proxy_http::h1::head::{HeadLimits, RequestRules, parse_request, parse_response};
use proxy_http::h1::write::{HeadStyle, write_request_head, write_response_head};
use proxy_http::{StreamInfo, StreamTimer};
use proxy_net::buffer::ReadBuffer;
use proxy_net::{
    Connection, ConnectionInfo, FilterStateText, Io, Moved, MovedConnection, MovedKind, Receipt,
};
use proxy_runtime::{Instant, clock};

use super::Manager;
use crate::relay::moving::{MOST_BYTES, MovedRelay};

/// What the connection manager of another process tells of a connection.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct MovedHttp {
    /// Requests it has served. 0: it has not even said which version of HTTP it is.
    #[prost(uint32, tag = "1")]
    pub(super) requests: u32,
    /// Until `max_connection_duration`, in milliseconds.
    #[prost(uint64, optional, tag = "2")]
    left_ms: Option<u64>,
    /// It is no longer HTTP; only of a [`MovedKind::Upgraded`].
    /// Boxed, because every connection's future has room for what may be told of it.
    #[prost(message, optional, boxed, tag = "3")]
    pub(super) upgrade: Option<Box<MovedUpgrade>>,
}

/// A stream that has become a tunnel.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct MovedUpgrade {
    #[prost(message, optional, tag = "1")]
    pub(super) relay: Option<MovedRelay>,
    /// Of the response that opened it.
    #[prost(uint32, tag = "2")]
    status: u32,
    /// Since the request, in microseconds.
    #[prost(uint64, tag = "3")]
    age_us: u64,
    /// The limit on idling, in milliseconds.
    #[prost(uint64, optional, tag = "4")]
    idle_ms: Option<u64>,
    /// Until `max_stream_duration`, in milliseconds.
    #[prost(uint64, optional, tag = "5")]
    duration_left_ms: Option<u64>,
    /// Bytes of bodies so far, from the client and to it.
    #[prost(uint64, tag = "6")]
    received: u64,
    #[prost(uint64, tag = "7")]
    sent: u64,
    /// Both heads in the form of HTTP/1.1, as far as an access log tells of them.
    #[prost(bytes = "vec", tag = "8")]
    request: Vec<u8>,
    #[prost(bytes = "vec", tag = "9")]
    response: Vec<u8>,
    /// The upgrade whose own chain of filters serves it; empty: that of `http_filters` does.
    #[prost(string, tag = "10")]
    chain_of: String,
    /// The head of the host's response, if an upstream log tells of it.
    #[prost(bytes = "vec", tag = "11")]
    upstream_response: Vec<u8>,
    #[prost(string, tag = "12")]
    route_name: String,
    #[prost(message, repeated, tag = "13")]
    filter_state: Vec<MovedText>,
}

/// An object of a stream's filter state that the configuration has set.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct MovedText {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "vec", tag = "2")]
    text: Vec<u8>,
    /// `envoy.tcp_proxy.cluster`, or else `envoy.string`.
    #[prost(bool, tag = "3")]
    names_cluster: bool,
}

impl MovedHttp {
    pub(super) fn new(requests: u32, left: Option<Duration>) -> MovedHttp {
        MovedHttp { requests, left_ms: left.map(milliseconds), upgrade: None }
    }

    pub(super) fn upgraded(requests: u32, left: Option<Duration>, upgrade: MovedUpgrade) -> MovedHttp {
        MovedHttp { upgrade: Some(Box::new(upgrade)), ..MovedHttp::new(requests, left) }
    }

    /// What the connection's own manager says of itself, and what came beside it; `None` if another process has not told
    /// of it.
    pub(super) fn of(connection: &mut Connection) -> Option<(MovedHttp, Box<Moved>)> {
        let mut moved = connection.moved.take()?;
        let mut state = MovedHttp::decode(&*std::mem::take(&mut moved.state)).ok()?;
        // Its time goes on between the processes.
        let transit = milliseconds(clock::now().saturating_duration_since(moved.told_at));
        state.left_ms = state.left_ms.map(|left| left.saturating_sub(transit));
        Some((state, moved))
    }

    /// Until `max_connection_duration`.
    pub(super) fn left(&self) -> Option<Duration> {
        self.left_ms.map(Duration::from_millis)
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl MovedUpgrade {
    pub(super) fn of(manager: &Manager, stream: &StreamInfo, relay: MovedRelay) -> MovedUpgrade {
        let record = &stream.record;
        let (mut request, mut response, mut upstream_response) = (Vec::new(), Vec::new(), Vec::new());
        let kept = stream.kept();
        if let Some(kept) = &kept.request {
            write_request_head(kept, HeadStyle::default(), &mut request);
        }
        if let Some(kept) = &kept.response {
            write_response_head(record.status.get(), kept, HeadStyle::default(), &mut response);
        }
        if let Some(kept) = &kept.upstream_response {
            write_response_head(record.status.get(), kept, HeadStyle::default(), &mut upstream_response);
        }
        for head in [&mut request, &mut response, &mut upstream_response] {
            if head.len() > MAX_HEAD {
                head.clear();
            }
        }
        let mut filter_state: Vec<_> =
            stream.filter_data_if_any().map(|data| data.state.texts()).unwrap_or_default();
        if filter_state.iter().map(|(key, object)| key.len() + object.text.len()).sum::<usize>() > MAX_HEAD {
            filter_state.clear();
        }
        let route_name = stream.route().map(|route| route.chosen().route().name.to_string());
        let age = clock::now().saturating_duration_since(record.start);
        let mut upgrades = manager.settings.upgrades.iter().filter(|upgrade| upgrade.chain > 0);
        let own = upgrades.find(|upgrade| upgrade.chain == stream.filter_chain().0);
        MovedUpgrade {
            relay: Some(relay),
            status: record.status.get().into(),
            age_us: u64::try_from(age.as_micros()).unwrap_or(u64::MAX),
            idle_ms: stream.idle_timeout().map(milliseconds),
            duration_left_ms: stream.deadlines().left(StreamTimer::Duration as usize).map(milliseconds),
            received: record.received.body.get(),
            sent: record.sent.body.get(),
            request,
            response,
            upstream_response,
            chain_of: own.map(|upgrade| upgrade.kind.to_string()).unwrap_or_default(),
            route_name: route_name.or_else(|| stream.moved_route().map(str::to_owned)).unwrap_or_default(),
            filter_state: filter_state
                .into_iter()
                .map(|(key, object)| MovedText {
                    key: key.into(),
                    text: object.text.to_vec(),
                    names_cluster: object.kind == FilterStateKind::TcpCluster,
                })
                .collect(),
        }
    }

    /// When its request came. This was told at `told_at`.
    pub(super) fn start(&self, told_at: Instant) -> Instant {
        told_at - Duration::from_micros(self.age_us)
    }

    /// Makes a new stream what it was in the other process at `told_at`.
    pub(super) fn restore(&self, manager: &Manager, stream: &StreamInfo, told_at: Instant) {
        stream.open_tunnel();
        let own = manager.settings.upgrades.iter().find(|upgrade| *upgrade.kind == *self.chain_of);
        manager
            .set_filter_chain(stream, own.map_or(ChainIndex::default(), |upgrade| ChainIndex(upgrade.chain)));
        stream.set_timeout(StreamTimer::Idle, self.idle_ms.map(Duration::from_millis), clock::now());
        let left = self.duration_left_ms.map(Duration::from_millis);
        stream.set_timeout(StreamTimer::Duration, left, told_at);
        let record = &stream.record;
        record.status.set(u16::try_from(self.status).unwrap_or_default());
        record.received.set_all(self.received.min(MOST_BYTES));
        record.sent.set_all(self.sent.min(MOST_BYTES));
        record.set_details("via_upstream");
        if !self.route_name.is_empty() {
            stream.set_moved_route(&self.route_name);
        }
        for MovedText { key, text, names_cluster } in &self.filter_state {
            let kind = if *names_cluster { FilterStateKind::TcpCluster } else { FilterStateKind::Text };
            let object = FilterStateText { kind, text: text.as_slice().into() };
            stream.filter_data().state.set(key, Rc::new(object));
        }
        let limits = HeadLimits { bytes: MAX_HEAD, lines: 1000 };
        if let Ok(Some((head, _))) = parse_request(&self.request, &RequestRules::plain(limits)) {
            stream.keep_request(head.request);
        }
        if let Ok(Some((head, _))) = parse_response(&self.response, limits, &Http1Options::PLAIN, false) {
            stream.keep_response(head.headers);
        }
        if let Ok(Some((head, _))) =
            parse_response(&self.upstream_response, limits, &Http1Options::PLAIN, false)
        {
            stream.kept().upstream_response = Some(head.headers);
        }
    }
}

/// Longer heads are not told of, so that all fits a message. Bytes.
const MAX_HEAD: usize = 16 << 10;

impl Manager {
    /// Offers a connection that has become a tunnel; `descriptors` are its own and what the relay adds.
    pub(super) async fn offer_upgraded(
        &self,
        descriptors: &[BorrowedFd<'_>],
        info: &ConnectionInfo,
        state: &MovedHttp,
    ) -> Option<Receipt> {
        let nothing = ReadBuffer::new();
        let kind = MovedKind::Upgraded;
        let moved = MovedConnection::new(info, &nothing, kind, state.encode_to_vec(), clock::now());
        self.offer_with(&moved, descriptors).await
    }

    /// Whether the host that a tunnel of another process goes to is one of ours.
    pub(super) fn would_resume(&self, moved: &MovedConnection) -> bool {
        let state = MovedHttp::decode(&*moved.filter).ok();
        let relay = state.and_then(|state| state.upgrade?.relay);
        relay.is_some_and(|relay| self.default_chain.router.find_host(&relay.cluster, &relay.host).is_some())
    }

    async fn offer_with(&self, moved: &MovedConnection, descriptors: &[BorrowedFd<'_>]) -> Option<Receipt> {
        match self.handover.offer(moved.encode_to_vec(), descriptors).await {
            Ok(receipt) => receipt,
            Err(error) => {
                tracing::debug!(target: "restart", %error, "a connection cannot be offered");
                None
            }
        }
    }

    /// Offers a connection to the next process. With a receipt it is that one's, once it has been dropped here.
    /// `prefix` is at most [`SMALL`](proxy_net::buffer::SMALL) long, to fit a message.
    pub(super) async fn offer(
        &self,
        io: &Io,
        prefix: &ReadBuffer,
        info: &ConnectionInfo,
        state: MovedHttp,
    ) -> Option<Receipt> {
        let moved = MovedConnection::new(info, prefix, MovedKind::Http, state.encode_to_vec(), clock::now());
        self.offer_with(&moved, &[io.as_fd()]).await
    }
}
