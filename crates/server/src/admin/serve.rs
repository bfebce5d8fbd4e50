//! Connections to the admin port and the control socket: how many, for how long, and how they end.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use proxy_stats::Scope;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, Sleep};
use tracing::{debug, info, warn};

use super::accept::Accept;
use super::answer::{Answer, AnswerBody};
use super::bind::Bound;
use super::counting::{AdminCounts, CountedStream, answered};
use super::crowd::{Crowd, Place};
use super::query::Query;
use super::routes::{Context, Peer};
use super::state::AdminState;
use super::trust::Trust;
use crate::logging::Log;
use crate::options::Options;

/// Serves any number of sockets with the same handlers. Lives on main, in a `LocalSet` or `LocalRuntime`.
pub struct Admin {
    context: Rc<Context>,
    trust: Rc<Trust>,
    finishing: watch::Sender<bool>,
}

/// A socket being served; stops to accept when dropped. Open connections stay.
#[derive(Debug)]
pub struct Served(JoinHandle<()>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Admin {
    #[must_use]
    pub fn new(state: Rc<dyn AdminState>, log: Log, options: Rc<Options>) -> Self {
        let trust = Rc::new(Trust::new(&options.admin_allowed_hosts));
        Self {
            context: Rc::new(Context::new(state, log, options)),
            trust,
            finishing: watch::Sender::new(false),
        }
    }

    /// Accepts until the returned value is dropped.
    #[must_use]
    pub fn serve(&self, bound: Bound) -> Served {
        self.serve_with(bound, None)
    }

    /// As [`Admin::serve`], for the admin address of the configuration, whose connections and requests are counted.
    /// `root` is the scope of the whole store.
    #[must_use]
    pub fn serve_counted(&self, bound: Bound, root: &Scope) -> Served {
        self.serve_with(bound, Some(AdminCounts::new(root)))
    }

    fn serve_with(&self, bound: Bound, counts: Option<Rc<AdminCounts>>) -> Served {
        let served = Connections {
            counts,
            context: Rc::clone(&self.context),
            trust: matches!(bound, Bound::Tcp(_)).then(|| Rc::clone(&self.trust)),
            finishing: self.finishing.subscribe(),
            crowd: Crowd::new(CONNECTIONS),
        };
        Served(spawn_local(served.accept(bound)))
    }

    /// Lets requests in progress be answered and closes all connections. To be given a deadline.
    pub async fn finish(&self) {
        self.finishing.send_replace(true);
        self.finishing.closed().await;
    }
}

/// The connections of one socket.
#[derive(Clone)]
struct Connections {
    counts: Option<Rc<AdminCounts>>,
    context: Rc<Context>,
    /// `None`: the peer is trusted.
    trust: Option<Rc<Trust>>,
    finishing: watch::Receiver<bool>,
    crowd: Crowd,
}

impl Connections {
    async fn accept(self, bound: Bound) {
        let mut finishing = self.finishing.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = finishing.wait_for(|finishing| *finishing) => return,
                accepted = accept(&bound) => accepted,
            };
            match accepted {
                Ok(accepted) => match (self.crowd.enter(), accepted) {
                    (Some(place), Accepted::Tcp(stream)) => self.spawn(stream, place),
                    (Some(place), Accepted::Unix(stream)) => self.spawn(stream, place),
                    (None, _) => {
                        debug!(
                            limit = CONNECTIONS,
                            "admin connection closed, too many others are being answered"
                        );
                    }
                },
                Err(error) => {
                    // Out of descriptors, mostly: the connection stays in the queue until there is one.
                    warn!(%error, "admin connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn spawn(&self, stream: impl AsyncRead + AsyncWrite + AsFd + Unpin + 'static, place: Place) {
        let connections = self.clone();
        spawn_local(async move {
            if let Err(error) = connections.serve(stream, &place).await {
                debug!(%error, "admin connection ended");
            }
        });
    }

    async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + AsFd + Unpin + 'static,
        place: &Place,
    ) -> Result<(), hyper::Error> {
        let (context, trust) = (self.context, self.trust);
        let counted = self.counts.as_ref().map(AdminCounts::connection);
        let stream = NoStall::new(CountedStream::new(stream, counted.clone()));
        let gone = Rc::clone(&stream.gone);
        let service = service_fn(move |request| {
            let respond = || respond(&context, trust.as_deref(), &request, gone.get());
            let response = place.answers(|| answered(counted.as_ref(), respond));
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let mut finishing = self.finishing;
        tokio::select! {
            biased;
            ended = &mut connection => return ended,
            () = place.lost() => {
                debug!(limit = CONNECTIONS, "idle admin connection closed, there are too many");
                return Ok(());
            }
            _ = finishing.wait_for(|finishing| *finishing) => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    }
}

/// `gone`: nobody is there any more to hear the answer.
fn respond(
    context: &Context,
    trust: Option<&Trust>,
    request: &Request<Incoming>,
    gone: bool,
) -> Response<AnswerBody> {
    let (method, uri) = (request.method(), request.uri());
    let peer = if trust.is_some() { Peer::Network } else { Peer::Trusted };
    let trusted = trust.map_or(Ok(()), |trust| trust.check(request.version(), uri, request.headers()));
    let accept = Accept::of(request.headers());
    let answer = match trusted {
        // Whoever gave up on a process that hung believes that nothing has happened.
        Ok(()) if gone && method == Method::POST => {
            info!(path = uri.path(), "not done: whoever asked for it has gone");
            Answer::error(StatusCode::REQUEST_TIMEOUT, "the client has gone\n")
        }
        Ok(()) => context.answer(peer, method, uri.path(), &Query::parse(uri.query(), accept)),
        Err(distrust) => Answer::error(StatusCode::FORBIDDEN, distrust.to_string()),
    };
    let response = answer.into_response(&context.renderers, accept.gzip);
    debug!(%method, path = uri.path(), status = response.status().as_u16(), "admin request");
    response
}

enum Accepted {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

async fn accept(bound: &Bound) -> io::Result<Accepted> {
    match bound {
        Bound::Tcp(listener) => listener.accept().await.map(|(stream, _)| Accepted::Tcp(stream)),
        Bound::Unix(listener) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
    }
}

/// A stream whose writes fail when the peer takes nothing for [`STALL_LIMIT`], and that knows whether the peer had gone when
/// something was read.
struct NoStall<S> {
    stream: S,
    stalled: Option<Pin<Box<Sleep>>>,
    gone: Rc<Cell<bool>>,
}

/// Whether the peer of a socket does not even listen any more. One that has only ended what it sends does; over TCP that looks
/// the same, until something is sent.
fn has_gone(socket: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::empty())];
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
    nix::poll::poll(&mut polled, PollTimeout::ZERO).is_ok()
        && polled[0].revents().is_some_and(|events| events.intersects(gone))
}

impl<S> NoStall<S> {
    fn new(stream: S) -> Self {
        Self { stream, stalled: None, gone: Rc::default() }
    }

    fn watch<T>(&mut self, context: &mut TaskContext<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stalled = None;
            return poll;
        }
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + STALL_LIMIT)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + AsFd + Unpin> AsyncRead for NoStall<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if polled.is_ready() {
            self.gone.set(has_gone(self.stream.as_fd()));
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for NoStall<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.watch(context, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Per socket: a crowd on the admin port does not keep `proxyctl` out.
const CONNECTIONS: usize = 128;
/// For a request's head, and how long a connection may idle before it.
const HEAD_LIMIT: Duration = Duration::from_secs(30);
const STALL_LIMIT: Duration = Duration::from_secs(30);
/// What a connection holds of a head or an answer.
const BUFFER_BYTES: usize = 64 << 10;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
