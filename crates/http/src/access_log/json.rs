//! Formats filled in as JSON. A value that is one operator alone keeps its type: a number stays a number, and what has no
//! value is `null`.

use std::io::Write;

use proxy_config::settings::{FilterStateForm, Format, JsonFormat, Operator, Piece};
use serde_json::Value;

use super::text::{cut, write_text};
use super::{FormatContext, operator};

/// Writes an object and a line feed.
pub(super) fn write_line(
    format: &JsonFormat,
    omit_empty: bool,
    context: &FormatContext<'_>,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    if !write_value(format, omit_empty, context, out) {
        out.truncate(start);
        out.extend_from_slice(b"{}");
    }
    out.push(b'\n');
}

/// Writes a value; false, with nothing that counts written, where it is to be left out.
fn write_value(
    format: &JsonFormat,
    omit_empty: bool,
    context: &FormatContext<'_>,
    out: &mut Vec<u8>,
) -> bool {
    match format {
        JsonFormat::Literal(text) => out.extend_from_slice(text.as_bytes()),
        JsonFormat::Null => return write_null(omit_empty, out),
        JsonFormat::Format(format) => return write_format(format, omit_empty, context, out),
        JsonFormat::Object(entries) => {
            out.push(b'{');
            let mut any = false;
            for (key, value) in entries {
                let start = out.len();
                if any {
                    out.push(b',');
                }
                out.extend_from_slice(key.as_bytes());
                if write_value(value, omit_empty, context, out) {
                    any = true;
                } else {
                    out.truncate(start);
                }
            }
            out.push(b'}');
            // Lists stay when they are empty, objects do not: as Envoy does it.
            return any || !omit_empty;
        }
        JsonFormat::Array(values) => {
            out.push(b'[');
            let mut any = false;
            for value in values {
                let start = out.len();
                if any {
                    out.push(b',');
                }
                if write_value(value, omit_empty, context, out) {
                    any = true;
                } else {
                    out.truncate(start);
                }
            }
            out.push(b']');
        }
    }
    true
}

fn write_format(format: &Format, omit_empty: bool, context: &FormatContext<'_>, out: &mut Vec<u8>) -> bool {
    let [Piece::Value { operator, limit }] = &*format.pieces else {
        out.push(b'"');
        let start = out.len();
        write_text(format, omit_empty, context, out);
        escape(out, start);
        out.push(b'"');
        return true;
    };
    if let Operator::Metadata { of, namespace, path } = operator {
        let mut told = false;
        operator::with_metadata(*of, namespace, path, context, |value| {
            told = write_metadata(value, *limit, out);
            told
        });
        return told || write_null(omit_empty, out);
    }
    // As JSON it is a JSON value: a text is none in quotes that stand in quotes.
    if let Operator::FilterState { key, form: FilterStateForm::Typed } = operator {
        let told = operator::with_filter_state(key, FilterStateForm::Typed, context, |object| {
            out.push(b'"');
            let start = out.len();
            out.extend_from_slice(&object.text);
            cut(out, start, *limit);
            escape(out, start);
            out.push(b'"');
        });
        return told || write_null(omit_empty, out);
    }
    let is_number = operator::is_number(operator);
    if !is_number {
        out.push(b'"');
    }
    let start = out.len();
    if !operator::write(operator, context, out) {
        out.truncate(start - usize::from(!is_number));
        return write_null(omit_empty, out);
    }
    if !is_number {
        cut(out, start, *limit);
        escape(out, start);
        out.push(b'"');
    }
    true
}

/// Writes a value as it is; texts may be cut. False, with nothing written, for none.
fn write_metadata(value: &Value, limit: Option<usize>, out: &mut Vec<u8>) -> bool {
    match value {
        Value::Null => return false,
        Value::String(text) => {
            out.push(b'"');
            let start = out.len();
            out.extend_from_slice(text.as_bytes());
            cut(out, start, limit);
            escape(out, start);
            out.push(b'"');
        }
        // A write to a vector does not fail.
        value => drop(write!(out, "{value}")),
    }
    true
}

fn write_null(omit_empty: bool, out: &mut Vec<u8>) -> bool {
    if !omit_empty {
        out.extend_from_slice(b"null");
    }
    !omit_empty
}

/// Makes what was written from `start` on the inside of a JSON string. What is no UTF-8 is replaced by U+FFFD.
fn escape(out: &mut Vec<u8>, start: usize) {
    let raw = &out[start..];
    let needs_none = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if raw.iter().all(|&byte| byte < 0x80 && needs_none(byte)) {
        return;
    }
    let text = String::from_utf8_lossy(raw).into_owned();
    out.truncate(start);
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '\u{8}' => out.extend_from_slice(b"\\b"),
            '\u{c}' => out.extend_from_slice(b"\\f"),
            // A write to a vector does not fail.
            control if control < ' ' => drop(write!(out, "\\u{:04x}", u32::from(control))),
            other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}
