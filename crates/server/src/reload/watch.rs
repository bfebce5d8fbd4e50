//! `--watch`: asks for a reload when the configuration file, or a file that it names, holds something else.
//!
//! What is watched are directories: of the file, and of every symbolic link on the way to it, since it is usual to replace
//! one of these (a Kubernetes ConfigMap replaces the link `..data`). Whether anything is different is then told by content.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use inotify::{EventStream, Inotify, WatchMask, Watches};
use proxy_config::settings::NamedFile;
use tracing::{debug, warn};

use crate::state::State;

/// Watches `file` and what the configuration names for as long as the process lives.
///
/// # Errors
/// The system has no more inotify instances for this user.
pub(crate) fn watch(state: &Rc<State>, file: PathBuf) -> io::Result<()> {
    let inotify = Inotify::init()?;
    let mut watches = inotify.watches();
    let mut events = inotify.into_event_stream([0; EVENT_BYTES])?;
    let state = Rc::downgrade(state);
    tokio::task::spawn_local(async move {
        if let Err(error) = follow(&mut watches, &mut events, &state, &file).await {
            warn!(target: "config", %error, "changes of the configuration file are not noticed any more");
        }
    });
    Ok(())
}

async fn follow(
    watches: &mut Watches,
    events: &mut Events,
    state: &Weak<State>,
    file: &Path,
) -> io::Result<()> {
    let mut tried = Vec::new();
    loop {
        let Some(known) = state.upgrade().map(|state| state.reloader.files()) else { return Ok(()) };
        let paths: Vec<_> =
            std::iter::once(file.to_owned()).chain(known.iter().map(|f| f.path.clone())).collect();
        // Watched first and read then, so that no change falls between the two.
        let (directories, paths) = blocking(move || (directories(&paths), paths)).await?;
        for directory in directories {
            // One that has gone comes back with a change of the one above, if it is on the way to the file.
            if let Err(error) = watches.add(&directory, CHANGES) {
                debug!(target: "config", directory = %directory.display(), %error, "not watched");
            }
        }
        let digests = blocking(move || digests(&paths)).await?;
        let loaded =
            |(path, digest): &(PathBuf, u64)| known.iter().any(|f| f.path == *path && f.digest == *digest);
        if let Some(digests) = digests
            && !digests.iter().all(loaded)
            && tried != digests
            && let Some(state) = state.upgrade()
        {
            tried = digests;
            state.reload_unasked("a file of the configuration has changed");
            // Other files may be named now.
            state.reloader.idle().await;
            continue;
        }
        next_change(events).await?;
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// Resolves when something has changed and all is quiet again: a file may be written in pieces.
async fn next_change(events: &mut Events) -> io::Result<()> {
    take_event(events).await?;
    for _ in 0..MOST_EVENTS {
        match tokio::time::timeout(QUIET, take_event(events)).await {
            Ok(taken) => taken?,
            Err(_) => break,
        }
    }
    Ok(())
}

/// Waits for one; what it says is found out by looking.
async fn take_event(events: &mut Events) -> io::Result<()> {
    events.next().await.unwrap_or(Err(io::ErrorKind::UnexpectedEof.into())).map(drop)
}

/// Of the content of all files, with their paths; None while one is not there, as between two steps of an editor.
fn digests(files: &[PathBuf]) -> Option<Vec<(PathBuf, u64)>> {
    let digest = |file: &PathBuf| Some((file.clone(), NamedFile::digest(&fs::read(file).ok()?)));
    files.iter().map(digest).collect()
}

/// In which something can happen that makes one of the files another.
fn directories(files: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for file in files {
        let Ok(mut path) = std::path::absolute(file) else { continue };
        for _ in 0..MOST_LINKS {
            let Some((directory, target)) = first_link(&path) else {
                found.extend(path.parent().map(Path::to_owned));
                break;
            };
            found.insert(directory);
            path = target;
        }
    }
    found
}

/// The directory of the first symbolic link in `path`, and the path without it.
fn first_link(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut components = path.components();
    let mut at = PathBuf::new();
    while let Some(component) = components.next() {
        let directory = at.clone();
        at.push(component);
        if let Ok(target) = fs::read_link(&at) {
            let resolved = directory.join(target).join(components.as_path());
            return Some((directory, resolved));
        }
    }
    None
}

type Events = EventStream<[u8; EVENT_BYTES]>;

const CHANGES: WatchMask = WatchMask::CLOSE_WRITE
    .union(WatchMask::CREATE)
    .union(WatchMask::DELETE)
    .union(WatchMask::MOVED_TO)
    .union(WatchMask::ONLYDIR);
const EVENT_BYTES: usize = 4096;
const QUIET: Duration = Duration::from_millis(100);
/// Somebody who writes without a pause does not keep us from looking.
const MOST_EVENTS: u32 = 1000;
/// As many as Linux follows.
const MOST_LINKS: u32 = 40;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_link_on_the_way_is_watched() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("mount/..1")).unwrap();
        fs::write(root.join("mount/..1/envoy.yaml"), "").unwrap();
        symlink("..1", root.join("mount/..data")).unwrap();
        symlink("..data/envoy.yaml", root.join("mount/envoy.yaml")).unwrap();
        symlink(root.join("mount"), root.join("here")).unwrap();
        let watched = directories(&[root.join("here/envoy.yaml")]);
        assert_eq!(watched, BTreeSet::from([root.clone(), root.join("mount"), root.join("mount/..1")]));
    }

    #[test]
    fn a_loop_of_links_ends() {
        let root = tempfile::tempdir().unwrap();
        symlink(root.path().join("b"), root.path().join("a")).unwrap();
        symlink(root.path().join("a"), root.path().join("b")).unwrap();
        assert!(directories(&[root.path().join("a")]).contains(root.path()));
    }
}
