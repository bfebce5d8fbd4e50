//! What takes compression off, with a bound on what comes out at once: a few bytes can stand for gigabytes.

use brotli::enc::StandardAlloc;
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use flate2::{Decompress, FlushDecompress, Status};
use proxy_config::settings::DecompressorLibrary;
use zstd::stream::raw::{self, DParameter, InBuffer, Operation, OutBuffer};

pub(super) enum Decoder {
    Gzip(Decompress),
    Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>),
    /// Content may be several frames, so that only its sender knows which is the last: the decoder, and whether all that came
    /// of them is whole.
    Zstd(raw::Decoder<'static>, bool),
    /// The compressed content is over; what follows belongs to nobody.
    Ended,
}

/// How far a step came.
pub(super) struct Step {
    /// Bytes taken from the input.
    pub(super) taken: usize,
    /// Bytes put out.
    pub(super) given: usize,
}

/// What came is not compressed as it says.
#[derive(Debug)]
pub(super) struct Broken;

/// The content coding that a library understands.
pub(super) fn coding(library: DecompressorLibrary) -> &'static str {
    match library {
        DecompressorLibrary::Gzip { .. } => "gzip",
        DecompressorLibrary::Brotli => "br",
        DecompressorLibrary::Zstd => "zstd",
    }
}

/// What stats call it.
pub(super) fn stat_name(library: DecompressorLibrary) -> &'static str {
    match library {
        DecompressorLibrary::Gzip { .. } => "gzip",
        DecompressorLibrary::Brotli => "brotli",
        DecompressorLibrary::Zstd => "zstd",
    }
}

impl Decoder {
    pub(super) fn new(library: DecompressorLibrary) -> Result<Decoder, Broken> {
        Ok(match library {
            DecompressorLibrary::Gzip { window_bits } => Decoder::Gzip(Decompress::new_gzip(window_bits)),
            DecompressorLibrary::Brotli => {
                let allocator = StandardAlloc::default;
                let mut state = BrotliState::new(allocator(), allocator(), allocator());
                // Windows of a gigabyte are no part of HTTP (RFC 7932).
                state.large_window = false;
                Decoder::Brotli(Box::new(state))
            }
            DecompressorLibrary::Zstd => {
                let mut decoder = raw::Decoder::new().map_err(|_| Broken)?;
                // 8 MiB: RFC 9659, section 3.
                decoder.set_parameter(DParameter::WindowLogMax(23)).map_err(|_| Broken)?;
                Decoder::Zstd(decoder, false)
            }
        })
    }

    /// Whether what came may be all there is.
    pub(super) fn may_end(&self) -> bool {
        match self {
            Decoder::Gzip(_) | Decoder::Brotli(_) => false,
            Decoder::Zstd(_, whole) => *whole,
            Decoder::Ended => true,
        }
    }

    /// Decodes as much as `out` can hold. Where that is all of it, there may be more without further input.
    pub(super) fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<Step, Broken> {
        let (step, ended) = match self {
            Decoder::Gzip(decoder) => {
                let (taken, given) = (decoder.total_in(), decoder.total_out());
                let status = decoder.decompress(input, out, FlushDecompress::None);
                let step = Step {
                    taken: (decoder.total_in() - taken) as usize,
                    given: (decoder.total_out() - given) as usize,
                };
                match status {
                    Ok(Status::StreamEnd) => (step, true),
                    // Without room or input there is nothing to be done, and nothing wrong.
                    Ok(Status::Ok | Status::BufError) => (step, false),
                    Err(_) => return Err(Broken),
                }
            }
            Decoder::Brotli(state) => {
                let (mut left, mut taken) = (input.len(), 0);
                let (mut room, mut given, mut total) = (out.len(), 0, 0);
                let result = BrotliDecompressStream(
                    &mut left, &mut taken, input, &mut room, &mut given, out, &mut total, state,
                );
                match result {
                    BrotliResult::ResultSuccess => (Step { taken, given }, true),
                    BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {
                        (Step { taken, given }, false)
                    }
                    BrotliResult::ResultFailure => return Err(Broken),
                }
            }
            Decoder::Zstd(decoder, whole) => {
                let (mut input, mut out) = (InBuffer::around(input), OutBuffer::around(out));
                let wanted = decoder.run(&mut input, &mut out).map_err(|_| Broken)?;
                // Without input it may ask for a frame that need not come.
                *whole = wanted == 0 || *whole && input.pos() == 0;
                (Step { taken: input.pos(), given: out.pos() }, false)
            }
            Decoder::Ended => (Step { taken: input.len(), given: 0 }, false),
        };
        if ended {
            *self = Decoder::Ended;
        }
        Ok(step)
    }
}

#[cfg(test)]
mod tests {
    use proxy_config::settings::{BrotliMode, CompressorLibrary};

    use super::super::encoder::Encoder;
    use super::*;

    const PAIRS: [(CompressorLibrary, DecompressorLibrary); 3] = [
        (
            CompressorLibrary::Gzip { level: 6, window_bits: 12 },
            DecompressorLibrary::Gzip { window_bits: 15 },
        ),
        (
            CompressorLibrary::Brotli {
                quality: 3,
                window_bits: 18,
                input_block_bits: 24,
                mode: BrotliMode::Generic,
                literal_context_modeling: true,
            },
            DecompressorLibrary::Brotli,
        ),
        (CompressorLibrary::Zstd { level: 3, checksum: true, strategy: Some(9) }, DecompressorLibrary::Zstd),
    ];

    /// All that can be read of `input`, in steps of `room` bytes.
    fn decoded(decoder: &mut Decoder, mut input: &[u8], room: usize) -> Result<Vec<u8>, Broken> {
        let (mut all, mut out) = (Vec::new(), vec![0; room]);
        loop {
            let step = decoder.step(input, &mut out)?;
            all.extend_from_slice(&out[..step.given]);
            input = &input[step.taken..];
            if input.is_empty() && step.given < room {
                return Ok(all);
            }
        }
    }

    #[test]
    fn each_piece_can_be_read_as_soon_as_it_has_come() {
        let noise: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let pieces: [&[u8]; 5] = [b"hello ", b"", b"world", &[b'x'; 300_000], &noise];
        for (library, other) in PAIRS {
            for room in [1000, 32 << 10] {
                let (mut encoder, mut decoder) =
                    (Encoder::new(&library).unwrap(), Decoder::new(other).unwrap());
                for piece in pieces {
                    let compressed = encoder.compress(piece, false).unwrap();
                    assert!(decoded(&mut decoder, &compressed, room).unwrap() == piece, "{library:?}");
                }
                assert!(!decoder.may_end(), "{library:?}");
                let end = encoder.compress(b"the end", true).unwrap();
                assert_eq!(decoded(&mut decoder, &end, room).unwrap(), b"the end", "{library:?}");
                assert!(decoder.may_end(), "{library:?}");
            }
        }
    }

    #[test]
    fn content_may_end_at_its_end_and_nowhere_before() {
        for (library, other) in PAIRS {
            let text = b"All that is gold does not glitter. ".repeat(40);
            let compressed = Encoder::new(&library).unwrap().compress(&text, true).unwrap();
            for length in 0..=compressed.len() {
                // The room is such that what comes out fills it at the end.
                let mut decoder = Decoder::new(other).unwrap();
                decoded(&mut decoder, &compressed[..length], text.len() / 4).unwrap();
                assert_eq!(decoder.may_end(), length == compressed.len(), "{library:?} {length}");
            }
        }
    }

    #[test]
    fn zstd_content_may_be_several_frames() {
        let (library, other) = &PAIRS[2];
        let frame = Encoder::new(library).unwrap().compress(b"frame", true).unwrap();
        let mut decoder = Decoder::new(*other).unwrap();
        for _ in 0..2 {
            assert_eq!(decoded(&mut decoder, &frame[..frame.len() - 1], 5).unwrap(), b"frame");
            assert!(!decoder.may_end());
            decoded(&mut decoder, &frame[frame.len() - 1..], 5).unwrap();
            assert!(decoder.may_end());
        }
    }

    #[test]
    fn a_step_never_gives_more_than_there_is_room_for_and_nonsense_is_an_error() {
        for (library, other) in PAIRS {
            let bomb = Encoder::new(&library).unwrap().compress(&vec![0; 10 << 20], true).unwrap();
            assert!(bomb.len() < 20_000, "{library:?}");
            let mut decoder = Decoder::new(other).unwrap();
            assert_eq!(decoded(&mut decoder, &bomb, 4096).unwrap().len(), 10 << 20, "{library:?}");
            let mut decoder = Decoder::new(other).unwrap();
            assert!(decoded(&mut decoder, &[0x55; 100], 4096).is_err(), "{library:?}");
        }
    }
}
