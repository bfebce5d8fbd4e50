//! Watchdogs: the two of the bootstrap, and the older one that stands for both.

use std::time::Duration;

use envoy_types::pb::envoy::config::bootstrap::v3 as bootstrap_v3;

use super::{Context, value};
use crate::settings::{Multikill, Watchdog, Watchdogs};
use crate::{Code, Path};

pub(super) fn lower(
    context: &mut Context<'_>,
    path: &Path<'_>,
    message: &bootstrap_v3::Bootstrap,
) -> Watchdogs {
    #[expect(deprecated, reason = "the older spelling is part of the v3 API")]
    let (both, each) = (message.watchdog.as_ref(), message.watchdogs.as_ref());
    match (both, each) {
        (Some(_), Some(_)) => {
            context.error(
                &path.field("watchdog"),
                Code::CONFLICT,
                "watchdog and watchdogs exclude each other",
            );
            Watchdogs::default()
        }
        (Some(both), None) => {
            let both = watchdog(context, &path.field("watchdog"), both);
            Watchdogs { main_thread: both.clone(), workers: both }
        }
        (None, Some(each)) => {
            let here = path.field("watchdogs");
            let mut one = |name, message: Option<&_>| {
                message.map(|message| watchdog(context, &here.field(name), message)).unwrap_or_default()
            };
            Watchdogs {
                main_thread: one("main_thread_watchdog", each.main_thread_watchdog.as_ref()),
                workers: one("worker_watchdog", each.worker_watchdog.as_ref()),
            }
        }
        (None, None) => Watchdogs::default(),
    }
}

fn watchdog(context: &mut Context<'_>, path: &Path<'_>, message: &bootstrap_v3::Watchdog) -> Watchdog {
    let defaults = Watchdog::default();
    let mut time = |name, message: Option<&_>| value::duration(context, &path.field(name), message);
    let limit = |time: Option<Duration>| time.filter(|time| !time.is_zero());
    let threshold_percent = message.multikill_threshold.as_ref().map_or(0.0, |percent| percent.value);
    Watchdog {
        miss_timeout: time("miss_timeout", message.miss_timeout.as_ref()).unwrap_or(defaults.miss_timeout),
        megamiss_timeout: time("megamiss_timeout", message.megamiss_timeout.as_ref())
            .unwrap_or(defaults.megamiss_timeout),
        kill_timeout: limit(time("kill_timeout", message.kill_timeout.as_ref())),
        max_kill_timeout_jitter: time("max_kill_timeout_jitter", message.max_kill_timeout_jitter.as_ref())
            .unwrap_or_default(),
        multikill: limit(time("multikill_timeout", message.multikill_timeout.as_ref()))
            .map(|timeout| Multikill { timeout, threshold_percent }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{accepted, refused};
    use super::*;

    const FULL: &str = "{miss_timeout: 0.1s, megamiss_timeout: 2s, kill_timeout: 3s, max_kill_timeout_jitter: 4s, \
                        multikill_timeout: 5s, multikill_threshold: {value: 50}}";

    #[test]
    fn each_watchdog_has_its_own_settings() {
        let watchdogs = accepted(&format!("watchdogs: {{worker_watchdog: {FULL}}}")).watchdogs;
        assert_eq!(watchdogs.main_thread, Watchdog::default());
        let workers = watchdogs.workers;
        assert_eq!(
            (workers.miss_timeout, workers.megamiss_timeout),
            (Duration::from_millis(100), Duration::from_secs(2))
        );
        assert_eq!(workers.kill_timeout, Some(Duration::from_secs(3)));
        assert_eq!(workers.max_kill_timeout_jitter, Duration::from_secs(4));
        assert_eq!(
            workers.multikill,
            Some(Multikill { timeout: Duration::from_secs(5), threshold_percent: 50.0 })
        );
    }

    #[test]
    fn the_older_one_is_for_both() {
        let watchdogs = accepted("watchdog: {kill_timeout: 3s}").watchdogs;
        assert_eq!(watchdogs.main_thread.kill_timeout, Some(Duration::from_secs(3)));
        assert_eq!(watchdogs.main_thread, watchdogs.workers);
        refused("{watchdog: {}, watchdogs: {}}", &[("conflict", "watchdog")]);
    }

    #[test]
    fn zero_switches_killing_off() {
        let off = "watchdogs: {worker_watchdog: {kill_timeout: 0s, multikill_timeout: 0s}}";
        assert_eq!(accepted(off).watchdogs.workers, Watchdog::default());
    }

    #[test]
    fn actions_are_not_supported() {
        refused(
            "watchdogs: {worker_watchdog: {actions: [{event: MISS}]}}",
            &[("unsupported-field", "actions")],
        );
    }
}
