//! Access loggers: what `access_log` fields of listeners, connection managers, `tcp_proxy` and the router hold.

use std::fs;
use std::io;
use std::path::Path as FilePath;
use std::time::Duration;

use envoy_types::pb::envoy::config::accesslog::v3 as log_v3;
use envoy_types::pb::envoy::config::core::v3 as core_v3;
use envoy_types::pb::envoy::extensions::access_loggers::file::v3 as file_v3;
use envoy_types::pb::envoy::extensions::access_loggers::stream::v3 as stream_v3;
use envoy_types::pb::google::protobuf::Duration as DurationMessage;

use super::{Context, UNSUPPORTED_FORMATTER, any, data_source, format, log_filter, log_json, value};
use crate::settings::{AccessLog, LineFormat, LineKind, LogNeeds, LogTarget};
use crate::{Code, Path};

/// Every access log at `path`; those that cannot be lowered are left out.
pub(super) fn lower(
    context: &mut Context<'_>,
    path: &Path<'_>,
    messages: &[log_v3::AccessLog],
) -> Vec<AccessLog> {
    let each = messages.iter().enumerate();
    each.filter_map(|(index, message)| one(context, &path.index(index), message)).collect()
}

/// `access_log_flush_interval`: at least a millisecond, as in Envoy.
pub(super) fn interval(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: Option<&DurationMessage>,
) -> Option<Duration> {
    let interval = value::duration(context, path, message)?;
    if interval < Duration::from_millis(1) {
        context.error(path, Code::OUT_OF_RANGE, "an interval of at least 0.001s is expected");
    }
    Some(interval)
}

fn one(context: &mut Context<'_>, path: &Path<'_>, message: &log_v3::AccessLog) -> Option<AccessLog> {
    let filter =
        message.filter.as_ref().map(|filter| log_filter::lower(context, &path.field("filter"), filter));
    let here = path.field("typed_config");
    let Some(log_v3::access_log::ConfigType::TypedConfig(any)) = &message.config_type else {
        context.missing(path, "typed_config is required");
        return None;
    };
    let (target, format) = if any::holds::<file_v3::FileAccessLog>(any) {
        let message = any::decode(context, &here, any)?;
        file(context, &here, &message)
    } else if any::holds::<stream_v3::StdoutAccessLog>(any) {
        let message: stream_v3::StdoutAccessLog = any::decode(context, &here, any)?;
        let format =
            message.access_log_format.map(|stream_v3::stdout_access_log::AccessLogFormat::LogFormat(f)| f);
        (LogTarget::Stdout, stream_format(context, &here, format.as_ref()))
    } else if any::holds::<stream_v3::StderrAccessLog>(any) {
        let message: stream_v3::StderrAccessLog = any::decode(context, &here, any)?;
        let format =
            message.access_log_format.map(|stream_v3::stderr_access_log::AccessLogFormat::LogFormat(f)| f);
        (LogTarget::Stderr, stream_format(context, &here, format.as_ref()))
    } else {
        let name = any::type_name(any);
        context.unsupported_type(&here, format_args!("the access logger {name} is not supported"));
        return None;
    };
    let (format, filter) = (format?, filter.map_or(Some(None), |filter| filter.map(Some))?);
    let needs = LogNeeds::of(&format, filter.as_ref());
    Some(AccessLog { target, format, filter, needs })
}

fn file(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &file_v3::FileAccessLog,
) -> (LogTarget, Option<LineFormat>) {
    use file_v3::file_access_log::AccessLogFormat;
    let here = path.field("path");
    if context.options.read_files
        && !message.path.is_empty()
        && let Err(error) = writable(FilePath::new(&message.path))
    {
        context.error(&here, Code::MISSING_FILE, format_args!("cannot be written: {error}"));
    }
    #[expect(deprecated, reason = "the older spellings are part of the v3 API")]
    let format = match &message.access_log_format {
        None => default_format(context, path),
        // Envoy takes an empty one for none, too.
        Some(AccessLogFormat::Format(format)) if format.is_empty() => default_format(context, path),
        Some(AccessLogFormat::Format(format)) => {
            text(context, &path.field("format"), format).map(|kind| LineFormat { kind, omit_empty: false })
        }
        Some(AccessLogFormat::JsonFormat(object)) => {
            log_json::lower(context, &path.field("json_format"), object)
                .map(|json| LineFormat { kind: LineKind::Json(json), omit_empty: false })
        }
        Some(AccessLogFormat::TypedJsonFormat(object)) => {
            log_json::lower(context, &path.field("typed_json_format"), object)
                .map(|json| LineFormat { kind: LineKind::Json(json), omit_empty: false })
        }
        Some(AccessLogFormat::LogFormat(format)) => substitution(context, &path.field("log_format"), format),
    };
    (LogTarget::File(message.path.clone().into()), format)
}

fn stream_format(
    context: &mut Context<'_>,
    path: &Path<'_>,
    format: Option<&core_v3::SubstitutionFormatString>,
) -> Option<LineFormat> {
    match format {
        Some(format) => substitution(context, &path.field("log_format"), format),
        None => default_format(context, path),
    }
}

/// `envoy.config.core.v3.SubstitutionFormatString`.
pub(super) fn substitution(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &core_v3::SubstitutionFormatString,
) -> Option<LineFormat> {
    use core_v3::substitution_format_string::Format;
    #[expect(deprecated, reason = "the older spelling is part of the v3 API")]
    let kind = match &message.format {
        Some(Format::TextFormat(format)) => text(context, &path.field("text_format"), format)?,
        Some(Format::TextFormatSource(source)) => {
            let here = path.field("text_format_source");
            let bytes = data_source::bytes(context, &here, source, MAX_FORMAT)?;
            let Ok(format) = std::str::from_utf8(&bytes) else {
                context.error(&here, Code::INVALID, "the format is no UTF-8 text");
                return None;
            };
            text(context, &here, format)?
        }
        Some(Format::JsonFormat(object)) => {
            LineKind::Json(log_json::lower(context, &path.field("json_format"), object)?)
        }
        None => {
            context.missing(path, "text_format_source, text_format or json_format is required");
            return None;
        }
    };
    Some(LineFormat { kind, omit_empty: message.omit_empty_values })
}

fn text(context: &mut Context<'_>, path: &Path<'_>, format: &str) -> Option<LineKind> {
    compiled(context, path, format).map(LineKind::Text)
}

fn default_format(context: &mut Context<'_>, path: &Path<'_>) -> Option<LineFormat> {
    text(context, path, DEFAULT_FORMAT).map(|kind| LineFormat { kind, omit_empty: false })
}

/// A format string at `path`.
pub(super) fn compiled(
    context: &mut Context<'_>,
    path: &Path<'_>,
    text: &str,
) -> Option<crate::settings::Format> {
    match format::parse(text, &context.options.facts) {
        Ok(format) => Some(format),
        Err(error) => {
            context.error(path, UNSUPPORTED_FORMATTER, error);
            None
        }
    }
}

/// Whether lines could be appended to the file. It is not created: a configuration that is only checked leaves no trace.
fn writable(path: &FilePath) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Err(io::Error::other("is a directory")),
        Ok(metadata) if metadata.is_file() => fs::OpenOptions::new().append(true).open(path).map(drop),
        // A FIFO or a device: opening one may wait, or do something.
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(FilePath::new("."));
            if fs::metadata(parent)?.is_dir() {
                Ok(())
            } else {
                Err(io::Error::other("its parent is no directory"))
            }
        }
        Err(error) => Err(error),
    }
}

/// Envoy's line for those who give no format.
const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// A format in a file of its own has at most so many bytes.
const MAX_FORMAT: data_source::Limit = data_source::Limit { bytes: 64 << 10, what: "the limit for formats" };
