//! What the two HTTP/1 targets share: a byte stream that arrives in pieces, taken apart into messages.

use std::task::{Context, Poll, Waker};

use proxy_http::h1::body::BodyDecoder;
use proxy_http::h1::head::{Framing, HeadError, HeadLimits, may_be_complete};
use proxy_http::{BodyError, Frame};
use proxy_net::Io;
use proxy_net::buffer::ReadBuffer;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

/// One side of a connection on which the peer sends nothing more than it is handed.
pub struct Silent {
    io: Io,
    _peer: UnixStream,
    runtime: Runtime,
}

/// A message that was taken whole, as far as it can be compared.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    pub head: String,
    pub body: Vec<u8>,
    pub trailers: Option<usize>,
}

/// What a stream of bytes came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Taken {
    pub messages: Vec<Message>,
    /// Of a message that was not whole at the end, or that was refused: the body up to there.
    pub unfinished: Option<(String, Vec<u8>)>,
    pub refused: bool,
    /// Bytes that were not used yet; 0 where refused, since a fault is met where its piece begins.
    pub left: usize,
}

pub const LIMITS: HeadLimits = HeadLimits { bytes: 8 << 10, lines: 100 };

/// Parses a head: its comparable form, its framing, its length.
pub type Parse<'a> = &'a dyn Fn(&[u8]) -> Result<Option<(String, Framing, usize)>, HeadError>;

impl Silent {
    pub fn new() -> Silent {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let entered = runtime.enter();
        let (near, peer) = UnixStream::pair().unwrap();
        drop(entered);
        Silent { io: Io::Unix(near), _peer: peer, runtime }
    }

    /// Takes `pieces` apart as they come. `lazily`: heads are looked at as the proxy does, only when one may be whole.
    pub fn take(&mut self, pieces: &[&[u8]], lazily: bool, parse: Parse<'_>) -> Taken {
        let _entered = self.runtime.enter();
        let mut taken = Taken { messages: Vec::new(), unfinished: None, refused: false, left: 0 };
        let mut buffer = ReadBuffer::default();
        let mut pieces = pieces.iter();
        let mut body: Option<(String, BodyDecoder, Vec<u8>)> = None;
        let mut seen = 0;
        loop {
            let more = match &mut body {
                Some((head, decoder, data)) => match take_body(&mut self.io, &mut buffer, decoder, data) {
                    Ok(Some(trailers)) => {
                        let (head, body) = (std::mem::take(head), std::mem::take(data));
                        taken.messages.push(Message { head, body, trailers });
                        false
                    }
                    Ok(None) => true,
                    Err(()) => {
                        taken.refused = true;
                        break;
                    }
                },
                None if buffer.is_empty() => true,
                None => {
                    let data = buffer.data();
                    let skip =
                        lazily && seen > 0 && data.len() <= LIMITS.bytes && !may_be_complete(data, seen);
                    seen = data.len();
                    match if skip { Ok(None) } else { parse(data) } {
                        Ok(Some((head, framing, length))) => {
                            assert!(0 < length && length <= data.len(), "a head longer than the data");
                            buffer.consume(length);
                            seen = 0;
                            body = Some((head, BodyDecoder::new(framing), Vec::new()));
                            continue;
                        }
                        Ok(None) => true,
                        Err(_) => {
                            taken.refused = true;
                            break;
                        }
                    }
                }
            };
            if !more {
                body = None;
                continue;
            }
            match pieces.next() {
                Some(piece) => buffer = ReadBuffer::from_slice(&[buffer.data(), piece].concat()),
                None => break,
            }
        }
        taken.unfinished = body.map(|(head, _, data)| (head, data));
        if !taken.refused {
            taken.left = buffer.len() + pieces.map(|piece| piece.len()).sum::<usize>();
        }
        taken
    }
}

/// The trailers once the body is whole, or nothing while more has to come.
fn take_body(
    io: &mut Io,
    buffer: &mut ReadBuffer,
    decoder: &mut BodyDecoder,
    data: &mut Vec<u8>,
) -> Result<Option<Option<usize>>, ()> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut trailers = None;
    loop {
        match decoder.poll_frame(&mut cx, io, buffer, 1 << 20) {
            Poll::Ready(Some(Ok(Frame::Data(chunk)))) => data.extend_from_slice(chunk.as_slice()),
            Poll::Ready(Some(Ok(Frame::Trailers(lines)))) => trailers = Some(lines.len()),
            Poll::Ready(None) => {
                assert!(decoder.is_done(), "a body that ended and goes on");
                return Ok(Some(trailers));
            }
            Poll::Ready(Some(Err(BodyError::Io(error)))) => panic!("{error}"),
            Poll::Ready(Some(Err(_))) => return Err(()),
            Poll::Pending => return Ok(None),
        }
    }
}

/// Compares taking the bytes at once with taking them in pieces of the sizes that `cuts` gives.
pub fn whole_and_in_pieces_agree(cuts: &[u8], bytes: &[u8], parse: Parse<'_>) {
    thread_local! {
        static SILENT: std::cell::RefCell<Silent> = std::cell::RefCell::new(Silent::new());
    }
    SILENT.with_borrow_mut(|silent| {
        let whole = silent.take(&[bytes], false, parse);
        let mut pieces = Vec::new();
        let mut rest = bytes;
        for cut in cuts.iter().cycle().take(bytes.len()) {
            let (piece, after) = rest.split_at(rest.len().min(usize::from(*cut) + 1));
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
        let eagerly = silent.take(&pieces, false, parse);
        assert_eq!(whole, eagerly);
        let lazily = silent.take(&pieces, true, parse);
        if whole.refused {
            // A head that can no longer become good may go unnoticed until it ends.
            assert_eq!(whole.messages, lazily.messages);
        } else {
            assert_eq!(whole, lazily);
        }
    });
}
