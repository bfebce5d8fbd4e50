//! While another process leads: connections are lent to it, the rest ends; unless this process comes to lead again.

use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use proxy_control::restart::{Channel, Moved, Step};
use proxy_runtime::Workers;
use proxy_stats::EventKind;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::admin::ShutDown;
use crate::life::Running;
use crate::logging::Log;
use crate::options::Options;
use crate::restart::{Arrivals, Inherited, Moving, Name, Offering, Offers, Predecessor, Tally};
use crate::run::RunError;
use crate::signals::{Action, Ending, Signals};
use crate::state::{Command, State};

/// What became of a process that led.
pub(crate) enum Handed {
    Over(ExitCode),
    /// It leads again; connections that the other process has come from there, if it lives.
    Back(Option<Predecessor>),
}

/// Connections on offer to the process that leads.
struct Lending {
    tally: Rc<Tally>,
    stop: Rc<Notify>,
    /// None: over.
    offering: Option<JoinHandle<Offering>>,
}

impl Running {
    /// Another process leads: gives it what it takes, and lets the rest end; or takes everything back.
    pub(crate) async fn hand_over(
        &mut self,
        options: &Options,
        successor: Name,
        channel: Option<Channel>,
        log: &Log,
        signals: &mut Signals,
        ending: &mut Ending,
    ) -> Handed {
        self.leadership.end();
        let state = Rc::clone(&self.state);
        state.listeners.give_sockets_away();
        state.healthy.set(false);
        state.can_return.set(true);
        if let Some(port) = state.admin_port.get() {
            port.pause();
        }
        let limit = tokio::time::sleep(options.restart.parent_shutdown_time);
        tokio::pin!(limit);
        let emptied = state.listeners.emptied();
        tokio::pin!(emptied);
        if channel.is_none() {
            self.let_go();
        }
        let mut lending = Lending::begin(&self.state.workers, channel);
        let (mut moving, mut look) = (Moving::new(), tokio::time::interval(LOOK_INTERVAL));
        let code = loop {
            tokio::select! {
                () = &mut emptied => break ExitCode::SUCCESS,
                () = &mut limit => {
                    tracing::info!(target: "restart", "connections are left, the time is over");
                    break ExitCode::SUCCESS;
                }
                ended = lending.ended() => {
                    tracing::debug!(target: "restart", ?ended, "the rest ends here");
                    if ended == Offering::Gone && self.succeed_dead(successor).await {
                        return Handed::Back(None);
                    }
                    self.let_go();
                }
                _ = look.tick() => moving.look(&state.restarts, lending.moved(&state), lending.pending()),
                Some(command) = self.commanded.recv() => match command {
                    Command::RollBack if state.can_return.get() => {
                        lending.end().await;
                        match self.take_back().await {
                            Ok(predecessor) => return Handed::Back(Some(predecessor)),
                            Err(error) => self.roll_back_failed(&error.to_string()),
                        }
                        self.let_go();
                    }
                    Command::RollBack => self.roll_back_failed("this process is about to end"),
                    Command::ShutDown(ShutDown::Now) => break ExitCode::SUCCESS,
                    Command::ShutDown(ShutDown::Drained) => {
                        ending.begin();
                        lending.end().await;
                        return Handed::Over(self.shut_down(options.shutdown_time, signals, ending).await);
                    }
                    Command::ReopenLogs => self.reopen_logs(log),
                    Command::Drain(_) => {}
                },
                signal = signals.next() => match ending.handle(signal) {
                    Action::ShutDown => {
                        lending.end().await;
                        return Handed::Over(self.shut_down(options.shutdown_time, signals, ending).await);
                    }
                    Action::ExitNow(code) => return Handed::Over(ExitCode::from(code)),
                    Action::ReopenLogs => self.reopen_logs(log),
                    Action::RestartHot => self.restart_hot(),
                    Action::Reload => self.state.reload_unasked("SIGHUP"),
                },
            }
        };
        lending.end().await;
        let moved = lending.moved(&state);
        state.events.info(
            EventKind::RESTART,
            format_args!(
                "this process ends; connections that have moved: {}, that are left: {}",
                moved.moved, moved.left
            ),
        );
        if state.restarts.is_under_way() {
            state.restarts.end(Step::Done(lending.moved(&state)));
        }
        Handed::Over(code)
    }

    /// Connections that are left here are asked to end: this process cannot lead again.
    fn let_go(&self) {
        self.state.can_return.set(false);
        let listeners = Rc::clone(&self.state.listeners);
        tokio::task::spawn_local(async move { listeners.shut_down().await });
    }

    /// The process that leads is gone: if it did not end in good order, this one leads again.
    async fn succeed_dead(&self, successor: Name) -> bool {
        if !self.state.can_return.get() || !self.leadership.succeed(successor).await {
            return false;
        }
        tracing::warn!(target: "restart", generation = %successor.generation, "the process that led has died, this one leads again");
        let generation = successor.segment;
        let text = format_args!("generation {generation}, which led, has died");
        self.state.events.error(EventKind::RESTART, text);
        if let Err(error) = self.state.listeners.take_back(Inherited::default()) {
            tracing::error!(target: "restart", %error, "cannot accept on all listeners again");
        }
        true
    }

    /// Takes over from the process that has taken over from this one, as that one did.
    async fn take_back(&self) -> Result<Predecessor, RunError> {
        let (state, leadership) = (&self.state, &self.leadership);
        let mut other = Predecessor::find_again(leadership, self.generation).await?;
        let settings = state.listeners.settings();
        // The admin port's socket is here still.
        let listeners = settings.iter().map(|listener| &**listener);
        let inherited = other.sockets(listeners, None, state.workers.count(), leadership).await?;
        other.built();
        let taken = match state.listeners.take_back(inherited) {
            Ok(()) => {
                state.restarts.say(Step::Serving);
                // It has served before, so there is nothing to wait for.
                other.take_over(leadership, Duration::ZERO).await.map_err(RunError::from)
            }
            Err(error) => {
                other.give_up(error.to_string()).await;
                Err(error.into())
            }
        };
        if let Err(error) = taken {
            state.listeners.pause().await;
            state.listeners.give_sockets_away();
            return Err(error);
        }
        state.epoch.set(other.epoch);
        state.stats.restarted(other.epoch, self.generation);
        Ok(other)
    }

    /// This process leads again, and accepts already.
    pub(crate) fn lead_again(
        &mut self,
        predecessor: Option<Predecessor>,
    ) -> impl Future<Output = Result<(), RunError>> + use<> {
        let state = &self.state;
        state.ending.set(false);
        state.can_return.set(false);
        state.healthy.set(true);
        if let Some(port) = state.admin_port.get() {
            port.resume();
        }
        // The one before may hold a request of the time when this process led.
        self.stop_arrivals = Rc::default();
        if let Some(predecessor) = predecessor {
            let (workers, leadership) = (Rc::clone(&state.workers), Rc::clone(&self.leadership));
            let before = predecessor.name.generation;
            let arrivals = Arrivals::new(predecessor.into_channel(), workers, leadership, before);
            tokio::task::spawn_local(arrivals.run(Rc::clone(&self.stop_arrivals)));
        }
        tracing::info!(target: "restart", epoch = state.epoch.get(), "this process leads again");
        state.events.success(EventKind::RESTART, format_args!("this process leads again"));
        self.service.leads(true);
        if state.restarts.is_under_way() {
            state.restarts.end(Step::Leads);
        }
        std::future::ready(Ok(()))
    }
}

impl Lending {
    fn begin(workers: &Rc<Workers>, channel: Option<Channel>) -> Lending {
        let (stop, mut tally) = (Rc::<Notify>::default(), Rc::default());
        let offering = channel.map(|channel| {
            let offers = Offers::begin(workers, channel);
            tally = offers.tally();
            // A task of its own, because it must not be dropped half-way.
            tokio::task::spawn_local(offers.run(Rc::clone(workers), Rc::clone(&stop)))
        });
        Lending { tally, stop, offering }
    }

    /// Resolves when nothing more is offered, once.
    async fn ended(&mut self) -> Offering {
        match &mut self.offering {
            Some(offering) => {
                let ended = offering.await.unwrap_or(Offering::Ended);
                self.offering = None;
                ended
            }
            None => std::future::pending().await,
        }
    }

    /// Offers no more.
    async fn end(&mut self) {
        if self.offering.is_some() {
            self.stop.notify_one();
            self.ended().await;
        }
    }

    fn moved(&self, state: &State) -> Moved {
        Moved {
            moved: self.tally.moved.get(),
            refused: self.tally.refused.get(),
            withdrawn: self.tally.withdrawn.get(),
            left: state.listeners.connections(),
        }
    }

    fn pending(&self) -> usize {
        self.tally.pending.get()
    }
}

/// Between two looks at connections that move.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
