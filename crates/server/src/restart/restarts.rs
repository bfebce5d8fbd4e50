//! Restarts and roll-backs that the operator asks for, by `proxyctl`, `/restart` or SIGUSR2: the new process is started here, and
//! whoever asked hears how it goes.
//!
//! What the new process then does, it would also do if it had been started by hand: see [`super::parent`].

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proxy_control::restart::{Moved, Progress, Step};
use proxy_control::supervise::Supervisor;
use proxy_control::{BaseId, GENERATIONS};
use proxy_stats::EventKind;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Leadership;
use super::spawn::{SpawnError, Spawner, validate};
use crate::admin::{Refusal, RestartRequest};
use crate::events::Events;
use crate::invocation::{Changes, Invocation};
use crate::options::Options;

/// Starts the next process when asked to, one at a time.
pub(crate) struct Restarts {
    invocation: Invocation,
    spawner: Spawner,
    leadership: Rc<Leadership>,
    base_id: BaseId,
    /// `--disable-hot-restart`.
    disabled: bool,
    /// A new process is being talked to, whoever started it.
    talking: Cell<bool>,
    under_way: RefCell<Option<UnderWay>>,
    /// Told each time that nothing is under way any more.
    over: Notify,
    events: Events,
}

/// What was asked for and is not over.
struct UnderWay {
    began: Instant,
    listener: mpsc::Sender<Bytes>,
    /// To whoever drives the restart.
    heard: mpsc::UnboundedSender<Step>,
}

/// Why the process goes on as before.
#[derive(Debug, thiserror::Error)]
enum RestartError {
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("the new process ended ({0}) before it asked to take over; its log says why")]
    Ended(String),
    #[error("the new process did not ask to take over within {:.1} s and was killed", .0.as_secs_f64())]
    Silent(Duration),
    #[error("{reason}{}", ended.as_ref().map(|ended| format!(" (the new process ended: {ended})")).unwrap_or_default())]
    TakenBack { reason: String, ended: Option<String> },
}

/// How a restart that did not fail came out.
enum Outcome {
    /// Connections are yet to move.
    Leads,
    DryRun,
}

impl Restarts {
    pub(crate) fn new(
        options: &Options,
        leadership: Rc<Leadership>,
        supervisor: Option<Supervisor>,
        events: Events,
    ) -> Rc<Self> {
        Rc::new(Restarts {
            invocation: options.invocation.clone(),
            spawner: supervisor.map_or(Spawner::Direct, Spawner::Supervised),
            leadership,
            base_id: options.base_id,
            disabled: options.restart.disabled,
            talking: Cell::new(false),
            under_way: RefCell::default(),
            over: Notify::new(),
            events,
        })
    }

    /// Starts a process that takes over from this one. Lines of [`Progress`] follow, until it is over.
    ///
    /// # Errors
    /// It cannot be, or not now.
    pub(crate) fn begin(self: &Rc<Self>, request: RestartRequest) -> Result<mpsc::Receiver<Bytes>, Refusal> {
        if self.disabled {
            return Err(Refusal::Never("this process runs with --disable-hot-restart"));
        }
        if !self.leadership.leads() {
            return Err(Refusal::Busy("this process does not lead"));
        }
        let living = self.leadership.generations().map_or(0, |all| all.len());
        if living >= GENERATIONS && !request.dry_run {
            return Err(Refusal::Busy("four generations live, the oldest has to end first"));
        }
        let (lines, heard) = self.listen()?;
        tokio::task::spawn_local(Rc::clone(self).drive(request, heard));
        Ok(lines)
    }

    /// Somebody wants to hear of what begins now.
    ///
    /// # Errors
    /// Something is under way already.
    pub(crate) fn listen(&self) -> Result<(mpsc::Receiver<Bytes>, mpsc::UnboundedReceiver<Step>), Refusal> {
        let mut under_way = self.under_way.borrow_mut();
        if under_way.is_some() || self.talking.get() {
            return Err(Refusal::Busy("another restart is under way"));
        }
        let (listener, lines) = mpsc::channel(LINES);
        let (heard, hears) = mpsc::unbounded_channel();
        *under_way = Some(UnderWay { began: Instant::now(), listener, heard });
        Ok((lines, hears))
    }

    /// The conversation with a new process has come to this.
    pub(crate) fn hear(&self, step: Step) {
        match &step {
            Step::Greeted { .. } => self.talking.set(true),
            Step::Leads | Step::Failed { .. } => self.talking.set(false),
            _ => {}
        }
        // Whoever drives the restart knows more about why it failed.
        if !matches!(step, Step::Failed { .. }) {
            self.say(step.clone());
        }
        match &*self.under_way.borrow() {
            // Gone when the process was spawned by somebody else.
            Some(under_way) => drop(under_way.heard.send(step)),
            None if !self.talking.get() => self.over.notify_one(),
            None => {}
        }
    }

    /// Tells whoever asked.
    pub(crate) fn say(&self, step: Step) {
        if let Some(UnderWay { began, listener, .. }) = &*self.under_way.borrow() {
            let progress = Progress { step, elapsed_ms: began.elapsed().as_millis() as u64 };
            // Whoever has gone away, or does not read, does without.
            let _ = listener.try_send(progress.to_line().into());
        }
    }

    /// Tells the last step.
    pub(crate) fn end(&self, step: Step) {
        self.say(step);
        self.forget();
    }

    fn forget(&self) {
        self.under_way.take();
        self.over.notify_one();
    }

    /// Whether somebody waits to hear how connections move.
    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way.borrow().is_some()
    }

    /// Whether a new process is being started or talked to, whoever has asked for it.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_under_way() || self.talking.get()
    }

    /// Resolves when what was under way is over, at once if it has been since the last time.
    pub(crate) async fn over(&self) {
        self.over.notified().await;
    }

    async fn drive(self: Rc<Self>, request: RestartRequest, heard: mpsc::UnboundedReceiver<Step>) {
        let began = Instant::now();
        match self.replace(request, heard).await {
            Ok(Outcome::Leads) => {}
            Ok(Outcome::DryRun) => self.forget(),
            Err(error) => {
                warn!(target: "restart", %error, after = ?began.elapsed(), "hot restart failed, this process goes on");
                self.events.error(EventKind::RESTART, format_args!("failed, this process goes on: {error}"));
                self.end(Step::Failed { reason: error.to_string() });
            }
        }
    }

    async fn replace(
        &self,
        request: RestartRequest,
        mut heard: mpsc::UnboundedReceiver<Step>,
    ) -> Result<Outcome, RestartError> {
        let limit = request.within.unwrap_or(GREETING_LIMIT).min(GREETING_LIMIT);
        let greeting = tokio::time::sleep(limit);
        let changes = Changes { program: request.binary, config: request.config };
        let successor = self.invocation.successor(&changes, self.base_id);
        let program = successor.program().display().to_string();
        info!(target: "restart", %program, "hot restart: the configuration is validated");
        self.events
            .info(EventKind::RESTART, format_args!("asked for: {program} validates the configuration"));
        self.say(Step::Validating { program });
        validate(&successor.to_validate(), limit).await?;
        self.say(Step::Validated);
        if request.dry_run {
            return Ok(Outcome::DryRun);
        }
        let Invocation { program, arguments } = successor.to_take_over();
        let spawned = self.spawner.spawn(&program, &arguments).await?;
        let pid = spawned.pid;
        info!(target: "restart", pid, "hot restart: the new process is started");
        self.events.info(EventKind::RESTART, format_args!("the new process is started, pid {pid}"));
        self.say(Step::Spawned { pid });
        let (tell, mut ended) = oneshot::channel();
        // Reaped whenever it ends, also long after it has failed to take over.
        tokio::task::spawn_local(async move { tell.send(spawned.wait().await) });
        tokio::pin!(greeting);
        let (mut greeted, mut end) = (false, None);
        loop {
            tokio::select! {
                biased;
                Some(step) = heard.recv() => match step {
                    Step::Greeted { .. } => greeted = true,
                    Step::Leads => return Ok(Outcome::Leads),
                    Step::Failed { reason } => {
                        if end.is_none() {
                            // How it ended says more, if it is about to.
                            let soon = tokio::time::timeout(ENDING_GRACE, &mut ended).await;
                            end = soon.ok().and_then(Result::ok);
                        }
                        return Err(RestartError::TakenBack { reason, ended: end });
                    }
                    _ => {}
                },
                Ok(how) = &mut ended, if end.is_none() => {
                    if !greeted {
                        return Err(RestartError::Ended(how));
                    }
                    // What that means follows: it may have led for a moment.
                    end = Some(how);
                }
                () = &mut greeting, if !greeted => {
                    // Not reaped yet, so the number is still its own.
                    let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
                    return Err(RestartError::Silent(limit));
                }
            }
        }
    }
}

/// The connections of a process that leads no more, as they move: tells when there is news, and when nothing more will move.
pub(crate) struct Moving {
    told: Moved,
    quiet_since: Instant,
}

impl Moving {
    pub(crate) fn new() -> Self {
        Moving { told: Moved::default(), quiet_since: Instant::now() }
    }

    /// To be called now and then. `pending`: connections of which the new process has yet to say whether it takes them.
    pub(crate) fn look(&mut self, restarts: &Restarts, now: Moved, pending: usize) {
        if !restarts.is_under_way() {
            return;
        }
        if now != self.told {
            self.quiet_since = Instant::now();
            self.told = now;
            restarts.say(Step::Moved(now));
        }
        let quiet = pending == 0 && self.quiet_since.elapsed() >= QUIET;
        if quiet || (now.left == 0 && pending == 0) {
            restarts.end(Step::Done(now));
        }
    }
}

/// From being asked to the new process being there: reading a large configuration takes a while.
const GREETING_LIMIT: Duration = Duration::from_secs(60);
const ENDING_GRACE: Duration = Duration::from_secs(1);
/// What nobody reads is not kept.
const LINES: usize = 64;
/// So long after the last connection that moved, those that are left are not between two requests.
const QUIET: Duration = Duration::from_millis(500);
