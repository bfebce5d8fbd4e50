//! The old process: what a generation does about the next one. Until the next one leads, everything can be taken back, and
//! is, whatever ends the conversation.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use proxy_control::restart::message::{Hello, Reason, Refused, Stopped, Welcome};
use proxy_control::restart::{Body, Channel, PROTOCOL, RestartSocket};
use proxy_control::{Generation, Instance};
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use super::fault::{self, Place};
use super::reserve::Reserve;
use super::{
    ANSWER_LIMIT, BUILD_LIMIT, Leadership, Name, SILENCE_LIMIT, TalkError, called, next, say, sockets,
};
use crate::state::State;

/// Waits for successors and talks to one at a time.
pub(crate) struct Successors {
    state: Rc<State>,
    leadership: Rc<Leadership>,
    generation: Generation,
    talking: Cell<bool>,
    /// While nobody is talked to.
    reserve: Cell<Option<Reserve>>,
    events: mpsc::UnboundedSender<Event>,
}

/// What became of a conversation, step by step.
#[derive(Debug)]
pub(crate) enum Event {
    /// A process of this version has asked to take over.
    Greeted {
        successor: Name,
        version: String,
    },
    SocketsPassed {
        sockets: usize,
    },
    /// The successor accepts, this process does not.
    Serving,
    /// The successor leads. The channel is there for connections; none if it broke after the leader word changed.
    Leads {
        successor: Name,
        channel: Option<Channel>,
    },
    /// This process goes on as before.
    Failed {
        reason: String,
    },
}

/// Why a successor did not take over.
#[derive(Debug, thiserror::Error)]
enum MeetError {
    #[error(transparent)]
    Talk(#[from] TalkError),
    #[error("the new process gave up: {0}")]
    GivenUp(String),
    #[error("the workers did not stop accepting within {0:?}")]
    Workers(Duration),
}

/// While a successor is being talked to, with descriptors at hand.
struct Talking<'a>(&'a Successors);

impl<'a> Talking<'a> {
    fn begin(successors: &'a Successors) -> Self {
        successors.talking.set(true);
        successors.reserve.take();
        Talking(successors)
    }
}

impl Drop for Talking<'_> {
    fn drop(&mut self) {
        self.0.talking.set(false);
        self.0.reserve.set(Some(Reserve::take()));
    }
}

impl Successors {
    pub(crate) fn new(
        state: Rc<State>,
        leadership: Rc<Leadership>,
        generation: Generation,
        events: mpsc::UnboundedSender<Event>,
    ) -> Rc<Self> {
        let reserve = Cell::new(Some(Reserve::take()));
        Rc::new(Successors { state, leadership, generation, talking: Cell::new(false), reserve, events })
    }

    /// Talks to whoever connects, for as long as the process lives.
    ///
    /// # Errors
    /// The socket cannot be bound.
    pub(crate) fn listen(self: Rc<Self>, instance: &Instance) -> std::io::Result<()> {
        let socket = RestartSocket::bind(&instance.restart_address())?;
        tokio::task::spawn_local(self.serve(socket));
        Ok(())
    }

    async fn serve(self: Rc<Self>, socket: RestartSocket) {
        loop {
            match socket.accept().await {
                Ok(channel) => drop(tokio::task::spawn_local(Rc::clone(&self).meet(channel))),
                // Out of descriptors, mostly: the connection stays in the queue until there is one.
                Err(_) if self.open_reserve() => {}
                Err(error) => {
                    warn!(target: "restart", %error, "a new process cannot be talked to");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn meet(self: Rc<Self>, channel: Channel) {
        let hello = match self.greet(&channel).await {
            Ok(Some(hello)) => hello,
            Ok(None) => return,
            Err(error) => {
                debug!(target: "restart", %error, "somebody connected and did not say who");
                return;
            }
        };
        let _talking = Talking::begin(&self);
        let generation = Generation(hello.generation);
        let successor = Name { generation, segment: hello.segment };
        self.tell(Event::Greeted { successor, version: hello.version });
        let paused = Cell::new(false);
        match self.converse(&channel, &paused).await {
            Ok(()) => self.tell(Event::Leads { successor, channel: Some(channel) }),
            Err(error) if !self.leadership.go_on().await => {
                // It lives and leads, although nobody told us so. If it hangs it may wake up.
                let channel = matches!(error, MeetError::Talk(TalkError::Silence(_))).then_some(channel);
                self.tell(Event::Leads { successor, channel });
            }
            Err(error) => {
                // Before anything else: from here on connections are accepted again.
                if paused.get() {
                    self.resume().await;
                }
                drop(channel);
                self.tell(Event::Failed { reason: error.to_string() });
            }
        }
    }

    /// Reads who is there. `None`: it was refused.
    async fn greet(&self, channel: &Channel) -> Result<Option<Hello>, TalkError> {
        let received = next(channel, ANSWER_LIMIT).await?;
        let Body::Hello(hello) = received.body else {
            return Err(TalkError::Unexpected(called(&received.body)));
        };
        if let Some((reason, text)) = self.refusal(&hello) {
            info!(target: "restart", generation = hello.generation, reason = %text, "a new process is refused");
            say(channel, Body::Refused(Refused { reason: reason.into(), text })).await?;
            return Ok(None);
        }
        Ok(Some(hello))
    }

    /// False if there is none.
    fn open_reserve(&self) -> bool {
        self.reserve.take().is_some()
    }

    fn refusal(&self, hello: &Hello) -> Option<(Reason, String)> {
        if hello.protocol != PROTOCOL {
            let text = format!("it speaks version {}, this one {PROTOCOL}", hello.protocol);
            return Some((Reason::Protocol, text));
        }
        if !self.leadership.leads() {
            return Some((Reason::NotLeader, "this process does not lead".to_owned()));
        }
        if self.talking.get() {
            return Some((Reason::Busy, "another restart is under way".to_owned()));
        }
        if let Some(epoch) = hello.epoch
            && epoch != self.next_epoch()
        {
            let text = format!(
                "the running process has restart epoch {}, so the next one is {}",
                self.state.epoch.get(),
                self.next_epoch()
            );
            return Some((Reason::Epoch, text));
        }
        let text = || "this process is about to end".to_owned();
        self.state.ending.get().then(|| (Reason::Ending, text()))
    }

    fn next_epoch(&self) -> u32 {
        self.state.epoch.get().wrapping_add(1)
    }

    /// From Welcome to Confirm. `paused` says how far it got: whether workers were told to stop accepting.
    async fn converse(&self, channel: &Channel, paused: &Cell<bool>) -> Result<(), MeetError> {
        let first_started_ms =
            self.state.first_started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let welcome = Welcome {
            generation: self.generation.0,
            epoch: self.next_epoch(),
            first_started_ms,
            segment: self.leadership.segment(),
            turn: self.leadership.turn(),
        };
        fault::at(Place::ParentAfterHello);
        say(channel, Body::Welcome(welcome)).await?;
        let wanted = match self.hear(channel, BUILD_LIMIT).await? {
            Body::SocketsWanted(wanted) => wanted,
            other => return Err(TalkError::Unexpected(called(&other)).into()),
        };
        let state = &self.state;
        let sockets = sockets::give(channel, &wanted, &state.listeners, state.admin_port.get()).await?;
        fault::at(Place::ParentAfterSockets);
        self.tell(Event::SocketsPassed { sockets });
        match self.hear(channel, BUILD_LIMIT).await? {
            Body::Serving(_) => {}
            other => return Err(TalkError::Unexpected(called(&other)).into()),
        }
        paused.set(true);
        if let Some(port) = state.admin_port.get() {
            port.pause();
        }
        if tokio::time::timeout(ANSWER_LIMIT, state.listeners.pause()).await.is_err() {
            return Err(MeetError::Workers(ANSWER_LIMIT));
        }
        fault::at(Place::ParentBeforeStopped);
        say(channel, Body::Stopped(Stopped {})).await?;
        self.tell(Event::Serving);
        match self.hear(channel, SILENCE_LIMIT).await? {
            Body::Confirm(_) => {
                fault::at(Place::ParentAfterConfirm);
                Ok(())
            }
            other => Err(TalkError::Unexpected(called(&other)).into()),
        }
    }

    /// The next message that is no sign of life. A child that says nothing is given up.
    async fn hear(&self, channel: &Channel, limit: Duration) -> Result<Body, MeetError> {
        loop {
            match next(channel, limit).await?.body {
                Body::Heartbeat(_) => {}
                Body::GiveUp(why) => return Err(MeetError::GivenUp(why.text)),
                other => return Ok(other),
            }
        }
    }

    /// Accepts again, as soon as there are descriptors for it.
    async fn resume(&self) {
        if let Some(port) = self.state.admin_port.get() {
            port.resume();
        }
        while let Err(error) = self.state.listeners.resume() {
            error!(target: "restart", %error, "cannot accept again, and goes on trying");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }

    fn tell(&self, event: Event) {
        // The receiver is the main loop; when it has ended, so has this process.
        let _ = self.events.send(event);
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
