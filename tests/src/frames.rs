//! HTTP/2 frame by frame, for clients and backends that say what no library would.

use crate::{Proxy, Wire};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const CONTINUATION: u8 = 9;
/// Envoy's own.
pub const METADATA: u8 = 0x4d;

pub const INTERNAL_ERROR: u32 = 2;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const END_METADATA: u8 = 4;

pub const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")];

/// A frame that has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A frame's bytes.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block of literals without indexing, names and values as they are.
#[must_use]
pub fn block(lines: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| {
        let mut bytes = match text.len().checked_sub(127) {
            None => vec![u8::try_from(text.len()).unwrap()],
            Some(mut rest) => {
                let mut bytes = vec![127];
                while rest > 127 {
                    bytes.push(u8::try_from(rest & 127).unwrap() | 128);
                    rest >>= 7;
                }
                bytes.push(u8::try_from(rest).unwrap());
                bytes
            }
        };
        bytes.extend(text.as_bytes());
        bytes
    };
    lines.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// A client's connection on which its preface has been sent.
#[must_use]
pub fn open(proxy: &Proxy) -> Wire {
    let mut wire = proxy.connect();
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").send(frame(SETTINGS, 0, 0, &[]));
    wire
}

impl Wire {
    /// Reads an HTTP/2 frame; `None` if the peer closes or resets first.
    pub fn try_frame(&mut self) -> Option<Frame> {
        let head = self.try_bytes(9)?;
        let payload = self.try_bytes(u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }
}
