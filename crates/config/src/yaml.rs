//! YAML text to a [`Tree`], from the events of saphyr-parser.

use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use crate::codes::Code;
use crate::finding::Finding;
use crate::tree::{Builder, Kind, Position, Stop, Tree};

/// Parses one YAML document; no tree comes back if the text is no YAML.
pub(crate) fn parse(file: Arc<str>, text: &str) -> (Option<Tree>, Vec<Finding>) {
    let mut builder = Builder::new(file, true, text.len());
    let parsed = feed(&mut builder, text);
    builder.finish(parsed)
}

fn feed(builder: &mut Builder, text: &str) -> Result<(), Stop> {
    let mut documents = 0;
    let mut parser = Parser::new_from_str(text);
    loop {
        let (event, span) = match parser.next_event() {
            Some(Ok(next)) => next,
            Some(Err(error)) => {
                let at = position(*error.marker());
                let code = if starts_with_tab(text, at.line) { Code::TAB } else { Code::SYNTAX };
                if let Some(end) = end_of_text(text, at) {
                    let message = format!("not valid YAML: the file ends here; {}", error.info());
                    return Err(builder.stop(end, code, &message));
                }
                let message = match error.info() {
                    info if info.ends_with(UNEXPECTED_END) => {
                        format!("{info}: the file ends before it is closed")
                    }
                    info => info.to_owned(),
                };
                return Err(builder.stop(at, code, &format!("not valid YAML: {message}")));
            }
            None => return Ok(()),
        };
        let at = position(span.start);
        match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err(builder.stop(
                        at,
                        Code::SECOND_DOCUMENT,
                        "a second document starts here, a file holds one",
                    ));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let node = builder.scalar(kind(&text, style, tag.as_deref()), &text, at)?;
                finish_node(builder, node, anchor, tag.as_deref());
            }
            Event::SequenceStart(anchor, tag) => {
                let node = builder.open(Kind::Sequence, at)?;
                finish_node(builder, node, anchor, tag.as_deref());
            }
            Event::MappingStart(anchor, tag) => {
                let node = builder.open(Kind::Mapping, at)?;
                finish_node(builder, node, anchor, tag.as_deref());
            }
            Event::SequenceEnd | Event::MappingEnd => builder.close()?,
            Event::Alias(anchor) => builder.alias(anchor, at)?,
            Event::StreamEnd => return Ok(()),
            Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
        }
    }
}

fn finish_node(builder: &mut Builder, node: u32, anchor: usize, tag: Option<&Tag>) {
    if anchor > 0 {
        builder.anchor(anchor, node);
    }
    // Envoy skips an entry whose key carries this tag: a place for anchors.
    if tag.is_some_and(|tag| tag.handle == "!" && tag.suffix == "ignore") {
        builder.ignore(node);
    }
}

fn kind(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Kind {
    let string = tag.is_some_and(|tag| {
        (tag.is_yaml_core_schema() && tag.suffix == "str")
            || matches!((tag.handle.as_str(), tag.suffix.as_str()), ("!", "") | ("", "!"))
    });
    match style {
        ScalarStyle::Plain if string => Kind::Quoted,
        ScalarStyle::Plain if matches!(text, "" | "~" | "null" | "Null" | "NULL") => Kind::Null,
        ScalarStyle::Plain => Kind::Plain,
        _ => Kind::Quoted,
    }
}

fn position(marker: Marker) -> Position {
    let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Position { line: narrow(marker.line().max(1)), column: narrow(marker.col() + 1) }
}

/// Where the text ends, if nothing but blanks stands at `at` and behind it.
fn end_of_text(text: &str, at: Position) -> Option<Position> {
    let (line, column) = (at.line as usize - 1, at.column as usize - 1);
    let mut rest = text.lines().skip(line);
    let behind: String = rest.next().unwrap_or_default().chars().skip(column).collect();
    if !behind.trim().is_empty() || rest.any(|line| !line.trim().is_empty()) {
        return None;
    }
    let last = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).last();
    let (line, last) = last?;
    let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Some(Position { line: narrow(line + 1), column: narrow(last.trim_end().chars().count() + 1) })
}

const UNEXPECTED_END: &str = "unexpected end of stream";

/// Whether this line, or what is left of it, is indented with a tab.
fn starts_with_tab(text: &str, line: u32) -> bool {
    let line = text.lines().nth(line as usize - 1).unwrap_or_default();
    line[..line.len() - line.trim_start().len()].contains('\t')
}
