//! Answers that take long to make: rendered by a short-lived thread, sent through a small channel. A reader that is slow stops the
//! thread, a reader that leaves ends it.

use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};
use tracing::error;

use super::answer::{AnswerBody, PIECE_BYTES};

/// How many threads may render at a time; more answers wait for their turn.
#[derive(Clone)]
pub(super) struct Renderers(Arc<Semaphore>);

/// What a rendering writes to.
pub(super) struct Output {
    pieces: mpsc::Sender<Bytes>,
    piece: Vec<u8>,
}

/// The client does not want the rest.
pub(super) struct ClientGone;

impl Renderers {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(THREADS)))
    }

    /// Runs `render` on a thread of its own as soon as there is one to spare. To be called on main.
    pub(super) fn run(
        &self,
        render: impl FnOnce(&mut Output) -> Result<(), ClientGone> + Send + 'static,
    ) -> AnswerBody {
        let (pieces, receiver) = mpsc::channel(QUEUED_PIECES);
        let threads = Arc::clone(&self.0);
        tokio::task::spawn_local(async move {
            let permit = tokio::select! {
                Ok(permit) = threads.acquire_owned() => permit,
                () = pieces.closed() => return,
            };
            let work = move || {
                let _permit = permit;
                let mut output = Output { pieces, piece: Vec::new() };
                if render(&mut output).is_ok() {
                    let _ = output.flush();
                }
            };
            if let Err(error) = thread::Builder::new().name("admin-render".into()).spawn(work) {
                error!(%error, "no thread for an admin answer");
            }
        });
        AnswerBody::Channel(receiver)
    }
}

impl Output {
    /// Where to append. [`Output::sent`] is to be called now and then.
    pub(super) fn piece(&mut self) -> &mut Vec<u8> {
        &mut self.piece
    }

    /// Sends what there is, if it is enough.
    pub(super) fn sent(&mut self) -> Result<(), ClientGone> {
        if self.piece.len() >= PIECE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), ClientGone> {
        let mut all = Bytes::from(std::mem::take(&mut self.piece));
        while !all.is_empty() {
            let piece = all.split_to(all.len().min(LARGEST_PIECE));
            self.pieces.blocking_send(piece).map_err(|_| ClientGone)?;
        }
        Ok(())
    }
}

const THREADS: usize = 4;
const QUEUED_PIECES: usize = 4;
const LARGEST_PIECE: usize = 4 * PIECE_BYTES;
