//! Findings for people: place, code and message on one line, then the line of the file, the field and what to write instead.

use proxy_config::{FileReport, Finding, Severity};

use crate::output::Output;
use crate::validate::word;

pub(crate) fn text(reports: &[FileReport], output: &mut Output) {
    let paint = Paint { colours: output.has_colours() };
    let (mut errors, mut warnings) = (0, 0);
    for report in reports {
        for finding in &report.findings {
            lines(report, finding, paint).iter().for_each(|line| output.line(line));
            match finding.severity {
                Severity::Error => errors += 1,
                Severity::Warning => warnings += 1,
            }
        }
        if !report.has_errors() {
            output.line(&format!("{}: {}", report.path.display(), paint.as_good("OK")));
        }
    }
    if errors + warnings > 1 {
        let plural = |count: usize, what| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        output.line(&format!("{}, {}", plural(errors, "error"), plural(warnings, "warning")));
    }
}

fn lines(report: &FileReport, finding: &Finding, paint: Paint) -> Vec<String> {
    // Without a place of its own a finding still says which file it is about.
    let place = match &finding.place {
        Some(place) => place.to_string(),
        None => report.path.display().to_string(),
    };
    let code = format!("{}[{}]", word(finding.severity), finding.code);
    let mut lines = vec![format!(
        "{place}: {}: {}",
        paint.by(finding.severity, &code),
        paint.as_strong(&finding.message)
    )];
    let number = finding.place.as_ref().map_or(0, |place| place.line).to_string();
    let margin = " ".repeat(number.len());
    if let Some(excerpt) = &finding.excerpt {
        let caret = format!("{}{}", " ".repeat(excerpt.indent), "^".repeat(excerpt.length));
        lines.push(format!("{number} {} {}", paint.as_faint("|"), excerpt.line));
        lines.push(format!("{margin} {} {}", paint.as_faint("|"), paint.by(finding.severity, &caret)));
    }
    if !finding.path.is_empty() {
        lines.push(format!("{margin} {} at {}", paint.as_faint("="), finding.path));
    }
    if let Some(hint) = &finding.hint {
        let hint = hint.replace('\n', &format!("\n{margin}   "));
        lines.push(format!("{margin} {} hint: {}", paint.as_faint("="), paint.as_good(&hint)));
    }
    lines
}

#[derive(Clone, Copy)]
struct Paint {
    colours: bool,
}

impl Paint {
    fn by(self, severity: Severity, text: &str) -> String {
        self.with(if severity == Severity::Error { "1;31" } else { "1;33" }, text)
    }

    fn as_good(self, text: &str) -> String {
        self.with("32", text)
    }

    fn as_strong(self, text: &str) -> String {
        self.with("1", text)
    }

    fn as_faint(self, text: &str) -> String {
        self.with("34", text)
    }

    fn with(self, style: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
