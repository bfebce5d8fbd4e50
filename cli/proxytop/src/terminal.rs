//! The terminal, taken over and given back: at the end, on panic, on every signal, and while suspended.

use std::io::{self, IsTerminal, Stdout};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::bail;
use crossterm::cursor::{Hide, Show};
use crossterm::event::{DisableMouseCapture, EnableMouseCapture};
use crossterm::execute;
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use nix::sys::signal::{SigSet, Signal, raise};
use ratatui::backend::CrosstermBackend;
use ratatui::{Frame, Terminal};

use crate::app::{App, Mode};
use crate::draw::{self, Look};
use crate::fault::{self, Place};

/// Ours until dropped.
pub(crate) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal over. A panic of any thread gives it back and ends the process.
    pub(crate) fn take() -> anyhow::Result<Screen> {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            bail!("this is no terminal: --once prints a frame, --json what is in it");
        }
        let default_hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // To the end of the process: no other thread draws any more.
            let _stdout = io::stdout().lock();
            give_back();
            default_hook(panic);
            std::process::exit(101);
        }));
        enter()?;
        Ok(Screen { terminal: Terminal::new(CrosstermBackend::new(io::stdout()))? })
    }

    pub(crate) fn size(&self) -> io::Result<(u16, u16)> {
        self.terminal.size().map(|size| (size.width, size.height))
    }

    pub(crate) fn draw(&mut self, app: &App, look: Look) -> io::Result<()> {
        let draw = |frame: &mut Frame<'_>| {
            draw::frame(app, look, frame.area(), frame.buffer_mut());
            if matches!(app.mode, Mode::Help(_)) {
                fault::at(Place::DrawHelp);
            }
        };
        self.terminal.draw(draw).map(drop)
    }

    /// Forgets what is on the screen: the next frame is drawn whole.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        // Not `Terminal::clear`: it asks the terminal where the cursor is, and the answer is read by another thread.
        execute!(io::stdout(), Clear(ClearType::All))?;
        self.terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        Ok(())
    }

    /// To the shell, until it sends SIGCONT.
    pub(crate) fn suspend(&mut self) -> io::Result<()> {
        give_back();
        raise(Signal::SIGSTOP)?;
        enter()?;
        self.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn enter() -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    TAKEN.store(true, Ordering::SeqCst);
    enable_raw_mode()?;
    execute!(stdout, EnterAlternateScreen, EnableMouseCapture, Hide)
}

/// As it was. Once is enough, and twice does no harm. Who comes second waits until the first is done.
fn give_back() {
    let mut stdout = io::stdout().lock();
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(stdout, DisableMouseCapture, LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// Signals that end or suspend. To be blocked before there are threads.
pub(crate) fn block_signals() -> nix::Result<SigSet> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTSTP] {
        set.add(signal);
    }
    set.thread_block()?;
    Ok(set)
}

/// Whether there is a terminal to be given back.
static TAKEN: AtomicBool = AtomicBool::new(false);
