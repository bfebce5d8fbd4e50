//! From options to a process that is ready to serve.

use std::cell::{Cell, OnceCell};
use std::io::Write;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use proxy_config::settings::Watchdogs;
use proxy_config::{Compared, Configuration, Finding};
use proxy_filters::Extensions;
use proxy_net::{ConnectionIds, Handover};
use proxy_runtime::log_file::LogFiles;
use proxy_runtime::{LoopStats, Pulse, Workers, WorkersOptions, worker_local};
use proxy_stats::{EventKind, Store, ThreadIndex};
use proxy_upstream::dns::Resolver;
use proxy_upstream::stats::ThreadClusterStats;
use proxy_upstream::{ClusterMap, ClusterNames};
use tokio::sync::mpsc;

use crate::absent::{self, AbsentStats};
use crate::admin::{self, Admin, AdminPort, AdminState};
use crate::clusters::ClusterManager;
use crate::control_socket::ControlSocket;
use crate::events::Events;
use crate::flush::Flusher;
use crate::life::Running;
use crate::listeners::ListenerManager;
use crate::loading::Source;
use crate::logging::{self, Log};
use crate::options::{ConfigSource, Mode, Options};
use crate::reload::Reloader;
use crate::resources::Resources;
use crate::restart::{ChildError, Inherited, Leadership, Predecessor, Restarts, Successors};
use crate::segment::Segment;
use crate::server_stats::{self, ServerStats};
use crate::service_manager::ServiceManager;
use crate::signals::Signals;
use crate::state::State;
use crate::stats_config::tag_extractor;
use crate::watchdog::GuardDog;

/// Why a proxy did not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Everything wrong with the configuration has been printed.
    #[error("the configuration has errors")]
    Config,
    #[error(transparent)]
    Log(#[from] logging::LogError),
    #[error(transparent)]
    Control(#[from] crate::control_socket::ControlError),
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    #[error(transparent)]
    Listener(#[from] crate::listeners::ListenerError),
    #[error("stats: {0}")]
    Stats(#[from] proxy_stats::StatsError),
    #[error(transparent)]
    Workers(#[from] proxy_runtime::StartError),
    #[error(transparent)]
    Restart(#[from] ChildError),
    #[error("cannot start the main loop: {0}")]
    Loop(#[from] std::io::Error),
}

/// Runs until told to end. `extensions`: filters that the program has besides proxyd's.
///
/// # Errors
/// When it cannot start. What was wrong with the configuration has been printed then.
pub fn run(mut options: Options, extensions: Extensions) -> Result<ExitCode, RunError> {
    let source = Source::new(&options, &extensions);
    let configuration = load(&source)?;
    if options.mode == Mode::Validate {
        return Ok(ExitCode::SUCCESS);
    }
    let (log, _flushed_at_end) = logging::start(&options.log)?;
    raise_descriptor_limit();
    let runtime = match configuration.settings.dispatcher_stats {
        true => proxy_runtime::measured_local_runtime()?,
        false => proxy_runtime::local_runtime()?,
    };
    let mut files = None;
    let result = runtime.block_on(async {
        let signals = Signals::new()?;
        let control = ControlSocket::claim_as_asked(&mut options)?;
        let options = Rc::new(options);
        let (running, predecessor) =
            start(&options, control, (source, configuration), extensions, &log).await?;
        files = Some(running.state.files.clone());
        running.serve(&options, predecessor, &log, signals).await
    });
    // With main's tasks the last handle to the workers goes, and with the workers what they had to log. What hangs on
    // a file in another thread is not waited for.
    runtime.shutdown_timeout(LAST_GRACE);
    if let Some(files) = files {
        files.finish(LAST_GRACE);
    }
    result
}

/// Prints what was found.
fn load(source: &Source) -> Result<Configuration, RunError> {
    let mut stderr = std::io::stderr().lock();
    let mut tell = |findings: &[Finding]| {
        // Nobody to tell if standard error is gone.
        findings.iter().for_each(|finding| drop(writeln!(stderr, "{finding}")));
    };
    match source.load() {
        Ok(configuration) => {
            tell(&configuration.warnings);
            Ok(configuration)
        }
        Err(findings) => {
            tell(&findings);
            Err(RunError::Config)
        }
    }
}

/// As many descriptors as the system allows: a proxy's connections are descriptors.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(target: "main", %error, "cannot raise the limit of open files");
    }
}

/// Starts threads and managers, opens the admin port. Listeners are bound but do not listen yet, unless
/// they do so in the process to take over from.
async fn start(
    options: &Rc<Options>,
    mut control: ControlSocket,
    (source, configuration): (Source, Configuration),
    extensions: Extensions,
    log: &Log,
) -> Result<(Running, Option<Predecessor>), RunError> {
    let started = Instant::now();
    let Configuration { message, settings: bootstrap, warnings, .. } = configuration;
    let message: Arc<[u8]> = message.into();
    let compared = Compared::new(Arc::clone(&message), &bootstrap);
    let resources = Resources::new(message, &bootstrap);
    let concurrency = u16::try_from(options.concurrency.get()).unwrap_or(u16::MAX);
    let segment = Segment::create(options, control.instance(), usize::from(concurrency) + 1)?;
    let leadership = Rc::new(Leadership::new(&segment, control.instance()));
    let predecessor = Predecessor::find(&options.restart, control.instance(), &leadership).await?;
    let mut inherited = match &predecessor {
        Some(predecessor) => {
            let listeners = bootstrap.listeners.iter().map(|listener| &**listener);
            let admin = bootstrap.admin.as_ref().map(|admin| &admin.address);
            predecessor.sockets(listeners, admin, usize::from(concurrency), &leadership).await?
        }
        None => Inherited::default(),
    };
    let store = segment.store().clone();
    let matcher = bootstrap.stats.matcher.clone();
    store.restrict(move |name| matcher.accepts(name));
    store.bind_thread(ThreadIndex(0));
    let workers = start_workers(concurrency, &store, bootstrap.dispatcher_stats)?;
    if bootstrap.dispatcher_stats {
        LoopStats::keep(&store.root().scope("server."));
    }
    let concurrency = options.concurrency.get();
    let epoch = predecessor.as_ref().map_or(0, |predecessor| predecessor.epoch);
    let first_started = predecessor.as_ref().map_or_else(SystemTime::now, |before| before.first_started);
    let stats = ServerStats::start(&store.root(), concurrency, bootstrap.version_override, &warnings);
    stats.restarted(epoch, control.instance().generation());
    let events = Events::of(&store);
    tell_start(&events, predecessor.as_ref());
    stats.count_panics(events.clone());
    let names = ClusterNames::default();
    let resolver = Resolver::new()
        .inspect_err(|error| tracing::warn!(target: "upstream", %error, "no resolver: clusters found by DNS have no hosts"))
        .ok();
    let (commands, commanded) = mpsc::unbounded_channel();
    let files = LogFiles::new(&store.root(), options.file_flush);
    let clusters = ClusterManager::new(Rc::clone(&workers), store.clone(), names.clone(), resolver);
    let tags = Arc::new(tag_extractor(&bootstrap.stats.tags));
    let onlooker = segment.onlooker();
    let flusher = Flusher::start(
        &bootstrap.stats,
        (store.clone(), onlooker.clone()),
        Rc::clone(&workers),
        Rc::clone(&clusters),
        &tags,
    );
    let generation = control.instance().generation();
    let service = Rc::new(ServiceManager::from_environment(format!("generation {generation}")));
    let listeners = ListenerManager::new(
        Rc::clone(&workers),
        store.clone(),
        names,
        files.clone(),
        extensions,
        &bootstrap.node.cluster,
    );
    listeners.set_drain_time(options.drain_time);
    let restart_events = events.clone();
    let state = Rc::new(State {
        reloader: Reloader::new(
            source,
            (compared, resources),
            Rc::clone(&clusters),
            Rc::clone(&listeners),
            &store.root(),
            events.clone(),
        ),
        has_file: matches!(options.config, ConfigSource::File { .. }),
        reload_later: Cell::new(None),
        clusters,
        flusher,
        listeners,
        files,
        store,
        events,
        onlooker,
        stats,
        allocator: options.allocator,
        tags,
        histogram_buckets: bootstrap.stats.histogram_buckets.into(),
        workers,
        node: Arc::new(bootstrap.node),
        started,
        listening: Cell::new(false),
        healthy: Cell::new(true),
        ending: Cell::new(false),
        epoch: Cell::new(epoch),
        taking_over: Cell::new(predecessor.is_some()),
        can_return: Cell::new(false),
        restarts: Restarts::new(options, Rc::clone(&leadership), service.supervisor(), restart_events),
        leadership: Rc::clone(&leadership),
        first_started,
        admin_port: OnceCell::new(),
        commands,
    });
    let admin = Rc::new(Admin::new(Rc::clone(&state) as Rc<dyn AdminState>, log.clone(), Rc::clone(options)));
    if let Some(settings) = &bootstrap.admin {
        let taken_over = inherited.take_admin(&settings.address);
        let bound = admin::bind(&settings.address, taken_over, options.admin_address_path.as_deref()).await?;
        let port = AdminPort::serve(&settings.address, bound, &admin, state.store.root())?;
        // Nobody else sets it.
        let _ = state.admin_port.set(port);
    }
    state.listeners.inherit(inherited);
    control.serve(&admin)?;
    state.clusters.add(bootstrap.clusters);
    absent::runtime(&state.store.root(), &bootstrap.runtime);
    if let Some(limit) = bootstrap.max_connections {
        state.listeners.limit_connections(limit);
    }
    for listener in bootstrap.listeners {
        state.listeners.add(listener)?;
    }
    server_stats::keep(Rc::clone(&state));
    let (events, restarted) = mpsc::unbounded_channel();
    if !options.restart.disabled {
        let successors = Successors::new(Rc::clone(&state), Rc::clone(&leadership), generation, events);
        successors.listen(control.instance())?;
    }
    let running = Running {
        _absent: AbsentStats::new(&state.store.root()),
        // From now on: adding what a large file declares may take long.
        _guard_dog: watch(&state, &bootstrap.watchdogs, log.clone())?,
        segment,
        state,
        admin,
        commanded,
        leadership,
        restarted,
        generation,
        stop_arrivals: Rc::default(),
        roll_back: Rc::default(),
        service,
        _control: control,
    };
    Ok((running, predecessor))
}

/// Watches this thread and the workers; who is stuck for too long ends the process, once the log says so.
fn watch(state: &State, settings: &Watchdogs, log: Log) -> Result<GuardDog, RunError> {
    let events = state.events.clone();
    let kill = move |stuck| {
        events.error(EventKind::WATCHDOG, format_args!("{stuck}; the process is killed"));
        tracing::error!(target: "main", "watchdog: {stuck}");
        log.flush();
        std::process::abort();
    };
    let (root, pulses) = (state.store.root(), state.workers.pulses());
    Ok(GuardDog::start((&root, &state.events), settings, Pulse::of_this_loop(), pulses, kill)?)
}

fn tell_start(events: &Events, predecessor: Option<&Predecessor>) {
    let (version, pid) = (env!("CARGO_PKG_VERSION"), std::process::id());
    match predecessor {
        None => events.info(EventKind::START, format_args!("proxyd {version} starts, pid {pid}")),
        Some(before) => {
            let before = before.name.segment;
            let text =
                format_args!("proxyd {version} starts, pid {pid}, to take over from generation {before}");
            events.info(EventKind::START, text);
        }
    }
}

/// Starts workers that can serve: each with a column of `store`, which has one more for main, and its cluster table.
/// With `measured` the turns of their loops are stats, as `enable_dispatcher_stats` asks.
///
/// # Errors
/// When the system gives no thread or no event loop.
pub fn start_workers(concurrency: u16, store: &Store, measured: bool) -> Result<Rc<Workers>, RunError> {
    let store = store.clone();
    let workers = Workers::try_start(WorkersOptions { concurrency, measured }, move |index| {
        store.bind_thread(ThreadIndex(index.0 + 1));
        if measured {
            LoopStats::keep(&store.root().scope(&format!("listener_manager.{index}.")));
        }
        let stats = ThreadClusterStats::of_thread(&store.root(), &index.to_string());
        worker_local::insert(Rc::new(ClusterMap::counted(stats)));
        worker_local::insert(Rc::new(ConnectionIds::new(index, concurrency)));
        worker_local::insert(Rc::<Handover>::default());
    })?;
    Ok(Rc::new(workers))
}

/// How long access logs may take to be written at the end, and threads with what main gave them.
const LAST_GRACE: Duration = Duration::from_secs(1);
