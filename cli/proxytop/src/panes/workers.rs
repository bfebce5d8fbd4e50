//! A row for each thread that serves. Shares tell whether the kernel spreads connections evenly.

use super::{Facts, microseconds};
use crate::snapshot::Thread;
use crate::table::{Cell, Row};

pub(super) fn rows(facts: &Facts<'_>) -> Vec<Row> {
    let now = facts.now();
    if !now.threads.is_empty() {
        let earlier = facts.between.before.map(|before| &before.threads);
        let earlier = |name: &str| earlier?.iter().find(|thread| thread.name == name);
        return now.threads.iter().map(|thread| row(facts, thread, earlier(&thread.name), true)).collect();
    }
    // An admin port says of workers what listeners count.
    let workers = facts.subjects.workers.iter().filter(|worker| worker.name != "main_thread");
    let of = |snapshot: &crate::snapshot::Snapshot, worker: &crate::subjects::Worker| Thread {
        name: worker.name.clone(),
        connections: worker.active.iter().filter_map(|id| snapshot.value(*id)).sum(),
        connections_total: worker.total.iter().filter_map(|id| snapshot.value(*id)).sum(),
        ..Thread::default()
    };
    workers
        .map(|worker| {
            let before = facts.between.before.map(|before| of(before, worker));
            row(facts, &of(now, worker), before.as_ref(), false)
        })
        .collect()
}

fn row(facts: &Facts<'_>, thread: &Thread, before: Option<&Thread>, requests: bool) -> Row {
    let now = facts.now();
    let rate = |field: fn(&Thread) -> u64| facts.between.rate_of(field(thread), before.map(field));
    let all = |field: fn(&Thread) -> u64| -> u64 { now.threads.iter().map(field).sum() };
    let all_connections = match now.threads.as_slice() {
        [] => {
            let active = facts.subjects.workers.iter().flat_map(|worker| &worker.active);
            active.filter_map(|id| now.value(*id)).sum()
        }
        _ => all(|thread| thread.connections),
    };
    let share =
        |some: u64, all: u64| if all == 0 { Cell::None } else { Cell::Share(some as f64 / all as f64) };
    let main = thread.name == "main";
    let loops = if main { "server".to_owned() } else { format!("listener_manager.{}", thread.name) };
    let dispatcher = |what: &str| {
        let id = now.catalog.find(&format!("{loops}.dispatcher.{what}"));
        facts.recent(id).or_else(|| Some(now.quantiles.get(&id?)?.cumulative))
    };
    let (turns, late) = (dispatcher("loop_duration_us"), dispatcher("poll_delay_us"));
    let dog = if main { "main_thread" } else { &thread.name };
    let misses = now.catalog.find(&format!("server.{dog}.watchdog_miss"));
    let cpu = thread.cpu_ms.and_then(|cpu| facts.between.rate_of(cpu, before?.cpu_ms));
    Row {
        key: thread.name.clone(),
        cells: vec![
            Cell::Text(thread.name.clone()),
            cpu.map_or(Cell::None, |milliseconds| Cell::Share(milliseconds / 1000.0)),
            Cell::Count(thread.connections),
            share(thread.connections, all_connections),
            Cell::rate(rate(|thread| thread.connections_total)),
            if requests { Cell::rate(rate(|thread| thread.requests_total)) } else { Cell::None },
            if requests { requests_share(facts, thread, before) } else { Cell::None },
            if requests { Cell::Count(thread.requests_active) } else { Cell::None },
            microseconds(turns, |points| points.p50),
            microseconds(turns, |points| points.p99),
            microseconds(late, |points| points.p99),
            facts.total(misses).map_or(Cell::None, Cell::Faults),
        ],
    }
}

fn requests_share(facts: &Facts<'_>, thread: &Thread, before: Option<&Thread>) -> Cell {
    let risen = |thread: &Thread, before: Option<&Thread>| {
        before.map(|before| crate::rates::risen(before.requests_total, thread.requests_total))
    };
    let Some(earlier) = facts.between.before else { return Cell::None };
    let of_all =
        facts.now().threads.iter().filter_map(|thread| {
            risen(thread, earlier.threads.iter().find(|other| other.name == thread.name))
        });
    let (all, own): (u64, _) = (of_all.sum(), risen(thread, before));
    match own {
        Some(own) if all > 0 => Cell::Share(own as f64 / all as f64),
        _ => Cell::None,
    }
}

pub(super) fn absent(facts: &Facts<'_>) -> String {
    match facts.now().generations.iter().any(|generation| generation.lives) {
        true => "no process leads at the moment".to_owned(),
        false => "no process lives".to_owned(),
    }
}
