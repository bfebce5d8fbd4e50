use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::direction::Direction;
use super::*;
use proxy_net::pipe::{Pipe, pooled};

async fn tcp_pair(buffer: Option<u32>) -> (TcpStream, TcpStream) {
    let (near, far) = (TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap());
    for socket in [&near, &far] {
        if let Some(size) = buffer {
            socket.set_send_buffer_size(size).unwrap();
            socket.set_recv_buffer_size(size).unwrap();
        }
    }
    far.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener: TcpListener = far.listen(1).unwrap();
    let (near, far) = tokio::join!(near.connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// A relay with the client's and the server's far ends.
async fn joined(buffer: Option<u32>) -> (TcpStream, Relay, TcpStream) {
    let (client, downstream) = tcp_pair(buffer).await;
    let (upstream, server) = tcp_pair(buffer).await;
    let relay = Relay::new(Io::Tcp(downstream), ReadBuffer::new(), Io::Tcp(upstream));
    (client, relay, server)
}

async fn run(relay: &mut Relay) -> End {
    poll_fn(|context| relay.poll_relay(context)).await
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

#[tokio::test]
async fn each_end_may_finish_first_and_still_receives() {
    for client_first in [true, false] {
        let (client, mut relay, server) = joined(None).await;
        let (mut first, mut second) = if client_first { (client, server) } else { (server, client) };
        let ends = async {
            first.write_all(b"all of it").await.unwrap();
            first.shutdown().await.unwrap();
            let mut got = Vec::new();
            second.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"all of it");
            second.write_all(b"answer").await.unwrap();
            second.shutdown().await.unwrap();
            got.clear();
            first.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"answer");
        };
        let (end, ()) = tokio::join!(run(&mut relay), ends);
        let expected = if client_first { Side::Upstream } else { Side::Downstream };
        assert!(matches!(end, End::Finished { last } if last == expected), "{end:?}");
        let totals = relay.flow().totals();
        let (asked, answered) =
            if client_first { (totals.up, totals.down) } else { (totals.down, totals.up) };
        assert_eq!((asked.read, asked.written, answered.read, answered.written), (9, 9, 6, 6));
    }
}

#[tokio::test]
async fn what_was_read_ahead_goes_first() {
    let (mut client, downstream) = tcp_pair(None).await;
    let (upstream, mut server) = tcp_pair(None).await;
    let mut relay = Relay::new(Io::Tcp(downstream), ReadBuffer::from_slice(b"hello "), Io::Tcp(upstream));
    let ends = async {
        client.write_all(b"world").await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = String::new();
        server.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "hello world");
        drop(server);
    };
    tokio::join!(run(&mut relay), ends);
    assert_eq!((relay.flow().totals().up.read, relay.flow().totals().up.written), (11, 11));
}

#[tokio::test]
async fn ten_megabytes_pass_both_ways_at_once() {
    let (client, mut relay, server) = joined(None).await;
    let exchange = |stream: TcpStream, seed: u64| async move {
        let (sent, expected) = (noise(10_000_000, seed), noise(10_000_000, 3 - seed));
        let (mut reader, mut writer) = stream.into_split();
        let send = async {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let (_, count) = tokio::join!(send, reader.read_to_end(&mut got));
        count.unwrap();
        assert!(got == expected);
    };
    let (end, (), ()) = tokio::join!(run(&mut relay), exchange(client, 1), exchange(server, 2));
    assert!(matches!(end, End::Finished { .. }), "{end:?}");
    assert_eq!(relay.flow().pending(), (0, 0));
    let (total, idle) = pooled();
    assert!(total > 0, "bulk goes through pipes");
    assert_eq!(total, idle, "which are given back");
}

#[tokio::test]
async fn a_slow_reader_holds_the_sender_back() {
    let (client, mut relay, mut server) = joined(Some(16 * 1024)).await;
    let mut sent = 0_usize;
    // The server sends until neither it nor the relay makes progress any more.
    let block = noise(50_000, 5);
    let stuck = poll_fn(|context| {
        loop {
            assert!(relay.poll_relay(context).is_pending());
            match Pin::new(&mut server).poll_write(context, &block) {
                Poll::Ready(count) => sent += count.unwrap(),
                Poll::Pending if relay.flow().totals().down.paused > 0 => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    stuck.await;
    let (_, held) = relay.flow().pending();
    assert!(held > 0 && held <= 256 * 1024, "{held} bytes are held");
    let totals = relay.flow().totals().down;
    assert_eq!(totals.read - totals.written, held as u64);
    let ends = async {
        drop(server);
        let (mut client, mut got) = (client, Vec::new());
        client.read_to_end(&mut got).await.unwrap();
        assert_eq!(got.len(), sent);
    };
    tokio::join!(run(&mut relay), ends);
    assert!(relay.flow().totals().down.resumed > 0);
    assert_eq!(relay.flow().totals().down.paused, relay.flow().totals().down.resumed);
}

#[tokio::test]
async fn a_reset_resets_the_other_side() {
    for client_resets in [true, false] {
        let (client, mut relay, server) = joined(None).await;
        let (resetting, mut other) = if client_resets { (client, server) } else { (server, client) };
        resetting.set_zero_linger().unwrap();
        drop(resetting);
        let end = run(&mut relay).await;
        let side = if client_resets { Side::Downstream } else { Side::Upstream };
        assert!(matches!(&end, End::Failed { side: failed, .. } if *failed == side), "{end:?}");
        drop(relay);
        let error = other.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_reset_is_noticed_while_the_other_side_does_not_read() {
    let (mut client, mut relay, mut server) = joined(Some(16 * 1024)).await;
    let block = noise(50_000, 5);
    poll_fn(|context| {
        loop {
            assert!(relay.poll_relay(context).is_pending());
            if Pin::new(&mut client).poll_write(context, &block).is_pending() {
                return if relay.flow().is_paused() { Poll::Ready(()) } else { Poll::Pending };
            }
        }
    })
    .await;
    client.set_zero_linger().unwrap();
    drop(client);
    let end = poll_fn(|context| {
        relay.probe();
        let polled = relay.poll_relay(context);
        if polled.is_pending() {
            context.waker().wake_by_ref();
        }
        polled
    });
    let end = end.await;
    assert!(matches!(end, End::Failed { side: Side::Downstream, .. }), "{end:?}");
    drop(relay);
    let error = server.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_client_that_is_gone_ends_the_stream_without_a_reset() {
    let (client, mut relay, mut server) = joined(None).await;
    let ends = async {
        drop(client);
        let mut got = Vec::new();
        assert_eq!(server.read_to_end(&mut got).await.unwrap(), 0);
        // Nobody reads this any more: the client's system answers with a reset, which reaches the server in its turn.
        while server.write_all(&[1; 1000]).await.is_ok() {}
    };
    tokio::select! {
        end = run(&mut relay) => assert!(matches!(end, End::Failed { side: Side::Downstream, .. }), "{end:?}"),
        () = ends => {}
    }
}

#[tokio::test]
async fn an_idle_relay_holds_neither_buffers_nor_pipes() {
    let (mut client, mut relay, mut server) = joined(None).await;
    let bytes = noise(3_000_000, 9);
    let ends = async {
        let mut got = vec![0; bytes.len()];
        let (sent, received) = tokio::join!(client.write_all(&bytes), server.read_exact(&mut got));
        sent.unwrap();
        received.unwrap();
        assert!(got == bytes);
    };
    tokio::select! {
        end = run(&mut relay) => panic!("{end:?}"),
        () = ends => {}
    }
    poll_fn(|context| {
        assert!(relay.poll_relay(context).is_pending());
        Poll::Ready(())
    })
    .await;
    assert_eq!(relay.flow().pending(), (0, 0));
    let (total, idle) = pooled();
    assert_eq!(total, idle);
    assert!(size_of::<Relay>() <= 384, "{}", size_of::<Relay>());
    assert!(size_of::<Direction>() <= 96, "{}", size_of::<Direction>());
}

#[tokio::test]
async fn without_pipes_bulk_goes_through_buffers() {
    let mut hoarded: Vec<Pipe> = Vec::new();
    while let Some(pipe) = Pipe::take() {
        hoarded.push(pipe);
    }
    let (mut client, mut relay, mut server) = joined(None).await;
    let bytes = noise(3_000_000, 11);
    let ends = async {
        client.write_all(&bytes).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let reading = async {
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        assert!(got == bytes);
        drop(server);
    };
    tokio::join!(run(&mut relay), ends, reading);
    let all = hoarded.len();
    drop(hoarded);
    let (total, idle) = pooled();
    assert!(total == idle && idle < all, "{idle} of {all} are kept");
}
