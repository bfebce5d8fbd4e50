//! Blocks between the frames of `h2`, over a socket that is never wide enough.

use std::future::{Future, poll_fn};
use std::pin::pin;

use bytes::Bytes;
use proxy_net::Io;
use proxy_net::buffer::ReadBuffer;
use proxy_stats::{Store, StoreOptions};
use tokio::net::UnixStream;
use tokio::task::{LocalSet, spawn_local};

use super::super::{Queued, Wire};
use super::hpack::Lines;
use super::*;

/// Polls `h2` and writes out what it and METADATA have to say, until `h2` is done.
async fn drive<T>(wire: &Wire, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let polled = work.as_mut().poll(cx);
        let _ = wire.poll_flush_out(cx);
        polled
    })
    .await
}

fn block(stream: u32, number: usize) -> Lines {
    // From one that is lost in a frame to one that takes several.
    let value = vec![b'v'; number * number * 40];
    vec![(format!("{stream}.{number}").into_bytes(), value)]
}

const BLOCKS: usize = 40;
const BODY: usize = 300_000;
const STREAMS: u32 = 8;

/// Sends a request with a body and all blocks at odd moments of it.
async fn send(wire: Wire, mut send: h2::client::SendRequest<Bytes>) {
    let (response, mut body) = send.send_request(http::Request::new(()), false).unwrap();
    let metadata = wire.metadata(response.stream_id()).unwrap();
    let id = metadata.stream.id;
    let mut left = Bytes::from(vec![b'd'; BODY]);
    for number in 0..BLOCKS {
        metadata.stream.write(Block { payload: hpack::encode(&block(id, number)), behind_head: true });
        let count = (BODY / BLOCKS / 2 * (number % 3)).min(left.len());
        if count > 0 {
            body.send_data(left.split_to(count), false).unwrap();
        }
        if number % 5 == 0 {
            tokio::task::yield_now().await;
        }
    }
    body.send_data(left, true).unwrap();
    response.await.unwrap();
}

/// Reads a request to its end and answers; the blocks that came with it.
async fn receive(
    wire: Wire,
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Queued>,
) -> u32 {
    let metadata = wire.metadata(respond.stream_id()).unwrap();
    let mut body = request.into_body();
    let mut length = 0;
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        assert!(data.iter().all(|byte| *byte == b'd'));
        length += data.len();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(length, BODY);
    let id = metadata.stream.id;
    let came = metadata.stream.kept.take();
    assert_eq!(came.len(), BLOCKS, "stream {id}");
    for (number, came) in came.into_iter().enumerate() {
        assert!(came.behind_head);
        assert_eq!(hpack::decode(&came.payload, usize::MAX).as_ref(), Ok(&block(id, number)));
    }
    respond.send_response(http::Response::new(()), true).unwrap();
    id
}

#[tokio::test]
async fn blocks_arrive_whole_and_in_order_between_bodies() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let store = Store::create(StoreOptions::private(1)).unwrap();
            let stats = Http2Stats::under(&store.root());
            let options = Http2Options { max_metadata_size: Some(64 << 20), ..Http2Options::default() };
            let (near, far) = UnixStream::pair().unwrap();
            let client = Wire::new(Io::Unix(far), ReadBuffer::new(), Side::Client, Some((&options, &stats)));
            let server = Wire::new(Io::Unix(near), ReadBuffer::new(), Side::Server, Some((&options, &stats)));

            let sending = spawn_local(async move {
                let handshake = h2::client::Builder::new().handshake::<_, Bytes>(client.clone());
                let (requests, connection) = drive(&client, handshake).await.unwrap();
                let streams: Vec<_> =
                    (0..STREAMS).map(|_| spawn_local(send(client.clone(), requests.clone()))).collect();
                drop(requests);
                drive(&client, connection).await.unwrap();
                for stream in streams {
                    stream.await.unwrap();
                }
                assert_eq!(client.waiting(), 0);
            });

            let handshake = h2::server::Builder::new().handshake::<_, Queued>(server.clone());
            let mut connection = drive(&server, handshake).await.unwrap();
            let mut streams = Vec::new();
            while let Some(accepted) = drive(&server, connection.accept()).await {
                let (request, respond) = accepted.unwrap();
                streams.push(spawn_local(receive(server.clone(), request, respond)));
            }
            let mut served = Vec::new();
            for stream in streams {
                served.push(stream.await.unwrap());
            }
            assert_eq!(served.len(), STREAMS as usize);
            sending.await.unwrap();
        })
        .await;
}

#[test]
fn a_stream_that_nobody_serves_leaves_nothing() {
    let store = Store::create(StoreOptions::private(1)).unwrap();
    let stats = Http2Stats::under(&store.root());
    let options = Http2Options { max_metadata_size: Some(1000), ..Http2Options::default() };
    let frames = MetadataFrames::new(Side::Server, &options, &stats).unwrap();
    let bytes = |kind, flags, stream, payload: &[u8]| {
        [&FrameHead { length: payload.len(), kind, flags, stream }.to_bytes()[..], payload].concat()
    };
    let line = hpack::encode(&[(b"a".to_vec(), b"1".to_vec())]);
    frames.received(&[b' '; CLIENT_PREFACE]).unwrap();
    for stream in [1, 3, 5] {
        frames.received(&bytes(HEADERS, END_HEADERS, stream, b"")).unwrap();
        frames.received(&bytes(METADATA, END_METADATA, stream, &line)).unwrap();
    }
    let third = frames.claim(3);
    frames.forget_unclaimed();
    assert!(third.has_come());
    assert_eq!(frames.streams.borrow().len(), 1);

    // One that is done with its response still to be written stays until that has its end, whoever ends it.
    third.stream.write(Block { payload: line.clone(), behind_head: true });
    drop(third);
    assert!(frames.is_waiting() && frames.take_frames().is_empty());
    frames.sent(&bytes(HEADERS, END_HEADERS, 3, b""));
    assert_eq!(frames.take_frames(), bytes(METADATA, END_METADATA, 3, &line));
    frames.sent(&bytes(DATA, END_STREAM, 3, b""));
    assert!(frames.streams.borrow().is_empty() && !frames.is_waiting());

    frames.received(&bytes(HEADERS, END_HEADERS, 7, b"")).unwrap();
    let seventh = frames.claim(7);
    seventh.stream.write(Block { payload: line, behind_head: true });
    drop(seventh);
    frames.received(&bytes(RST_STREAM, 0, 7, &[0; 4])).unwrap();
    assert!(frames.take_frames().is_empty());
    assert!(frames.streams.borrow().is_empty() && !frames.is_waiting());
}
