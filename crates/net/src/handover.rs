//! A worker's part in a hot restart: connections that can go on in another process are offered to it.
//!
//! The connection's own task offers it and waits for the answer; meanwhile it neither reads nor writes, and keeps the
//! stream. Only when the other process has accepted does it drop the stream, without shutting it down, and say so.

use std::cell::RefCell;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::task::{Context, Poll};

use proxy_runtime::{Drain, DrainGuard};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Whether connections of this worker are to be offered, and to whom. One per worker, in its
/// [`worker_local`](proxy_runtime::worker_local) values.
pub struct Handover {
    wanted: Drain,
    at_once: Semaphore,
    offers: RefCell<Option<mpsc::UnboundedSender<Offered>>>,
}

/// One connection's view of it: whether to offer itself. After a refusal it does not do so again.
pub struct Mobility {
    wanted: DrainGuard,
    stays: std::cell::Cell<bool>,
}

/// A connection on offer.
#[derive(Debug)]
pub struct Offered {
    /// A [`MovedConnection`](crate::MovedConnection), encoded.
    pub state: Vec<u8>,
    /// Duplicates: the stream first, then what the filter adds.
    pub descriptors: Vec<OwnedFd>,
    /// Answered when the other process accepts, dropped when it does not.
    pub answer: oneshot::Sender<Receipt>,
}

/// The other process takes the connection, once [`Receipt::released`] has been called. Dropping it keeps the connection.
#[derive(Debug)]
pub struct Receipt {
    id: u64,
    answers: mpsc::UnboundedSender<Given>,
    released: bool,
}

/// What became of a [`Receipt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    pub id: u64,
    /// The streams are dropped here: the connection is the other process's.
    pub released: bool,
}

impl Default for Handover {
    fn default() -> Self {
        Self { wanted: Drain::new(), at_once: Semaphore::new(AT_ONCE), offers: RefCell::default() }
    }
}

impl Handover {
    /// Every connection that can be moved is to be offered through `offers`, now or as soon as it can be.
    pub fn begin(&self, offers: mpsc::UnboundedSender<Offered>) {
        self.offers.replace(Some(offers));
        self.wanted.close();
    }

    /// No connection is offered any more.
    pub fn end(&self) {
        self.offers.replace(None);
        self.wanted.reopen();
    }

    /// For one connection.
    pub fn mobility(&self) -> Mobility {
        Mobility { wanted: self.wanted.guard(), stays: std::cell::Cell::new(false) }
    }

    /// Offers a connection. `None`: it stays. Waits for its turn, since each costs descriptors.
    ///
    /// # Errors
    /// A stream cannot be duplicated: there are no descriptors left.
    pub async fn offer(&self, state: Vec<u8>, streams: &[BorrowedFd<'_>]) -> io::Result<Option<Receipt>> {
        // Closed never.
        let Ok(_turn) = self.at_once.acquire().await else { return Ok(None) };
        let Some(offers) = self.offers.borrow().clone() else { return Ok(None) };
        let duplicates = streams.iter().map(|stream| stream.try_clone_to_owned());
        let descriptors = duplicates.collect::<io::Result<_>>()?;
        let (answer, answered) = oneshot::channel();
        if offers.send(Offered { state, descriptors, answer }).is_err() {
            return Ok(None);
        }
        Ok(answered.await.ok())
    }
}

impl Mobility {
    /// Whether the connection is to offer itself; a plain load.
    pub fn is_wanted(&self) -> bool {
        self.wanted.is_draining() && !self.stays.get()
    }

    /// Ready once it is. Only the latest context is woken.
    pub fn poll_wanted(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.stays.get() { Poll::Pending } else { self.wanted.poll_draining(context) }
    }

    /// It was not taken: it ends here.
    pub fn stay(&self) {
        self.stays.set(true);
    }

    /// Whether it was not taken, so that it had better end soon.
    pub fn stays(&self) -> bool {
        self.stays.get()
    }
}

impl Receipt {
    /// What became of it is told through `answers`.
    pub fn new(id: u64, answers: mpsc::UnboundedSender<Given>) -> Receipt {
        Receipt { id, answers, released: false }
    }

    /// The connection's streams have been dropped in this process, and not been shut down.
    pub fn released(mut self) {
        self.released = true;
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        // When main does not listen any more, the process is ending, which closes the channel to the other one.
        let _ = self.answers.send(Given { id: self.id, released: self.released });
    }
}

/// Connections of a worker that are on offer at a time.
const AT_ONCE: usize = 8;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;

    use super::*;

    fn run<F: Future>(future: F) -> F::Output {
        proxy_runtime::local_runtime().unwrap().block_on(future)
    }

    #[test]
    fn a_stream_is_released_only_when_it_was_accepted_and_dropped() {
        run(async {
            let handover = Rc::new(Handover::default());
            let (offers, mut offered) = mpsc::unbounded_channel();
            let (answers, mut given) = mpsc::unbounded_channel();
            let mobility = handover.mobility();
            assert!(!mobility.is_wanted());
            handover.begin(offers);
            assert!(mobility.is_wanted());
            let (mut theirs, ours) = UnixStream::pair().unwrap();
            let offering = Rc::clone(&handover);
            let task = tokio::task::spawn_local(async move {
                let receipt = offering.offer(b"state".to_vec(), &[ours.as_fd()]).await.unwrap().unwrap();
                drop(ours);
                receipt.released();
            });
            let offer = offered.recv().await.unwrap();
            assert_eq!(offer.state, b"state");
            assert!(given.try_recv().is_err());
            offer.answer.send(Receipt::new(7, answers)).unwrap();
            assert_eq!(given.recv().await, Some(Given { id: 7, released: true }));
            task.await.unwrap();
            // The duplicate keeps the stream open for whoever has it.
            let mut moved: Vec<UnixStream> = offer.descriptors.into_iter().map(UnixStream::from).collect();
            moved[0].write_all(b"x").unwrap();
            drop(moved);
            let mut read = String::new();
            theirs.read_to_string(&mut read).unwrap();
            assert_eq!(read, "x");
        });
    }

    #[test]
    fn what_nobody_answers_stays() {
        run(async {
            let handover = Handover::default();
            let (offers, mut offered) = mpsc::unbounded_channel();
            let (_theirs, ours) = UnixStream::pair().unwrap();
            handover.begin(offers);
            let streams = [ours.as_fd()];
            let (answer, ()) = tokio::join!(handover.offer(Vec::new(), &streams), async {
                drop(offered.recv().await);
            });
            assert!(answer.unwrap().is_none());
            let mobility = handover.mobility();
            mobility.stay();
            assert!(!mobility.is_wanted());
            handover.end();
            assert!(handover.offer(Vec::new(), &streams).await.unwrap().is_none());
        });
    }

    #[test]
    fn a_receipt_that_is_not_used_says_so() {
        let (answers, mut given) = mpsc::unbounded_channel();
        drop(Receipt::new(1, answers));
        assert_eq!(given.try_recv(), Ok(Given { id: 1, released: false }));
    }
}
