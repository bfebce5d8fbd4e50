//! Rows in columns. Columns that there is no room for are left out from the least important on, never cut.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::style::{Look, cut, cut_end, wrapped};
use crate::app::App;
use crate::columns::{Column, Pane};
use crate::table::Mood;

/// A column with its place: number, first cell, width.
type Placed = (usize, u16, u16);

/// Columns that fit, in order. What is left over goes to text: to the name, or to all texts of a pane of texts.
fn place(pane: Pane, width: u16, sort: Option<usize>) -> Vec<Placed> {
    let columns = pane.columns();
    let mut ranks: Vec<usize> = (0..columns.len()).collect();
    // What rows are sorted by is seen.
    ranks.sort_by_key(|column| (*column != 0, sort != Some(*column), columns[*column].rank, *column));
    let (mut chosen, mut used) = (Vec::new(), 0);
    for column in ranks {
        let needed = columns[column].width + u16::from(!chosen.is_empty()) * GAP;
        if used + needed > width {
            break;
        }
        used += needed;
        chosen.push(column);
    }
    chosen.sort_unstable();
    let texts: Vec<usize> = match pane {
        Pane::Routes => chosen.iter().copied().filter(|column| !columns[*column].right).collect(),
        Pane::Events => vec![4],
        _ => vec![0],
    };
    // Names of these are short.
    let short = matches!(pane, Pane::Workers | Pane::Generations);
    let spare = if short { (width - used).min(6) } else { width - used };
    let share = spare / texts.len().max(1) as u16;
    let most = if matches!(pane, Pane::Routes | Pane::Events | Pane::AccessLog | Pane::Stats) {
        u16::MAX
    } else {
        WIDEST_NAME
    };
    let mut at = 0;
    chosen
        .into_iter()
        .map(|column| {
            let wider = if texts.contains(&column) { share } else { 0 };
            let own = columns[column].width;
            let width = (own + wider).min(most.max(own));
            let begin = at;
            at += width + GAP;
            (column, begin, width)
        })
        .collect()
}

/// The column whose head is there.
pub(super) fn column_at(app: &App, x: u16) -> Option<usize> {
    let placed = place(app.pane, app.size.0, app.view().sort).into_iter();
    placed
        .filter(|(_, begin, width)| (*begin..begin + width + GAP).contains(&x))
        .map(|(column, ..)| column)
        .next()
}

pub(super) fn draw(app: &App, look: Look, area: Rect, buffer: &mut Buffer) {
    let placed = place(app.pane, area.width, app.view().sort);
    head(app, &placed, look, area, buffer);
    if app.order.is_empty() {
        let filtered = !app.table.rows.is_empty() && !app.view().filter.is_empty();
        let said = match filtered {
            true => "nothing matches the filter",
            false if app.now.at_ms == 0 => "waiting for the first look",
            false => &app.table.empty,
        };
        for (line, text) in wrapped(said, 0, area.width.into()).iter().enumerate() {
            let y = area.y + 1 + line as u16;
            if y < area.bottom() {
                buffer.set_stringn(area.x, y, text.trim_end(), area.width.into(), look.quiet());
            }
        }
        return;
    }
    let position = app.position();
    for line in 0..area.height.saturating_sub(1) {
        let at = position.offset + usize::from(line);
        let Some(row) = app.row(at) else { break };
        let y = area.y + 1 + line;
        let chosen = at == position.row && !position.key.is_empty();
        let pinned = app.pinned.contains(&row.key);
        for (column, begin, width) in &placed {
            let cell = &row.cells[*column];
            let style = match cell.mood() {
                _ if chosen => look.chosen(),
                Mood::Plain if pinned && *column == 0 => look.strong(),
                mood => look.of(mood),
            };
            let (indent, text) = fitted(&app.pane.columns()[*column], &cell.text(), *width, look);
            buffer.set_stringn(area.x + begin + indent, y, text, usize::from(*width), style);
        }
        if chosen {
            buffer.set_style(Rect { x: area.x, y, width: area.width, height: 1 }, look.chosen());
        }
    }
}

fn head(app: &App, placed: &[Placed], look: Look, area: Rect, buffer: &mut Buffer) {
    let view = app.view();
    for (column, begin, width) in placed {
        let known = &app.pane.columns()[*column];
        let head = match (app.pane, column) {
            (Pane::Hosts, 0) => format!("HOST of {}", app.cluster),
            _ => known.head.to_owned(),
        };
        let sorted = view.sort == Some(*column);
        let arrow = look.arrow(view.descending);
        let style = if sorted { look.strong() } else { look.quiet() };
        // The arrow of a full column stands in the gap before it.
        let (text, x) = match (sorted, known.right) {
            (true, true) => (format!("{arrow}{head}"), area.x + begin + width - head.len() as u16 - 1),
            (false, true) => (head.clone(), area.x + begin + width - head.len() as u16),
            (true, false) => {
                (format!("{}{arrow}", cut(&head, usize::from(*width) - 1, look)), area.x + begin)
            }
            (false, false) => (cut(&head, usize::from(*width), look), area.x + begin),
        };
        buffer.set_stringn(x, area.y, text, usize::from(*width) + 1, style);
    }
}

/// A text as long as its column allows, and how far from the column's beginning it stands.
fn fitted(column: &Column, text: &str, width: u16, look: Look) -> (u16, String) {
    // What is a sentence is read from its beginning.
    let text = if matches!(column.key, "line" | "event") {
        cut_end(text, width.into(), look)
    } else {
        cut(text, width.into(), look)
    };
    let length = text.chars().count() as u16;
    (if column.right { width.saturating_sub(length) } else { 0 }, text)
}

/// The name of the chosen row, if it is cut.
pub(super) fn cut_name(app: &App, width: u16) -> Option<String> {
    let position = app.position();
    let (_, _, room) =
        place(app.pane, width, app.view().sort).into_iter().find(|(column, ..)| *column == 0)?;
    let row = app.row(position.row).filter(|_| !position.key.is_empty())?;
    let name = row.cells[0].text();
    (app.pane != Pane::AccessLog && name.chars().count() > usize::from(room)).then_some(name)
}

/// How much there is that is not on the screen.
pub(super) fn summary(app: &App, width: u16) -> String {
    let (rows, position) = (app.order.len(), app.position());
    let mut parts = Vec::new();
    let filter = app.view().filter;
    if !filter.is_empty() {
        parts.push(format!("/{filter}"));
    }
    let hidden = app.pane.columns().len() - place(app.pane, width, app.view().sort).len();
    if hidden > 0 {
        parts.push(format!("+{hidden} columns"));
    }
    if rows > 0 {
        let last = (position.offset + app.page()).min(rows);
        parts.push(format!("{}-{last} of {rows}", position.offset + 1));
    }
    parts.join("  ")
}

const GAP: u16 = 1;
const WIDEST_NAME: u16 = 60;
