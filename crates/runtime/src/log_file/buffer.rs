//! A worker's buffer for one file.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::queue::{Lines, Queue};
use super::{FlushOptions, LogFile};
use crate::{Timer, clock, worker_local};

/// Lines of this worker that wait to be handed to the file's thread; all loggers of a file on a worker share one. What is
/// left is handed over when it is dropped.
pub struct LineBuffer {
    queue: Arc<Queue>,
    options: FlushOptions,
    lines: RefCell<Pending>,
}

#[derive(Default)]
struct Pending {
    lines: Lines,
    /// Something was handed over before.
    begun: bool,
    /// A task will hand over what there is.
    timed: bool,
}

/// A worker's buffers by file.
#[derive(Default)]
struct Buffers(RefCell<HashMap<*const Queue, Weak<LineBuffer>>>);

impl LogFile {
    /// This worker's buffer for the file.
    pub fn on_this_worker(&self) -> Rc<LineBuffer> {
        let buffers = worker_local::get::<Buffers>().unwrap_or_else(|| {
            let buffers = Rc::<Buffers>::default();
            worker_local::insert(Rc::clone(&buffers));
            buffers
        });
        let mut buffers = buffers.0.borrow_mut();
        buffers.retain(|_, buffer| buffer.strong_count() > 0);
        let key = Arc::as_ptr(&self.queue);
        if let Some(buffer) = buffers.get(&key).and_then(Weak::upgrade) {
            return buffer;
        }
        self.queue.add_buffer();
        let buffer = Rc::new(LineBuffer {
            queue: Arc::clone(&self.queue),
            options: self.options,
            lines: RefCell::default(),
        });
        buffers.insert(key, Rc::downgrade(&buffer));
        buffer
    }
}

impl LineBuffer {
    /// Adds a line, which `write` puts at the end of the buffer that it is given. On a worker.
    pub fn append(self: &Rc<Self>, write: impl FnOnce(&mut Vec<u8>)) {
        let mut pending = self.lines.borrow_mut();
        let before = pending.lines.bytes.len();
        write(&mut pending.lines.bytes);
        let length = pending.lines.bytes.len();
        pending.lines.count += 1;
        let stats = &self.queue.stats.counts;
        stats.write_buffered.inc();
        stats.write_total_buffered.add((length - before) as i64);
        // The first line goes at once, as in Envoy: who sets a log up wants to see that it works.
        if length >= self.options.min_size || !std::mem::replace(&mut pending.begun, true) {
            self.hand_over(&mut pending);
        } else if !std::mem::replace(&mut pending.timed, true) {
            self.flush_later();
        }
    }

    fn flush_later(self: &Rc<Self>) {
        let deadline = clock::now() + self.options.interval;
        let buffer = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            let timer = Timer::new();
            timer.set(deadline);
            timer.expired().await;
            let Some(buffer) = buffer.upgrade() else { return };
            let mut pending = buffer.lines.borrow_mut();
            pending.timed = false;
            if pending.lines.count > 0 {
                buffer.queue.stats.counts.flushed_by_timer.inc();
                buffer.hand_over(&mut pending);
            }
        });
    }

    fn hand_over(&self, pending: &mut Pending) {
        let lines = std::mem::take(&mut pending.lines);
        if lines.count > 0 {
            pending.lines.bytes = self.queue.hand_over(lines);
        }
    }
}

impl Drop for LineBuffer {
    fn drop(&mut self) {
        let mut pending = std::mem::take(&mut *self.lines.borrow_mut());
        self.hand_over(&mut pending);
        self.queue.remove_buffer();
    }
}
