//! `envoy.filters.http.health_check`: answers health checks of load balancers in front, or lets few of them through.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proxy_config::settings::{self, HealthCheckMode};
use proxy_http::filter::{FilterIndex, Filtered, Flow, HttpFilter, Reset};
use proxy_http::reply::FilterReply;
use proxy_http::route::header_matches;
use proxy_http::{HeaderId, Request, Response, ResponseFlags, StreamInfo};
use proxy_runtime::{Instant, clock};
use proxy_stats::stats_block;
use proxy_upstream::ClusterMap;

use super::{FilterContext, FilterWorker, HttpFilterPlan, ProcessFacts};

stats_block! {
    /// `http.<stat_prefix>.health_check.*`.
    pub(super) struct HealthCheckStats {
        counters: cached_response, degraded, failed, failed_cluster_empty, failed_cluster_not_found,
            failed_cluster_unhealthy, ok, request_total;
    }
}

/// The filter on main.
pub(super) struct HealthCheck(Arc<Shared>);

/// What workers share.
struct Shared {
    index: FilterIndex,
    settings: Arc<settings::HealthCheck>,
    process: ProcessFacts,
    cache: Cache,
    stats: HealthCheckStats,
}

/// The last answer of an upstream, for a while.
struct Cache {
    start: Instant,
    /// In order from the low end: 16 bits status, one bit whether it was degraded, the rest milliseconds after the start up
    /// to which it holds.
    answer: AtomicU64,
}

/// A worker's instance.
struct Filter {
    shared: Arc<Shared>,
    clusters: Rc<ClusterMap>,
}

/// The stream is a health check.
struct IsHealthCheck;

struct Answer {
    status: u16,
    degraded: bool,
    details: &'static str,
}

impl Answer {
    fn new(status: u16, details: &'static str) -> Answer {
        Answer { status, degraded: false, details }
    }
}

impl HealthCheck {
    pub(super) fn new(settings: &Arc<settings::HealthCheck>, context: &FilterContext<'_>) -> HealthCheck {
        HealthCheck(Arc::new(Shared {
            index: context.index,
            settings: Arc::clone(settings),
            process: context.process.clone(),
            cache: Cache { start: clock::now(), answer: AtomicU64::new(0) },
            stats: HealthCheckStats::new(&context.scope.scope("health_check.")),
        }))
    }
}

impl HttpFilterPlan for HealthCheck {
    fn build(&self, worker: &FilterWorker) -> Box<dyn HttpFilter> {
        Box::new(Filter { shared: Arc::clone(&self.0), clusters: Rc::clone(&worker.clusters) })
    }
}

impl Cache {
    fn get(&self, now: Instant) -> Option<(u16, bool)> {
        let answer = self.answer.load(Ordering::Relaxed);
        (self.milliseconds(now) < answer >> 17).then_some((answer as u16, answer & (1 << 16) != 0))
    }

    fn set(&self, status: u16, degraded: bool, until: Instant) {
        let until = self.milliseconds(until) & (u64::MAX >> 17);
        let answer = until << 17 | u64::from(degraded) << 16 | u64::from(status);
        self.answer.store(answer, Ordering::Relaxed);
    }

    fn milliseconds(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }
}

impl Filter {
    /// What to answer; `None` where the upstream is asked.
    fn answer(&self) -> Option<Answer> {
        let Shared { settings, process, cache, stats, .. } = &*self.shared;
        if !process.healthy.load(Ordering::Relaxed) {
            return Some(Answer::new(503, "health_check_failed"));
        }
        match &settings.mode {
            HealthCheckMode::Answered { clusters } => {
                let failed = clusters.iter().find_map(|(name, least)| self.falls_short(name, *least));
                Some(failed.map_or(Answer::new(200, "health_check_ok"), |details| Answer::new(503, details)))
            }
            HealthCheckMode::PassThrough { cache_time: None } => None,
            HealthCheckMode::PassThrough { cache_time: Some(_) } => {
                let (status, degraded) = cache.get(clock::now())?;
                stats.cached_response.inc();
                Some(Answer { status, degraded, details: "health_check_cached" })
            }
        }
    }

    /// Whether less than `least` percent of a cluster's hosts are healthy, and what is said of it then.
    fn falls_short(&self, name: &str, least: f64) -> Option<&'static str> {
        let stats = &self.shared.stats;
        let Some(cluster) = self.clusters.find(name) else {
            stats.failed_cluster_not_found.inc();
            return Some("health_check_failed_no_cluster_found");
        };
        let members = &cluster.info.stats;
        let total = members.membership_total.value();
        if total == 0 {
            if least == 0.0 {
                return None;
            }
            stats.failed_cluster_empty.inc();
            return Some("health_check_failed_cluster_empty");
        }
        if (members.membership_healthy.value() as f64) < total as f64 * least / 100.0 {
            stats.failed_cluster_unhealthy.inc();
            return Some("health_check_failed_cluster_unhealthy");
        }
        None
    }

    fn reply(&self, stream: &StreamInfo, answer: &Answer) -> Flow {
        let stats = &self.shared.stats;
        stats.request_total.inc();
        if (200..300).contains(&answer.status) {
            stats.ok.inc();
        } else {
            stats.failed.inc();
            stream.set_flag(ResponseFlags::FAILED_LOCAL_HEALTH_CHECK);
        }
        let mut response = FilterReply::new(answer.status, "", answer.details).response(stream);
        if answer.degraded {
            stats.degraded.inc();
            response.headers.append(HeaderId::X_ENVOY_DEGRADED, b"");
        }
        Flow::Reply(response)
    }
}

impl HttpFilter for Filter {
    fn request<'a>(
        &'a self,
        stream: &'a Rc<StreamInfo>,
        request: &'a mut Request,
    ) -> Filtered<'a, Result<Flow, Reset>> {
        let shared = &self.shared;
        if !shared.settings.headers.iter().all(|matcher| header_matches(matcher, Some(request))) {
            return Filtered::Now(Ok(Flow::Continue));
        }
        stream.set_filter_local(shared.index, IsHealthCheck);
        stream.record.health_check.set(true);
        let Some(answer) = self.answer() else { return Filtered::Now(Ok(Flow::Continue)) };
        if request.body.is_empty() {
            return Filtered::Now(Ok(self.reply(stream, &answer)));
        }
        Filtered::Later(Box::pin(async move {
            // The answer waits for the whole request, whatever it holds.
            while let Some(frame) = poll_fn(|cx| request.body.poll_frame(cx)).await {
                frame.map_err(|_| Reset)?;
            }
            Ok(self.reply(stream, &answer))
        }))
    }

    fn response<'a>(
        &'a self,
        stream: &'a Rc<StreamInfo>,
        response: &'a mut Response,
    ) -> Filtered<'a, Result<(), Reset>> {
        let shared = &self.shared;
        if stream.filter_local::<IsHealthCheck>(shared.index).is_some() {
            if let HealthCheckMode::PassThrough { cache_time: Some(time) } = shared.settings.mode {
                let degraded = response.headers.contains(HeaderId::X_ENVOY_DEGRADED);
                shared.cache.set(response.status, degraded, clock::now() + time.min(LONGEST));
            }
            response.headers.set("x-envoy-upstream-healthchecked-cluster", shared.process.cluster.as_bytes());
        }
        if !shared.process.healthy.load(Ordering::Relaxed) {
            response.headers.set(HeaderId::X_ENVOY_IMMEDIATE_HEALTH_CHECK_FAIL, b"true");
        }
        Filtered::Now(Ok(()))
    }
}

/// A cache that holds longer holds as long as anybody can wait.
const LONGEST: Duration = Duration::from_hours(24 * 365);
