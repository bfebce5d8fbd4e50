//! No request is lost to a GOAWAY: streams that come with the answer to its ping still count.
//!
//! A connection ends in two steps (RFC 9113, section 6.8): a GOAWAY that forbids nothing and a ping, and when that is
//! answered a second GOAWAY, which names the last stream that is served. A client that was about to open a stream when the
//! first came writes the pong before that stream's HEADERS, usually in one write. `h2` acts on the pong at once and drops
//! the stream. A pong has no order among other frames, so what was read together is given to `h2` with the pong at its end.

use super::frame::{ACK, CONTINUATION, END_HEADERS, FrameHead, HEAD, HEADERS, PING};

/// Moves an answer to a ping behind the frames that follow it. `frames` begin where a frame begins; nothing is moved
/// unless they also end where a frame ends, and outside a header block.
pub(super) fn put_pong_last(frames: &mut [u8]) {
    let (mut at, mut pong, mut in_block) = (0, None, false);
    while let Some(head) = FrameHead::first_of(&frames[at..]) {
        match head.kind {
            PING if head.has(ACK) && head.length == PAYLOAD => pong = Some(at),
            HEADERS | CONTINUATION => in_block = !head.has(END_HEADERS),
            _ => {}
        }
        at += HEAD + head.length;
        if at > frames.len() {
            return;
        }
    }
    if let Some(pong) = pong
        && at == frames.len()
        && !in_block
    {
        frames[pong..].rotate_left(HEAD + PAYLOAD);
    }
}

/// Length of a ping's payload. Bytes.
const PAYLOAD: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn moved(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = frames.concat();
        put_pong_last(&mut bytes);
        bytes
    }

    #[test]
    fn a_pong_moves_behind_whole_frames_only() {
        let (pong, data) = (frame(PING, ACK, b"12345678"), frame(0, 0, b"data"));
        let (headers, more) = (frame(HEADERS, 0, b"block"), frame(CONTINUATION, END_HEADERS, b"rest"));
        let whole = [data.clone(), pong.clone(), headers.clone(), more.clone()];
        assert_eq!(moved(&whole), [data.clone(), headers.clone(), more, pong.clone()].concat());

        let open = [pong.clone(), headers.clone()];
        assert_eq!(moved(&open), open.concat(), "within a header block");
        for cut in 1..data.len() {
            let part = [pong.clone(), data[..cut].to_vec()];
            assert_eq!(moved(&part), part.concat(), "within a frame");
        }
        let question = [frame(PING, 0, b"12345678"), data.clone()];
        assert_eq!(moved(&question), question.concat(), "not an answer");
        let odd = [frame(PING, ACK, b"1234567"), data];
        assert_eq!(moved(&odd), odd.concat(), "not a ping");
        assert!(moved(&[]).is_empty());
    }
}
