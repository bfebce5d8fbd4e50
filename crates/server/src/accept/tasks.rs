//! The tasks that serve connections, so that those can be cut which outlast the drain time of what they came in by.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use proxy_net::ConnectionId;
use tokio::task::AbortHandle;

/// Of a filter chain, or of a listener before one is chosen.
#[derive(Default)]
pub(super) struct Tasks {
    running: RefCell<HashMap<ConnectionId, AbortHandle>>,
    cut: Cell<bool>,
}

/// A task among them, until it ends.
pub(super) struct Listed {
    tasks: Rc<Tasks>,
    id: ConnectionId,
}

impl Tasks {
    /// Runs the task that `make` makes, which is to hold what it is given. Once they have been cut it is dropped instead.
    pub(super) fn spawn<F: Future<Output = ()> + 'static>(
        self: &Rc<Self>,
        id: ConnectionId,
        make: impl FnOnce(Listed) -> F,
    ) {
        let task = make(Listed { tasks: Rc::clone(self), id });
        if !self.cut.get() {
            let running = tokio::task::spawn_local(task).abort_handle();
            self.running.borrow_mut().insert(id, running);
        }
    }

    /// Drops all of them, and those to come. Returns how many there were.
    pub(super) fn cut(&self) -> usize {
        self.cut.set(true);
        let running = self.running.take();
        running.values().for_each(AbortHandle::abort);
        running.len()
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.tasks.running.borrow_mut().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_cut_that_have_not_ended() {
        proxy_runtime::local_runtime().unwrap().block_on(async {
            let tasks = Rc::new(Tasks::default());
            let held = Rc::new(());
            let spawn = |id, ends: bool| {
                let held = Rc::clone(&held);
                tasks.spawn(ConnectionId(id), move |listed| async move {
                    let _held = (held, listed);
                    if !ends {
                        std::future::pending().await
                    }
                });
            };
            (0..3).for_each(|id| spawn(id, id == 0));
            while Rc::strong_count(&held) > 3 {
                tokio::task::yield_now().await;
            }
            assert_eq!(tasks.cut(), 2);
            spawn(3, false);
            while Rc::strong_count(&held) > 1 {
                tokio::task::yield_now().await;
            }
            assert!(tasks.running.borrow().is_empty());
        });
    }
}
