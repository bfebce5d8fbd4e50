//! A sink: a thread that waits for a flush, walks over the stats, and sends what its receiver does not know.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use proxy_config::settings::{StatsSink, StatsTransport};
use proxy_net::Address;
use proxy_stats::{FlushMark, ImportMode, Interval, MetricId, MetricKind, Store, TagExtractor, Value};
use proxy_upstream::{ClusterInfo, HostSet};
use tokio::sync::oneshot;

use super::datagram::Datagrams;
use super::encoder::Encoder;
use super::ledger::{Ledger, SinkIndex};
use super::lines::Lines;
use super::stream::Stream;
use super::values::Values;

/// Main's end of a sink. The thread ends when this is dropped and it is done with what it does.
pub(super) struct SinkThread {
    orders: SyncSender<Order>,
    cluster: Option<Arc<str>>,
}

/// What a sink is told at a flush.
pub(super) struct Order {
    /// The interval whose histograms have been merged.
    pub interval: Interval,
    /// Whether gauges are to be sent: of all processes that live, only the one that leads does.
    pub gauges: bool,
    /// Of a sink that connects to a cluster.
    pub upstream: Option<Upstream>,
    /// Dropped when the sink has taken over the interval's values.
    pub unread: oneshot::Sender<()>,
    /// Dropped when the sink has sent all, or has found that it cannot.
    pub unsent: oneshot::Sender<()>,
}

/// A cluster at the time of a flush.
pub(super) struct Upstream {
    pub info: Arc<ClusterInfo>,
    pub hosts: Arc<HostSet>,
}

/// Why a flush did not reach the receiver, or not wholly. What counters have counted is sent by a later one.
#[derive(Debug, thiserror::Error)]
pub(super) enum SinkError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the cluster has no host to send stats to")]
    NoHost,
    #[error("the receiver takes nothing")]
    Slow,
    #[error("connecting has failed a moment ago")]
    BackingOff,
}

/// The way to a receiver. What was told by lines that are out of our hands is added to `told`, also before an error.
pub(super) trait Transport {
    /// Makes ready to send.
    fn open(&mut self, upstream: Option<&Upstream>, told: &mut Vec<FlushMark>) -> Result<(), SinkError>;

    /// Sends `lines`, which is empty afterwards, or of no more use.
    fn send(&mut self, lines: &mut Lines, told: &mut Vec<FlushMark>) -> Result<(), SinkError>;

    /// After all lines of a flush.
    fn finish(&mut self, told: &mut Vec<FlushMark>) -> Result<(), SinkError>;
}

impl SinkThread {
    pub(super) fn start(
        index: SinkIndex,
        settings: &StatsSink,
        store: Store,
        ledger: Arc<Ledger>,
        tags: Arc<TagExtractor>,
    ) -> io::Result<SinkThread> {
        let (orders, waiting) = sync_channel(1);
        let cluster = match &settings.transport {
            StatsTransport::Tcp { cluster } => Some(Arc::clone(cluster)),
            StatsTransport::Datagram { .. } => None,
        };
        let settings = settings.clone();
        let run = move || Sink::new(index, &settings, store, ledger, tags).run(&waiting);
        thread::Builder::new().name("stats-sink".into()).spawn(run)?;
        Ok(SinkThread { orders, cluster })
    }

    /// The cluster whose hosts the sink is to be told.
    pub(super) fn cluster(&self) -> Option<&str> {
        self.cluster.as_deref()
    }

    /// False when the sink is busy and another order waits already.
    pub(super) fn order(&self, order: Order) -> bool {
        self.orders.try_send(order).is_ok()
    }
}

struct Sink {
    index: SinkIndex,
    store: Store,
    ledger: Arc<Ledger>,
    encoder: Encoder,
    transport: Box<dyn Transport>,
    lines: Lines,
    /// What has been told and is not yet in the ledger.
    told: Vec<FlushMark>,
    /// Gauges that have not always been 0: the receiver is to hear when they are again.
    gauges: HashSet<MetricId>,
    values: Values,
    /// For the log.
    receiver: String,
    failing: bool,
}

impl Sink {
    fn new(
        index: SinkIndex,
        settings: &StatsSink,
        store: Store,
        ledger: Arc<Ledger>,
        tags: Arc<TagExtractor>,
    ) -> Sink {
        let (transport, receiver): (Box<dyn Transport>, _) = match &settings.transport {
            StatsTransport::Datagram { address, max_bytes } => {
                let address = Address::from(address);
                (Box::new(Datagrams::new(address.clone(), *max_bytes)), address.to_string())
            }
            StatsTransport::Tcp { cluster } => (Box::<Stream>::default(), format!("cluster {cluster}")),
        };
        let encoder = Encoder::new(settings.format, &settings.prefix, tags);
        Sink {
            index,
            store,
            ledger,
            encoder,
            transport,
            lines: Lines::default(),
            told: Vec::new(),
            gauges: HashSet::new(),
            values: Values::default(),
            receiver,
            failing: false,
        }
    }

    fn run(mut self, orders: &Receiver<Order>) {
        while let Ok(Order { interval, gauges, upstream, unread, unsent }) = orders.recv() {
            self.values.take_over(&self.store, interval);
            drop(unread);
            let flushed = self.flush(upstream.as_ref(), gauges);
            self.lines.clear();
            self.settle();
            self.values.end(flushed.is_ok());
            drop(unsent);
            let was_failing = std::mem::replace(&mut self.failing, flushed.is_err());
            let receiver = &self.receiver;
            match flushed {
                Err(error) if was_failing => {
                    tracing::debug!(target: "stats", %receiver, %error, "stats not sent")
                }
                Err(error) => tracing::warn!(target: "stats", %receiver, %error, "stats cannot be sent"),
                Ok(()) if was_failing => tracing::info!(target: "stats", %receiver, "stats are sent again"),
                Ok(()) => {}
            }
        }
    }

    fn flush(&mut self, upstream: Option<&Upstream>, gauges: bool) -> Result<(), SinkError> {
        self.transport.open(upstream, &mut self.told)?;
        self.settle();
        self.send_counters()?;
        self.send_others(gauges)?;
        self.send(Batch::Last)
    }

    fn send_counters(&mut self) -> Result<(), SinkError> {
        let (index, ledger) = (self.index, Arc::clone(&self.ledger));
        ledger.begin_walk(index);
        let mut deltas = self.store.deltas();
        while ledger.read(index, |behind| {
            let all = |id, unmarked: u64| unmarked.saturating_add(behind.of(id));
            deltas.advance_where(
                |id, unmarked| all(id, unmarked) != 0,
                |delta| {
                    let told = FlushMark { id: delta.id, amount: all(delta.id, delta.amount) };
                    self.encoder.counter(delta.name, told, &mut self.lines);
                },
            )
        }) {
            self.send_batch()?;
        }
        ledger.end_walk(index);
        Ok(())
    }

    /// Histograms, and gauges if they are `wanted`.
    fn send_others(&mut self, wanted: bool) -> Result<(), SinkError> {
        let mut walk = self.store.walk();
        let mut seen = HashSet::with_capacity(self.gauges.len());
        loop {
            let Sink { encoder, lines, gauges, values, .. } = self;
            let known = RefCell::new(values);
            let more = walk.advance_where(
                |id, kind, number| match kind {
                    MetricKind::Counter | MetricKind::TextReadout => false,
                    MetricKind::Histogram => known.borrow().has(id),
                    MetricKind::Gauge(ImportMode::HiddenAccumulate) => false,
                    MetricKind::Gauge(_) if !wanted => false,
                    MetricKind::Gauge(_) => number != 0 || gauges.contains(&id),
                },
                |id, metric| match metric.value {
                    Value::Number(number) => {
                        seen.insert(id);
                        encoder.gauge(metric.name, number, lines);
                    }
                    Value::Histogram(_) => {
                        if let Some(unsent) = known.borrow_mut().for_batch(id) {
                            encoder.histogram(metric.name, unsent, lines);
                        }
                    }
                    Value::Text(_) => {}
                },
            );
            if !more {
                break;
            }
            self.send_batch()?;
        }
        if wanted {
            // The rest are gone.
            self.gauges = seen;
        }
        Ok(())
    }

    fn send_batch(&mut self) -> Result<(), SinkError> {
        if self.lines.bytes().len() >= BATCH_BYTES { self.send(Batch::More) } else { Ok(()) }
    }

    fn send(&mut self, batch: Batch) -> Result<(), SinkError> {
        let mut sent = self.transport.send(&mut self.lines, &mut self.told);
        if sent.is_ok() && batch == Batch::Last {
            sent = self.transport.finish(&mut self.told);
        }
        if matches!(sent, Ok(()) | Err(SinkError::Slow)) {
            self.values.batch_taken();
        }
        self.settle();
        sent
    }

    fn settle(&mut self) {
        self.ledger.settle(self.index, self.told.drain(..));
    }
}

/// Whether more lines follow in this flush.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Batch {
    More,
    Last,
}

const BATCH_BYTES: usize = 64 << 10;
