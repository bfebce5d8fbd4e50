//! One event as one line. Whatever the network puts into a field, it stays one line without control characters.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::LogFormat;
use super::levels::component_of;

pub(super) struct LineFormat {
    pub(super) format: LogFormat,
    pub(super) colour: bool,
}

impl<S, N> FormatEvent<S, N> for LineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        let (component, level) = (component_of(metadata.target()), level_name(*metadata.level()));
        let mut fields = Fields::default();
        event.record(&mut fields);
        match self.format {
            LogFormat::Text => self.text(&mut line, *metadata.level(), component, &fields),
            LogFormat::Json => json(&mut line, level, component, fields),
        }
    }
}

impl LineFormat {
    fn text(
        &self,
        line: &mut Writer<'_>,
        level: tracing::Level,
        component: &str,
        fields: &Fields,
    ) -> fmt::Result {
        SystemTime.format_time(line)?;
        let (colour, plain) = if self.colour { (colour_of(level), "\x1b[0m") } else { ("", "") };
        write!(line, " {colour}{:<7}{plain} {component}: ", level_name(level))?;
        escape(line, &fields.message)?;
        for (name, value) in &fields.others {
            write!(line, " {name}=")?;
            match value {
                Value::String(text) => escape(line, text)?,
                other => write!(line, "{other}")?,
            }
        }
        line.write_char('\n')
    }
}

fn json(line: &mut Writer<'_>, level: &str, component: &str, fields: Fields) -> fmt::Result {
    let mut time = String::new();
    SystemTime.format_time(&mut Writer::new(&mut time))?;
    let mut object = Map::new();
    for (name, value) in [("time", time.as_str()), ("level", level), ("component", component)] {
        object.insert(name.to_owned(), value.into());
    }
    object.insert("message".to_owned(), fields.message.into());
    object.extend(fields.others);
    writeln!(line, "{}", Value::Object(object))
}

/// An event's message and its other fields, in order.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => {
                self.others.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value.into());
    }
}

fn escape(line: &mut Writer<'_>, text: &str) -> fmt::Result {
    let mut rest = text;
    while let Some(at) = rest.find(char::is_control) {
        let control = rest[at..].chars().next().expect("find gave the position of a character");
        write!(line, "{}{}", &rest[..at], control.escape_default())?;
        rest = &rest[at + control.len_utf8()..];
    }
    line.write_str(rest)
}

/// Envoy's names.
fn level_name(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::TRACE => "trace",
        tracing::Level::DEBUG => "debug",
        tracing::Level::INFO => "info",
        tracing::Level::WARN => "warning",
        tracing::Level::ERROR => "error",
    }
}

fn colour_of(level: tracing::Level) -> &'static str {
    match level {
        tracing::Level::TRACE | tracing::Level::DEBUG => "\x1b[2m",
        tracing::Level::INFO => "\x1b[32m",
        tracing::Level::WARN => "\x1b[33m",
        tracing::Level::ERROR => "\x1b[31m",
    }
}
