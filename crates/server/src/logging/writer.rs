//! The thread that writes log lines, and the bounded queue before it.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Where lines go.
pub(super) enum Sink {
    Stderr,
    /// Every line is one write with O_APPEND, so that processes can share the file.
    File {
        path: PathBuf,
        file: File,
    },
    #[cfg(test)]
    Test(Box<dyn Write + Send>),
}

/// The sending end; what does not fit is counted.
#[derive(Clone)]
pub(super) struct Writer {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

pub(super) enum Message {
    Line(Vec<u8>),
    Reopen,
    /// Answered when all before it is written.
    Finish(std::sync::mpsc::Sender<()>),
}

pub(super) fn spawn(sink: Sink) -> io::Result<(Writer, JoinHandle<()>)> {
    let (queue, messages) = sync_channel(QUEUE_LINES);
    let dropped = Arc::new(AtomicU64::new(0));
    let mut drain = Drain { sink, dropped: Arc::clone(&dropped), reported: 0 };
    let thread = thread::Builder::new().name("log".into()).spawn(move || drain.run(&messages))?;
    Ok((Writer { queue, dropped }, thread))
}

impl Writer {
    pub(super) fn send(&self, message: Message) {
        if let Err(TrySendError::Full(Message::Line(_))) = self.queue.try_send(message) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn dropped_lines(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until what was sent before is written, at most `limit`.
    pub(super) fn finish(&self, limit: Duration) {
        let (done, is_done) = channel();
        if self.queue.try_send(Message::Finish(done)).is_ok() {
            let _ = is_done.recv_timeout(limit);
        }
    }
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { writer: self, bytes: Vec::new() }
    }
}

/// One line being formatted; sent when dropped.
pub(super) struct Line<'a> {
    writer: &'a Writer,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if self.bytes.is_empty() {
            return;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.len() > LINE_BYTES {
            bytes.truncate(LINE_BYTES - CUT.len());
            bytes.extend_from_slice(CUT);
        }
        self.writer.send(Message::Line(bytes));
    }
}

struct Drain {
    sink: Sink,
    dropped: Arc<AtomicU64>,
    reported: u64,
}

impl Drain {
    fn run(&mut self, messages: &Receiver<Message>) {
        loop {
            let message = match messages.try_recv() {
                Ok(message) => message,
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {
                    self.report_dropped();
                    match messages.recv() {
                        Ok(message) => message,
                        Err(_) => return,
                    }
                }
            };
            match message {
                Message::Line(line) => self.sink.write(&line),
                Message::Reopen => self.sink.reopen(),
                Message::Finish(done) => {
                    self.report_dropped();
                    let _ = done.send(());
                }
            }
        }
    }

    fn report_dropped(&mut self) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > self.reported {
            let lost = dropped - self.reported;
            self.sink.write(
                format!("{lost} log lines were lost: they came faster than they could be written\n")
                    .as_bytes(),
            );
            self.reported = dropped;
        }
    }
}

impl Sink {
    pub(super) fn file(path: &Path) -> io::Result<Self> {
        let file = File::options().append(true).create(true).open(path)?;
        Ok(Self::File { path: path.to_owned(), file })
    }

    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Self::Stderr) && io::stderr().is_terminal()
    }

    /// An error has nowhere to be told; the next line tries again.
    fn write(&mut self, line: &[u8]) {
        let _ = match self {
            Self::Stderr => io::stderr().write_all(line),
            Self::File { file, .. } => file.write_all(line),
            #[cfg(test)]
            Self::Test(target) => target.write_all(line),
        };
    }

    fn reopen(&mut self) {
        let Self::File { path, .. } = self else { return };
        match Self::file(path) {
            Ok(new) => *self = new,
            Err(error) => {
                let line = format!(
                    "log file {} cannot be opened again, the old one stays: {error}\n",
                    path.display()
                );
                self.write(line.as_bytes());
            }
        }
    }
}

/// With [`LINE_BYTES`] the most that waiting lines can hold: 32 MiB.
const QUEUE_LINES: usize = 4096;
const LINE_BYTES: usize = 8 << 10;
const CUT: &[u8] = b" [cut]\n";
