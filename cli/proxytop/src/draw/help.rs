//! What `?` shows: keys, and what the pane's columns mean.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::style::{self, Look, wrapped};
use crate::app::App;

/// All lines for the pane that is shown.
pub(crate) fn lines(app: &App) -> Vec<String> {
    let width = usize::from(app.size.0).clamp(40, 110) - 4;
    let mut lines: Vec<String> = KEYS.iter().map(|line| (*line).to_owned()).collect();
    if app.allow_actions {
        lines.push("a           actions: drain, health checks, log level, hot restart".to_owned());
    }
    lines.push(String::new());
    lines.extend(wrapped(&format!("{}: {}", app.pane.name(), app.pane.about()), 0, width));
    for column in app.pane.columns() {
        lines.extend(wrapped(&format!("{:<11} {}", column.head, column.about), 12, width));
    }
    lines
}

pub(super) fn draw(app: &App, first: usize, look: Look, area: Rect, buffer: &mut Buffer) {
    let lines = lines(app);
    let width = area.width.min(110);
    let inside = Rect { x: area.x + (area.width - width) / 2, width, ..area };
    style::frame(inside, look, buffer);
    let page = usize::from(area.height.saturating_sub(2));
    for (line, text) in lines.iter().skip(first).take(page).enumerate() {
        let room = usize::from(width.saturating_sub(4));
        buffer.set_stringn(
            inside.x + 2,
            inside.y + 1 + line as u16,
            style::cut(text.trim_end(), room, look),
            room,
            look.plain(),
        );
    }
}

const KEYS: &[&str] = &[
    "1 to 9 tab  panes; the mouse works too: tabs, heads, rows, wheel",
    "up down     choose a row; page up, page down, g and G go further",
    "enter       hosts of a cluster; elsewhere the whole row",
    "esc         back; drops the filter first",
    "/           filter: rows that have the text in a name or word",
    "< > left right  sort by the column before or after; r turns it round",
    "space       pause, and go on",
    "b B         count totals from now on; from the start again",
    "+ -         look half as often, twice as often",
    "p u         stats: pin a row to the top; show only what is not 0",
    "[ ] { }     replay: one look back or forth, sixty",
    "i           another instance, when there are several",
    "ctrl-l      draw anew;  ctrl-z suspend;  q ctrl-c quit",
];
