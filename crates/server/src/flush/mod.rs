//! The flush: ends an interval of the histograms and has the sinks told what changed.
//!
//! Main only posts and waits: every thread hands over what it recorded, a short-lived thread merges that, and each sink
//! has a thread of its own that walks over the stats and sends. So no sink can hold up main, a worker or another sink.

mod datagram;
mod encoder;
mod ledger;
mod lines;
mod sink;
mod stream;
mod values;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use proxy_config::settings::{Stats, StatsFlush};
use proxy_runtime::Workers;
use proxy_stats::{Interval, Store, TagExtractor, stats_block};
use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use crate::clusters::ClusterManager;
use crate::segment::Onlooker;
use ledger::{Ledger, SinkIndex};
use sink::{Order, SinkThread, Upstream};

stats_block! {
    /// `server.*` as far as it is about flushes.
    struct FlushStats {
        counters: dropped_stat_flushes;
    }
}

/// Flushes the stats of the process; lives on main.
pub(crate) struct Flusher {
    when: StatsFlush,
    store: Store,
    onlooker: Onlooker,
    workers: Rc<Workers>,
    clusters: Rc<ClusterManager>,
    sinks: Vec<SinkThread>,
    stats: FlushStats,
    /// Held while a flush is under way. Resolve when sinks have read what the one before was about.
    flushing: Mutex<Vec<Done>>,
}

/// Resolves when its sender is dropped.
type Done = oneshot::Receiver<()>;

/// What sinks have been told to do.
#[derive(Default)]
struct Orders {
    read: Vec<Done>,
    sent: Vec<Done>,
}

impl Flusher {
    /// Starts the sinks' threads, and the timer if flushes go by one.
    pub(crate) fn start(
        settings: &Stats,
        (store, onlooker): (Store, Onlooker),
        workers: Rc<Workers>,
        clusters: Rc<ClusterManager>,
        tags: &Arc<TagExtractor>,
    ) -> Rc<Flusher> {
        let ledger = Arc::new(Ledger::new(store.clone(), settings.sinks.len()));
        let sinks = settings.sinks.iter().enumerate().filter_map(|(index, sink)| {
            let (ledger, tags) = (Arc::clone(&ledger), Arc::clone(tags));
            SinkThread::start(SinkIndex(index), sink, store.clone(), ledger, tags)
                .inspect_err(|error| tracing::error!(target: "stats", %error, "no thread for a stats sink"))
                .ok()
        });
        let flusher = Rc::new(Flusher {
            when: settings.flush,
            sinks: sinks.collect(),
            stats: FlushStats::new(&store.root().scope("server.")),
            store,
            onlooker,
            workers,
            clusters,
            flushing: Mutex::default(),
        });
        if let StatsFlush::Every(interval) = settings.flush {
            tokio::task::spawn_local(Rc::clone(&flusher).keep_flushing(interval));
        }
        flusher
    }

    async fn keep_flushing(self: Rc<Self>, interval: Duration) {
        let mut ticks = interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.begin();
        }
    }

    /// Somebody asks for stats on the admin port, who will see them as they were before the flush, as in Envoy.
    pub(crate) fn asked_by_admin(self: &Rc<Self>) {
        if self.when == StatsFlush::OnAdmin {
            self.begin();
        }
    }

    fn begin(self: &Rc<Self>) {
        let flusher = Rc::clone(self);
        tokio::task::spawn_local(async move {
            match flusher.flushing.try_lock() {
                Ok(mut last) => *last = flusher.flush(std::mem::take(&mut last)).await.read,
                Err(_) => flusher.stats.dropped_stat_flushes.inc(),
            }
        });
    }

    /// The last flush, when traffic has ended. Waits for the sinks, but not for ever.
    pub(crate) async fn finish(&self) {
        let last = async {
            let mut before = self.flushing.lock().await;
            all(self.flush(std::mem::take(&mut before)).await.sent).await;
        };
        if timeout(LAST_FLUSH, last).await.is_err() {
            tracing::info!(target: "stats", limit = ?LAST_FLUSH, "the last flush is not finished");
        }
    }

    async fn flush(&self, before: Vec<Done>) -> Orders {
        // A sink that has not read the last interval yet would miss it. One that is stuck does.
        let _ = timeout(SINK_GRACE, all(before)).await;
        let store = self.store.clone();
        self.workers.post_all_then(move || store.hand_over()).await;
        self.store.hand_over();
        let (store, onlooker) = (self.store.clone(), self.onlooker.clone());
        let is_told = !self.sinks.is_empty();
        let merge = move || {
            if is_told && onlooker.leads() {
                onlooker.look();
            }
            merge(&store)
        };
        match tokio::task::spawn_blocking(merge).await {
            Ok(interval) => self.order(interval),
            Err(error) => {
                tracing::error!(target: "stats", %error, "histograms are not merged");
                Orders::default()
            }
        }
    }

    fn order(&self, interval: Interval) -> Orders {
        let mut orders = Orders::default();
        for sink in &self.sinks {
            let cluster = sink.cluster().and_then(|name| self.clusters.get(name));
            let upstream = cluster.map(|(info, hosts)| Upstream { info, hosts });
            let ((unread, read), (unsent, sent)) = (oneshot::channel(), oneshot::channel());
            let gauges = self.onlooker.leads();
            if sink.order(Order { interval, gauges, upstream, unread, unsent }) {
                orders.read.push(read);
                orders.sent.push(sent);
            } else {
                // It has not even begun with the flush before the last one.
                self.stats.dropped_stat_flushes.inc();
            }
        }
        orders
    }
}

async fn all(done: Vec<Done>) {
    for one in done {
        let _ = one.await;
    }
}

fn merge(store: &Store) -> Interval {
    let mut merge = store.merge_histograms();
    while merge.advance() {}
    merge.interval()
}

const LAST_FLUSH: Duration = Duration::from_secs(1);
const SINK_GRACE: Duration = Duration::from_millis(500);
