//! The stats of a listener, `listener.<address>.*`, and of its connections; the admin port has them too.

use std::rc::Rc;
use std::sync::Arc;

use proxy_runtime::{Instant, clock};
use proxy_stats::{Declared, Scope, stats_block};

stats_block! {
    /// `listener.<address>.*`.
    pub struct ListenerStats {
        counters: downstream_cx_destroy, downstream_cx_overflow, downstream_cx_total, downstream_global_cx_overflow,
            downstream_listener_filter_error, downstream_listener_filter_remote_close, downstream_pre_cx_timeout,
            no_filter_chain_match,
            /// Ours: times that the system gave no connection, for lack of descriptors above all.
            downstream_accept_error;
        gauges: downstream_cx_active: Accumulate, downstream_pre_cx_active: Accumulate;
        histograms: connections_accepted_per_socket_event, downstream_cx_length_ms;
    }
}

stats_block! {
    /// `listener.<address>.worker_<index>.*`, or `main_thread` in its place.
    pub struct ThreadStats {
        counters: downstream_cx_total;
        gauges: downstream_cx_active: Accumulate;
    }
}

impl ListenerStats {
    /// All of Envoy's names under `listener`.
    pub(crate) fn under(listener: &Scope) -> ListenerStats {
        listener.declare(&LISTENER_DECLARED);
        ListenerStats::new(listener)
    }
}

/// There are no actions on overload.
const LISTENER_DECLARED: Declared = Declared {
    counters: &["downstream_cx_overload_reject", "downstream_cx_transport_socket_connect_timeout"],
    gauges: &[],
    histograms: &[],
};

/// Of listeners whose filters come from the configuration: nothing of it can be missing.
pub(crate) const CONFIGURED_DECLARED: Declared = Declared {
    counters: &["extension_config_missing", "network_extension_config_missing"],
    gauges: &[],
    histograms: &[],
};

/// A listener's stats as one thread counts in them.
pub(crate) struct ListenerCounts {
    pub(crate) stats: Arc<ListenerStats>,
    thread: ThreadStats,
}

/// Counts a connection of a listener for as long as it lives.
pub(crate) struct ListenerConnection {
    counts: Rc<ListenerCounts>,
    opened: Instant,
    /// It goes on in another process, which will count its end.
    moved: bool,
}

impl ListenerCounts {
    /// `thread` is the scope of the calling thread's own counters.
    pub(crate) fn new(stats: Arc<ListenerStats>, thread: &Scope) -> Rc<ListenerCounts> {
        Rc::new(ListenerCounts { stats, thread: ThreadStats::new(thread) })
    }
}

impl ListenerConnection {
    pub(crate) fn new(counts: &Rc<ListenerCounts>, opened: Instant) -> ListenerConnection {
        let ListenerCounts { stats, thread } = &**counts;
        stats.downstream_cx_total.inc();
        thread.downstream_cx_total.inc();
        ListenerConnection::resumed(counts, opened)
    }

    /// One that another process has counted as begun.
    pub(crate) fn resumed(counts: &Rc<ListenerCounts>, opened: Instant) -> ListenerConnection {
        counts.stats.downstream_cx_active.inc();
        counts.thread.downstream_cx_active.inc();
        ListenerConnection { counts: Rc::clone(counts), opened, moved: false }
    }

    /// It goes on in another process.
    pub(crate) fn moved(mut self) {
        self.moved = true;
    }
}

impl Drop for ListenerConnection {
    fn drop(&mut self) {
        let ListenerCounts { stats, thread } = &*self.counts;
        stats.downstream_cx_active.dec();
        thread.downstream_cx_active.dec();
        if self.moved {
            return;
        }
        stats.downstream_cx_destroy.inc();
        let length = clock::now().saturating_duration_since(self.opened);
        stats.downstream_cx_length_ms.record_milliseconds(length);
    }
}
