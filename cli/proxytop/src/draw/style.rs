//! Colours, signs, and boxes. Colours are blue, ochre and vermilion of 256: they differ for the colour-blind, and can be read on
//! light and dark alike. None of them says what the text does not say too.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use crate::table::Mood;

/// How to draw on this terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) colours: bool,
    pub(crate) ascii: bool,
}

impl Look {
    pub(crate) fn plain(self) -> Style {
        Style::new()
    }

    pub(crate) fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(crate) fn quiet(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    pub(crate) fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    pub(crate) fn good(self) -> Style {
        self.coloured(31)
    }

    pub(crate) fn warning(self) -> Style {
        self.coloured(136)
    }

    pub(crate) fn bad(self) -> Style {
        self.coloured(166).add_modifier(Modifier::BOLD)
    }

    fn coloured(self, colour: u8) -> Style {
        if self.colours { Style::new().fg(Color::Indexed(colour)) } else { Style::new() }
    }

    pub(crate) fn of(self, mood: Mood) -> Style {
        match mood {
            Mood::Plain => self.plain(),
            Mood::Quiet => self.quiet(),
            Mood::Good => self.good(),
            Mood::Warning => self.warning(),
            Mood::Bad => self.bad(),
        }
    }

    /// Stands for what was cut.
    pub(crate) fn ellipsis(self) -> char {
        if self.ascii { '~' } else { '\u{2026}' }
    }

    /// From nothing to all, for lines of values.
    pub(crate) fn levels(self) -> &'static [char] {
        if self.ascii {
            &[' ', '.', ':', '-', '=', '+', '*', '#', '@']
        } else {
            &[
                ' ', '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}',
                '\u{2588}',
            ]
        }
    }

    /// Beside the head of the column that rows are sorted by.
    pub(crate) fn arrow(self, descending: bool) -> char {
        match (self.ascii, descending) {
            (true, true) => 'v',
            (true, false) => '^',
            (false, true) => '\u{25be}',
            (false, false) => '\u{25b4}',
        }
    }
}

/// At most `width` characters: both ends of a name tell more than its beginning.
pub(crate) fn cut(text: &str, width: usize, look: Look) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.chars().map(|character| printable(character, look)).collect();
    }
    let kept = width.saturating_sub(1);
    let head = kept.div_ceil(2);
    let shown =
        text.chars().take(head).chain([look.ellipsis()]).chain(text.chars().skip(length - (kept - head)));
    shown
        .map(|character| if character == look.ellipsis() { character } else { printable(character, look) })
        .collect()
}

/// As [`cut`], at the end.
pub(super) fn cut_end(text: &str, width: usize, look: Look) -> String {
    let mut shown: String = text.chars().take(width).map(|character| printable(character, look)).collect();
    if text.chars().nth(width).is_some() {
        shown.pop();
        shown.push(look.ellipsis());
    }
    shown
}

/// Lines of at most `width` characters, broken between words; all but the first are indented.
pub(super) fn wrapped(text: &str, indent: usize, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("there is a first line");
        if !line.trim().is_empty() && line.chars().count() + word.chars().count() > width {
            lines.push(format!("{:indent$}{word} ", ""));
        } else {
            line.push_str(word);
            line.push(' ');
        }
    }
    lines
}

fn printable(character: char, look: Look) -> char {
    if character.is_control() || (look.ascii && !character.is_ascii()) { '?' } else { character }
}

/// A box in the middle with lines, one of them chosen.
pub(crate) fn list(
    (head, lines, chosen): (&str, &[String], usize),
    look: Look,
    area: Rect,
    buffer: &mut Buffer,
) {
    let widest =
        lines.iter().map(|line| line.chars().count()).chain([head.chars().count()]).max().unwrap_or(0);
    let width = (widest as u16 + 4).min(area.width);
    let height = (lines.len() as u16 + 4).min(area.height);
    let inside =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame(inside, look, buffer);
    let room = usize::from(width.saturating_sub(4));
    buffer.set_stringn(inside.x + 2, inside.y + 1, head, room, look.strong());
    let page = usize::from(height.saturating_sub(4));
    let first = if chosen < lines.len() { (chosen + 1).saturating_sub(page) } else { 0 };
    for (line, text) in lines.iter().enumerate().skip(first).take(page) {
        let style = if line == chosen { look.chosen() } else { look.plain() };
        let text = format!("{:<room$}", cut(text, room, look));
        buffer.set_stringn(inside.x + 2, inside.y + 3 + (line - first) as u16, text, room, style);
    }
}

/// An empty box.
pub(crate) fn frame(area: Rect, look: Look, buffer: &mut Buffer) {
    let (corners, across, down) = if look.ascii {
        (["+"; 4], "-", "|")
    } else {
        (["\u{250c}", "\u{2510}", "\u{2514}", "\u{2518}"], "\u{2500}", "\u{2502}")
    };
    for y in area.y..area.bottom() {
        for x in area.x..area.right() {
            let (left, right) = (x == area.x, x + 1 == area.right());
            let (top, low) = (y == area.y, y + 1 == area.bottom());
            let sign = match (left, right, top, low) {
                (true, _, true, _) => corners[0],
                (_, true, true, _) => corners[1],
                (true, _, _, true) => corners[2],
                (_, true, _, true) => corners[3],
                (_, _, true, _) | (_, _, _, true) => across,
                (true, ..) | (_, true, ..) => down,
                _ => " ",
            };
            buffer[(x, y)].reset();
            buffer[(x, y)].set_symbol(sign);
        }
    }
}
