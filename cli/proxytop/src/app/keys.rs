//! What keys and the mouse do.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};

use super::{Action, App, Effect, Mode, Position};
use crate::columns::Pane;
use crate::draw;

impl App {
    /// A key was pressed.
    pub(crate) fn press(&mut self, key: KeyEvent) -> Option<Effect> {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Char('c') => return Some(Effect::Quit),
                KeyCode::Char('z') => return Some(Effect::Suspend),
                KeyCode::Char('l') => return Some(Effect::Redraw),
                _ => {}
            }
        }
        self.message.clear();
        match self.mode.clone() {
            Mode::Table => self.press_in_table(key.code),
            Mode::Filter => self.press_in_filter(key),
            Mode::Help(line) => self.press_in_help(key.code, line),
            Mode::Menu(line) => {
                let chosen = self.press_in_list(key.code, line, Action::MENU.len(), Mode::Menu)?;
                self.choose_action(chosen);
                None
            }
            Mode::Levels(line) => {
                let chosen = self.press_in_list(key.code, line, Action::LEVELS.len(), Mode::Levels)?;
                self.mode = Mode::Confirm(Action::LogLevel(Action::LEVELS[chosen]));
                None
            }
            Mode::Confirm(action) => self.confirmed(action, matches!(key.code, KeyCode::Char('y' | 'Y'))),
            Mode::Instances(line) => {
                let chosen = self.press_in_list(key.code, line, self.instances.len(), Mode::Instances)?;
                self.mode = Mode::Table;
                Some(Effect::Choose(chosen))
            }
        }
    }

    /// The line that Enter chose.
    fn press_in_list(
        &mut self,
        code: KeyCode,
        line: usize,
        lines: usize,
        mode: fn(usize) -> Mode,
    ) -> Option<usize> {
        match code {
            KeyCode::Up | KeyCode::Char('k') => self.mode = mode(line.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.mode = mode((line + 1).min(lines.saturating_sub(1))),
            KeyCode::Enter => return Some(line),
            KeyCode::Esc | KeyCode::Char('q') => self.mode = Mode::Table,
            _ => {}
        }
        None
    }

    fn press_in_help(&mut self, code: KeyCode, line: usize) -> Option<Effect> {
        let page = usize::from(self.size.1).saturating_sub(4);
        let last = draw::help_lines(self).saturating_sub(page);
        self.mode = match code {
            KeyCode::Up | KeyCode::Char('k') => Mode::Help(line.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => Mode::Help((line + 1).min(last)),
            KeyCode::PageUp => Mode::Help(line.saturating_sub(page)),
            KeyCode::PageDown | KeyCode::Char(' ') => Mode::Help((line + page).min(last)),
            _ => Mode::Table,
        };
        None
    }

    fn press_in_filter(&mut self, key: KeyEvent) -> Option<Effect> {
        match key.code {
            KeyCode::Enter => self.mode = Mode::Table,
            KeyCode::Esc => {
                self.mode = Mode::Table;
                self.change_view(|view| view.filter.clear());
            }
            KeyCode::Backspace => self.change_view(|view| {
                view.filter.pop();
            }),
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                self.change_view(|view| view.filter.clear());
            }
            KeyCode::Char(typed) if !typed.is_control() => self.change_view(|view| {
                if view.filter.len() < LONGEST_FILTER {
                    view.filter.push(typed);
                }
            }),
            KeyCode::Up => self.move_by(-1),
            KeyCode::Down => self.move_by(1),
            _ => {}
        }
        None
    }

    fn press_in_table(&mut self, code: KeyCode) -> Option<Effect> {
        let page = isize::try_from(self.page()).unwrap_or(1).max(1);
        match code {
            KeyCode::Char('q') => return Some(Effect::Quit),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.mode = Mode::Help(0),
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char(digit @ '1'..='9') => self.open(Pane::ALL[digit as usize - '1' as usize]),
            KeyCode::Tab => self.turn(1),
            KeyCode::BackTab => self.turn(-1),
            KeyCode::Up | KeyCode::Char('k') => self.move_by(-1),
            KeyCode::Down | KeyCode::Char('j') => self.move_by(1),
            KeyCode::PageUp => self.move_by(-page),
            KeyCode::PageDown => self.move_by(page),
            KeyCode::Home | KeyCode::Char('g') => self.move_by(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.move_by(isize::MAX),
            KeyCode::Left | KeyCode::Char('<') => self.sort_by(-1),
            KeyCode::Right | KeyCode::Char('>') => self.sort_by(1),
            KeyCode::Char('r') => self.change_view(|view| view.descending = !view.descending),
            KeyCode::Enter => self.go_in(),
            KeyCode::Esc | KeyCode::Backspace => self.go_back(),
            KeyCode::Char(' ') => self.pause(),
            KeyCode::Char('b') => self.take_baseline(),
            KeyCode::Char('B') => self.drop_baseline(),
            KeyCode::Char('p') => self.pin(),
            KeyCode::Char('u') => {
                self.used_only = !self.used_only;
                self.refresh();
            }
            KeyCode::Char('+' | '=') => return self.change_interval(2.0),
            KeyCode::Char('-') => return self.change_interval(0.5),
            KeyCode::Char('a') => self.open_menu(),
            KeyCode::Char('i') if self.instances.len() > 1 => self.mode = Mode::Instances(0),
            KeyCode::Char(']') => return self.seek(1),
            KeyCode::Char('[') => return self.seek(-1),
            KeyCode::Char('}') => return self.seek(60),
            KeyCode::Char('{') => return self.seek(-60),
            _ => {}
        }
        None
    }

    pub(crate) fn open(&mut self, pane: Pane) {
        self.pane = pane;
        self.refresh();
    }

    fn turn(&mut self, by: isize) {
        let at = Pane::ALL.iter().position(|pane| *pane == self.pane).unwrap_or(1);
        let next = at.wrapping_add_signed(by).wrapping_add(Pane::ALL.len()) % Pane::ALL.len();
        self.open(Pane::ALL[next]);
    }

    fn move_by(&mut self, by: isize) {
        let position = self.position();
        let row = position.row.saturating_add_signed(by).min(self.order.len().saturating_sub(1));
        self.choose_row(row);
    }

    fn choose_row(&mut self, row: usize) {
        let mut position = Position { row, ..self.position() };
        position.key = self.key_of(row);
        self.settle(position);
    }

    fn sort_by(&mut self, by: isize) {
        if self.pane == Pane::AccessLog {
            self.log_shift = self.log_shift.saturating_add_signed(by * LOG_SHIFT).min(LONGEST_LINE);
            self.refresh();
            return;
        }
        let columns = self.pane.columns().len();
        self.change_view(|view| {
            let next = match view.sort {
                Some(column) => column.saturating_add_signed(by).min(columns - 1),
                None => 0,
            };
            view.descending = next != 0;
            view.sort = Some(next);
        });
    }

    /// A head was clicked.
    fn sort_by_column(&mut self, column: usize) {
        self.change_view(|view| {
            view.descending = if view.sort == Some(column) { !view.descending } else { column != 0 };
            view.sort = Some(column);
        });
    }

    fn go_in(&mut self) {
        if self.pane == Pane::Clusters && !self.order.is_empty() {
            self.cluster = self.key_of(self.position().row);
            self.places.remove(&Pane::Hosts);
            self.open(Pane::Hosts);
        } else if let Some(row) = self.row(self.position().row) {
            // What did not fit in its column.
            self.message = row.cells.iter().map(crate::table::Cell::text).collect::<Vec<_>>().join("  ");
        }
    }

    fn go_back(&mut self) {
        if !self.view().filter.is_empty() {
            self.change_view(|view| view.filter.clear());
        } else if self.pane == Pane::Hosts {
            self.open(Pane::Clusters);
        }
    }

    fn pin(&mut self) {
        let key = self.key_of(self.position().row);
        match self.pinned.iter().position(|pinned| *pinned == key) {
            Some(at) => drop(self.pinned.remove(at)),
            None if !key.is_empty() && self.pinned.len() < MOST_PINNED => self.pinned.push(key),
            None => {}
        }
        self.refresh();
    }

    fn change_interval(&mut self, factor: f64) -> Option<Effect> {
        let seconds = (self.interval.as_secs_f64() * factor).clamp(0.125, 64.0);
        self.interval = Duration::from_secs_f64(seconds);
        Some(Effect::Interval(self.interval))
    }

    fn seek(&mut self, by: isize) -> Option<Effect> {
        let replay = self.replay?;
        Some(Effect::Seek(replay.at.saturating_add_signed(by).min(replay.of.saturating_sub(1))))
    }

    /// The mouse did something at a place on the screen.
    pub(crate) fn point(&mut self, mouse: MouseEvent) -> Option<Effect> {
        match mouse.kind {
            MouseEventKind::ScrollUp => self.move_by(-3),
            MouseEventKind::ScrollDown => self.move_by(3),
            MouseEventKind::Down(MouseButton::Left) if self.mode == Mode::Table => {
                match draw::hit(self, mouse.column, mouse.row) {
                    Some(draw::Hit::Pane(pane)) => self.open(pane),
                    Some(draw::Hit::Column(column)) => self.sort_by_column(column),
                    // The chosen row again: go in.
                    Some(draw::Hit::Row(row))
                        if row == self.position().row && self.pane == Pane::Clusters =>
                    {
                        self.go_in();
                    }
                    Some(draw::Hit::Row(row)) => self.choose_row(row),
                    None => {}
                }
            }
            _ => {}
        }
        None
    }

    /// The terminal has another size.
    pub(crate) fn resize(&mut self, columns: u16, lines: u16) {
        self.size = (columns, lines);
        self.refresh();
    }
}

const LOG_SHIFT: isize = 20;
const LONGEST_LINE: usize = 10_000;
const LONGEST_FILTER: usize = 200;
const MOST_PINNED: usize = 100;
