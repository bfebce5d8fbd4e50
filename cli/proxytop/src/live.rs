//! The loop of the screen: wait for something, let the app know, do what it asks for, draw.

use std::sync::mpsc::{self, Receiver};

use nix::sys::signal::Signal;

use crate::app::{App, Effect, Mode};
use crate::collect::{self, Collectors, Event, fetch};
use crate::draw::Look;
use crate::target::Target;
use crate::terminal::{Screen, block_signals};

/// Runs until somebody quits; the signal that ended it, if one did.
pub(crate) fn run(app: &mut App, look: Look, target: &mut Target) -> anyhow::Result<Option<Signal>> {
    let signals = block_signals()?;
    let (sender, events) = mpsc::sync_channel(256);
    let mut screen = Screen::take()?;
    collect::wait_for_signals(signals, sender.clone())?;
    collect::read_terminal(sender.clone())?;
    let (columns, lines) = screen.size()?;
    app.resize(columns, lines);
    let mut collectors = None;
    if app.replay.is_some() {
        target.seek(0, app);
        if let Some(trouble) = target.trouble() {
            app.told(trouble.to_owned());
        }
    } else if app.instances.len() > 1 {
        app.mode = Mode::Instances(0);
    } else {
        collectors = Some(target.choose(0, app, &sender)?);
    }
    loop {
        screen.draw(app, look)?;
        match next(app, &events, collectors.as_ref(), target)? {
            None => {}
            Some(Wish::Signal(Signal::SIGTSTP) | Wish::Effect(Effect::Suspend)) => screen.suspend()?,
            Some(Wish::Signal(signal)) => return Ok(Some(signal)),
            Some(Wish::Effect(Effect::Quit)) => return Ok(None),
            Some(Wish::Effect(Effect::Redraw)) => screen.clear()?,
            Some(Wish::Effect(Effect::Interval(interval))) => {
                collectors.as_ref().inspect(|collectors| collectors.set_interval(interval));
            }
            Some(Wish::Effect(Effect::Act(action))) => {
                let begun = collectors.as_ref().is_some_and(|collectors| collectors.act(action));
                if !begun {
                    app.told("not done: the proxy is still being asked for something else".to_owned());
                }
            }
            Some(Wish::Effect(Effect::Choose(at))) => {
                app.begin_anew();
                collectors = Some(target.choose(at, app, &sender)?);
            }
            Some(Wish::Effect(Effect::Seek(at))) => target.seek(at, app),
        }
        collectors.as_ref().inspect(|collectors| collectors.want(app.wanted()));
    }
}

enum Wish {
    Effect(Effect),
    Signal(Signal),
}

/// Waits, then takes all there is, so that a burst of keys is drawn once.
fn next(
    app: &mut App,
    events: &Receiver<Event>,
    collectors: Option<&Collectors>,
    target: &mut Target,
) -> anyhow::Result<Option<Wish>> {
    let mut event = Some(events.recv()?);
    while let Some(happened) = event {
        let wish = match happened {
            Event::Terminal(event) => terminal_event(app, event).map(Wish::Effect),
            Event::Closed => Some(Wish::Effect(Effect::Quit)),
            Event::Signal(signal) => Some(Wish::Signal(signal)),
            Event::Told(text) => {
                app.told(text);
                None
            }
            Event::Found => None,
        };
        if wish.is_some() {
            return Ok(wish);
        }
        event = events.try_recv().ok();
    }
    if let Some(collectors) = collectors {
        if let Some(asked) = fetch(&collectors.asked) {
            app.hear(asked);
        }
        if let Some((lines, state)) = fetch(&collectors.lines) {
            app.follow(lines, state);
        }
        if let Some(found) = fetch(&collectors.looks) {
            // Also what a pause keeps from the screen.
            target.record(&found, &app.asked)?;
            app.see(found);
        }
    }
    Ok(None)
}

fn terminal_event(app: &mut App, event: crossterm::event::Event) -> Option<Effect> {
    use crossterm::event::{Event, KeyEventKind};
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => app.press(key),
        Event::Mouse(mouse) => app.point(mouse),
        Event::Resize(columns, lines) => {
            app.resize(columns, lines);
            None
        }
        _ => None,
    }
}
