//! From the state to cells of a screen. Reads the app, changes nothing.

mod help;
mod overview;
mod style;
mod table;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

pub(crate) use self::style::Look;
use crate::app::{Action, App, Mode};
use crate::columns::Pane;
use crate::snapshot::Standing;
use crate::units;

/// Draws a frame.
pub(crate) fn frame(app: &App, look: Look, area: Rect, buffer: &mut Buffer) {
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let said = format!("proxytop needs {} x {} cells", SMALLEST.0, SMALLEST.1);
        buffer.set_stringn(area.x, area.y, said, area.width.into(), look.plain());
        return;
    }
    title(app, look, area, buffer);
    tabs(app, look, Rect { y: area.y + 1, height: 1, ..area }, buffer);
    let inside = Rect { y: area.y + 2, height: area.height - 3, ..area };
    if app.pane == Pane::Overview {
        overview::draw(app, look, inside, buffer);
    }
    let top = table_top(app.pane);
    let of_table = Rect { y: area.y + top, height: area.height - top - 1, ..area };
    table::draw(app, look, of_table, buffer);
    bottom(app, look, Rect { y: area.y + area.height - 1, height: 1, ..area }, buffer);
    over(app, look, inside, buffer);
}

/// Line of the table's head.
fn table_top(pane: Pane) -> u16 {
    if pane == Pane::Overview { 2 + overview::LINES } else { 2 }
}

/// How many rows of a table fit.
pub(crate) fn table_lines(pane: Pane, size: (u16, u16)) -> usize {
    size.1.saturating_sub(table_top(pane) + 2).into()
}

/// How many lines help has.
pub(crate) fn help_lines(app: &App) -> usize {
    help::lines(app).len()
}

/// What is at a place of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hit {
    Pane(Pane),
    Column(usize),
    /// Number of the row among those shown.
    Row(usize),
}

/// What is at a place of the screen.
pub(crate) fn hit(app: &App, column: u16, line: u16) -> Option<Hit> {
    let top = table_top(app.pane);
    if line == 1 {
        let tabs = tab_places(app.size.0);
        return tabs
            .into_iter()
            .find(|(_, begin, text)| (*begin..begin + text.len() as u16).contains(&column))
            .map(|(pane, ..)| Hit::Pane(pane));
    }
    if line == top {
        return table::column_at(app, column).map(Hit::Column);
    }
    let row = app.position().offset + usize::from(line.checked_sub(top + 1)?);
    (line < app.size.1 - 1 && row < app.order.len()).then_some(Hit::Row(row))
}

fn title(app: &App, look: Look, area: Rect, buffer: &mut Buffer) {
    let now = &app.now;
    let mut left = vec![("proxytop".to_owned(), look.strong())];
    if !now.origin.is_empty() {
        left.push((now.origin.clone(), look.strong()));
    }
    let mood = match now.standing {
        Standing::Live => look.good(),
        Standing::Draining | Standing::Starting | Standing::Silent => look.warning(),
        Standing::Dead | Standing::Gone => look.bad(),
        Standing::Unknown => look.plain(),
    };
    left.push((now.standing.name().to_owned(), mood));
    if !app.asked.version.is_empty() {
        left.push((app.asked.version.clone(), look.plain()));
    }
    if let Some(leader) = now.generations.iter().find(|generation| generation.leads) {
        left.push((format!("generation {}", leader.number), look.plain()));
    }
    let uptime = now.named("server.uptime");
    if uptime > 0 {
        left.push((format!("up {}", units::age(uptime)), look.plain()));
    }
    let mut right = Vec::new();
    if app.paused {
        right.push("paused".to_owned());
    }
    if app.recording {
        right.push("recording".to_owned());
    }
    if let Some(baseline) = &app.baseline {
        right.push(format!("since {}", units::clock(baseline.at_ms)));
    }
    if let Some(replay) = app.replay {
        right.push(format!("replay {}/{}", replay.at + 1, replay.of));
    }
    if now.at_ms != 0 {
        right.push(format!("{} UTC", units::clock(now.at_ms)));
    }
    right.push(format!("every {}s", app.interval.as_secs_f64()));
    let right = right.join("  ");
    let begin = area.width.saturating_sub(right.chars().count() as u16);
    let mut at = area.x;
    for (text, style) in left {
        let room = begin.saturating_sub(at + 1);
        if usize::from(room) < text.chars().count() {
            break;
        }
        at = buffer.set_stringn(at, area.y, text, room.into(), style).0 + 2;
    }
    buffer.set_stringn(area.x + begin, area.y, right, area.width.into(), look.plain());
}

/// Panes with the columns at which their names begin.
fn tab_places(width: u16) -> Vec<(Pane, u16, String)> {
    let mut at = 0;
    let place = |(index, pane): (usize, Pane)| {
        let name = match (pane, width < 90) {
            (Pane::Listeners, true) => "listen",
            (Pane::Generations, true) => "gens",
            _ => pane.name(),
        };
        let (begin, text) = (at, format!("{} {name}", index + 1));
        at += text.len() as u16 + 1;
        (pane, begin, text)
    };
    Pane::ALL.into_iter().enumerate().map(place).collect()
}

fn tabs(app: &App, look: Look, area: Rect, buffer: &mut Buffer) {
    let shown = if app.pane == Pane::Hosts { Pane::Clusters } else { app.pane };
    for (pane, begin, text) in tab_places(area.width) {
        let style = if pane == shown { look.chosen() } else { look.quiet() };
        buffer.set_stringn(area.x + begin, area.y, text, area.width.saturating_sub(begin).into(), style);
    }
}

fn bottom(app: &App, look: Look, area: Rect, buffer: &mut Buffer) {
    let width = usize::from(area.width);
    let right = table::summary(app, area.width);
    let room = width.saturating_sub(right.chars().count() + 2);
    let (text, style) = match &app.mode {
        Mode::Filter => (format!("/{}_  enter keeps it, esc drops it", app.view().filter), look.strong()),
        _ if !app.message.is_empty() => (app.message.clone(), look.strong()),
        _ => match table::cut_name(app, area.width) {
            Some(name) => (name, look.strong()),
            None => (hints(app, room), look.quiet()),
        },
    };
    if text.chars().count() > room {
        buffer.set_stringn(area.x, area.y, style::cut(&text, width, look), width, style);
        return;
    }
    buffer.set_stringn(area.x, area.y, style::cut(&text, room, look), room, style);
    let begin = area.x + area.width.saturating_sub(right.chars().count() as u16);
    buffer.set_stringn(begin, area.y, right, width, look.quiet());
}

fn hints(app: &App, room: usize) -> String {
    let mut hints = vec!["? help", "q quit", "/ filter", "<> sort"];
    match app.pane {
        Pane::Clusters => hints.push("enter hosts"),
        Pane::Hosts => hints.push("esc back"),
        Pane::Stats => hints.extend(["p pin", "u used"]),
        Pane::AccessLog => hints[3] = "<> along",
        _ => {}
    }
    hints.push(if app.replay.is_some() { "[ ] time" } else { "space pause" });
    // Whole ones only.
    while hints.join("  ").len() > room && !hints.is_empty() {
        hints.pop();
    }
    hints.join("  ")
}

/// What lies over the pane: help, a menu, a question.
fn over(app: &App, look: Look, area: Rect, buffer: &mut Buffer) {
    match &app.mode {
        Mode::Table | Mode::Filter => {}
        Mode::Help(first) => help::draw(app, *first, look, area, buffer),
        Mode::Menu(line) => {
            style::list(
                ("Actions: enter chooses, esc leaves", &Action::MENU.map(str::to_owned), *line),
                look,
                area,
                buffer,
            );
        }
        Mode::Levels(line) => {
            style::list(
                ("New level of all loggers", &Action::LEVELS.map(str::to_owned), *line),
                look,
                area,
                buffer,
            );
        }
        Mode::Confirm(action) => {
            let lines = [action.question(), "y does it, any other key does not".to_owned()];
            style::list(("Are you sure?", &lines, usize::MAX), look, area, buffer);
        }
        Mode::Instances(line) => {
            style::list(
                ("Several instances have counters: enter chooses", &app.instances, *line),
                look,
                area,
                buffer,
            );
        }
    }
}

/// Everything has room in it.
const SMALLEST: (u16, u16) = (80, 24);
