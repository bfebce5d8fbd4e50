//! Answers that take long to make: rendered by a short-lived thread, sent through a small channel. A reader that is slow stops the
//! thread, a reader that leaves ends it.

use std::io::Write as _;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use flate2::write::GzEncoder;
use tokio::sync::{Semaphore, mpsc};
use tracing::error;

use super::answer::PIECE_BYTES;
use super::gzip::encoder;

/// How many threads may render at a time; more answers wait for their turn.
#[derive(Clone)]
pub(super) struct Renderers(Arc<Semaphore>);

/// Writes an answer, on a thread of its own.
pub(super) type Render = Box<dyn FnOnce(&mut Output) -> Result<(), ClientGone> + Send>;

/// What a rendering writes to.
pub(super) struct Output {
    pieces: mpsc::Sender<Bytes>,
    piece: Vec<u8>,
    gzip: Option<GzEncoder<Vec<u8>>>,
}

/// The client does not want the rest.
pub(super) struct ClientGone;

impl Renderers {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(THREADS)))
    }

    /// Runs `render` on a thread of its own as soon as there is one to spare. To be called on main.
    pub(super) fn run(&self, render: Render, gzip: bool) -> mpsc::Receiver<Bytes> {
        let (pieces, receiver) = mpsc::channel(QUEUED_PIECES);
        let threads = Arc::clone(&self.0);
        tokio::task::spawn_local(async move {
            let permit = tokio::select! {
                Ok(permit) = threads.acquire_owned() => permit,
                () = pieces.closed() => return,
            };
            let work = move || {
                let _permit = permit;
                let mut output = Output { pieces, piece: Vec::new(), gzip: gzip.then(encoder) };
                if render(&mut output).is_ok() {
                    let _ = output.finish();
                }
            };
            if let Err(error) = thread::Builder::new().name("admin-render".into()).spawn(work) {
                error!(%error, "no thread for an admin answer");
            }
        });
        receiver
    }
}

impl Output {
    /// Where to append. [`Output::sent`] is to be called now and then.
    pub(super) fn piece(&mut self) -> &mut Vec<u8> {
        &mut self.piece
    }

    /// Sends what there is, if it is enough.
    pub(super) fn sent(&mut self) -> Result<(), ClientGone> {
        if self.piece.len() < PIECE_BYTES {
            return Ok(());
        }
        let Some(gzip) = &mut self.gzip else { return self.send() };
        // Writing to memory cannot fail.
        let _ = gzip.write_all(&self.piece);
        self.piece.clear();
        if gzip.get_ref().len() < PIECE_BYTES {
            return Ok(());
        }
        std::mem::swap(&mut self.piece, gzip.get_mut());
        self.send()
    }

    fn finish(mut self) -> Result<(), ClientGone> {
        if let Some(mut gzip) = self.gzip.take() {
            let _ = gzip.write_all(&self.piece);
            self.piece = gzip.finish().unwrap_or_default();
        }
        self.send()
    }

    fn send(&mut self) -> Result<(), ClientGone> {
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
