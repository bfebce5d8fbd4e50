//! Compression of long answers. At its quickest level: stats shrink twentyfold all the same.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::answer::Pieces;

pub(super) fn encoder() -> GzEncoder<Vec<u8>> {
    GzEncoder::new(Vec::new(), Compression::fast())
}

/// Compresses pieces that are made on main.
pub(super) struct Gzip {
    source: Box<dyn Pieces>,
    /// `None` after the last piece.
    encoder: Option<GzEncoder<Vec<u8>>>,
    plain: Vec<u8>,
}

impl Gzip {
    pub(super) fn new(source: Box<dyn Pieces>) -> Self {
        Self { source, encoder: Some(encoder()), plain: Vec::new() }
    }
}

impl Pieces for Gzip {
    fn next_piece(&mut self, piece: &mut Vec<u8>) -> bool {
        let Some(mut encoder) = self.encoder.take() else { return false };
        self.plain.clear();
        let more = self.source.next_piece(&mut self.plain);
        // Writing to memory cannot fail.
        let _ = encoder.write_all(&self.plain);
        if more {
            piece.append(encoder.get_mut());
            self.encoder = Some(encoder);
        } else {
            piece.append(&mut encoder.finish().unwrap_or_default());
        }
        more
    }
}
