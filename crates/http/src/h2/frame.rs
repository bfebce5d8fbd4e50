//! HTTP/2's frames as they stand on the wire (RFC 9113, section 4.1): what is looked at beside `h2`, and where they begin.

/// Length of the text that a client's preface begins with (section 3.4). Bytes.
pub(super) const CLIENT_PREFACE: usize = 24;
/// Length of a frame's head. Bytes.
pub(super) const HEAD: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
/// Envoy's own.
pub(super) const METADATA: u8 = 0x4d;

/// Of DATA and HEADERS.
pub(super) const END_STREAM: u8 = 1;
/// Of SETTINGS and PING.
pub(super) const ACK: u8 = 1;
/// Of HEADERS and CONTINUATION.
pub(super) const END_HEADERS: u8 = 4;
/// Of METADATA.
pub(super) const END_METADATA: u8 = 4;

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    /// Of the payload. Bytes.
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl FrameHead {
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The head that `bytes` begin with, if they are that many.
    pub(super) fn first_of(bytes: &[u8]) -> Option<FrameHead> {
        bytes.first_chunk().copied().map(FrameHead::of)
    }

    fn of(bytes: [u8; HEAD]) -> FrameHead {
        let [a, b, c, kind, flags, stream @ ..] = bytes;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        FrameHead { length, kind, flags, stream: u32::from_be_bytes(stream) & !(1 << 31) }
    }

    /// As it stands on the wire. A length of more than 24 bits has none.
    pub(super) fn to_bytes(self) -> [u8; HEAD] {
        let [_, a, b, c] = (self.length as u32).to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }
}

/// Finds the frames of one direction of a connection, however their bytes are cut.
#[derive(Clone, Copy)]
pub(super) struct Frames {
    /// Bytes to come before the next head.
    rest: usize,
    head: [u8; HEAD],
    have: usize,
}

impl Frames {
    /// `preface`: bytes before the first frame.
    pub(super) fn new(preface: usize) -> Frames {
        Frames { rest: preface, head: [0; HEAD], have: 0 }
    }

    /// Tells every frame whose head ends in `bytes`.
    pub(super) fn scan(&mut self, mut bytes: &[u8], mut found: impl FnMut(FrameHead)) {
        while let Some((head, _)) = self.next_head(&mut bytes) {
            found(head);
        }
    }

    /// As [`Frames::scan`], and of each frame the payload that is in `bytes` and how much of it is still to come: first
    /// of the one under way, for which there is no head.
    pub(super) fn scan_payload<E>(
        &mut self,
        mut bytes: &[u8],
        mut found: impl FnMut(Option<FrameHead>, &[u8], usize) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.rest > 0 {
            let here = &bytes[..self.rest.min(bytes.len())];
            found(None, here, self.rest - here.len())?;
        }
        while let Some((head, behind)) = self.next_head(&mut bytes) {
            let here = &behind[..head.length.min(behind.len())];
            found(Some(head), here, head.length - here.len())?;
        }
        Ok(())
    }

    /// The next head that ends in `bytes`, and what comes behind it; `bytes` is moved there.
    fn next_head<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<(FrameHead, &'a [u8])> {
        let skipped = self.rest.min(bytes.len());
        self.rest -= skipped;
        *bytes = &bytes[skipped..];
        let taken = (HEAD - self.have).min(bytes.len());
        self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
        self.have += taken;
        *bytes = &bytes[taken..];
        if self.have < HEAD {
            return None;
        }
        self.have = 0;
        let head = FrameHead::of(self.head);
        self.rest = head.length;
        Some((head, bytes))
    }

    /// Bytes still to come of the frame under way; `None` within a frame's head.
    pub(super) fn until_next(&self) -> Option<usize> {
        (self.have == 0).then_some(self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let mut bytes = vec![b'p'; CLIENT_PREFACE];
        let heads = [(5, DATA, 1), (0, HEADERS, 3), (200, METADATA, 5)]
            .map(|(length, kind, stream)| FrameHead { length, kind, flags: END_STREAM, stream });
        for head in heads {
            bytes.extend(head.to_bytes());
            bytes.extend(std::iter::repeat_n(kind_byte(head.kind), head.length));
        }
        for step in 1..bytes.len() {
            let mut frames = Frames::new(CLIENT_PREFACE);
            let mut seen = Vec::new();
            bytes.chunks(step).for_each(|piece| frames.scan(piece, |head| seen.push(head)));
            assert_eq!(seen, heads, "{step}");

            let mut frames = Frames::new(CLIENT_PREFACE);
            let (mut seen, mut payloads) = (Vec::new(), vec![Vec::new()]);
            for piece in bytes.chunks(step) {
                let Ok(()) = frames.scan_payload(piece, |head, here, rest| {
                    if let Some(head) = head {
                        seen.push(head);
                        payloads.push(Vec::new());
                    }
                    let payload = payloads.last_mut().unwrap();
                    payload.extend_from_slice(here);
                    let whole = seen.last().map_or(CLIENT_PREFACE, |head| head.length);
                    assert_eq!(payload.len() + rest, whole);
                    Ok::<(), std::convert::Infallible>(())
                });
            }
            assert_eq!(seen, heads, "{step}");
            assert_eq!(payloads, [&b"p"[..].repeat(24), &[b'D'; 5][..], &[], &[b'M'; 200]], "{step}");
            assert_eq!(frames.until_next(), Some(0));
        }
    }

    fn kind_byte(kind: u8) -> u8 {
        if kind == DATA { b'D' } else { kind }
    }
}
