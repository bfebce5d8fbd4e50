//! Keys are pressed and frames looked at, without a terminal. Frames lie in `frames/`; `UPDATE_FRAMES=1 cargo test -p proxytop`
//! writes them anew.

use std::fs;
use std::path::Path;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::sample;
use super::*;
use crate::draw::{self, Look};
use crate::snapshot::Standing;

const PLAIN: Look = Look { colours: false, ascii: false };

fn drawn_with(app: &App, look: Look) -> String {
    let mut terminal = Terminal::new(TestBackend::new(app.size.0, app.size.1)).unwrap();
    terminal.draw(|frame| draw::frame(app, look, frame.area(), frame.buffer_mut())).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y: u16| {
        let line: String = (0..app.size.0).map(|x| buffer[(x, y)].symbol()).collect();
        line.trim_end().to_owned() + "\n"
    };
    (0..app.size.1).map(line).collect()
}

fn drawn(app: &App) -> String {
    drawn_with(app, PLAIN)
}

fn press(app: &mut App, keys: &[KeyCode]) -> Option<Effect> {
    keys.iter().filter_map(|code| app.press(KeyEvent::new(*code, KeyModifiers::NONE))).last()
}

fn typed(app: &mut App, keys: &str) -> Option<Effect> {
    press(app, &keys.chars().map(KeyCode::Char).collect::<Vec<_>>())
}

fn compare(name: &str, frame: &str) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("frames").join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_FRAMES").is_some() {
        fs::write(&path, frame).unwrap();
        return None;
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    (expected != frame).then(|| format!("{name} is now\n{frame}"))
}

#[test]
fn every_pane_is_drawn_as_it_was() {
    let mut differ = Vec::new();
    for size in [(80, 24), (120, 40), (200, 60)] {
        for pane in Pane::ALL.into_iter().chain([Pane::Hosts]) {
            let mut app = sample::app(size);
            app.cluster = "web".to_owned();
            app.open(pane);
            differ.extend(compare(&format!("{}-{}x{}", pane.name(), size.0, size.1), &drawn(&app)));
        }
    }
    assert!(differ.is_empty(), "UPDATE_FRAMES=1 writes them anew:\n{}", differ.join("\n"));
}

#[test]
fn help_menus_and_questions_are_drawn_as_they_were() {
    let mut differ = Vec::new();
    let mut app = sample::app((80, 24));
    app.allow_actions = true;
    for (name, keys) in [("help", "2?"), ("menu", "qa"), ("filter", "q2/pay")] {
        typed(&mut app, keys);
        differ.extend(compare(&format!("{name}-80x24"), &drawn(&app)));
    }
    press(&mut app, &[KeyCode::Esc, KeyCode::Char('a'), KeyCode::Enter]);
    differ.extend(compare("question-80x24", &drawn(&app)));
    let mut fresh = App::new(Duration::from_secs(1), (80, 24));
    fresh.open(Pane::Clusters);
    differ.extend(compare("nothing-yet-80x24", &drawn(&fresh)));
    assert!(differ.is_empty(), "UPDATE_FRAMES=1 writes them anew:\n{}", differ.join("\n"));
}

#[test]
fn ascii_frames_are_ascii() {
    for pane in Pane::ALL.into_iter().chain([Pane::Hosts]) {
        let mut app = sample::app((80, 24));
        app.open(pane);
        typed(&mut app, "r");
        let frame = drawn_with(&app, Look { colours: true, ascii: true });
        assert!(frame.is_ascii(), "{frame}");
        typed(&mut app, "?");
        assert!(drawn_with(&app, Look { colours: true, ascii: true }).is_ascii());
    }
}

#[test]
fn a_small_terminal_is_told_so_and_no_size_is_too_much() {
    for size in [(1, 1), (79, 24), (80, 23), (80, 24), (81, 25), (500, 200)] {
        let mut app = sample::app((80, 24));
        app.resize(size.0, size.1);
        for key in "123456789?".chars() {
            typed(&mut app, &key.to_string());
            drawn(&app);
        }
    }
    let mut app = sample::app((80, 24));
    app.resize(60, 10);
    assert!(drawn(&app).starts_with("proxytop needs 80 x 24 cells"));
}

#[test]
fn the_chosen_row_stays_the_same_when_others_pass_it() {
    let mut app = sample::app((80, 24));
    typed(&mut app, "2j");
    assert_eq!(app.position().key, "web");
    typed(&mut app, "r");
    assert_eq!(app.position().key, "web");
    app.see(Arc::new(sample::look(6)));
    assert_eq!(app.key_of(app.position().row), "web");
}

#[test]
fn enter_goes_into_a_cluster_and_escape_back() {
    let mut app = sample::app((80, 24));
    typed(&mut app, "2j");
    press(&mut app, &[KeyCode::Enter]);
    assert_eq!((app.pane, &*app.cluster), (Pane::Hosts, "web"));
    assert!(app.wanted().hosts && drawn(&app).contains("failed check"));
    press(&mut app, &[KeyCode::Esc]);
    assert_eq!((app.pane, app.wanted().hosts), (Pane::Clusters, false));
    assert_eq!(app.position().key, "web");
}

#[test]
fn a_filter_is_typed_kept_and_dropped() {
    let mut app = sample::app((80, 24));
    typed(&mut app, "6/RQ_TOTAL");
    assert!(app.order.len() > 3 && app.order.len() < 10, "{}", drawn(&app));
    // Keys are text while a filter is typed.
    typed(&mut app, "q");
    assert_eq!((app.order.len(), app.view().filter.as_str()), (0, "RQ_TOTALq"));
    press(&mut app, &[KeyCode::Backspace, KeyCode::Enter]);
    assert_eq!(app.mode, Mode::Table);
    assert!(drawn(&app).contains("/RQ_TOTAL"));
    press(&mut app, &[KeyCode::Esc]);
    assert!(app.view().filter.is_empty() && app.order.len() > 50);
}

#[test]
fn stats_are_pinned_sorted_and_only_those_in_use() {
    let mut app = sample::app((120, 40));
    typed(&mut app, "6/uptime");
    press(&mut app, &[KeyCode::Enter]);
    typed(&mut app, "p");
    press(&mut app, &[KeyCode::Esc]);
    assert_eq!(app.row(0).unwrap().key, "server.uptime");
    let all = app.order.len();
    typed(&mut app, "u");
    assert!(app.order.len() < all);
    typed(&mut app, ">>>");
    assert_eq!(app.view().sort, Some(3));
    assert_eq!(app.row(0).unwrap().key, "server.uptime");
    assert_eq!(app.row(1).unwrap().key, "http.edge.downstream_cx_tx_bytes_total");
}

#[test]
fn the_column_that_rows_are_sorted_by_is_seen() {
    let mut app = sample::app((80, 24));
    typed(&mut app, "2");
    assert!(!drawn(&app).contains("OUT/s"));
    typed(&mut app, ">>>>>>>>>>>>>");
    assert_eq!(app.pane.columns()[app.view().sort.unwrap()].head, "OUT/s");
    assert!(drawn(&app).contains("OUT/s") && drawn(&app).contains("CLUSTER"));
    assert_eq!(app.row(0).unwrap().key, "api");
}

#[test]
fn an_instance_is_chosen_from_several() {
    let mut app = App::new(Duration::from_secs(1), (80, 24));
    app.instances = vec!["base-id 1".to_owned(), "base-id 7".to_owned()];
    typed(&mut app, "i");
    assert!(drawn(&app).contains("base-id 7"));
    assert_eq!(press(&mut app, &[KeyCode::Down, KeyCode::Down, KeyCode::Enter]), Some(Effect::Choose(1)));
}

#[test]
fn a_pause_holds_the_picture_and_goes_on_with_the_newest() {
    let mut app = sample::app((80, 24));
    typed(&mut app, " ");
    let before = drawn(&app);
    assert!(before.contains("paused"));
    app.see(Arc::new(sample::look(6)));
    app.see(Arc::new(sample::look(7)));
    assert_eq!(drawn(&app), before);
    typed(&mut app, " ");
    assert_eq!(app.now.at_ms, sample::look(7).at_ms);
}

#[test]
fn totals_count_from_the_baseline() {
    let mut app = sample::app((200, 60));
    typed(&mut app, "2");
    let total = |app: &App| app.row(0).unwrap().cells.last().unwrap().text();
    assert_eq!(total(&app), "9.00k");
    typed(&mut app, "b");
    assert_eq!(total(&app), "0");
    app.see(Arc::new(sample::look(6)));
    assert_eq!(total(&app), "1.80k");
    assert!(drawn(&app).contains("since 22:13:25"));
    typed(&mut app, "B");
    assert_eq!(total(&app), "10.8k");
}

#[test]
fn nothing_is_done_without_yes() {
    let mut app = sample::app((80, 24));
    assert_eq!(typed(&mut app, "a"), None);
    assert!(drawn(&app).contains("--allow-actions"));
    app.allow_actions = true;
    for (line, action) in [
        (0, Action::Drain),
        (1, Action::FailHealthChecks),
        (2, Action::PassHealthChecks),
        (4, Action::RestartHot),
    ] {
        for (answer, effect) in [('n', None), (' ', None), ('y', Some(Effect::Act(action)))] {
            typed(&mut app, "a");
            typed(&mut app, &"j".repeat(line));
            press(&mut app, &[KeyCode::Enter]);
            assert_eq!(app.mode, Mode::Confirm(action));
            assert_eq!(typed(&mut app, &answer.to_string()), effect);
            assert_eq!(app.mode, Mode::Table);
        }
    }
    typed(&mut app, "ajjj");
    press(&mut app, &[KeyCode::Enter, KeyCode::Up, KeyCode::Enter]);
    assert_eq!(typed(&mut app, "y"), Some(Effect::Act(Action::LogLevel("debug"))));
}

#[test]
fn the_mouse_chooses_panes_heads_and_rows() {
    let mut app = sample::app((80, 24));
    let click = |app: &mut App, column: u16, row: u16| {
        let kind = MouseEventKind::Down(MouseButton::Left);
        app.point(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE })
    };
    click(&mut app, 13, 1);
    assert_eq!(app.pane, Pane::Clusters);
    click(&mut app, 3, 2);
    assert_eq!((app.view().sort, app.view().descending), (Some(0), false));
    click(&mut app, 3, 4);
    let chosen = app.position().key;
    click(&mut app, 3, 4);
    assert_eq!((app.pane, app.cluster.clone()), (Pane::Hosts, chosen));
    click(&mut app, 79, 23);
    click(&mut app, 500, 500);
}

#[test]
fn keys_that_change_the_world_say_so() {
    let mut app = sample::app((80, 24));
    assert_eq!(typed(&mut app, "q"), Some(Effect::Quit));
    assert_eq!(typed(&mut app, "+"), Some(Effect::Interval(Duration::from_secs(2))));
    assert_eq!(typed(&mut app, "--"), Some(Effect::Interval(Duration::from_millis(500))));
    assert_eq!(typed(&mut app, "]"), None, "there is no recorded time");
    app.replay = Some(Replay { at: 3, of: 100 });
    assert_eq!(typed(&mut app, "]"), Some(Effect::Seek(4)));
    assert_eq!(typed(&mut app, "{"), Some(Effect::Seek(0)));
    assert_eq!(typed(&mut app, "}"), Some(Effect::Seek(63)));
    let control = |code| KeyEvent::new(KeyCode::Char(code), KeyModifiers::CONTROL);
    assert_eq!(app.press(control('c')), Some(Effect::Quit));
    assert_eq!(app.press(control('z')), Some(Effect::Suspend));
}

#[test]
fn what_is_gone_stays_on_the_screen() {
    let mut app = sample::app((80, 24));
    typed(&mut app, "2");
    let mut gone = sample::look(5);
    gone.standing = Standing::Gone;
    gone.generations.clear();
    gone.threads.clear();
    app.see(Arc::new(gone));
    let frame = drawn(&app);
    assert!(frame.contains("gone") && frame.contains("payments"), "{frame}");
    typed(&mut app, "9");
    assert!(drawn(&app).contains("generation 7 has ended"));
}

/// A frame of 10,000 clusters takes no more than its visible rows, and what is sorted.
#[test]
fn ten_thousand_clusters_are_shown() {
    let mut look = sample::look(1);
    let catalog = Arc::make_mut(&mut look.catalog);
    for at in 0..10_000 {
        for stat in ["membership_total", "membership_healthy", "upstream_rq_total"] {
            let name = format!("cluster.service_{at}.{stat}");
            catalog.intern(&name, proxy_stats::MetricKind::Counter).unwrap();
        }
    }
    look.values.resize(catalog.len(), 3);
    let mut app = App::new(Duration::from_secs(1), (120, 40));
    app.open(Pane::Clusters);
    app.see(Arc::new(look.clone()));
    look.at_ms += 1000;
    app.see(Arc::new(look));
    assert_eq!(app.order.len(), 10_004);
    press(&mut app, &[KeyCode::End]);
    assert!(drawn(&app).contains("of 10004"));
}
