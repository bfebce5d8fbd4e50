//! Bodies of HTTP/1.1 messages, taken out of a read buffer (RFC 9112, sections 6 and 7).

use std::task::{Context, Poll, ready};

use proxy_net::Io;
use proxy_net::buffer::{Chunk, LARGE, ReadBuffer};

use super::head::{Framing, HeadError, HeadLimits, parse_trailers};
use crate::body::{BodyError, Frame};
use crate::headers::Headers;

/// Where in a body the next byte of the read buffer stands.
#[derive(Debug)]
pub enum BodyDecoder {
    /// All of the body has been taken.
    Done,
    /// So many bytes are still to come; never 0.
    Length(u64),
    Chunked(ChunkState),
    UntilClose,
}

#[derive(Debug)]
pub enum ChunkState {
    /// At the start of a chunk-size line.
    Size,
    /// So many bytes of chunk data are still to come; never 0.
    Data(u64),
    /// At the CRLF after chunk data.
    DataEnd,
    Trailers,
}

/// What the bytes at hand gave.
enum Decoded {
    Data(Chunk),
    Trailers(Headers),
    NeedMore,
    End,
}

impl BodyDecoder {
    pub fn new(framing: Framing) -> BodyDecoder {
        match framing {
            Framing::None | Framing::Length(0) => BodyDecoder::Done,
            Framing::Length(n) => BodyDecoder::Length(n),
            Framing::Chunked => BodyDecoder::Chunked(ChunkState::Size),
            Framing::UntilClose => BodyDecoder::UntilClose,
        }
    }

    pub fn is_done(&self) -> bool {
        matches!(self, BodyDecoder::Done)
    }

    /// Bytes still to come, where the head said so.
    pub fn remaining(&self) -> Option<u64> {
        match self {
            BodyDecoder::Done => Some(0),
            BodyDecoder::Length(n) => Some(*n),
            BodyDecoder::Chunked(_) | BodyDecoder::UntilClose => None,
        }
    }

    /// The next frame, read from `io` where the buffer does not hold it. `limit` is the connection's
    /// `per_connection_buffer_limit_bytes`: bulk is read in large pieces only where it allows them.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut Io,
        buffer: &mut ReadBuffer,
        limit: u32,
    ) -> Poll<Option<Result<Frame, BodyError>>> {
        loop {
            match self.decode(buffer) {
                Ok(Decoded::Data(chunk)) => return Poll::Ready(Some(Ok(Frame::Data(chunk)))),
                Ok(Decoded::Trailers(trailers)) => {
                    return Poll::Ready((!trailers.is_empty()).then_some(Ok(Frame::Trailers(trailers))));
                }
                Ok(Decoded::End) => return Poll::Ready(None),
                Ok(Decoded::NeedMore) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            // Large buffers only pay where much is to come.
            let large = limit as usize >= LARGE
                && self.remaining().is_none_or(|n| n > LARGE_FROM)
                && !matches!(self, BodyDecoder::Chunked(_));
            match ready!(buffer.poll_fill(io, cx, large)) {
                Ok(0) if matches!(self, BodyDecoder::UntilClose) => {
                    *self = BodyDecoder::Done;
                    return Poll::Ready(None);
                }
                Ok(0) => return Poll::Ready(Some(Err(BodyError::Closed))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(BodyError::Io(error)))),
            }
        }
    }

    fn decode(&mut self, buffer: &mut ReadBuffer) -> Result<Decoded, BodyError> {
        let have = buffer.data().len();
        match self {
            BodyDecoder::Done => Ok(Decoded::End),
            _ if have == 0 => Ok(Decoded::NeedMore),
            BodyDecoder::Length(left) => {
                let take = usize::try_from(*left).unwrap_or(usize::MAX).min(have);
                *left -= take as u64;
                if *left == 0 {
                    *self = BodyDecoder::Done;
                }
                Ok(Decoded::Data(buffer.take_chunk(take)))
            }
            BodyDecoder::UntilClose => Ok(Decoded::Data(buffer.take_chunk(have))),
            BodyDecoder::Chunked(_) => self.decode_chunked(buffer),
        }
    }

    /// Takes the data of all chunks at hand as one piece: moved together in place, each byte at most once.
    fn decode_chunked(&mut self, buffer: &mut ReadBuffer) -> Result<Decoded, BodyError> {
        let BodyDecoder::Chunked(state) = self else { return Ok(Decoded::End) };
        let data = buffer.data_mut();
        let (mut at, mut kept) = (0, 0);
        while at < data.len() {
            match state {
                // What came before a fault is handed out first; the fault is met again at the next call.
                ChunkState::Size => match chunk_size(&data[at..]) {
                    Err(_) if kept > 0 => break,
                    Err(error) => return Err(error),
                    Ok(None) => break,
                    Ok(Some((size, line))) => {
                        at += line;
                        *state = if size == 0 { ChunkState::Trailers } else { ChunkState::Data(size) };
                    }
                },
                ChunkState::Data(left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len() - at);
                    data.copy_within(at..at + take, kept);
                    (at, kept) = (at + take, kept + take);
                    *left -= take as u64;
                    if *left == 0 {
                        *state = ChunkState::DataEnd;
                    }
                }
                ChunkState::DataEnd => match &data[at..] {
                    [b'\r', b'\n', ..] => {
                        at += 2;
                        *state = ChunkState::Size;
                    }
                    [b'\r'] => break,
                    _ if kept > 0 => break,
                    _ => return Err(BodyError::Malformed("chunk data not followed by CRLF")),
                },
                ChunkState::Trailers => break,
            }
        }
        if kept > 0 {
            // What is left is at most half a size line, trailers or the next message.
            let left = data.len() - at;
            data.copy_within(at.., kept);
            buffer.truncate(kept + left);
            return Ok(Decoded::Data(buffer.take_chunk(kept)));
        }
        buffer.consume(at);
        if !matches!(state, ChunkState::Trailers) || buffer.data().is_empty() {
            return Ok(Decoded::NeedMore);
        }
        match parse_trailers(buffer.data(), TRAILER_LIMITS) {
            Ok(None) => Ok(Decoded::NeedMore),
            Ok(Some((trailers, length))) => {
                buffer.consume(length);
                *self = BodyDecoder::Done;
                Ok(Decoded::Trailers(trailers))
            }
            Err(HeadError::TooLarge | HeadError::TooManyLines) => Err(BodyError::TooLarge),
            Err(_) => Err(BodyError::Malformed("trailers")),
        }
    }
}

/// Size of the chunk whose size line starts `data`, and the length of that line. `None`: not all there.
fn chunk_size(data: &[u8]) -> Result<Option<(u64, usize)>, BodyError> {
    let malformed = Err(BodyError::Malformed("chunk size"));
    let digits = data.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    if digits > 15 || (digits == 0 && !data.is_empty()) {
        return malformed;
    }
    let size = data[..digits].iter().fold(0u64, |n, d| {
        let digit = char::from(*d).to_digit(16).unwrap_or(0);
        n << 4 | u64::from(digit)
    });
    let rest = &data[digits..];
    let line = match rest {
        [] => return Ok(None),
        [b'\r', b'\n', ..] => digits + 2,
        [b'\r'] => return Ok(None),
        // An extension (RFC 9112, section 7.1.1): skipped, but held to visible characters and a length.
        [b';' | b' ' | b'\t', ..] => match memchr::memchr(b'\n', rest) {
            Some(end) if end >= 1 && rest[end - 1] == b'\r' && valid_extension(&rest[..end - 1]) => {
                digits + end + 1
            }
            Some(_) => return malformed,
            None if rest.len() > MAX_EXTENSION => return malformed,
            None => return Ok(None),
        },
        _ => return malformed,
    };
    if line > MAX_EXTENSION { malformed } else { Ok(Some((size, line))) }
}

fn valid_extension(extension: &[u8]) -> bool {
    let blanks = extension.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    extension.get(blanks) == Some(&b';') && extension.iter().all(|b| matches!(b, b'\t' | b' '..=b'~'))
}

/// A body with more than this to come is read into large buffers. Bytes.
const LARGE_FROM: u64 = 32 << 10;
const MAX_EXTENSION: usize = 4096;
const TRAILER_LIMITS: HeadLimits = HeadLimits { bytes: 60 << 10, lines: 100 };

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `input` handed over in pieces of `step` bytes; gives the data, the trailers and what was left.
    fn decode(input: &[u8], framing: Framing, step: usize) -> Result<(Vec<u8>, usize, Vec<u8>), BodyError> {
        let mut decoder = BodyDecoder::new(framing);
        let mut buffer = ReadBuffer::default();
        let (mut data, mut trailers) = (Vec::new(), 0);
        let mut pieces = input.chunks(step);
        loop {
            match decoder.decode(&mut buffer)? {
                Decoded::Data(chunk) => data.extend_from_slice(chunk.as_slice()),
                Decoded::Trailers(lines) => trailers = lines.len(),
                Decoded::End => break,
                Decoded::NeedMore => match pieces.next() {
                    Some(piece) => buffer = ReadBuffer::from_slice(&[buffer.data(), piece].concat()),
                    None => return Err(BodyError::Closed),
                },
            }
        }
        let mut rest = buffer.data().to_vec();
        rest.extend(pieces.flatten());
        Ok((data, trailers, rest))
    }

    #[test]
    fn chunks_come_out_whole_however_they_are_cut() {
        let input = b"5\r\nhello\r\n1;a=b\r\n \r\n00a\r\n0123456789\r\n0\r\nx-sum: 1\r\n\r\nGET";
        for step in 1..=input.len() {
            let (data, trailers, rest) = decode(input, Framing::Chunked, step).unwrap();
            assert_eq!(
                (&data[..], trailers, &rest[..]),
                (&b"hello 0123456789"[..], 1, &b"GET"[..]),
                "{step}"
            );
        }
    }

    #[test]
    fn a_length_ends_where_it_says() {
        for step in 1..=9 {
            let (data, _, rest) = decode(b"12345GET ", Framing::Length(5), step).unwrap();
            assert_eq!((&data[..], &rest[..]), (&b"12345"[..], &b"GET "[..]));
        }
        assert!(matches!(decode(b"1234", Framing::Length(5), 4), Err(BodyError::Closed)));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for bad in [
            "x\r\n",
            "\r\n",
            "+5\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "5\nhello\r\n",
            "5\r\nhelloX\r\n",
            "-1\r\n",
            "5 \r\nhello\r\n",
            "ffffffffffffffff\r\n",
            "5;\0\r\nhello\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "0\r\nbad name: x\r\n\r\n",
        ] {
            for step in [1, 3, 100] {
                let result = decode(bad.as_bytes(), Framing::Chunked, step);
                assert!(matches!(result, Err(BodyError::Malformed(_))), "{bad:?} in steps of {step}");
            }
        }
    }
}
