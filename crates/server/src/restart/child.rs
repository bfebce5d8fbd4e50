//! The new process: how a generation takes over from the one before. It never waits for that one without a deadline, and
//! when that one dies it goes on alone.

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proxy_config::settings::{self, SocketAddress};
use proxy_control::restart::message::{Confirm, GiveUp, Heartbeat, Hello, Reason, Serving};
use proxy_control::restart::{Body, Channel, ChannelError, PROTOCOL};
use proxy_control::{Generation, Instance};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::options::{RestartEpoch, RestartOptions};

use super::{ANSWER_LIMIT, HEARTBEAT, Inherited, Leadership, Name, TalkError, called, next, say, sockets};

/// The generation before this one, which leads.
pub(crate) struct Predecessor {
    channel: Channel,
    pub(crate) name: Name,
    /// Of this process.
    pub(crate) epoch: u32,
    /// When the first epoch began.
    pub(crate) first_started: SystemTime,
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
            RestartEpoch::Cold => return Ok(None),
            RestartEpoch::Auto => None,
            RestartEpoch::Number(number) => Some(number.get()),
        };
        let found = Predecessor::meet(leadership, instance.generation(), epoch).await?;
        if found.is_none() && epoch.is_some() && !options.skip_on_no_parent {
            return Err(ChildError::Nobody);
        }
        Ok(found)
    }

    /// Asks living generations, the newest first, to hand over. `None`: there is none.
    async fn meet(
        leadership: &Leadership,
        own: Generation,
        epoch: Option<u32>,
    ) -> Result<Option<Predecessor>, ChildError> {
        let mut all = leadership.generations().map_err(ChildError::RunDir)?;
        all.retain(|found| found.generation() != own);
        let mut refused = None;
        for found in all.iter().rev() {
            let generation = found.generation();
            let talk = |source| ChildError::Talk { generation, source };
            let channel = match Channel::connect(&found.restart_address()) {
                Ok(channel) => channel,
                // It has just ended.
                Err(_) if !found.lives().unwrap_or(true) => continue,
                Err(error) => return Err(talk(ChannelError::Io(error).into())),
            };
            let hello = Hello {
                protocol: PROTOCOL,
                generation: own.0,
                epoch,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                segment: leadership.segment(),
            };
            say(&channel, Body::Hello(hello)).await.map_err(talk)?;
            match next(&channel, ANSWER_LIMIT).await.map_err(talk)?.body {
                Body::Welcome(welcome) => {
                    return Ok(Some(Predecessor {
                        channel,
                        name: Name { generation, segment: welcome.segment },
                        epoch: welcome.epoch,
                        first_started: UNIX_EPOCH + Duration::from_millis(welcome.first_started_ms),
                    }));
                }
                Body::Refused(message) => {
                    let reason = message.reason();
                    let error = ChildError::Refused { generation, reason, text: message.text };
                    if !matches!(reason, Reason::NotLeader) {
                        return Err(error);
                    }
                    refused = Some(error);
                }
                other => return Err(talk(TalkError::Unexpected(called(&other)))),
            }
        }
        refused.map_or(Ok(None), Err)
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

    /// The sockets of listeners, one for each of `workers`, and of the admin port, as far as the predecessor has or can bind them.
    ///
    /// # Errors
    /// It does not give them.
    pub(crate) async fn sockets<'a>(
        &self,
        listeners: impl Iterator<Item = &'a settings::Listener>,
        admin: Option<&SocketAddress>,
        workers: usize,
    ) -> Result<Inherited, ChildError> {
        let asked = sockets::ask(&self.channel, listeners, admin, workers).await;
        asked.map_err(|source| ChildError::Talk { generation: self.name.generation, source })
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
                    if leadership.lives(self.name) {
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
        let _ = say(&self.channel, Body::Serving(Serving {})).await;
        self.beat_during(leadership, tokio::time::sleep(confirm_after)).await?;
        if !leadership.take_from(self.name) {
            return Err(ChildError::Overtaken);
        }
        if let Err(error) = say(&self.channel, Body::Confirm(Confirm {})).await {
            info!(target: "restart", %error, "the process before this one does not hear that it leads no more");
        }
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
