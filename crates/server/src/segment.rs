//! The file in shared memory that holds this process's counters: its name, and who removes it.
//!
//! A process that ends in good order removes its own. One that was killed leaves it readable; the next start with
//! the same base-id and run directory removes it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use proxy_stats::{Backing, Reader, StatsError, Store, StoreOptions};

use crate::options::Options;

/// The store, and its file for as long as this lives.
pub(crate) struct Segment {
    pub store: Store,
    path: PathBuf,
}

impl Segment {
    /// Creates the store for `threads` threads.
    ///
    /// # Errors
    /// When the file cannot be made for another reason than lack of space, which only costs its readers.
    pub(crate) fn create(options: &Options, generation: u64, threads: usize) -> Result<Segment, StatsError> {
        let prefix = prefix(options);
        remove_dead(&options.shm_dir, &prefix);
        let path = options.shm_dir.join(format!("{prefix}{generation}"));
        let store = Store::create(StoreOptions {
            path: Some(path.clone()),
            threads,
            generation,
            base_id: options.base_id.0,
        })?;
        if let Backing::FileRefused(error) = store.backing() {
            tracing::warn!(target: "stats", %error, "stats are in private memory: other programs cannot read them");
        }
        Ok(Segment { store, path })
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Instances of one base-id in different run directories do not know of each other.
fn prefix(options: &Options) -> String {
    let mut hasher = DefaultHasher::new();
    options.run_dir.hash(&mut hasher);
    format!("proxyd_{}_{:08x}_", options.base_id, hasher.finish() as u32)
}

fn remove_dead(directory: &Path, prefix: &str) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
        if ours && !Reader::open(&entry.path()).and_then(|reader| reader.writer_lives()).unwrap_or(false) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
