//! Which instances there are: those that have counters in shared memory, alive or killed.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use proxy_control::{BaseId, RunDir, stats_prefix};
use proxy_stats::{LineagePath, find_lineages};

use crate::arguments::Arguments;

/// An instance with counters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instance {
    pub(crate) base_id: u32,
    pub(crate) path: LineagePath,
    pub(crate) run_dir: PathBuf,
}

/// Where control sockets are.
fn run_dir(arguments: &Arguments) -> PathBuf {
    let runtime_dir = env::var_os("XDG_RUNTIME_DIR");
    let default_path = || RunDir::default_path(runtime_dir.as_deref().map(Path::new));
    arguments.run_dir.clone().unwrap_or_else(default_path)
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
            found.push(Instance { base_id, path, run_dir: run_dir.clone() });
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
