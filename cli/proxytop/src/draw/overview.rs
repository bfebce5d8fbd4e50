//! The first screen: figures, lines of the last minutes, what went wrong.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use super::style::Look;
use crate::app::App;
use crate::panes::overview::Sums;
use crate::units;

/// Above the table of connection managers.
pub(super) const LINES: u16 = 15;

pub(super) fn draw(app: &App, look: Look, area: Rect, buffer: &mut Buffer) {
    let sums = &app.sums;
    let known = !app.history.sums.is_empty();
    let number = |value: f64| if known { units::number(value) } else { "-".to_owned() };
    let bytes = |value: f64| if known { units::bytes(value) } else { "-".to_owned() };
    let mut line = Line { look, area, buffer, y: area.y };
    line.write(&[
        ("Requests", &format!("{}/s", number(sums.requests)), look.strong()),
        ("active", &units::number(sums.requests_active as f64), look.strong()),
        ("Connections", &units::number(sums.connections as f64), look.strong()),
        ("new", &format!("{}/s", number(sums.connections_rate)), look.strong()),
    ]);
    line.write(&[
        ("Received", &format!("{}/s", bytes(sums.received)), look.strong()),
        ("", "", look.plain()),
        ("Sent", &format!("{}/s", bytes(sums.sent)), look.strong()),
    ]);
    line.statuses(sums, known);
    let time = |value: Option<f64>| value.map_or("-".to_owned(), |value| units::time(value * 1000.0));
    line.write(&[
        ("Latency", &format!("p50 {}", time(sums.p50)), look.strong()),
        ("", &format!("p90 {}", time(sums.p90)), look.strong()),
        ("", &format!("p99 {}", time(sums.p99)), look.strong()),
    ]);
    line.y += 1;
    let sums = || app.history.sums.iter();
    line.spark("Requests/s", sums().map(|sums| sums.requests), units::number, look.good());
    line.spark("5xx/s", sums().map(|sums| sums.statuses[4]), units::number, look.bad());
    line.spark("Sent/s", sums().map(|sums| sums.sent), units::bytes, look.good());
    let p99 = sums().map(|sums| sums.p99.unwrap_or(0.0) * 1000.0);
    line.spark("p99", p99, units::time, look.warning());
    line.y += 1;
    line.flags(app);
}

struct Line<'a> {
    look: Look,
    area: Rect,
    buffer: &'a mut Buffer,
    y: u16,
}

impl Line<'_> {
    fn put(&mut self, x: u16, text: &str, style: Style) {
        let room = self.area.width.saturating_sub(x);
        self.buffer.set_stringn(self.area.x + x, self.y, text, room.into(), style);
    }

    /// Names and values at places that never move.
    fn write(&mut self, parts: &[(&str, &str, Style)]) {
        for (part, (name, value, style)) in parts.iter().enumerate() {
            let x = [0, 28, 44, 64][part.min(3)];
            let name_width = if name.is_empty() { 0 } else { [12, 7, 12, 4][part.min(3)] };
            self.put(x, name, self.look.quiet());
            self.put(x + name_width, value, *style);
        }
        self.y += 1;
    }

    fn statuses(&mut self, sums: &Sums, known: bool) {
        self.put(0, "Answers", self.look.quiet());
        for (class, rate) in sums.statuses.iter().enumerate().skip(1) {
            let style = match (class, *rate > 0.0) {
                (4, true) => self.look.bad(),
                (3, true) => self.look.warning(),
                (_, true) => self.look.strong(),
                _ => self.look.quiet(),
            };
            let value = if known { format!("{}/s", units::number(*rate)) } else { "-".to_owned() };
            self.put([12, 28, 44, 60][class - 1], &format!("{}xx {value}", class + 1), style);
        }
        self.y += 1;
    }

    /// A line of values, the newest at the right, scaled to the largest of those shown.
    fn spark(
        &mut self,
        name: &str,
        values: impl Iterator<Item = f64>,
        unit: fn(f64) -> String,
        style: Style,
    ) {
        let values: Vec<f64> = values.collect();
        let width = usize::from(self.area.width - 12 - 14);
        let shown = &values[values.len().saturating_sub(width)..];
        let most = shown.iter().copied().fold(0.0, f64::max);
        let levels = self.look.levels();
        let level = |value: &f64| match *value {
            value if value <= 0.0 || most <= 0.0 => levels[0],
            // What is not 0 is seen.
            value => levels[((value / most * 8.0).ceil() as usize).clamp(1, 8)],
        };
        let line: String = shown.iter().map(level).collect();
        self.put(0, name, self.look.quiet());
        self.put(12 + (width - shown.len()) as u16, &line, style);
        self.put(self.area.width - 13, &format!("max {}", unit(most)), self.look.quiet());
        self.y += 1;
    }

    /// Those that have ever been seen, the most frequent first, in two columns.
    fn flags(&mut self, app: &App) {
        let mut flags: Vec<_> = app.flags.iter().filter(|flag| flag.total > 0).collect();
        flags.sort_by(|one, other| other.rate.total_cmp(&one.rate).then(other.total.cmp(&one.total)));
        self.put(0, "Errors by response flag, a second and in total", self.look.quiet());
        self.y += 1;
        if flags.is_empty() {
            self.put(0, "none", self.look.quiet());
        }
        let columns = usize::from((self.area.width + 3) / 41).max(1);
        let room = FLAG_LINES * columns;
        for (at, flag) in flags.iter().take(room).enumerate() {
            let (line, column) = (at % FLAG_LINES, at / FLAG_LINES);
            let style = if flag.rate > 0.0 { self.look.bad() } else { self.look.plain() };
            let rest = flags.len() - room.min(flags.len());
            let text = match at + 1 == room && rest > 0 {
                true => format!("and {} more", rest + 1),
                false => format!(
                    "{:<3} {:<22}{:>6}{:>6}",
                    flag.flag,
                    flag.meaning,
                    units::number(flag.rate),
                    units::number(flag.total as f64)
                ),
            };
            let y = self.y;
            self.y += line as u16;
            self.put(column as u16 * 41, &text, style);
            self.y = y;
        }
    }
}

const FLAG_LINES: usize = 3;
