//! What compresses, a piece at a time: after each piece the receiver can read all that went in.

use std::io::{self, Write};

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use brotli::enc::backward_references::BrotliEncoderMode;
use flate2::{Compress, Compression, FlushCompress, Status};
use proxy_config::settings::{BrotliMode, CompressorLibrary};
use zstd::stream::raw::{self, CParameter, InBuffer, Operation, OutBuffer};

pub(super) enum Encoder {
    Gzip(Compress),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(raw::Encoder<'static>),
}

/// The content coding that a library makes.
pub(super) fn coding(library: &CompressorLibrary) -> &'static str {
    match library {
        CompressorLibrary::Gzip { .. } => "gzip",
        CompressorLibrary::Brotli { .. } => "br",
        CompressorLibrary::Zstd { .. } => "zstd",
    }
}

/// What stats call it.
pub(super) fn stat_name(library: &CompressorLibrary) -> &'static str {
    match library {
        CompressorLibrary::Gzip { .. } => "gzip",
        CompressorLibrary::Brotli { .. } => "brotli",
        CompressorLibrary::Zstd { .. } => "zstd",
    }
}

impl Encoder {
    /// # Errors
    /// When there is no memory for it.
    pub(super) fn new(library: &CompressorLibrary) -> io::Result<Encoder> {
        Ok(match *library {
            CompressorLibrary::Gzip { level, window_bits } => {
                Encoder::Gzip(Compress::new_gzip(Compression::new(level), window_bits))
            }
            CompressorLibrary::Brotli {
                quality,
                window_bits,
                input_block_bits,
                mode,
                literal_context_modeling,
            } => {
                let params = BrotliEncoderParams {
                    quality: quality as i32,
                    lgwin: window_bits as i32,
                    lgblock: input_block_bits as i32,
                    mode: match mode {
                        BrotliMode::Generic => BrotliEncoderMode::BROTLI_MODE_GENERIC,
                        BrotliMode::Text => BrotliEncoderMode::BROTLI_MODE_TEXT,
                        BrotliMode::Font => BrotliEncoderMode::BROTLI_MODE_FONT,
                    },
                    disable_literal_context_modeling: i32::from(!literal_context_modeling),
                    ..BrotliEncoderParams::default()
                };
                Encoder::Brotli(Box::new(CompressorWriter::with_params(Vec::new(), PIECE, &params)))
            }
            CompressorLibrary::Zstd { level, checksum, strategy } => {
                let mut encoder = raw::Encoder::new(level)?;
                encoder.set_parameter(CParameter::ChecksumFlag(checksum))?;
                if let Some(strategy) = strategy.and_then(zstd_strategy) {
                    encoder.set_parameter(CParameter::Strategy(strategy))?;
                }
                Encoder::Zstd(encoder)
            }
        })
    }

    /// Compresses a piece; `last`: and ends.
    ///
    /// # Errors
    /// When the library fails, for which nobody outside can be the reason.
    pub(super) fn compress(&mut self, input: &[u8], last: bool) -> io::Result<Vec<u8>> {
        match self {
            Encoder::Gzip(encoder) => gzip(encoder, input, last),
            Encoder::Brotli(encoder) => {
                encoder.write_all(input)?;
                if !last {
                    encoder.flush()?;
                    return Ok(std::mem::take(encoder.get_mut()));
                }
                let spent = CompressorWriter::new(Vec::new(), 1, 0, 10);
                Ok(std::mem::replace(&mut **encoder, spent).into_inner())
            }
            Encoder::Zstd(encoder) => zstd_piece(encoder, input, last),
        }
    }
}

fn gzip(encoder: &mut Compress, mut input: &[u8], last: bool) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(input.len() / 2 + 64);
    let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
    loop {
        let before = encoder.total_in();
        let status = encoder.compress_vec(input, &mut out, flush).map_err(io::Error::other)?;
        input = &input[(encoder.total_in() - before) as usize..];
        let done =
            if last { status == Status::StreamEnd } else { input.is_empty() && out.len() < out.capacity() };
        if done {
            return Ok(out);
        }
        out.reserve(out.capacity().max(64));
    }
}

fn zstd_piece(encoder: &mut raw::Encoder<'_>, input: &[u8], last: bool) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut piece = vec![0; PIECE];
    let mut input = InBuffer::around(input);
    loop {
        let mut buffer = OutBuffer::around(&mut piece[..]);
        if input.pos() < input.src.len() {
            encoder.run(&mut input, &mut buffer)?;
            out.extend_from_slice(buffer.as_slice());
            continue;
        }
        let left = if last { encoder.finish(&mut buffer, false)? } else { encoder.flush(&mut buffer)? };
        out.extend_from_slice(buffer.as_slice());
        if left == 0 {
            return Ok(out);
        }
    }
}

fn zstd_strategy(number: u8) -> Option<zstd::zstd_safe::Strategy> {
    use zstd::zstd_safe::Strategy::*;
    let all = [
        ZSTD_fast,
        ZSTD_dfast,
        ZSTD_greedy,
        ZSTD_lazy,
        ZSTD_lazy2,
        ZSTD_btlazy2,
        ZSTD_btopt,
        ZSTD_btultra,
        ZSTD_btultra2,
    ];
    all.get(usize::from(number).checked_sub(1)?).copied()
}

/// Bytes that a library writes at once.
const PIECE: usize = 4096;
