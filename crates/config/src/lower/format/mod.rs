//! Format strings: text with `%OPERATOR(parameter):length%` in it, compiled as Envoy 1.40 reads them.
//!
//! What an operator may take is in [`operators`]; this file knows only where operators begin and end.

mod operators;
mod time;

use jiff::tz::TimeZone;

use super::header::is_header_name;
use crate::settings::{Format, Piece};

/// What formats say about the process rather than about a request.
#[derive(Debug, Clone)]
pub struct FormatFacts {
    /// `%HOSTNAME%`.
    pub hostname: String,
    /// `%ENVIRONMENT%`: looks a variable up.
    pub environment: fn(&str) -> Option<String>,
    /// Of `%START_TIME_LOCAL%` and `%EMIT_TIME_LOCAL%`.
    pub time_zone: TimeZone,
}

impl Default for FormatFacts {
    /// A nameless host without an environment, in UTC.
    fn default() -> Self {
        Self { hostname: "-".to_owned(), environment: |_| None, time_zone: TimeZone::UTC }
    }
}

/// Why a format string means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    #[error("the % at {at} begins no operator; %% stands for a single one")]
    NoOperator {
        /// In bytes from the start of the string.
        at: usize,
    },
    #[error("no operator is named {0}")]
    Unknown(String),
    /// Envoy has it, for a feature that is not implemented here.
    #[error("the operator %{0}% is not supported")]
    Unsupported(String),
    #[error("%{0}% needs a parameter")]
    NoParameter(String),
    #[error("%{0}% takes no parameter and no length")]
    TakesNothing(String),
    #[error("%{0}% takes no length")]
    TakesNoLength(String),
    #[error("%{name}% does not take {parameter:?}; it takes {takes}")]
    BadParameter { name: String, parameter: String, takes: &'static str },
    #[error("{0:?} is no header name")]
    BadHeader(String),
    #[error("the time of %{0}% would hold a line feed")]
    LineFeed(String),
}

/// One operator as it is written.
struct Written<'a> {
    name: &'a str,
    /// What stands in parentheses, if it is not empty.
    parameter: Option<&'a str>,
    length: Option<usize>,
}

impl Written<'_> {
    fn takes_nothing(&self) -> Result<(), FormatError> {
        match (self.parameter, self.length) {
            (None, None) => Ok(()),
            _ => Err(FormatError::TakesNothing(self.name.to_owned())),
        }
    }

    fn takes_no_length(&self) -> Result<(), FormatError> {
        match self.length {
            None => Ok(()),
            Some(_) => Err(FormatError::TakesNoLength(self.name.to_owned())),
        }
    }

    fn needs_parameter(&self) -> Result<&str, FormatError> {
        self.parameter.ok_or_else(|| FormatError::NoParameter(self.name.to_owned()))
    }

    fn refuse(&self, takes: &'static str) -> FormatError {
        let (name, parameter) = (self.name.to_owned(), self.parameter.unwrap_or_default().to_owned());
        FormatError::BadParameter { name, parameter, takes }
    }
}

/// Compiles a format string.
///
/// # Errors
/// When Envoy would refuse it, or it asks for what is not implemented here.
pub fn parse(text: &str, facts: &FormatFacts) -> Result<Format, FormatError> {
    let mut pieces = Pieces::default();
    let mut at = 0;
    while let Some(found) = text[at..].find('%') {
        pieces.text(&text[at..at + found]);
        at += found;
        let rest = &text[at..];
        if rest.starts_with("%%") {
            pieces.text("%");
            at += 2;
            continue;
        }
        let (written, length) = split(rest).ok_or(FormatError::NoOperator { at })?;
        operators::compile(&written, facts, &mut pieces)?;
        at += length;
    }
    pieces.text(&text[at..]);
    Ok(pieces.finish())
}

/// The operator at the start of `text`, and how many bytes it takes.
fn split(text: &str) -> Option<(Written<'_>, usize)> {
    let name_length =
        text[1..].find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))?;
    let name = &text[1..=name_length];
    if name.is_empty() {
        return None;
    }
    let after = 1 + name_length;
    if let Some(inner) = text[after..].strip_prefix('(') {
        // A parameter may contain parentheses and percent signs: it ends where the operator can.
        for (end, _) in inner.match_indices(')') {
            if let Some((length, taken)) = finish(&inner[end + 1..]) {
                let parameter = Some(&inner[..end]).filter(|parameter| !parameter.is_empty());
                return Some((Written { name, parameter, length }, after + 1 + end + 1 + taken));
            }
        }
        return None;
    }
    let (length, taken) = finish(&text[after..])?;
    Some((Written { name, parameter: None, length }, after + taken))
}

/// What ends an operator: a length, if there is one, and the percent sign.
fn finish(text: &str) -> Option<(Option<usize>, usize)> {
    if text.starts_with('%') {
        return Some((None, 1));
    }
    let digits = text.strip_prefix(':')?;
    let end = digits.find(|c: char| !c.is_ascii_digit())?;
    let length = digits[..end].parse().ok()?;
    digits[end..].starts_with('%').then_some((Some(length), 1 + end + 1))
}

/// Pieces so far; neighbouring texts become one.
#[derive(Default)]
struct Pieces {
    done: Vec<Piece>,
    text: String,
}

impl Pieces {
    fn text(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn value(&mut self, operator: crate::settings::Operator, limit: Option<usize>) {
        self.end_text();
        self.done.push(Piece::Value { operator, limit });
    }

    fn end_text(&mut self) {
        if !self.text.is_empty() {
            self.done.push(Piece::Text(std::mem::take(&mut self.text).into()));
        }
    }

    fn finish(mut self) -> Format {
        self.end_text();
        Format { pieces: self.done.into() }
    }
}

#[cfg(test)]
#[path = "../format_tests.rs"]
mod tests;
