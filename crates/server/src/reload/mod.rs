//! Reads the configuration again and applies what differs, in place: SIGHUP, `proxyctl reload`, `--watch`.
//!
//! A configuration that is wrong, or that needs an address that cannot be bound, changes nothing. What did not change keeps
//! its connections, pools and counters. New listeners start before those that they replace drain, clusters warm before
//! anything routes to them, and go only when nothing does any more.

mod plan;
mod watch;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use proxy_config::settings::NamedFile;
use proxy_config::{Compared, Finding};
use proxy_control::reload::{Applied, Outcome};
use proxy_stats::{EventKind, Scope, stats_block};
use tokio::sync::{mpsc, watch as watch_channel};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::admin::ConfigDump;
use crate::clusters::ClusterManager;
use crate::events::Events;
use crate::listeners::{ListenerError, ListenerManager};
use crate::loading::Source;
use crate::resources::Resources;
use plan::{Plan, Uncertain};
pub(crate) use watch::watch;

stats_block! {
    /// `config_reload.*`.
    struct ReloadStats {
        counters: attempt, failure, success;
    }
}

/// Knows what configuration is in use, and reads it again; lives on main.
pub(crate) struct Reloader {
    source: Source,
    clusters: Rc<ClusterManager>,
    listeners: Rc<ListenerManager>,
    current: RefCell<Current>,
    /// Clusters that are not in the configuration any more, and may still be routed to.
    leaving: RefCell<HashSet<String>>,
    uncertain: RefCell<Uncertain>,
    busy: watch_channel::Sender<bool>,
    /// Somebody who does not wait to hear of it wants the reload that is to begin next.
    wanted: Cell<bool>,
    /// Those who do.
    waiting: RefCell<Vec<Waiting>>,
    stats: ReloadStats,
    events: Events,
    /// Somebody waits for what was replaced or removed to drain.
    drains: Cell<bool>,
}

/// Somebody wants to hear what comes of a reload: a line of [`Outcome`]; another one when what was replaced has ended.
struct Waiting {
    lines: mpsc::Sender<Bytes>,
    until_drained: bool,
}

struct Current {
    compared: Arc<Compared>,
    resources: Arc<Resources>,
}

/// Why a reload is not done.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error("the configuration has errors")]
    Config(Vec<Finding>),
    #[error(transparent)]
    Listener(ListenerError),
    /// Some of it is in use: the next reload goes on.
    #[error("{0}; it is as it was, and so is what comes after it in the configuration")]
    InPart(ListenerError),
    #[error("no thread to read the configuration: {0}")]
    Thread(#[from] tokio::task::JoinError),
}

impl ReloadError {
    fn lines(&self) -> Vec<String> {
        match self {
            ReloadError::Config(findings) => findings.iter().map(ToString::to_string).collect(),
            other => vec![other.to_string()],
        }
    }
}

impl Reloader {
    pub(crate) fn new(
        source: Source,
        (compared, resources): (Compared, Resources),
        clusters: Rc<ClusterManager>,
        listeners: Rc<ListenerManager>,
        root: &Scope,
        events: Events,
    ) -> Rc<Reloader> {
        Rc::new(Reloader {
            source,
            clusters,
            listeners,
            current: RefCell::new(Current { compared: Arc::new(compared), resources: Arc::new(resources) }),
            leaving: RefCell::default(),
            uncertain: RefCell::default(),
            busy: watch_channel::Sender::new(false),
            wanted: Cell::new(false),
            waiting: RefCell::default(),
            stats: ReloadStats::new(&root.scope("config_reload.")),
            events,
            drains: Cell::new(false),
        })
    }

    /// The configuration in use.
    pub(crate) fn config_dump(&self) -> ConfigDump {
        self.current.borrow().resources.dump()
    }

    /// What the configuration in use was read from.
    fn files(&self) -> Vec<NamedFile> {
        self.current.borrow().compared.files.clone()
    }

    /// Resolves when no reload is under way.
    async fn idle(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.busy.subscribe().wait_for(|busy| !busy).await;
    }

    /// Somebody without a wish to hear of it wants a reload.
    pub(crate) fn ask(self: &Rc<Self>) {
        self.wanted.set(true);
        self.begin();
    }

    /// Wants a reload. Lines of [`Outcome`] follow; with `until_drained` a last one when what was replaced has ended.
    pub(crate) fn ask_and_hear(self: &Rc<Self>, until_drained: bool) -> mpsc::Receiver<Bytes> {
        let (lines, heard) = mpsc::channel(2);
        self.waiting.borrow_mut().push(Waiting { lines, until_drained });
        self.begin();
        heard
    }

    /// Reloads, once for all who want it. Who comes while a reload is under way, which may have read the old file, is among
    /// those whom the next one is for.
    fn begin(self: &Rc<Self>) {
        // Set here, and not only when the task gets its turn.
        if self.busy.send_replace(true) {
            return;
        }
        let reloader = Rc::clone(self);
        tokio::task::spawn_local(async move {
            while let Some(waiting) = reloader.next() {
                let outcome = reloader.run().await;
                waiting.into_iter().for_each(|one| reloader.tell(one, &outcome));
            }
            reloader.busy.send_replace(false);
        });
    }

    /// Whom the next reload is for; `None` if it is for nobody who is still there.
    fn next(&self) -> Option<Vec<Waiting>> {
        let mut waiting = self.waiting.take();
        waiting.retain(|one| !one.lines.is_closed());
        (self.wanted.take() || !waiting.is_empty()).then_some(waiting)
    }

    fn tell(self: &Rc<Self>, waiting: Waiting, outcome: &Outcome) {
        let Waiting { lines, until_drained } = waiting;
        // It holds both lines. Whoever has gone does without.
        let _ = lines.try_send(line(outcome));
        if !until_drained || !matches!(outcome, Outcome::Applied(_)) {
            return;
        }
        let reloader = Rc::clone(self);
        tokio::task::spawn_local(async move {
            tokio::select! {
                () = reloader.listeners.drained() => drop(lines.try_send(line(&Outcome::Drained))),
                () = lines.closed() => {}
            }
        });
    }

    async fn run(self: &Rc<Self>) -> Outcome {
        self.stats.attempt.inc();
        let began = Instant::now();
        match self.reload().await {
            Ok(mut applied) => {
                self.stats.success.inc();
                applied.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                let after = began.elapsed();
                info!(target: "config", ?after, "configuration reloaded: {}", applied.summary());
                applied.warnings.iter().for_each(|warning| warn!(target: "config", "{warning}"));
                if !applied.needs_restart.is_empty() {
                    let fields = applied.needs_restart.join(", ");
                    warn!(target: "config", "unchanged until a hot restart: {fields}");
                }
                self.events.reloaded(&applied);
                self.tell_drained();
                Outcome::Applied(Box::new(applied))
            }
            Err(failed) => {
                self.stats.failure.inc();
                let errors = failed.lines();
                errors.iter().for_each(|line| error!(target: "config", "{line}"));
                if !matches!(failed, ReloadError::InPart(_)) {
                    error!(target: "config", "configuration not reloaded, everything is as it was");
                }
                self.events.not_reloaded(&errors);
                Outcome::Failed { errors }
            }
        }
    }

    async fn reload(self: &Rc<Self>) -> Result<Applied, ReloadError> {
        let source = self.source.clone();
        let (compared, resources) = {
            let current = self.current.borrow();
            (Arc::clone(&current.compared), Arc::clone(&current.resources))
        };
        let uncertain = self.uncertain.borrow().clone();
        let planning =
            move || source.load().map(|loaded| Plan::new(&compared, &resources, &uncertain, loaded));
        let plan = tokio::task::spawn_blocking(planning).await?.map_err(ReloadError::Config)?;
        // All that can fail comes before anything changes.
        let mut prepared = Vec::new();
        for listener in &plan.listeners {
            let listener = self.listeners.prepare(Arc::clone(listener));
            prepared.push(listener.map_err(ReloadError::Listener)?);
            tokio::task::yield_now().await;
        }
        for (listener, kept) in &plan.chains {
            let chains = self.listeners.prepare_chains(Arc::clone(listener), kept);
            prepared.push(chains.map_err(ReloadError::Listener)?);
            tokio::task::yield_now().await;
        }
        for clusters in plan.clusters.chunks(CLUSTERS_AT_ONCE) {
            self.clusters.add(clusters.iter().cloned());
            tokio::task::yield_now().await;
        }
        self.clusters.warmed().await;
        for listener in prepared {
            if let Err(error) = self.listeners.commit(listener) {
                self.uncertain.borrow_mut().add(&plan.applied);
                return Err(ReloadError::InPart(error));
            }
            tokio::task::yield_now().await;
        }
        let mut routed = Vec::new();
        for (listener, managers) in &plan.routes {
            routed.extend(self.listeners.replace_routes(listener, managers));
            tokio::task::yield_now().await;
        }
        for everywhere in routed {
            everywhere.await;
        }
        for name in &plan.applied.listeners.removed {
            self.listeners.remove(name);
        }
        let Plan { compared, resources, applied, .. } = plan;
        let stays = |name: &String| !applied.clusters.added.contains(name);
        self.leaving.borrow_mut().retain(stays);
        self.let_go(applied.clusters.removed.clone());
        self.uncertain.take();
        *self.current.borrow_mut() = Current { compared: Arc::new(compared), resources: Arc::new(resources) };
        Ok(applied)
    }

    /// Tells that what was replaced or removed drains, and when it has.
    fn tell_drained(self: &Rc<Self>) {
        let draining = self.listeners.draining();
        if draining == 0 || self.drains.replace(true) {
            return;
        }
        self.events.info(
            EventKind::LISTENER,
            format_args!(
                "what was replaced or removed drains ({draining} listeners or sets of filter chains)"
            ),
        );
        let reloader = Rc::clone(self);
        tokio::task::spawn_local(async move {
            reloader.listeners.drained().await;
            reloader.drains.set(false);
            reloader
                .events
                .info(EventKind::LISTENER, format_args!("what was replaced or removed has drained"));
        });
    }

    /// Removes clusters as soon as no listener that may route to them has a connection left.
    fn let_go(self: &Rc<Self>, clusters: Vec<String>) {
        if clusters.is_empty() {
            return;
        }
        self.leaving.borrow_mut().extend(clusters.iter().cloned());
        let reloader = Rc::clone(self);
        tokio::task::spawn_local(async move {
            // By then all of them have been cut, but for those of later reloads.
            let limit = reloader.listeners.drain_time().saturating_add(LEAVING_GRACE);
            let _ = tokio::time::timeout(limit, reloader.listeners.drained()).await;
            for chunk in clusters.chunks(CLUSTERS_AT_ONCE) {
                for name in chunk {
                    // Not one that has come back.
                    if reloader.leaving.borrow_mut().remove(name) {
                        reloader.clusters.remove(name);
                    }
                }
                tokio::task::yield_now().await;
            }
        });
    }
}

fn line(outcome: &Outcome) -> Bytes {
    let mut line = serde_json::to_vec(outcome).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

/// Main has other things to do in between.
const CLUSTERS_AT_ONCE: usize = 100;
/// So long after the drain time a connection may go on to use a cluster that is gone.
const LEAVING_GRACE: std::time::Duration = std::time::Duration::from_secs(10);
