//! From serving to the end: main's loop.

use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use proxy_control::restart::Channel;
use tokio::sync::{Notify, mpsc};

use crate::absent::AbsentStats;
use crate::admin::{Admin, DrainListeners, ShutDown};
use crate::control_socket::ControlSocket;
use crate::listeners::ListenerManager;
use crate::logging::Log;
use crate::options::Options;
use crate::restart::{Arrivals, Event, Leadership, Offers, Predecessor};
use crate::run::RunError;
use crate::segment::Segment;
use crate::signals::{Action, Ending, Signals};
use crate::state::{Command, State};
use crate::watchdog::GuardDog;

/// What keeps the process reachable and alive until its end, in the order in which it goes.
pub(crate) struct Running {
    pub(crate) _guard_dog: GuardDog,
    /// Goes before anything that drops scopes: whoever inherits gets all that was counted.
    pub(crate) segment: Rc<Segment>,
    pub(crate) state: Rc<State>,
    pub(crate) admin: Rc<Admin>,
    pub(crate) commanded: mpsc::UnboundedReceiver<Command>,
    pub(crate) leadership: Rc<Leadership>,
    /// What the next generation does to this one.
    pub(crate) restarted: mpsc::UnboundedReceiver<Event>,
    /// Asks the generation before this one for no more connections.
    pub(crate) stop_arrivals: Rc<Notify>,
    pub(crate) _absent: AbsentStats,
    pub(crate) _control: ControlSocket,
}

/// Why main's loop ended.
enum End {
    ShutDown,
    /// With this code, at once.
    Exit(ExitCode),
    /// Another process leads; it takes connections over the channel.
    HandedOver(Option<Channel>),
    /// This process does not get to lead, or cannot listen.
    Failed(RunError),
}

impl Running {
    /// Serves until told to end, or until another process has taken over.
    ///
    /// # Errors
    /// It cannot listen, or does not get to lead.
    pub(crate) async fn serve(
        mut self,
        options: &Options,
        predecessor: Option<Predecessor>,
        log: &Log,
        mut signals: Signals,
    ) -> Result<ExitCode, RunError> {
        let mut ending = Ending::default();
        let opening = self.opening(options, predecessor);
        tokio::pin!(opening);
        let mut opened = false;
        let end = loop {
            tokio::select! {
                result = &mut opening, if !opened => {
                    opened = true;
                    if let Err(error) = result {
                        break End::Failed(error);
                    }
                }
                signal = signals.next() => match ending.handle(signal) {
                    Action::ShutDown => break End::ShutDown,
                    Action::ExitNow(code) => return Ok(ExitCode::from(code)),
                    Action::ReopenLogs => self.reopen_logs(log),
                    Action::Ignore(reason) => tracing::info!(target: "main", "{reason}"),
                },
                Some(command) = self.commanded.recv() => match command {
                    Command::ShutDown(ShutDown::Now) => break End::Exit(ExitCode::SUCCESS),
                    Command::ShutDown(ShutDown::Drained) => {
                        ending.begin();
                        break End::ShutDown;
                    }
                    Command::ReopenLogs => self.reopen_logs(log),
                    Command::Drain(request) => drain(&self.state.listeners, request, options.drain_time),
                },
                Some(event) = self.restarted.recv() => {
                    self.note(&event);
                    if let Event::Leads { channel, .. } = event {
                        break End::HandedOver(channel);
                    }
                }
            }
        };
        self.state.ending.set(true);
        let code = match end {
            End::ShutDown => self.shut_down(options.shutdown_time, &mut signals, &mut ending).await,
            End::Exit(code) => code,
            End::HandedOver(channel) => {
                self.hand_over(options, channel, log, &mut signals, &mut ending).await
            }
            End::Failed(error) => {
                tracing::error!(target: "main", %error, "this process ends");
                // It may have accepted connections; those are served to their end.
                self.shut_down(options.shutdown_time, &mut signals, &mut ending).await;
                return Err(error);
            }
        };
        self.state.flusher.finish().await;
        let _ = tokio::time::timeout(ADMIN_GRACE, self.admin.finish()).await;
        Ok(code)
    }

    /// Opens the listeners when every cluster knows its hosts, as Envoy does; then takes over from `predecessor`.
    fn opening(
        &self,
        options: &Options,
        mut predecessor: Option<Predecessor>,
    ) -> impl Future<Output = Result<(), RunError>> + use<> {
        let (state, segment, leadership) =
            (Rc::clone(&self.state), Rc::clone(&self.segment), Rc::clone(&self.leadership));
        let (workers, stop) = (Rc::clone(&self.state.workers), Rc::clone(&self.stop_arrivals));
        let confirm_after = options.restart.confirm_after;
        async move {
            let warmed = state.clusters.warmed();
            if let Some(predecessor) = &mut predecessor {
                predecessor.built();
            }
            match &predecessor {
                Some(predecessor) => predecessor.beat_during(&leadership, warmed).await?,
                None => warmed.await,
            }
            segment.serve();
            let opened = open(&state);
            let Some(predecessor) = predecessor else { return opened };
            if let Err(error) = &opened {
                predecessor.give_up(error.to_string()).await;
            }
            opened?;
            let before = predecessor.name.generation;
            let channel = predecessor.take_over(&leadership, confirm_after).await?;
            tracing::info!(target: "restart", epoch = state.epoch, "this process leads");
            tokio::task::spawn_local(Arrivals::new(channel, workers, leadership, before).run(stop));
            Ok(())
        }
    }

    /// The process's own log and all access logs.
    fn reopen_logs(&self, log: &Log) {
        log.reopen();
        self.state.files.reopen();
    }

    /// A step of the next generation.
    fn note(&self, event: &Event) {
        match event {
            Event::Greeted { successor, version } => {
                // What comes from the generation before would have to go on to the next one at once.
                self.stop_arrivals.notify_one();
                let generation = successor.generation;
                tracing::info!(target: "restart", %generation, %version, "a new process wants to take over");
            }
            Event::SocketsPassed { sockets } => {
                tracing::info!(target: "restart", sockets, "listening sockets have been passed");
            }
            Event::Serving => tracing::info!(target: "restart", "the new process accepts, this one does not"),
            Event::Leads { successor, .. } => {
                tracing::info!(target: "restart", generation = %successor.generation, "the new process leads");
            }
            Event::Failed { reason } => {
                tracing::warn!(target: "restart", reason, "the new process did not take over, this one goes on");
            }
        }
    }

    /// Another process leads: gives it what it takes, and lets the rest end.
    async fn hand_over(
        &mut self,
        options: &Options,
        channel: Option<Channel>,
        log: &Log,
        signals: &mut Signals,
        ending: &mut Ending,
    ) -> ExitCode {
        self.leadership.end();
        self.state.listeners.give_sockets_away();
        self.state.healthy.set(false);
        if let Some(port) = self.state.admin_port.get() {
            port.pause();
        }
        let limit = tokio::time::sleep(options.restart.parent_shutdown_time);
        tokio::pin!(limit);
        let emptied = self.state.listeners.emptied();
        tokio::pin!(emptied);
        let mut offers = channel.map(|channel| Offers::begin(&self.state.workers, channel));
        if offers.is_none() {
            self.let_end();
        }
        let end = loop {
            let offering = async {
                match &mut offers {
                    Some(offers) => offers.run().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut emptied => break End::Exit(ExitCode::SUCCESS),
                () = &mut limit => {
                    tracing::info!(target: "restart", "connections are left, the time is over");
                    break End::Exit(ExitCode::SUCCESS);
                }
                ended = offering => {
                    if let Some(offers) = offers.take() {
                        offers.end(&self.state.workers).await;
                    }
                    tracing::debug!(target: "restart", ?ended, "the rest ends here");
                    self.let_end();
                }
                signal = signals.next() => match ending.handle(signal) {
                    Action::ShutDown => break End::ShutDown,
                    Action::ExitNow(code) => break End::Exit(ExitCode::from(code)),
                    Action::ReopenLogs => self.reopen_logs(log),
                    Action::Ignore(reason) => tracing::info!(target: "main", "{reason}"),
                },
                Some(command) = self.commanded.recv() => match command {
                    Command::ShutDown(ShutDown::Now) => break End::Exit(ExitCode::SUCCESS),
                    Command::ShutDown(ShutDown::Drained) => {
                        ending.begin();
                        break End::ShutDown;
                    }
                    Command::ReopenLogs => self.reopen_logs(log),
                    Command::Drain(_) => {}
                },
            }
        };
        if let Some(offers) = offers.take() {
            offers.end(&self.state.workers).await;
        }
        match end {
            End::Exit(code) => code,
            _ => self.shut_down(options.shutdown_time, signals, ending).await,
        }
    }

    /// Asks connections to end, for which there is time.
    fn let_end(&self) {
        let listeners = Rc::clone(&self.state.listeners);
        tokio::task::spawn_local(async move { listeners.shut_down().await });
    }

    /// Drains for at most `--shutdown-time-s`; a second request to end cuts that short.
    async fn shut_down(&self, limit: Duration, signals: &mut Signals, ending: &mut Ending) -> ExitCode {
        tracing::info!(target: "main", ?limit, "shutting down");
        self.state.healthy.set(false);
        let deadline = tokio::time::sleep(limit);
        tokio::pin!(deadline);
        let drained = self.state.listeners.shut_down();
        tokio::pin!(drained);
        loop {
            tokio::select! {
                () = &mut drained => {
                    tracing::info!(target: "main", "all connections have ended");
                    return ExitCode::SUCCESS;
                }
                () = &mut deadline => {
                    tracing::info!(target: "main", "connections are left, the time is over");
                    return ExitCode::SUCCESS;
                }
                signal = signals.next() => if let Action::ExitNow(code) = ending.handle(signal) {
                    return ExitCode::from(code);
                },
            }
        }
    }
}

fn open(state: &State) -> Result<(), RunError> {
    state.listeners.start()?;
    state.listening.set(true);
    for (name, address) in state.listeners.list() {
        tracing::info!(target: "main", %name, %address, "listening");
    }
    let after = state.started.elapsed();
    state.stats.initialized(after);
    tracing::info!(target: "main", ?after, "serving");
    Ok(())
}

fn drain(listeners: &Rc<ListenerManager>, request: DrainListeners, drain_time: Duration) {
    let stop_now = !request.graceful && !request.skip_exit;
    listeners.drain(request.inbound_only, stop_now);
    if request.graceful && !request.skip_exit {
        let listeners = Rc::clone(listeners);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(drain_time).await;
            listeners.drain(request.inbound_only, true);
        });
    }
}

/// How long answers of the admin port may take at the end.
const ADMIN_GRACE: Duration = Duration::from_secs(1);
