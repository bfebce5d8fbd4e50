//! Formats filled in as text.

use proxy_config::settings::{Format, Piece};

use super::{FormatContext, operator};

/// Writes `format`, with `-` for what has no value, or nothing for it with `omit_empty`.
pub fn write_text(format: &Format, omit_empty: bool, context: &FormatContext<'_>, out: &mut Vec<u8>) {
    for piece in &format.pieces {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
            Piece::Value { operator, limit } => {
                let start = out.len();
                if operator::write(operator, context, out) {
                    cut(out, start, *limit);
                } else if !omit_empty {
                    out.push(b'-');
                }
            }
        }
    }
}

/// Cuts what was written from `start` on to `limit` bytes.
pub(super) fn cut(out: &mut Vec<u8>, start: usize, limit: Option<usize>) {
    if let Some(limit) = limit {
        out.truncate(start.saturating_add(limit).min(out.len()));
    }
}
