//! Comments that allow warnings: `# proxyctl: allow CODE, CODE` at the end of the line, or on a line of its own above it.

use crate::codes::Code;
use crate::excerpt::SourceText;
use crate::finding::{Finding, Place, Severity};

/// A code that a comment allows.
struct Allowed {
    place: Place,
    /// The line that it is about.
    line: u32,
    name: String,
    used: bool,
}

/// Leaves out the warnings that are allowed, and adds one for each comment that allows nothing.
pub(crate) fn apply(findings: Vec<Finding>, sources: &[SourceText]) -> Vec<Finding> {
    let mut allowed: Vec<Allowed> = sources.iter().flat_map(comments).collect();
    if allowed.is_empty() {
        return findings;
    }
    // What is left out of a list that was cut off tells nothing.
    let cut = findings.iter().any(|finding| finding.code == Code::TOO_MANY || finding.code.is_hopeless());
    let mut kept: Vec<Finding> =
        findings.into_iter().filter(|finding| !is_allowed(finding, &mut allowed)).collect();
    for allowed in allowed.into_iter().filter(|allowed| !allowed.used && !cut) {
        let Allowed { place, name, .. } = allowed;
        let (code, message) = match Code::named(&name) {
            Some(code) => (Code::UNUSED_ALLOW, format!("nothing here is warned about as {code}")),
            None => (Code::UNKNOWN_ALLOW, format!("there is no code `{name}`")),
        };
        let hint = crate::hint::closest(&name, Code::all().map(|code| code.0));
        let hint = hint.filter(|_| code == Code::UNKNOWN_ALLOW).map(|name| format!("did you mean `{name}`?"));
        let plain = Finding::new(Severity::Warning, code, String::new(), Some(place), message);
        let at = kept.partition_point(|other| other.place.is_some() && other.place <= plain.place);
        kept.insert(at, Finding { hint, ..plain });
    }
    kept
}

fn is_allowed(finding: &Finding, allowed: &mut [Allowed]) -> bool {
    let Some(place) = finding.place.as_ref().filter(|_| finding.severity == Severity::Warning) else {
        return false;
    };
    let mut found = false;
    for allowed in allowed {
        if allowed.line == place.line && allowed.place.file == place.file && allowed.name == finding.code.0 {
            (allowed.used, found) = (true, true);
        }
    }
    found
}

fn comments(source: &SourceText) -> Vec<Allowed> {
    if !source.text.contains(MARK) {
        return Vec::new();
    }
    let lines: Vec<&str> = source.text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some((before, comment)) = line.split_once('#').and_then(|_| line.rsplit_once(MARK)) else {
            continue;
        };
        let Some(before) = before.trim_end().strip_suffix('#').filter(|before| is_comment(before)) else {
            continue;
        };
        // Above what it is about, other comments may stand in between.
        let alone = before.trim().is_empty();
        let about = if alone {
            let next = lines[index + 1..].iter().position(|line| !line.trim_start().starts_with('#'));
            index + 1 + next.unwrap_or(0)
        } else {
            index
        };
        let mut column = line.len() - comment.len();
        for part in comment.split(',') {
            let blank = part.len() - part.trim_start().len();
            let name: String = part.trim().chars().take_while(|letter| !letter.is_whitespace()).collect();
            let at = line[..column + blank].chars().count() as u32 + 1;
            column += part.len() + 1;
            if !name.is_empty() {
                let place = Place { file: source.file.clone(), line: index as u32 + 1, column: at };
                found.push(Allowed { place, line: about as u32 + 1, name, used: false });
            }
        }
    }
    found
}

/// Whether a number sign after this text starts a comment.
fn is_comment(before: &str) -> bool {
    before.is_empty() || before.ends_with([' ', '\t'])
}

const MARK: &str = "proxyctl: allow ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_about_its_line_or_the_next() {
        let text = "a: 1 # proxyctl: allow rule, no-effect\n# proxyctl: allow deprecated\n# why\nb: 2\nc: 'x#proxyctl: allow rule'\n";
        let source = SourceText { file: "f".into(), text: text.to_owned() };
        let found: Vec<_> =
            comments(&source).into_iter().map(|a| (a.line, a.name, a.place.line, a.place.column)).collect();
        assert_eq!(
            found,
            [
                (1, "rule".to_owned(), 1, 24),
                (1, "no-effect".to_owned(), 1, 30),
                (4, "deprecated".to_owned(), 2, 19),
            ]
        );
    }
}
