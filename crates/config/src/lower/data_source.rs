//! Data sources: text or bytes that stand in the configuration or in a file of their own.

use std::fs;
use std::io::Read;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3 as core_v3;

use super::Context;
use crate::settings::NamedFile;
use crate::{Code, Path};

/// How much there may be, and what says so.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    pub(super) bytes: u32,
    pub(super) what: &'static str,
}

/// The content; empty where files are not to be read.
pub(super) fn bytes(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &core_v3::DataSource,
    limit: Limit,
) -> Option<Bytes> {
    use core_v3::data_source::Specifier;
    let (field, content) = match &message.specifier {
        Some(Specifier::InlineString(text)) => ("inline_string", Ok(Bytes::copy_from_slice(text.as_bytes()))),
        Some(Specifier::InlineBytes(bytes)) => ("inline_bytes", Ok(Bytes::copy_from_slice(bytes))),
        Some(Specifier::Filename(_)) if !context.options.read_files => return Some(Bytes::new()),
        Some(Specifier::Filename(name)) => {
            let content = read(name, limit.bytes);
            if let Ok(content) = &content {
                context.files.push(NamedFile::new(name, content, path.to_string()));
            }
            ("filename", content)
        }
        Some(Specifier::EnvironmentVariable(_)) => {
            context.unsupported(&path.field("environment_variable"), "a value from the environment");
            return None;
        }
        None => {
            context.missing(path, "inline_string, inline_bytes or filename is required");
            return None;
        }
    };
    match content {
        Ok(content) if content.len() as u64 <= u64::from(limit.bytes) => return Some(content),
        Ok(_) => {
            let Limit { bytes, what } = limit;
            let message = format_args!("there are more than {bytes} bytes ({what})");
            context.error(&path.field(field), Code::TOO_LONG, message);
        }
        Err(error) => {
            context.error(&path.field(field), Code::MISSING_FILE, format_args!("cannot be read: {error}"));
        }
    }
    None
}

/// The content of a regular file, at most one byte more than `limit`.
fn read(name: &str, limit: u32) -> std::io::Result<Bytes> {
    if !fs::metadata(name)?.is_file() {
        return Err(std::io::Error::other("not a regular file")); // a FIFO would block
    }
    let mut content = Vec::new();
    fs::File::open(name)?.take(u64::from(limit) + 1).read_to_end(&mut content)?;
    Ok(content.into())
}
