//! Bodies, pings and writes over a socket pair, `h2` on both ends.

use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use proxy_config::settings::Http2Keepalive;
use proxy_net::Io;
use proxy_net::buffer::{Chunk, ReadBuffer};
use proxy_stats::{ImportMode, Store, StoreOptions};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::body::{Body, BodyError, BodyStream, Frame};
use crate::headers::Headers;

fn queue(store: &Store) -> Rc<SendQueue> {
    SendQueue::new(store.root().gauge("pending", ImportMode::Accumulate))
}

/// Yields its chunks and then trailers.
struct Chunks(Vec<Chunk>, Option<Headers>);

impl BodyStream for Chunks {
    fn poll_frame(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        Poll::Ready(match self.0.pop() {
            Some(chunk) => Some(Ok(Frame::Data(chunk))),
            None => self.1.take().map(|trailers| Ok(Frame::Trailers(trailers))),
        })
    }

    fn remaining(&self) -> Option<u64> {
        None
    }
}

/// Polls a server connection, writing out what it has to say, until it ends.
async fn drive(mut connection: ::h2::server::Connection<Wire, Queued>, wire: Wire) {
    poll_fn(|cx| {
        let closed = connection.poll_closed(cx);
        let _ = wire.poll_flush_out(cx);
        closed.map(|_| ())
    })
    .await;
}

async fn accept(io: UnixStream) -> (Wire, ::h2::server::Connection<Wire, Queued>) {
    let wire = Wire::new(Io::Unix(io), ReadBuffer::new(), Side::Server, None);
    let mut handshake = std::pin::pin!(::h2::server::Builder::new().handshake::<_, Queued>(wire.clone()));
    let connection = poll_fn(|cx| {
        let polled = handshake.as_mut().poll(cx);
        let _ = wire.poll_flush_out(cx);
        polled
    });
    (wire.clone(), connection.await.unwrap())
}

async fn next_stream(
    wire: &Wire,
    connection: &mut ::h2::server::Connection<Wire, Queued>,
) -> (http::Request<::h2::RecvStream>, ::h2::server::SendResponse<Queued>) {
    poll_fn(|cx| {
        let polled = connection.poll_accept(cx);
        let _ = wire.poll_flush_out(cx);
        polled
    })
    .await
    .unwrap()
    .unwrap()
}

#[tokio::test]
async fn bodies_of_any_size_arrive_whole_and_leave_nothing_queued() {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let store = Store::create(StoreOptions::private(1)).unwrap();
            let queue = queue(&store);
            let (near, far) = UnixStream::pair().unwrap();
            let client = tokio::task::spawn_local(async move {
                let (mut send, connection) = ::h2::client::handshake(far).await.unwrap();
                tokio::task::spawn_local(connection);
                let (response, _) = send.send_request(http::Request::new(()), true).unwrap();
                let mut body = response.await.unwrap().into_body();
                let mut got = Vec::new();
                while let Some(data) = body.data().await {
                    let data = data.unwrap();
                    body.flow_control().release_capacity(data.len()).unwrap();
                    got.extend_from_slice(&data);
                }
                (got, body.trailers().await.unwrap())
            });
            let (wire, mut connection) = accept(near).await;
            let (_, mut respond) = next_stream(&wire, &mut connection).await;
            tokio::task::spawn_local(drive(connection, wire));
            let sizes = [300_000, 1, 100_000, 0, 33_000];
            let chunks: Vec<Chunk> = sizes.iter().map(|size| Chunk::copied(&vec![7; *size])).collect();
            let trailers: Headers = [("x-sum", "9")].into_iter().collect();
            let mut body = Body::Stream(Box::new(Chunks(chunks, Some(trailers))));
            let send = respond.send_response(http::Response::new(()), false).unwrap();
            let mut sender = BodySender::new(send, &queue, false);
            let mut moved = 0;
            poll_fn(|cx| sender.poll_send(cx, &mut body, |count| moved += count)).await.unwrap();
            assert!(sender.is_finished());
            let total: usize = sizes.iter().sum();
            let (got, trailers) = client.await.unwrap();
            assert_eq!((moved, got.len()), (total, total));
            assert_eq!(trailers.unwrap()["x-sum"], "9");
            drop((sender, respond));
            assert_eq!(store.value("pending"), Some(0));
        })
        .await;
}

#[tokio::test]
async fn a_receiver_opens_the_window_only_as_chunks_are_used() {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let (near, far) = UnixStream::pair().unwrap();
            let client = tokio::task::spawn_local(async move {
                let (mut send, connection) = ::h2::client::handshake(far).await.unwrap();
                tokio::task::spawn_local(connection);
                let (response, mut body) = send.send_request(http::Request::new(()), false).unwrap();
                body.send_data(Bytes::from(vec![1; 200_000]), true).unwrap();
                response.await.unwrap();
            });
            let (wire, mut connection) = accept(near).await;
            let (request, mut respond) = next_stream(&wire, &mut connection).await;
            tokio::task::spawn_local(drive(connection, wire));
            let mut receiver = BodyReceiver::new(request.into_body(), Some(200_000));
            let mut got = 0;
            while let Some(frame) = poll_fn(|cx| receiver.poll_frame(cx)).await {
                let Ok(Frame::Data(chunk)) = frame else { panic!("no data") };
                got += chunk.len() as u64;
                assert!(
                    receiver.is_ended()
                        || receiver.remaining() == Some(200_000 - got).filter(|left| *left > 0)
                );
            }
            assert_eq!((got, receiver.is_ended(), receiver.remaining()), (200_000, true, Some(0)));
            respond.send_response(http::Response::new(()), true).unwrap();
            client.await.unwrap();
        })
        .await;
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_lost() {
    let (near, mut far) = UnixStream::pair().unwrap();
    far.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let (wire, mut connection) = accept(near).await;
    let settings = Http2Keepalive {
        interval: Some(Duration::from_millis(1)),
        timeout: Duration::from_millis(1),
        interval_jitter_percent: 0.0,
        idle_interval: None,
    };
    let mut keepalive = Keepalive::new(Some(&settings), connection.ping_pong()).unwrap();
    poll_fn(|cx| {
        assert!(connection.poll_closed(cx).is_pending());
        let _ = wire.poll_flush_out(cx);
        keepalive.poll_lost(cx)
    })
    .await;
    assert!(Keepalive::new(None, None).is_none());
}

#[tokio::test]
async fn writes_are_gathered_and_come_out_in_order() {
    let (near, mut far) = UnixStream::pair().unwrap();
    let mut wire = Wire::new(Io::Unix(near), ReadBuffer::from_slice(b"\0\0\0\x04\0"), Side::Client, None);
    let mut cx = Context::from_waker(Waker::noop());
    let mut expected = Vec::new();
    for size in [9, 100, 20_000, 3, 8_000, 8_000, 8_000, 8_000, 8_000, 1] {
        let piece = vec![size as u8; size];
        let parts = [IoSlice::new(&piece[..size / 2]), IoSlice::new(&piece[size / 2..])];
        let written = Pin::new(&mut wire).poll_write_vectored(&mut cx, &parts);
        assert!(matches!(written, Poll::Ready(Ok(count)) if count == size), "{size}: {written:?}");
        expected.extend_from_slice(&piece);
    }
    assert!(wire.poll_flush_out(&mut cx).is_ready());
    assert_eq!(wire.take_written(), expected.len() as u64);
    let mut early = [0; 5];
    wire.read_exact(&mut early).await.unwrap();
    assert_eq!((&early, wire.take_read()), (b"\0\0\0\x04\0", 5));
    drop(wire);
    let mut got = Vec::new();
    far.read_to_end(&mut got).await.unwrap();
    assert!(got == expected);
}

#[tokio::test]
async fn a_peer_that_does_not_begin_with_settings_is_refused() {
    const TEXT: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for (side, first, accepted) in [
        (Side::Client, &b"\0\0\0\x04\0\0\0\0\0"[..], true),
        (Side::Client, b"\0\0\0\x04\x01\0\0\0\0", false),
        (Side::Client, b"\0\0\x08\x06\0\0\0\0\0", false),
        (Side::Client, b"HTTP/1.1 400 Bad Request", false),
        (Side::Server, &[TEXT, b"\0\0\0\x04\0\0\0\0\0"].concat(), true),
        (Side::Server, &[TEXT, b"\0\0\x01\x01\x05\0\0\0\x01\x82"].concat(), false),
    ] {
        for step in [1, 5, first.len()] {
            let (near, mut far) = UnixStream::pair().unwrap();
            let mut wire = Wire::new(Io::Unix(near), ReadBuffer::from_slice(&first[..2]), side, None);
            let mut read = vec![0; first.len()];
            let mut all = Ok(());
            for (piece, room) in first[2..].chunks(step).zip(read.chunks_mut(step)) {
                far.write_all(piece).await.unwrap();
                if all.is_ok() {
                    all = wire.read_exact(&mut room[..piece.len()]).await.map(|_| ());
                }
            }
            assert_eq!(all.is_ok(), accepted, "{first:?} in steps of {step}");
            assert_eq!(wire.waiting() > 0, !accepted, "GOAWAY for {first:?}");
        }
    }
}
