//! What happens to this process, for `proxytop` and `proxyctl events`: a ring in shared memory that is still there when the process is
//! not. The log says it too, and more; what is told here is what an operator asks for first, on one line, with the time.

use std::fmt;
use std::panic::PanicHookInfo;
use std::time::SystemTime;

use proxy_control::reload::Applied;
use proxy_stats::{EventKind, EventLog, Severity, Store};

/// Where it is written down. Any thread may.
#[derive(Clone, Debug)]
pub(crate) struct Events(EventLog);

impl Events {
    pub(crate) fn of(store: &Store) -> Self {
        Self(store.events())
    }

    pub(crate) fn info(&self, kind: EventKind, text: fmt::Arguments<'_>) {
        self.0.tell(SystemTime::now(), kind, Severity::Info, text);
    }

    /// Something came out well.
    pub(crate) fn success(&self, kind: EventKind, text: fmt::Arguments<'_>) {
        self.0.tell(SystemTime::now(), kind, Severity::Success, text);
    }

    pub(crate) fn warning(&self, kind: EventKind, text: fmt::Arguments<'_>) {
        self.0.tell(SystemTime::now(), kind, Severity::Warning, text);
    }

    pub(crate) fn error(&self, kind: EventKind, text: fmt::Arguments<'_>) {
        self.0.tell(SystemTime::now(), kind, Severity::Error, text);
    }

    /// The configuration was read again.
    pub(crate) fn reloaded(&self, applied: &Applied) {
        self.success(EventKind::RELOAD, format_args!("{}, after {} ms", applied.summary(), applied.took_ms));
        let listeners = &applied.listeners;
        for (what, names) in
            [("added", &listeners.added), ("changed", &listeners.changed), ("removed", &listeners.removed)]
        {
            if !names.is_empty() {
                self.info(EventKind::LISTENER, format_args!("{what}: {}", names.join(", ")));
            }
        }
        if !applied.needs_restart.is_empty() {
            let fields = applied.needs_restart.join(", ");
            self.warning(EventKind::RELOAD, format_args!("unchanged until a hot restart: {fields}"));
        }
    }

    /// The configuration was refused.
    pub(crate) fn not_reloaded(&self, errors: &[String]) {
        let first = errors.first().map_or("", |error| error.as_str());
        match errors.len() {
            0 | 1 => self.error(EventKind::RELOAD, format_args!("refused: {first}")),
            many => self.error(EventKind::RELOAD, format_args!("refused, {many} errors: {first}")),
        }
    }

    pub(crate) fn panicked(&self, panic: &PanicHookInfo<'_>) {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name");
        let payload = panic.payload();
        let said = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(|s| &**s));
        let said = said.unwrap_or("no text");
        match panic.location() {
            Some(place) => self.error(EventKind::PANIC, format_args!("thread {name} at {place}: {said}")),
            None => self.error(EventKind::PANIC, format_args!("thread {name}: {said}")),
        }
    }
}
