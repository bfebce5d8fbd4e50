//! What the admin port counts of itself, as Envoy's does: `listener.admin.*` and `http.admin.*`.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use hyper::body::{Body, Frame, SizeHint};
use proxy_filters::hcm::{ConnectionGuard, ListenerCodeStats, ManagerStats};
use proxy_runtime::{Instant, clock};
use proxy_stats::{GaugeGuard, Scope};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::answer::AnswerBody;
use crate::listener_stats::{ListenerConnection, ListenerCounts, ListenerStats};

/// The stats of the port.
pub(super) struct AdminCounts {
    listener: Rc<ListenerCounts>,
    manager: Arc<ManagerStats>,
    codes: ListenerCodeStats,
}

/// One connection to the port, for as long as it lives.
pub(super) struct CountedConnection {
    counts: Rc<AdminCounts>,
    http: ConnectionGuard,
    _listener: ListenerConnection,
}

/// A stream whose bytes are counted.
pub(super) struct CountedStream<S> {
    stream: S,
    connection: Option<Rc<CountedConnection>>,
}

/// The body of an answer, and the request that is counted until it has gone out.
pub(super) struct CountedBody {
    body: AnswerBody,
    request: Option<CountedRequest>,
}

struct CountedRequest {
    connection: Rc<CountedConnection>,
    started: Instant,
    ended: bool,
    _active: GaugeGuard,
}

impl AdminCounts {
    /// `root` is the scope of the whole store.
    pub(super) fn new(root: &Scope) -> Rc<AdminCounts> {
        let (listener, http) = (root.scope("listener.admin."), root.scope("http.admin."));
        let stats = Arc::new(ListenerStats::under(&listener));
        Rc::new(AdminCounts {
            listener: ListenerCounts::new(stats, &listener.scope("main_thread.")),
            manager: Arc::new(ManagerStats::under(&http)),
            codes: ListenerCodeStats::new(&listener.scope("http.admin.")),
        })
    }

    pub(super) fn connection(self: &Rc<Self>) -> Rc<CountedConnection> {
        let now = clock::now();
        self.listener.stats.connections_accepted_per_socket_event.record(1);
        Rc::new(CountedConnection {
            counts: Rc::clone(self),
            http: ConnectionGuard::new(&self.manager, now),
            _listener: ListenerConnection::new(&self.listener, now),
        })
    }
}

impl<S> CountedStream<S> {
    pub(super) fn new(stream: S, connection: Option<Rc<CountedConnection>>) -> Self {
        Self { stream, connection }
    }

    fn written(&self, polled: &Poll<io::Result<usize>>) {
        if let (Some(connection), Poll::Ready(Ok(count))) = (&self.connection, polled) {
            connection.counts.manager.downstream_cx_tx_bytes_total.add(*count as u64);
        }
    }
}

impl<S: AsFd> AsFd for CountedStream<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for CountedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let (Some(connection), true) = (&self.connection, polled.is_ready()) {
            match buffer.filled().len() - before {
                0 => connection.http.closed_by_peer(),
                count => {
                    connection.http.set_http1();
                    connection.counts.manager.downstream_cx_rx_bytes_total.add(count as u64);
                }
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CountedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.written(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Answers a request by `answer`, counted where the connection is.
pub(super) fn answered(
    connection: Option<&Rc<CountedConnection>>,
    answer: impl FnOnce() -> Response<AnswerBody>,
) -> Response<CountedBody> {
    let request = connection.map(CountedRequest::new);
    let response = answer();
    if let Some(CountedRequest { connection, .. }) = &request {
        // At its head, as Envoy does: so an answer about stats counts itself.
        let AdminCounts { manager, codes, .. } = &*connection.counts;
        codes.count_response(manager, response.status().as_u16());
    }
    response.map(|body| CountedBody { body, request })
}

impl CountedRequest {
    fn new(connection: &Rc<CountedConnection>) -> CountedRequest {
        let manager = &connection.counts.manager;
        manager.downstream_rq_total.inc();
        manager.downstream_rq_http1_total.inc();
        connection.http.set_active_request(true);
        CountedRequest {
            connection: Rc::clone(connection),
            started: clock::now(),
            ended: false,
            _active: GaugeGuard::new(manager.downstream_rq_active),
        }
    }

    fn end(self) {
        let manager = &self.connection.counts.manager;
        if !self.ended {
            manager.downstream_rq_rx_reset.inc();
            return;
        }
        self.connection.http.set_active_request(false);
        let time = clock::now().saturating_duration_since(self.started);
        manager.downstream_rq_time.record_milliseconds(time);
    }
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        if let Some(mut request) = self.request.take() {
            request.ended |= self.body.is_end_stream();
            request.end();
        }
    }
}

impl Body for CountedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let (Some(request), Poll::Ready(None)) = (&mut self.request, &polled) {
            request.ended = true;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
