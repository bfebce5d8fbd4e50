//! The new process takes over connections. It owns one when the old process says Release, and does not touch its streams
//! before. If the old one dies without an end mark, all that it has accepted are its own: nobody else can go on with them.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use prost::Message;
use proxy_control::Generation;
use proxy_control::restart::message::{Accept, Offer, Refuse, StopOffering};
use proxy_control::restart::{Body, Channel, ChannelError};
use proxy_net::MovedConnection;
use proxy_runtime::{WorkerIndex, Workers};
use tokio::sync::{Notify, mpsc};
use tracing::{debug, info};

use super::fault::{self, Place};
use super::{Leadership, TalkError, say};
use crate::accept;

/// Connections that arrive from the process before.
pub(crate) struct Arrivals {
    channel: Channel,
    workers: Rc<Workers>,
    /// Accepted or being looked at, by the number of the offer.
    lent: HashMap<u64, Lent>,
    leadership: Rc<Leadership>,
    predecessor: Generation,
    next_worker: usize,
    verdicts: mpsc::UnboundedSender<Verdict>,
    decided: mpsc::UnboundedReceiver<Verdict>,
    arrived: u64,
}

struct Lent {
    connection: MovedConnection,
    descriptors: Vec<OwnedFd>,
    worker: WorkerIndex,
    accepted: bool,
}

/// Whether a worker would take a connection.
struct Verdict {
    id: u64,
    verdict: Result<(), &'static str>,
}

impl Arrivals {
    pub(crate) fn new(
        channel: Channel,
        workers: Rc<Workers>,
        leadership: Rc<Leadership>,
        predecessor: Generation,
    ) -> Arrivals {
        let (verdicts, decided) = mpsc::unbounded_channel();
        Arrivals {
            channel,
            workers,
            lent: HashMap::new(),
            leadership,
            predecessor,
            next_worker: 0,
            verdicts,
            decided,
            arrived: 0,
        }
    }

    /// Takes what comes until the old process has no more, or is gone. `stop` asks it for no more.
    pub(crate) async fn run(mut self, stop: Rc<Notify>) {
        let ended = self.receive(&stop).await;
        if ended.is_err() {
            self.take_from_dead().await;
        }
        let arrived = self.arrived;
        match ended {
            Ok(()) => {
                info!(target: "restart", arrived, "the process before this one has handed over all it could")
            }
            Err(error) => {
                info!(target: "restart", arrived, %error, "the process before this one hands over no more");
            }
        }
    }

    async fn receive(&mut self, stop: &Notify) -> Result<(), TalkError> {
        loop {
            tokio::select! {
                biased;
                Some(verdict) = self.decided.recv() => self.answer(verdict).await?,
                () = stop.notified() => say(&self.channel, Body::StopOffering(StopOffering {})).await?,
                received = self.channel.receive() => {
                    let received = match received {
                        Ok(received) => received,
                        // The offer that it was is withdrawn in time.
                        Err(error @ (ChannelError::Malformed(_) | ChannelError::DescriptorsLost)) => {
                            debug!(target: "restart", %error, "a connection is not taken");
                            continue;
                        }
                        Err(error) => return Err(error.into()),
                    };
                    match received.body {
                        Body::Offer(offer) => self.look_at(offer, received.descriptors).await?,
                        Body::Release(release) => self.take(release.id),
                        Body::Withdraw(withdraw) => drop(self.lent.remove(&withdraw.id)),
                        Body::End(_) => return Ok(()),
                        _ => {}
                    }
                }
            }
        }
    }

    /// Asks a worker whether it would take the connection.
    async fn look_at(&mut self, offer: Offer, descriptors: Vec<OwnedFd>) -> Result<(), TalkError> {
        let id = offer.id;
        let Ok(connection) = MovedConnection::decode(&*offer.state) else {
            return self.answer(Verdict { id, verdict: Err("its state cannot be read") }).await;
        };
        let count = self.workers.count().max(1);
        let worker = WorkerIndex((self.next_worker % count) as u16);
        self.next_worker += 1;
        let (verdicts, asked) = (self.verdicts.clone(), connection.clone());
        self.lent.insert(id, Lent { connection, descriptors, worker, accepted: false });
        self.workers.post(
            worker,
            Box::new(move || {
                // Main is gone only when the process ends.
                let _ = verdicts.send(Verdict { id, verdict: accept::would_adopt(&asked) });
            }),
        );
        Ok(())
    }

    async fn answer(&mut self, verdict: Verdict) -> Result<(), TalkError> {
        let Verdict { id, verdict } = verdict;
        match verdict {
            Ok(()) => {
                // Otherwise it has been withdrawn meanwhile.
                let Some(lent) = self.lent.get_mut(&id) else { return Ok(()) };
                lent.accepted = true;
                say(&self.channel, Body::Accept(Accept { id })).await?;
                fault::at(Place::ChildAccepted);
                Ok(())
            }
            Err(text) => {
                self.lent.remove(&id);
                say(&self.channel, Body::Refuse(Refuse { id, text: text.to_owned() })).await
            }
        }
    }

    fn take(&mut self, id: u64) {
        let Some(Lent { connection, descriptors, worker, .. }) = self.lent.remove(&id) else { return };
        self.arrived += 1;
        self.workers.post(worker, Box::new(move || accept::adopt(connection, descriptors)));
    }

    /// The channel broke. A process that lives goes on with what it has not released; that of a dead one is ours.
    async fn take_from_dead(&mut self) {
        if !self.leadership.died(self.predecessor).await {
            return;
        }
        while self.lent.values().any(|lent| !lent.accepted) {
            let Some(Verdict { id, verdict }) = self.decided.recv().await else { return };
            match (verdict, self.lent.get_mut(&id)) {
                (Ok(()), Some(lent)) => lent.accepted = true,
                _ => drop(self.lent.remove(&id)),
            }
        }
        let ids: Vec<u64> = self.lent.keys().copied().collect();
        ids.into_iter().for_each(|id| self.take(id));
    }
}
