//! From serving to the end: main's loop.

use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use proxy_control::Generation;
use proxy_control::restart::{Channel, Step};
use proxy_stats::EventKind;
use tokio::sync::{Notify, mpsc};

use crate::absent::AbsentStats;
use crate::admin::{Admin, AdminState, DrainListeners, RestartRequest, ShutDown};
use crate::control_socket::ControlSocket;
use crate::handing_over::Handed;
use crate::logging::Log;
use crate::options::{ConfigSource, DrainStrategy, Options};
use crate::reload;
use crate::restart::{Arrivals, ChildError, Event, Leadership, Name, Predecessor};
use crate::run::RunError;
use crate::segment::Segment;
use crate::service_manager::ServiceManager;
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
    pub(crate) generation: Generation,
    /// Asks the generation before this one for no more connections.
    pub(crate) stop_arrivals: Rc<Notify>,
    /// This process is not to lead.
    pub(crate) roll_back: Rc<Notify>,
    pub(crate) service: Rc<ServiceManager>,
    pub(crate) _absent: AbsentStats,
    pub(crate) _control: ControlSocket,
}

/// Opens the listeners and comes to lead.
type Opening = Pin<Box<dyn Future<Output = Result<(), RunError>>>>;

/// Why main's loop ended.
enum End {
    ShutDown,
    /// With this code, when answers are given.
    Exit(ExitCode),
    /// With this code, at once.
    ExitNow(ExitCode),
    /// It accepted connections, and did not come to lead.
    NotLeading(RunError),
    /// Another process leads; it takes connections over the channel.
    HandedOver(Name, Option<Channel>),
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
        let mut opening: Opening = Box::pin(self.opening(options, predecessor));
        let ended = loop {
            let end = self.lead(opening, options, log, &mut signals, &mut ending).await?;
            self.state.ending.set(true);
            match &end {
                End::ShutDown | End::Exit(_) if self.leadership.leads() => self.service.stops(),
                End::HandedOver(..) => {
                    self.state.no_reload_any_more();
                    self.service.handed_over();
                }
                End::ShutDown | End::Exit(_) | End::ExitNow(_) | End::NotLeading(_) => {}
            }
            match end {
                End::ShutDown => {
                    break Ok(self.shut_down(options.shutdown_time, &mut signals, &mut ending).await);
                }
                End::Exit(code) => break Ok(code),
                End::ExitNow(code) => return Ok(code),
                End::NotLeading(error) => {
                    // Before connections end, which may take a while.
                    tracing::error!(target: "main", %error, "this process ends");
                    self.state.events.error(EventKind::RESTART, format_args!("this process ends: {error}"));
                    self.shut_down(options.shutdown_time, &mut signals, &mut ending).await;
                    break Err(error);
                }
                End::HandedOver(successor, channel) => {
                    match self.hand_over(options, successor, channel, log, &mut signals, &mut ending).await {
                        Handed::Over(code) => break Ok(code),
                        Handed::Back(predecessor) => opening = Box::pin(self.lead_again(predecessor)),
                    }
                }
            }
        };
        self.state.flusher.finish().await;
        let _ = tokio::time::timeout(ADMIN_GRACE, self.admin.finish()).await;
        ended
    }

    /// Main's loop while this process leads, or tries to.
    async fn lead(
        &mut self,
        mut opening: Opening,
        options: &Options,
        log: &Log,
        signals: &mut Signals,
        ending: &mut Ending,
    ) -> Result<End, RunError> {
        let mut opened = false;
        loop {
            tokio::select! {
                result = &mut opening, if !opened => {
                    opened = true;
                    match result {
                        Err(error) if self.state.listening.get() => return Ok(End::NotLeading(error)),
                        result => result?,
                    }
                    self.state.reload_if_wanted();
                }
                () = self.state.restarts.over() => self.state.reload_if_wanted(),
                signal = signals.next() => match ending.handle(signal) {
                    Action::ShutDown => return Ok(End::ShutDown),
                    Action::ExitNow(code) => return Ok(End::ExitNow(ExitCode::from(code))),
                    Action::ReopenLogs => self.reopen_logs(log),
                    Action::RestartHot => self.restart_hot(),
                    Action::Reload => self.state.reload_unasked("SIGHUP"),
                },
                Some(command) = self.commanded.recv() => match command {
                    Command::ShutDown(ShutDown::Now) => return Ok(End::Exit(ExitCode::SUCCESS)),
                    Command::ShutDown(ShutDown::Drained) => {
                        ending.begin();
                        return Ok(End::ShutDown);
                    }
                    Command::ReopenLogs => self.reopen_logs(log),
                    Command::Drain(request) => drain(&self.state, request, options),
                    // Looked at before `opening` gets another turn, which is where this process comes to lead.
                    Command::RollBack if !self.leadership.leads() => self.roll_back.notify_one(),
                    Command::RollBack => self.roll_back_failed("this process leads already"),
                },
                Some(event) = self.restarted.recv() => {
                    self.note(&event);
                    if let Event::Leads { successor, channel } = event {
                        return Ok(End::HandedOver(successor, channel));
                    }
                }
            }
        }
    }

    /// Opens the listeners when every cluster knows its hosts, as Envoy does; then takes over from `predecessor`.
    fn opening(
        &self,
        options: &Options,
        predecessor: Option<Predecessor>,
    ) -> impl Future<Output = Result<(), RunError>> + use<> {
        let (state, segment, leadership) =
            (Rc::clone(&self.state), Rc::clone(&self.segment), Rc::clone(&self.leadership));
        let (workers, stop) = (Rc::clone(&self.state.workers), Rc::clone(&self.stop_arrivals));
        let roll_back = Rc::clone(&self.roll_back);
        let service = Rc::clone(&self.service);
        let confirm_after = options.restart.confirm_after;
        let watched = match &options.config {
            ConfigSource::File { path, .. } if options.watch => Some(path.clone()),
            _ => None,
        };
        async move {
            let Some(mut predecessor) = predecessor else {
                state.clusters.warmed().await;
                segment.serve();
                open(&state)?;
                service.leads(false);
                watch(&state, watched)?;
                return Ok(());
            };
            predecessor.built();
            let taking_over = async {
                predecessor.beat_during(&leadership, state.clusters.warmed()).await?;
                segment.serve();
                if let Err(error) = open(&state) {
                    predecessor.give_up(error.to_string()).await;
                    return Err(error);
                }
                Ok(predecessor.take_over(&leadership, confirm_after).await?)
            };
            tokio::select! {
                biased;
                () = roll_back.notified() => {
                    let error = ChildError::RolledBack(predecessor.name.generation);
                    predecessor.give_up(error.to_string()).await;
                    state.events.warning(EventKind::RESTART, format_args!("{error}"));
                    state.restarts.end(Step::GivenUp);
                    return Err(error.into());
                }
                taken_over = taking_over => taken_over?,
            }
            state.taking_over.set(false);
            tracing::info!(target: "restart", epoch = state.epoch.get(), "this process leads");
            let before = predecessor.name;
            state.events.success(
                EventKind::RESTART,
                format_args!("this process leads, in place of generation {}", before.segment),
            );
            service.leads(true);
            watch(&state, watched)?;
            let before = predecessor.name.generation;
            let arrivals = Arrivals::new(predecessor.into_channel(), workers, leadership, before);
            tokio::task::spawn_local(arrivals.run(stop));
            Ok(())
        }
    }

    /// The process's own log and all access logs.
    pub(crate) fn reopen_logs(&self, log: &Log) {
        log.reopen();
        self.state.files.reopen();
    }

    /// SIGUSR2.
    pub(crate) fn restart_hot(&self) {
        // Nobody hears of it but the log.
        if let Err(refusal) = self.state.restart(RestartRequest::default()) {
            tracing::warn!(target: "restart", %refusal, "SIGUSR2: no hot restart");
            self.state.events.warning(EventKind::RESTART, format_args!("SIGUSR2: no hot restart, {refusal}"));
        }
    }

    /// A step of the next generation.
    fn note(&self, event: &Event) {
        self.tell(event);
        let step = match event {
            Event::Greeted { successor, version } => {
                // What comes from the generation before would have to go on to the next one at once.
                self.stop_arrivals.notify_one();
                self.service.restarts();
                let generation = successor.generation;
                tracing::info!(target: "restart", %generation, %version, "a new process wants to take over");
                Step::Greeted { generation: generation.0, version: version.clone() }
            }
            Event::SocketsPassed { sockets } => {
                tracing::info!(target: "restart", sockets, "listening sockets have been passed");
                Step::SocketsPassed { sockets: *sockets }
            }
            Event::Serving => {
                tracing::info!(target: "restart", "the new process accepts, this one does not");
                Step::Serving
            }
            Event::Leads { successor, .. } => {
                tracing::info!(target: "restart", generation = %successor.generation, "the new process leads");
                Step::Leads
            }
            Event::Failed { reason } => {
                self.service.goes_on();
                tracing::warn!(target: "restart", reason, "the new process did not take over, this one goes on");
                Step::Failed { reason: reason.clone() }
            }
        };
        self.state.restarts.hear(step);
    }

    fn tell(&self, event: &Event) {
        let events = &self.state.events;
        match event {
            Event::Greeted { successor, version } => events.info(
                EventKind::RESTART,
                format_args!("generation {}, proxyd {version}, wants to take over", successor.segment),
            ),
            Event::SocketsPassed { sockets } => {
                events
                    .info(EventKind::RESTART, format_args!("listening sockets have been passed: {sockets}"));
            }
            Event::Serving => {
                events.info(EventKind::RESTART, format_args!("the new process accepts, this one does not"));
            }
            Event::Leads { successor, .. } => events.info(
                EventKind::RESTART,
                format_args!(
                    "generation {} leads; connections move there, the rest ends here",
                    successor.segment
                ),
            ),
            // Whoever has asked for it knows more.
            Event::Failed { .. } if self.state.restarts.is_under_way() => {}
            Event::Failed { reason } => {
                events.error(EventKind::RESTART, format_args!("failed, this process goes on: {reason}"));
            }
        }
    }

    pub(crate) fn roll_back_failed(&self, reason: &str) {
        self.state.events.warning(EventKind::RESTART, format_args!("not rolled back: {reason}"));
        tracing::warn!(target: "restart", reason, "not rolled back");
        self.state.restarts.end(Step::Failed { reason: reason.to_owned() });
    }

    /// Drains for at most `--shutdown-time-s`; a second request to end cuts that short.
    pub(crate) async fn shut_down(
        &self,
        limit: Duration,
        signals: &mut Signals,
        ending: &mut Ending,
    ) -> ExitCode {
        tracing::info!(target: "main", ?limit, "shutting down");
        let events = &self.state.events;
        let connections = self.state.listeners.connections();
        events.info(
            EventKind::SHUTDOWN,
            format_args!(
                "no new connections; the {connections} that are open may take {} s",
                limit.as_secs()
            ),
        );
        self.state.healthy.set(false);
        let deadline = tokio::time::sleep(limit);
        tokio::pin!(deadline);
        let drained = self.state.listeners.shut_down();
        tokio::pin!(drained);
        loop {
            tokio::select! {
                () = &mut drained => {
                    tracing::info!(target: "main", "all connections have ended");
                    events.info(EventKind::SHUTDOWN, format_args!("all connections have ended"));
                    return ExitCode::SUCCESS;
                }
                () = &mut deadline => {
                    tracing::info!(target: "main", "connections are left, the time is over");
                    let left = self.state.listeners.connections();
                    events.warning(EventKind::SHUTDOWN, format_args!("the time is over, {left} connections are left"));
                    return ExitCode::SUCCESS;
                }
                signal = signals.next() => if let Action::ExitNow(code) = ending.handle(signal) {
                    return ExitCode::from(code);
                },
            }
        }
    }
}

/// Watches the configuration's file, if it is to be.
fn watch(state: &Rc<State>, file: Option<PathBuf>) -> Result<(), RunError> {
    Ok(file.map_or(Ok(()), |file| reload::watch(state, file))?)
}

fn open(state: &State) -> Result<(), RunError> {
    state.listeners.start()?;
    state.listening.set(true);
    for (name, addresses) in state.listeners.list() {
        for address in addresses {
            tracing::info!(target: "main", %name, %address, "listening");
        }
    }
    let after = state.started.elapsed();
    state.stats.initialized(after);
    tracing::info!(target: "main", ?after, "serving");
    let listeners = state.listeners.list().len();
    let after = after.as_millis();
    state.events.success(
        EventKind::SERVE,
        format_args!("connections are accepted, {after} ms after the start; listeners: {listeners}"),
    );
    Ok(())
}

/// `/drain_listeners`: connections are asked to close over the drain time, or at once, as `--drain-strategy` says.
fn drain(state: &State, request: DrainListeners, options: &Options) {
    let DrainListeners { graceful, skip_exit, inbound_only } = request;
    let stop_now = !graceful && !skip_exit;
    let (drain_time, immediate) =
        (options.drain_time, options.restart.drain_strategy == DrainStrategy::Immediate);
    let (listeners, events) = (Rc::clone(&state.listeners), state.events.clone());
    let which = if inbound_only { "inbound listeners" } else { "all listeners" };
    let accept = match (stop_now, skip_exit) {
        (true, _) => "accept no more",
        (false, true) => "go on accepting",
        (false, false) => "accept until then",
    };
    let seconds = drain_time.as_secs();
    events.warning(
        EventKind::DRAIN,
        format_args!("{which} drain: connections are asked to end within {seconds} s, they {accept}"),
    );
    listeners.drain(inbound_only, if immediate { 1.0 } else { 0.0 }, stop_now);
    tokio::task::spawn_local(async move {
        for step in 1..=DRAIN_STEPS {
            tokio::time::sleep(drain_time / DRAIN_STEPS).await;
            let last = step == DRAIN_STEPS;
            if last || !immediate {
                let stop = last && graceful && !skip_exit;
                listeners.drain(inbound_only, f64::from(step) / f64::from(DRAIN_STEPS), stop);
            }
        }
        let left = listeners.connections();
        let accept = if skip_exit { "go on accepting" } else { "accept no more" };
        events.warning(
            EventKind::DRAIN,
            format_args!("the drain time is over: {left} connections are left, {which} {accept}"),
        );
    });
}

/// In which the order to close reaches all connections.
const DRAIN_STEPS: u32 = 100;
/// How long answers of the admin port may take at the end.
const ADMIN_GRACE: Duration = Duration::from_secs(1);
