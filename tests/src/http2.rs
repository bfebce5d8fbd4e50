//! HTTP/2 clients and backends over the `h2` crate, each test on a runtime of its own.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::PATIENCE;

/// Runs `test` on a current-thread runtime, never longer than [`PATIENCE`].
pub fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(PATIENCE, test).await.expect("the test ran out of patience") })
}

/// As [`crate::eventually`], for inside [`block_on`]: connections go on meanwhile.
pub async fn eventually<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let mut turns = tokio::time::interval(Duration::from_millis(5));
    let asking = async {
        loop {
            turns.tick().await;
            if let Some(found) = answer() {
                return found;
            }
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain for {what}"))
}

/// A client connection.
pub struct Client {
    send: SendRequest<Bytes>,
    /// Ends when the connection does, with what ended it.
    pub connection: JoinHandle<Result<(), h2::Error>>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// A header's value as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("test headers are text"))
    }
}

impl Client {
    /// Connects with prior knowledge.
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (send, connection) = h2::client::handshake(socket).await.unwrap();
        Self { send, connection: tokio::spawn(connection) }
    }

    /// Waits until the peer takes extended CONNECT.
    pub async fn until_upgrades(&self) {
        let enabled = || self.send.is_extended_connect_protocol_enabled().then_some(());
        eventually("SETTINGS_ENABLE_CONNECT_PROTOCOL", enabled).await;
    }

    /// Opens a stream; the body goes through the returned sender unless `end`.
    pub async fn open(
        &mut self,
        request: Request<()>,
        end: bool,
    ) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
        let mut ready = self.send.clone().ready().await.expect("the connection takes another stream");
        ready.send_request(request, end).expect("the test's request is well-formed")
    }

    /// Whether the connection still takes streams.
    pub async fn takes_streams(&self) -> bool {
        self.send.clone().ready().await.is_ok()
    }

    /// How many streams the peer allows at once, as far as known.
    #[must_use]
    pub fn stream_limit(&self) -> usize {
        self.send.current_max_send_streams()
    }

    /// Sends a GET and reads the whole answer.
    pub async fn get(&mut self, target: &str) -> Answer {
        let (response, _) = self.open(request("GET", target), true).await;
        answer(response).await.expect("an answer")
    }

    /// As [`Client::get`]. `None`: the connection takes no more streams, and nothing has been sent.
    pub async fn try_get(&mut self, target: &str) -> Option<Result<Answer, h2::Error>> {
        let mut ready = self.send.clone().ready().await.ok()?;
        let (response, _) = ready.send_request(request("GET", target), true).ok()?;
        Some(answer(response).await)
    }

    /// Sends a POST with `body` and optional trailers, and reads the whole answer.
    pub async fn post(&mut self, target: &str, body: &[u8], trailers: Option<HeaderMap>) -> Answer {
        let (response, mut send) = self.open(request("POST", target), false).await;
        let sending = async {
            send_all(&mut send, body, trailers.is_none()).await.expect("the body is taken");
            if let Some(trailers) = trailers {
                send.send_trailers(trailers).expect("trailers are taken");
            }
        };
        let ((), answer) = tokio::join!(sending, answer(response));
        answer.expect("an answer")
    }
}

/// A request for `http://example.com` + `target`.
#[must_use]
pub fn request(method: &str, target: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://example.com{target}")).body(()).unwrap()
}

/// Reads an answer to its end.
pub async fn answer(response: h2::client::ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    let (bytes, trailers) = read_all(&mut body).await?;
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: bytes, trailers })
}

/// Reads a body and its trailers, giving the window back as it goes.
pub async fn read_all(body: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        bytes.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len())?;
    }
    Ok((bytes, body.trailers().await?))
}

/// Sends `body` as the window allows.
pub async fn send_all(send: &mut SendStream<Bytes>, body: &[u8], end: bool) -> Result<(), h2::Error> {
    let mut rest = Bytes::copy_from_slice(body);
    while !rest.is_empty() {
        send.reserve_capacity(rest.len());
        let room = std::future::poll_fn(|context| send.poll_capacity(context)).await;
        let Some(room) = room.transpose()? else { return Ok(()) };
        send.send_data(rest.split_to(room.min(rest.len())), false)?;
    }
    if end {
        send.send_data(Bytes::new(), true)?;
    }
    Ok(())
}

/// What an HTTP/2 backend does with one stream.
pub type Handled = Pin<Box<dyn Future<Output = ()> + Send>>;
type Handler = dyn Fn(Request<RecvStream>, SendResponse<Bytes>) -> Handled + Send + Sync;

/// An HTTP/2 backend with prior knowledge, on a thread of its own.
pub struct Backend {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<http::request::Parts>>>,
    _stop: oneshot::Sender<()>,
}

impl Backend {
    /// Serves every stream by `handler`.
    pub fn new(
        handler: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> Handled + Send + Sync + 'static,
    ) -> Self {
        Self::serving(false, handler)
    }

    /// Serves every stream by `handler`; with `upgrades` it says that it takes extended CONNECT.
    pub fn serving(
        upgrades: bool,
        handler: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> Handled + Send + Sync + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let (stop, stopped) = oneshot::channel::<()>();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                tokio::select! {
                    () = accept(TcpListener::from_std(listener).unwrap(), Arc::new(handler), seen, upgrades) => {}
                    _ = stopped => {} // the test has let go of the backend
                }
            });
        });
        Self { address, requests, _stop: stop }
    }

    /// Answers 200 with the request's body and trailers, streaming.
    #[must_use]
    pub fn echo() -> Self {
        Self::new(|request, mut respond| {
            Box::pin(async move {
                let mut body = request.into_body();
                let Ok(mut send) = respond.send_response(Response::new(()), false) else { return };
                while let Some(Ok(data)) = body.data().await {
                    let _ = body.flow_control().release_capacity(data.len());
                    if send_all(&mut send, &data, false).await.is_err() {
                        return;
                    }
                }
                let _ = match body.trailers().await {
                    Ok(Some(trailers)) => send.send_trailers(trailers),
                    _ => send.send_data(Bytes::new(), true),
                };
            })
        })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Heads of the requests received so far.
    #[must_use]
    pub fn requests(&self) -> Vec<http::request::Parts> {
        self.requests.lock().unwrap().clone()
    }
}

async fn accept(
    listener: TcpListener,
    handler: Arc<Handler>,
    seen: Arc<Mutex<Vec<http::request::Parts>>>,
    upgrades: bool,
) {
    while let Ok((socket, _)) = listener.accept().await {
        let (handler, seen) = (Arc::clone(&handler), Arc::clone(&seen));
        tokio::spawn(async move {
            let mut builder = h2::server::Builder::new();
            if upgrades {
                builder.enable_connect_protocol();
            }
            let Ok(mut connection) = builder.handshake(socket).await else { return };
            while let Some(Ok((request, respond))) = connection.accept().await {
                let (parts, body) = request.into_parts();
                seen.lock().unwrap().push(parts.clone());
                tokio::spawn(handler(Request::from_parts(parts, body), respond));
            }
        });
    }
}
