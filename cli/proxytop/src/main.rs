#![doc = include_str!("../DESIGN.md")]

mod app;
mod arguments;
mod asked;
mod collect;
mod columns;
mod draw;
mod fault;
mod history;
mod json;
mod live;
mod panes;
mod rates;
mod record;
mod snapshot;
mod source;
mod subjects;
mod table;
mod target;
mod terminal;
mod text;
mod units;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use clap::{CommandFactory, FromArgMatches};

use crate::app::{App, Replay};
use crate::arguments::{Arguments, Size};
use crate::collect::now_ms;
use crate::columns::Pane;
use crate::draw::Look;
use crate::snapshot::Standing;
use crate::target::Target;

fn main() -> ExitCode {
    let matches = Arguments::command().after_long_help(columns::manual()).get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stderr(), "proxytop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let pane = match &arguments.pane {
        None => Pane::default(),
        Some(name) => match Pane::find(name) {
            Some(pane) => pane,
            None => bail!("there is no pane {name:?}: {}", Pane::ALL.map(Pane::name).join(", ")),
        },
    };
    let size = arguments.size.unwrap_or(Size { columns: 120, lines: 40 });
    let mut app = App::new(arguments.interval.0, (size.columns, size.lines));
    app.pane = pane;
    app.allow_actions = arguments.allow_actions;
    let mut target = Target::find(arguments)?;
    if arguments.once || arguments.json {
        return once(arguments, &mut target, &mut app);
    }
    app.instances = target.names();
    app.recording = arguments.record.is_some();
    app.replay = target.recorded().map(|of| Replay { at: 0, of });
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|name| name == "dumb" || name == "vt100");
    let look = Look { colours: !no_colour && !dumb, ascii: arguments.ascii };
    match live::run(&mut app, look, &mut target)? {
        Some(signal) => Ok(ExitCode::from(128 + signal as u8)),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Two looks, so that there are rates.
fn once(arguments: &Arguments, target: &mut Target, app: &mut App) -> anyhow::Result<ExitCode> {
    if let Some(of) = target.recorded() {
        target.seek(of - 1, app);
        if let Some(trouble) = target.trouble() {
            let _ = writeln!(io::stderr(), "proxytop: {trouble}");
        }
    } else {
        let (mut source, admin) = target.open_only()?;
        for pause in [Duration::ZERO, arguments.interval.0] {
            std::thread::sleep(pause);
            let look = Arc::new(source.look(now_ms()));
            if let (Standing::Unknown | Standing::Gone, Some(trouble)) = (look.standing, &look.trouble) {
                bail!("{}: {trouble}", look.origin);
            }
            target.record(&look, &app.asked)?;
            app.see(look);
        }
        // What does not answer is told in its pane.
        app.hear(admin.look(app.wanted(), &app.asked, now_ms()));
    }
    let look = Look { colours: false, ascii: arguments.ascii };
    let text = if arguments.json { format!("{:#}\n", json::of(app)) } else { text::frame(app, look) };
    // A reader that goes away is no trouble.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}
