//! Compressed bodies: `compressor` and `decompressor`, and the libraries that do the work, behind one face.

mod choice;
mod compressor;
mod decoder;
mod decompressor;
mod encoder;

pub(super) use compressor::Compressor;
pub(super) use decompressor::Decompressor;

use proxy_http::Headers;

/// Whether the header is a list that has this token, in any case.
fn has_token(headers: &Headers, name: &str, token: &[u8]) -> bool {
    let mut tokens = headers.values(name).flat_map(|value| value.split(|byte| *byte == b','));
    tokens.any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
}
