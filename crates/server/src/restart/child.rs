//! The new process: how a generation takes over from the one before. It never waits for that one without a deadline, and
//! when that one dies it goes on alone.

use std::future::Future;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proxy_config::settings::{self, SocketAddress};
use proxy_control::restart::message::{Confirm, GiveUp, Heartbeat, Hello, Reason, Refused, Serving};
use proxy_control::restart::{Body, Channel, ChannelError, PROTOCOL};
use proxy_control::{Generation, Instance};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::options::{RestartEpoch, RestartOptions};

use super::fault::{self, Place};
use super::heart::Heart;
use super::{ANSWER_LIMIT, HEARTBEAT, Inherited, Leadership, Name, TalkError, called, next, say, sockets};

/// The generation before this one, which leads.
pub(crate) struct Predecessor {
    channel: Channel,
    pub(crate) name: Name,
    /// Of this process.
    pub(crate) epoch: u32,
    /// When the first epoch began.
    pub(crate) first_started: SystemTime,
    /// Of the leader word, for as long as this process may change it.
    turn: u32,
    /// Beats until [`Predecessor::built`].
    heart: Option<Heart>,
}

/// What a generation says to a Hello.
enum Greeted {
    Welcome(Predecessor),
    Refused(Refused),
}

/// Why a process could not take over. The one before goes on.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    #[error("the run directory cannot be read: {0}")]
    RunDir(std::io::Error),
    #[error("generation {generation} cannot be taken over from: {source}")]
    Talk { generation: Generation, source: TalkError },
    #[error("generation {generation} does not hand over: {text}")]
    Refused { generation: Generation, reason: Reason, text: String },
    #[error("generation {0} has taken everything back")]
    TakenBack(Generation),
    #[error("another process leads already")]
    Overtaken,
    #[error("it was rolled back: generation {0} goes on")]
    RolledBack(Generation),
    #[error(
        "there is no running instance to take over from (--skip-hot-restart-on-no-parent starts all the same)"
    )]
    Nobody,
}

impl Predecessor {
    /// The generation to take over from, if that is wanted and there is one.
    ///
    /// # Errors
    /// It does not hand over; or there is none where there ought to be one.
    pub(crate) async fn find(
        options: &RestartOptions,
        instance: &Instance,
        leadership: &Leadership,
    ) -> Result<Option<Predecessor>, ChildError> {
        let epoch = match options.epoch {
            RestartEpoch::Cold => {
                leadership.begin().await;
                return Ok(None);
            }
            RestartEpoch::Auto => None,
            RestartEpoch::Number(number) => Some(number.get()),
        };
        let met = match Predecessor::meet(leadership, instance.generation(), epoch).await {
            // All that live are on their way out, and the one that led is dead.
            Err(ChildError::Refused { reason: Reason::NotLeader, .. }) if leadership.leads() => None,
            other => other?,
        };
        if met.is_none() {
            leadership.begin().await;
        }
        if met.is_none() && epoch.is_some() && !options.skip_on_no_parent {
            return Err(ChildError::Nobody);
        }
        Ok(met)
    }

    /// Asks living generations, the newest first, to hand over. `None`: there is none.
    async fn meet(
        leadership: &Leadership,
        own: Generation,
        epoch: Option<u32>,
    ) -> Result<Option<Predecessor>, ChildError> {
        let mut all = leadership.generations().map_err(ChildError::RunDir)?;
        all.retain(|found| found.generation() != own);
        let (mut refused, mut silent) = (None, None);
        for found in all.iter().rev() {
            let generation = found.generation();
            let hello = Hello {
                protocol: PROTOCOL,
                generation: own.0,
                epoch,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                segment: leadership.segment(),
            };
            match Predecessor::greet(&found.restart_address(), generation, hello).await {
                Ok(Greeted::Welcome(predecessor)) => return Ok(Some(predecessor)),
                Ok(Greeted::Refused(message)) => {
                    let reason = message.reason();
                    let error = ChildError::Refused { generation, reason, text: message.text };
                    if !matches!(reason, Reason::NotLeader) {
                        return Err(error);
                    }
                    refused = Some(error);
                }
                // It has ended just now, or hangs on its way in or out: another one may lead.
                Err(source) => {
                    info!(target: "restart", %generation, error = %source, "a process does not answer");
                    if !leadership.died(generation).await {
                        silent = Some(ChildError::Talk { generation, source });
                    }
                }
            }
        }
        silent.or(refused).map_or(Ok(None), Err)
    }

    /// Asks one generation.
    async fn greet(address: &Path, generation: Generation, hello: Hello) -> Result<Greeted, TalkError> {
        let channel = Channel::connect(address).map_err(ChannelError::Io)?;
        fault::at(Place::ChildBeforeHello);
        say(&channel, Body::Hello(hello)).await?;
        let welcome = match next(&channel, ANSWER_LIMIT).await?.body {
            Body::Welcome(welcome) => welcome,
            Body::Refused(message) => return Ok(Greeted::Refused(message)),
            other => return Err(TalkError::Unexpected(called(&other))),
        };
        fault::at(Place::ChildAfterWelcome);
        Ok(Greeted::Welcome(Predecessor {
            heart: Some(Heart::start(&channel).map_err(ChannelError::Io)?),
            channel,
            name: Name { generation, segment: welcome.segment },
            epoch: welcome.epoch,
            first_started: UNIX_EPOCH + Duration::from_millis(welcome.first_started_ms),
            turn: welcome.turn,
        }))
    }

    /// The generation that leads, to take over from it again.
    ///
    /// # Errors
    /// There is none, or it does not hand over.
    pub(crate) async fn find_again(
        leadership: &Leadership,
        own: Generation,
    ) -> Result<Predecessor, ChildError> {
        Predecessor::meet(leadership, own, None).await?.ok_or(ChildError::Nobody)
    }

    /// The sockets of listeners, one for each of `workers`, and of the admin port, as far as the predecessor has or can bind
    /// them. None if it dies: then this process goes on alone.
    ///
    /// # Errors
    /// It does not give them.
    pub(crate) async fn sockets<'a>(
        &self,
        listeners: impl Iterator<Item = &'a settings::Listener>,
        admin: Option<&SocketAddress>,
        workers: usize,
        leadership: &Leadership,
    ) -> Result<Inherited, ChildError> {
        match sockets::ask(&self.channel, listeners, admin, workers).await {
            Ok(inherited) => Ok(inherited),
            Err(_) if leadership.died(self.name.generation).await => Ok(Inherited::default()),
            Err(source) => Err(ChildError::Talk { generation: self.name.generation, source }),
        }
    }

    /// Main has time again.
    pub(crate) fn built(&mut self) {
        self.heart = None;
    }

    /// Shows signs of life until `work` is done.
    ///
    /// # Errors
    /// The predecessor lives and has taken everything back.
    pub(crate) async fn beat_during<T>(
        &self,
        leadership: &Leadership,
        work: impl Future<Output = T>,
    ) -> Result<T, ChildError> {
        tokio::pin!(work);
        let mut alone = false;
        loop {
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                error = self.beat(), if !alone => {
                    if !leadership.died(self.name.generation).await {
                        warn!(target: "restart", %error, "the process before this one is lost");
                        return Err(ChildError::TakenBack(self.name.generation));
                    }
                    info!(target: "restart", generation = %self.name.generation, "the process before this one has ended, this one goes on");
                    alone = true;
                }
            }
        }
    }

    /// Says heartbeats until that fails, or the predecessor says something: there is nothing for it to say.
    async fn beat(&self) -> TalkError {
        let mut at = Instant::now();
        loop {
            if let Err(error) = say(&self.channel, Body::Heartbeat(Heartbeat {})).await {
                return error;
            }
            at += HEARTBEAT;
            match tokio::time::timeout_at(at, self.channel.receive()).await {
                Err(_) => {}
                Ok(Err(error)) => return error.into(),
                // An answer that came too late, or that this version does not know.
                Ok(Ok(_)) => {}
            }
        }
    }

    /// Tells that this process accepts, and leads after `confirm_after`. Connections follow on the channel.
    ///
    /// # Errors
    /// The predecessor has taken everything back, or somebody else leads.
    pub(crate) async fn take_over(
        &self,
        leadership: &Leadership,
        confirm_after: Duration,
    ) -> Result<(), ChildError> {
        // Whether it hears that shows in what follows; what hangs there hangs without us.
        fault::at(Place::ChildBeforeServing);
        let _ = say(&self.channel, Body::Serving(Serving {})).await;
        self.beat_during(leadership, tokio::time::sleep(confirm_after)).await?;
        fault::at(Place::ChildBeforeConfirm);
        if self.channel.is_closed() && !leadership.died(self.name.generation).await {
            return Err(ChildError::TakenBack(self.name.generation));
        }
        if !leadership.take_from(self.name, self.turn) {
            return Err(ChildError::Overtaken);
        }
        fault::at(Place::ChildLeadsUntold);
        if let Err(error) = say(&self.channel, Body::Confirm(Confirm {})).await {
            info!(target: "restart", %error, "the process before this one does not hear that it leads no more");
        }
        fault::at(Place::ChildAfterConfirm);
        Ok(())
    }

    /// On which connections come once this process leads.
    pub(crate) fn into_channel(self) -> Channel {
        self.channel
    }

    /// Tells the predecessor that it will have to go on.
    pub(crate) async fn give_up(&self, text: String) {
        // It also notices without being told.
        let _ = say(&self.channel, Body::GiveUp(GiveUp { text })).await;
    }
}
