//! The one way into a worker: closures, in the order posted, each run between two events of the worker's loop.
//!
//! The queue has no limit of its own. Only code of this process posts: a change of configuration or an administrator's
//! order, and whoever posts many waits for them ([`crate::Workers::post_all_then`]); or a connection for another worker, of
//! which there are no more than the process has descriptors.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{mpsc, oneshot};

/// Something to run on a worker.
pub type Mail = Box<dyn FnOnce() + Send>;

pub(crate) enum Message {
    Run(Mail),
    Stop,
}

#[derive(Clone)]
pub(crate) struct Sender {
    queue: mpsc::UnboundedSender<Message>,
}

pub(crate) struct Receiver {
    queue: mpsc::UnboundedReceiver<Message>,
}

pub(crate) fn channel() -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Sender { queue: sender }, Receiver { queue: receiver })
}

impl Sender {
    /// False when the worker is gone; the closure is dropped then.
    pub(crate) fn post(&self, mail: Mail) -> bool {
        self.queue.send(Message::Run(mail)).is_ok()
    }

    pub(crate) fn stop(&self) {
        // A worker that is gone has stopped already.
        let _ = self.queue.send(Message::Stop);
    }
}

impl Receiver {
    /// Runs mail until told to stop. A closure that panics is told in the log and harms nobody else.
    pub(crate) async fn run(mut self) {
        while let Some(Message::Run(mail)) = self.queue.recv().await {
            crate::clock::refresh();
            if catch_unwind(AssertUnwindSafe(mail)).is_err() {
                tracing::error!("a closure posted to a worker panicked");
            }
        }
    }
}

/// Resolves when every worker has done what it was asked. May be dropped: it is done anyway.
#[derive(Debug)]
pub struct OnAllWorkers(oneshot::Receiver<()>);

/// Each worker's errand holds a copy; dropping the last one resolves the wait. A worker that dies, or a closure that
/// panics, drops its copy too, so the wait always ends.
#[derive(Clone)]
pub(crate) struct Countdown {
    _last: Arc<Last>,
}

struct Last(Option<oneshot::Sender<()>>);

impl Future for OnAllWorkers {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(context).map(|_| ())
    }
}

impl Drop for Last {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            // Nobody may be waiting.
            let _ = done.send(());
        }
    }
}

pub(crate) fn countdown() -> (Countdown, OnAllWorkers) {
    let (sender, receiver) = oneshot::channel();
    (Countdown { _last: Arc::new(Last(Some(sender))) }, OnAllWorkers(receiver))
}
