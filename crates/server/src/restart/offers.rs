//! The old process lends its connections to the one that leads now, and alone decides what becomes of each.
//!
//! A connection is the child's when this side has dropped its streams and said Release; before that it can be taken back
//! at any time, and is when the child does not answer in time.

use std::cell::Cell;
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use proxy_control::restart::message::{End, Offer, Release, Withdraw};
use proxy_control::restart::{Body, Channel, ChannelError};
use proxy_net::{Given, Offered, Receipt};
use proxy_runtime::{Workers, worker_local};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tracing::{debug, info};

use super::fault::{self, Place};
use super::{ANSWER_LIMIT, TalkError, say};

/// Connections on offer, and the child's answers.
pub(crate) struct Offers {
    channel: Channel,
    offered: mpsc::UnboundedReceiver<Offered>,
    answers: mpsc::UnboundedSender<Given>,
    given: mpsc::UnboundedReceiver<Given>,
    pending: HashMap<u64, Pending>,
    /// Accepted, and not yet let go.
    promised: usize,
    next_id: u64,
    /// Of the current silence: no offers until the child says something.
    silent: bool,
    tally: Rc<Tally>,
}

/// What has become of offers.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) moved: Cell<u64>,
    pub(crate) refused: Cell<u64>,
    pub(crate) withdrawn: Cell<u64>,
    /// Undecided so far, here or there.
    pub(crate) pending: Cell<usize>,
}

struct Pending {
    answer: oneshot::Sender<Receipt>,
    until: Instant,
}

/// How offering came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offering {
    /// The child is being replaced itself.
    Stopped,
    /// The child has ended.
    Gone,
    /// This side has seen to it.
    Ended,
}

impl Offers {
    /// Makes every worker offer its connections, now or when they become free.
    pub(crate) fn begin(workers: &Workers, channel: Channel) -> Offers {
        let (offers, offered) = mpsc::unbounded_channel();
        let (answers, given) = mpsc::unbounded_channel();
        workers.post_all(move || {
            if let Some(handover) = worker_local::get::<proxy_net::Handover>() {
                handover.begin(offers.clone());
            }
        });
        Offers {
            channel,
            offered,
            answers,
            given,
            pending: HashMap::new(),
            promised: 0,
            next_id: 0,
            silent: false,
            tally: Rc::default(),
        }
    }

    /// Goes on counting while it runs.
    pub(crate) fn tally(&self) -> Rc<Tally> {
        Rc::clone(&self.tally)
    }

    /// Offers until the child wants no more or is gone, or until `stop`. Must not be dropped before it resolves: a connection
    /// that was let go and not released would be nobody's.
    pub(crate) async fn run(mut self, workers: Rc<Workers>, stop: Rc<Notify>) -> Offering {
        let offering = match self.exchange(&stop).await {
            Ok(offering) => offering,
            Err(error) => {
                info!(target: "restart", %error, "the process that leads takes no more connections");
                Offering::Gone
            }
        };
        self.end(&workers).await;
        offering
    }

    /// Takes back what is on offer, finishes what was promised, and says that nothing follows.
    async fn end(mut self, workers: &Workers) {
        workers.post_all(|| {
            if let Some(handover) = worker_local::get::<proxy_net::Handover>() {
                handover.end();
            }
        });
        self.offered.close();
        while self.offered.recv().await.is_some() {}
        // Goes on only when the child knows that nothing follows.
        let pending = std::mem::take(&mut self.pending);
        // Receipts that workers hold keep a sender; this is the last but those.
        drop(std::mem::replace(&mut self.answers, mpsc::unbounded_channel().0));
        let finishing = async {
            while let Some(given) = self.given.recv().await {
                self.give(given).await?;
            }
            say(&self.channel, Body::End(End {})).await
        };
        if let Ok(Err(error)) = tokio::time::timeout(ANSWER_LIMIT, finishing).await {
            debug!(target: "restart", %error, "the process that leads does not hear the end");
        }
        drop(pending);
        self.tally.pending.set(0);
        let Tally { moved, refused, withdrawn, .. } = &*self.tally;
        let (moved, refused, withdrawn) = (moved.get(), refused.get(), withdrawn.get());
        info!(target: "restart", moved, refused, withdrawn, "connections have been handed over");
    }

    async fn exchange(&mut self, stop: &Notify) -> Result<Offering, TalkError> {
        loop {
            self.tally.pending.set(self.pending.len() + self.promised);
            let deadline = self.pending.values().map(|pending| pending.until).min();
            let expired = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(given) = self.given.recv() => self.give(given).await?,
                received = self.channel.receive() => match received {
                    Ok(received) => {
                        self.silent = false;
                        if matches!(received.body, Body::StopOffering(_)) {
                            return Ok(Offering::Stopped);
                        }
                        self.answered(received.body).await?;
                    }
                    Err(ChannelError::Malformed(_) | ChannelError::DescriptorsLost) => {}
                    Err(error) => return Err(error.into()),
                },
                () = stop.notified() => return Ok(Offering::Ended),
                () = expired => self.withdraw_late().await?,
                Some(offered) = self.offered.recv(), if !self.silent && self.pending.len() < AT_ONCE => {
                    self.offer(offered).await?;
                }
            }
        }
    }

    async fn offer(&mut self, offered: Offered) -> Result<(), TalkError> {
        let Offered { state, descriptors, answer } = offered;
        if answer.is_closed() {
            return Ok(());
        }
        let id = self.next_id;
        self.next_id += 1;
        let body = Body::Offer(Offer { id, state });
        let lent: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        match tokio::time::timeout(ANSWER_LIMIT, self.channel.send(body, &lent)).await {
            Ok(Ok(())) => {
                fault::at(Place::ParentOffered);
                self.pending.insert(id, Pending { answer, until: Instant::now() + OFFER_LIMIT });
                Ok(())
            }
            // It stays, as the dropped answer says; others may be smaller, or find room.
            Ok(Err(ChannelError::TooLarge(_) | ChannelError::DescriptorsInFlight)) => {
                count(&self.tally.refused);
                Ok(())
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(TalkError::Silence(ANSWER_LIMIT)),
        }
    }

    async fn answered(&mut self, body: Body) -> Result<(), TalkError> {
        match body {
            Body::Accept(accept) => {
                // One that was withdrawn is not pending any more: too late.
                let Some(pending) = self.pending.remove(&accept.id) else { return Ok(()) };
                self.promised += 1;
                let receipt = Receipt::new(accept.id, self.answers.clone());
                // If the connection has ended meanwhile, the receipt comes back unused and says so itself.
                drop(pending.answer.send(receipt));
                Ok(())
            }
            Body::Refuse(refuse) => {
                if self.pending.remove(&refuse.id).is_some() {
                    count(&self.tally.refused);
                    debug!(target: "restart", reason = %refuse.text, "a connection stays");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What a worker did with an accepted connection.
    async fn give(&mut self, given: Given) -> Result<(), TalkError> {
        let Given { id, released } = given;
        self.promised -= 1;
        if released {
            fault::at(Place::ParentBeforeRelease);
            count(&self.tally.moved);
            return say(&self.channel, Body::Release(Release { id })).await;
        }
        count(&self.tally.withdrawn);
        say(&self.channel, Body::Withdraw(Withdraw { id })).await
    }

    /// The child hangs, or is slow: its connections go on here, and it gets no more until it answers.
    async fn withdraw_late(&mut self) -> Result<(), TalkError> {
        let now = Instant::now();
        let late: Vec<u64> =
            self.pending.iter().filter(|(_, pending)| pending.until <= now).map(|(id, _)| *id).collect();
        for id in late {
            self.silent = true;
            count(&self.tally.withdrawn);
            // From here on an Accept comes too late. The connection goes on when the child has been told: if this process
            // dies, the child goes on with what it knows of all others.
            let pending = self.pending.remove(&id);
            debug!(target: "restart", id, "a connection is taken back: the process that leads does not answer");
            say(&self.channel, Body::Withdraw(Withdraw { id })).await?;
            drop(pending);
        }
        Ok(())
    }
}

fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

/// For the child to answer an offer; a connection is still meanwhile.
const OFFER_LIMIT: Duration = Duration::from_secs(1);
/// Over all workers; each costs descriptors on the way.
const AT_ONCE: usize = 64;
