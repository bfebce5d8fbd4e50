//! The line that a finding is about, for people to see. What is secret in it, or may be, is not shown.

use std::ops::Range;
use std::sync::Arc;

use crate::finding::{Excerpt, Finding, Place};
use crate::schema;
use crate::tree::Position;

/// A part of a source that holds the value of a sensitive field, or of one that nobody knows.
#[derive(Debug, Clone)]
pub(crate) struct Secret {
    pub(crate) file: Arc<str>,
    pub(crate) from: Position,
    /// Past its end.
    pub(crate) to: Position,
}

/// A source as it was read.
#[derive(Debug)]
pub(crate) struct SourceText {
    pub(crate) file: Arc<str>,
    pub(crate) text: String,
}

/// Gives each finding its line.
pub(crate) fn attach(findings: &mut [Finding], sources: &[SourceText], secrets: &[Secret]) {
    for source in sources {
        // Without a tree nobody knows what its values are.
        let opaque = findings.iter().any(|finding| finding.code.is_hopeless() && is_in(finding, source));
        let mut lines = source.text.split('\n').enumerate();
        let mut at: Option<(usize, Vec<char>)> = None;
        // Findings come in the order of their places.
        for finding in findings.iter_mut().filter(|finding| finding.excerpt.is_none()) {
            let Some(place) = finding.place.as_ref().filter(|place| place.file == source.file) else {
                continue;
            };
            let wanted = place.line as usize - 1;
            if at.as_ref().is_none_or(|(line, _)| *line < wanted) {
                // Once a line: a file of JSON may have but one, and all findings on it.
                at = lines.find(|(line, _)| *line == wanted).map(|(line, text)| (line, letters(text)));
            }
            let Some((line, text)) = at.as_ref().filter(|(line, _)| *line == wanted) else { continue };
            let hidden = |column: usize| {
                let at = Position { line: *line as u32 + 1, column: column as u32 + 1 };
                opaque || secrets.iter().any(|secret| secret.holds(&source.file, at))
            };
            finding.excerpt = Some(excerpt(text, place, &hidden));
        }
    }
}

impl Secret {
    fn holds(&self, file: &Arc<str>, at: Position) -> bool {
        (self.from..self.to).contains(&at) && self.file == *file
    }
}

fn is_in(finding: &Finding, source: &SourceText) -> bool {
    finding.place.as_ref().is_some_and(|place| place.file == source.file)
}

/// A line without its end, and as a terminal may show it.
fn letters(line: &str) -> Vec<char> {
    line.trim_end().chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

fn excerpt(all: &[char], place: &Place, hidden: &dyn Fn(usize) -> bool) -> Excerpt {
    let column = (place.column as usize - 1).min(all.len());
    let from = column.saturating_sub(BEFORE);
    let to = all.len().min(column + AFTER);
    let end = column + word(&all[column..to]);
    let part = |range: Range<usize>| masked(all, range, hidden);
    let (mut before, at, mut after) = (part(from..column), part(column..end), part(end..to));
    if from > 0 {
        before.insert_str(0, "...");
    }
    if to < all.len() {
        after.push_str("...");
    }
    let (indent, length) = (before.chars().count(), at.chars().count().max(1));
    Excerpt { line: before + &at + &after, indent, length }
}

/// Characters of the word that `text` starts with.
fn word(text: &[char]) -> usize {
    match text.first() {
        Some(quote @ ('"' | '\'')) => {
            text[1..].iter().position(|letter| letter == quote).map_or(1, |end| end + 2)
        }
        _ => text.iter().position(|letter| !is_word(*letter)).unwrap_or(text.len()),
    }
}

fn is_word(letter: char) -> bool {
    !letter.is_whitespace() && !"{}[],:\"'#|>&*!".contains(letter)
}

/// Of the words that are hidden, only names of fields are left.
fn masked(line: &[char], range: Range<usize>, hidden: &dyn Fn(usize) -> bool) -> String {
    let mut out = String::with_capacity(range.len());
    let mut next = range.start;
    while next < range.end {
        let is_hidden = |index: usize| is_word(line[index]) && hidden(index);
        if !is_hidden(next) {
            out.push(line[next]);
            next += 1;
            continue;
        }
        let end = (next..range.end).find(|index| !is_hidden(*index)).unwrap_or(range.end);
        let word: String = line[next..end].iter().collect();
        let whole = next == 0 || !is_word(line[next - 1]);
        let known = word == "-" || word == "@type" || (whole && schema::is_field_name(&word));
        out.push_str(if known { &word } else { "\u{2026}" });
        next = end;
    }
    out
}

/// Characters of a line that are shown before and after the place.
const BEFORE: usize = 80;
const AFTER: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str, column: u32, hidden: bool) -> (String, String) {
        let place = Place { file: "a".into(), line: 1, column };
        let excerpt = excerpt(&letters(line), &place, &|column| hidden && column > 1);
        (excerpt.line, " ".repeat(excerpt.indent) + &"^".repeat(excerpt.length))
    }

    #[test]
    fn the_caret_stands_below_the_word() {
        assert_eq!(shown("  adress: x", 3, false), ("  adress: x".to_owned(), "  ^^^^^^".to_owned()));
        assert_eq!(shown("a: 'b c'", 4, false).1, "   ^^^^^");
        assert_eq!(shown("a:", 9, false).1, "  ^");
        let long = "x".repeat(1000);
        let (line, caret) = shown(&long, 500, false);
        assert_eq!((line.len(), caret.len()), (206, 203));
    }

    #[test]
    fn only_names_of_fields_are_left_of_secrets() {
        let (line, caret) = shown("  private_key: {inline_string: 'hunter2 x'}", 17, true);
        assert_eq!(line, "  private_key: {inline_string: '\u{2026} \u{2026}'}");
        assert_eq!(caret, format!("{}{}", " ".repeat(16), "^".repeat(13)));
    }
}
