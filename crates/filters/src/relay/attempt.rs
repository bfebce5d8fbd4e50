//! The attempt that made a relay on its way to another process, so that the line of an access log there tells of both.

use std::rc::Rc;
use std::time::Duration;

use proxy_http::Version;
use proxy_net::{AttemptGuard, Io, Moment, StreamRecord, Transfer, UpstreamAttempt, UpstreamHost};
use proxy_runtime::{Instant, clock};

use super::moving::MOST_BYTES;

/// An attempt that serves its stream. Moments are told as how long before the telling they were, in nanoseconds.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct MovedAttempt {
    #[prost(uint64, tag = "1")]
    start: u64,
    #[prost(uint64, optional, tag = "2")]
    connect_begin: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    connect_end: Option<u64>,
    #[prost(uint64, optional, tag = "4")]
    ready: Option<u64>,
    #[prost(uint64, optional, tag = "5")]
    send_begin: Option<u64>,
    #[prost(uint64, optional, tag = "6")]
    send_end: Option<u64>,
    #[prost(uint64, optional, tag = "7")]
    receive_begin: Option<u64>,
    #[prost(uint64, optional, tag = "8")]
    receive_end: Option<u64>,
    #[prost(message, optional, tag = "9")]
    sent: Option<MovedTransfer>,
    #[prost(message, optional, tag = "10")]
    received: Option<MovedTransfer>,
    #[prost(uint32, tag = "11")]
    status: u32,
    /// It was made over HTTP/1.1.
    #[prost(bool, tag = "12")]
    http1: bool,
    /// Attempts up to this one.
    #[prost(uint32, tag = "13")]
    count: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
struct MovedTransfer {
    #[prost(uint64, tag = "1")]
    headers: u64,
    #[prost(uint64, tag = "2")]
    body: u64,
    #[prost(uint64, tag = "3")]
    wire: u64,
}

impl MovedAttempt {
    /// `None` where nobody has asked for attempts to be kept.
    pub(crate) fn of(record: &StreamRecord) -> Option<MovedAttempt> {
        let attempt = record.last_attempt()?;
        let now = clock::now();
        let age = |moment: Instant| now.nanoseconds_since(moment);
        let told = |moment: &Moment| moment.at(attempt.start).map(age);
        let connect = attempt.connect.get();
        Some(MovedAttempt {
            start: age(attempt.start),
            connect_begin: connect.map(|(begin, _)| age(begin)),
            connect_end: connect.map(|(_, end)| age(end)),
            ready: told(&attempt.ready),
            send_begin: told(&attempt.send_begin),
            send_end: told(&attempt.send_end),
            receive_begin: told(&attempt.receive_begin),
            receive_end: told(&attempt.receive_end),
            sent: Some(MovedTransfer::of(&attempt.sent)),
            received: Some(MovedTransfer::of(&attempt.received)),
            status: attempt.status.get().into(),
            http1: attempt.protocol.get().is_some(),
            count: record.attempt_count.get(),
        })
    }

    /// Goes on with it as an attempt of `record`.
    fn restore(
        &self,
        record: &StreamRecord,
        host: Rc<dyn UpstreamHost>,
        told_at: Instant,
    ) -> Rc<UpstreamAttempt> {
        let past = |age: u64| told_at - Duration::from_nanos(age);
        let attempt = record.begin_attempt(host, past(self.start));
        let restore = |moment: &Moment, age: Option<u64>| {
            if let Some(age) = age {
                moment.set(attempt.start, past(age));
            }
        };
        restore(&attempt.ready, self.ready);
        restore(&attempt.send_begin, self.send_begin);
        restore(&attempt.send_end, self.send_end);
        restore(&attempt.receive_begin, self.receive_begin);
        restore(&attempt.receive_end, self.receive_end);
        attempt.connect.set(self.connect_begin.map(past).zip(self.connect_end.map(past)));
        self.sent.unwrap_or_default().restore(&attempt.sent);
        self.received.unwrap_or_default().restore(&attempt.received);
        attempt.status.set(u16::try_from(self.status).unwrap_or_default());
        attempt.protocol.set(self.http1.then(|| Version::Http11.as_str()));
        record.attempt_count.set(self.count);
        attempt
    }
}

impl MovedTransfer {
    fn of(transfer: &Transfer) -> MovedTransfer {
        let Transfer { headers, body, wire } = transfer;
        MovedTransfer { headers: headers.get(), body: body.get(), wire: wire.get() }
    }

    fn restore(self, transfer: &Transfer) {
        transfer.headers.set(self.headers.min(MOST_BYTES));
        transfer.body.set(self.body.min(MOST_BYTES));
        transfer.wire.set(self.wire.min(MOST_BYTES));
    }
}

/// The attempt at `host` that another process made for the stream of `record` and told of at `told_at`, over what is `io`
/// now. What that process has not told of it is taken from the record.
pub(crate) fn resumed(
    told: Option<MovedAttempt>,
    told_at: Instant,
    record: &StreamRecord,
    host: Rc<dyn UpstreamHost>,
    io: &Io,
) -> AttemptGuard {
    let attempt = match told {
        Some(told) => told.restore(record, host, told_at),
        None => {
            let attempt = record.begin_attempt(host, record.start);
            attempt.sent.set_all(record.received.body.get());
            attempt.received.set_all(record.sent.body.get());
            attempt.status.set(record.status.get());
            attempt
        }
    };
    *attempt.local.borrow_mut() = io.local_address().ok();
    AttemptGuard::new(Some(attempt))
}
