//! The handshake of WebSocket over HTTP/1.1 (RFC 6455, section 4), where only one side of the proxy has it: over HTTP/2 there is
//! neither key nor accept (RFC 8441, section 5.1), so the proxy stands in for the side that does not know them.

use crate::headers::Headers;
use crate::name::HeaderId;

pub const KEY: &str = "sec-websocket-key";
pub const ACCEPT: &str = "sec-websocket-accept";

/// A `sec-websocket-accept`.
pub type Accept = [u8; 28];

/// Whether the upgrade that a request asks for is to WebSocket.
pub fn is_asked_for(request: &Headers) -> bool {
    request.joined(HeaderId::UPGRADE).is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
}

/// What a server answers to this key.
pub fn accept(key: &[u8]) -> Accept {
    let mut text = key.to_vec();
    text.extend_from_slice(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    base64(&sha1(&text))
}

/// A key to ask a server with.
pub fn key(random: u128) -> [u8; 24] {
    base64(&random.to_ne_bytes())
}

/// Base64 with padding (RFC 4648, section 4); `N` is the length of the text.
fn base64<const N: usize>(bytes: &[u8]) -> [u8; N] {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = [b'='; N];
    for (group, out) in bytes.chunks(3).zip(text.chunks_mut(4)) {
        let all =
            group.iter().fold(0_u32, |all, byte| all << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for (index, character) in out.iter_mut().take(group.len() + 1).enumerate() {
            *character = ALPHABET[(all >> (18 - 6 * index)) as usize & 63];
        }
    }
    text
}

/// SHA-1 (RFC 3174). It proves here that the server has read the key, and protects nothing.
fn sha1(message: &[u8]) -> [u8; 20] {
    let mut padded = message.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    for block in padded.chunks(64) {
        let mut words = [0_u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks(4)) {
            *word = bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        for i in 16..80 {
            words[i] = (words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (i, word) in words.iter().enumerate() {
            let (mixed, constant) = match i / 20 {
                0 => (b & c | !b & d, 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let next = a.rotate_left(5);
            let next = next.wrapping_add(mixed).wrapping_add(e).wrapping_add(*word).wrapping_add(constant);
            (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
        }
        for (sum, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(value);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_accepted_as_the_standards_show() {
        // RFC 6455, section 1.3.
        assert_eq!(&accept(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        // RFC 3174, section 7.3; the second is longer than a block.
        let hex = |bytes: [u8; 20]| bytes.map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(hex(sha1(b"abc")), "a9993e364706816aba3e25717850c26c9cd0d89d");
        let two_blocks = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(hex(sha1(two_blocks)), "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
    }

    #[test]
    fn made_keys_are_sixteen_bytes_of_base64() {
        let text = key(0);
        assert_eq!(&text, b"AAAAAAAAAAAAAAAAAAAAAA==");
        assert_ne!(key(1), text);
    }
}
