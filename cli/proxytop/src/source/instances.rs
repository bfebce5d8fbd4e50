//! Which instances there are: those that have counters in shared memory, alive or killed, and those that count in private memory.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use proxy_control::{BaseId, RunDir, stats_prefix};
use proxy_stats::{LineagePath, LineageReader, find_lineages};

use super::ask::{ANSWER_LIMIT, block_on};
use crate::arguments::Arguments;

/// An instance with counters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instance {
    pub(crate) base_id: u32,
    pub(crate) path: LineagePath,
    pub(crate) run_dir: PathBuf,
    /// What it counts is in private memory: it has to be asked.
    pub(crate) private: bool,
}

/// Where control sockets are.
fn run_dir(arguments: &Arguments) -> PathBuf {
    let runtime_dir = env::var_os("XDG_RUNTIME_DIR");
    let default_path = || RunDir::default_path(runtime_dir.as_deref().map(Path::new));
    arguments.run_dir.clone().unwrap_or_else(default_path)
}

/// Base-ids of which a process lives.
fn running(run_dir: &Path) -> Vec<BaseId> {
    let opened = RunDir::open(run_dir).ok().flatten().map(Arc::new);
    let living = opened.and_then(|run_dir| proxy_control::find(&run_dir).ok()).unwrap_or_default();
    let mut all: Vec<_> = living.iter().map(proxy_control::Found::base_id).collect();
    all.dedup();
    all
}

/// Whether the process that leads counts in private memory. Nobody is asked unless more live than the `shared` that count in shared
/// memory.
pub(crate) fn counts_privately(run_dir: &Path, base_id: u32, shared: usize) -> bool {
    let Some(run_dir) = RunDir::open(run_dir).ok().flatten().map(Arc::new) else { return false };
    let mut living = proxy_control::find(&run_dir).unwrap_or_default();
    living.retain(|found| found.base_id() == BaseId(base_id));
    let asked = || block_on(proxy_control::private_leader(&living, ANSWER_LIMIT)).ok().flatten();
    living.len() > shared && asked().is_some()
}

/// All that are meant; at least one.
pub(crate) fn find(arguments: &Arguments) -> anyhow::Result<Vec<Instance>> {
    let (run_dir, shm_dir) = (run_dir(arguments), &arguments.shm_dir);
    let mut found = Vec::new();
    for path in find_lineages(shm_dir).with_context(|| shm_dir.display().to_string())? {
        let base_id: Option<u32> = path.prefix.split('_').nth(1).and_then(|number| number.parse().ok());
        let Some(base_id) = base_id else { continue };
        let ours = stats_prefix(&run_dir, BaseId(base_id)) == path.prefix;
        if ours && arguments.base_id.is_none_or(|wanted| wanted == base_id) {
            let shared = LineageReader::open(&path).map_or(0, |reader| reader.living().count());
            let private = counts_privately(&run_dir, base_id, shared);
            found.push(Instance { base_id, path, run_dir: run_dir.clone(), private });
        }
    }
    // Those that have nothing in shared memory.
    for BaseId(base_id) in running(&run_dir) {
        let known = found.iter().any(|instance| instance.base_id == base_id);
        if !known
            && arguments.base_id.is_none_or(|wanted| wanted == base_id)
            && counts_privately(&run_dir, base_id, 0)
        {
            let prefix = stats_prefix(&run_dir, BaseId(base_id));
            let path = LineagePath { directory: shm_dir.clone(), prefix };
            found.push(Instance { base_id, path, run_dir: run_dir.clone(), private: true });
        }
    }
    found.sort_unstable();
    if found.is_empty() {
        let of = arguments.base_id.map(|id| format!(" with base-id {id}")).unwrap_or_default();
        bail!(
            "no instance{of} has counters (looked in {} for those of {}); --run-dir, --shm-dir and --admin look elsewhere",
            shm_dir.display(),
            run_dir.display()
        );
    }
    Ok(found)
}
