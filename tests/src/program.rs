//! Which programs are under test, and how they are started.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fmt, fs};

/// The proxy that the suite runs.
#[derive(Debug, Clone)]
pub enum Program {
    /// The real Envoy, named by `PROXY_UNDER_TEST`.
    Envoy(PathBuf),
    /// proxyd: built by the harness, or named by `PROXY_UNDER_TEST`.
    Proxyd(PathBuf),
}

impl Program {
    /// What this run of the suite is about. `PROXY_UNDER_TEST` counts as proxyd if its file name starts so.
    pub fn under_test() -> &'static Self {
        static PROGRAM: OnceLock<Program> = OnceLock::new();
        PROGRAM.get_or_init(|| match env::var_os("PROXY_UNDER_TEST").map(PathBuf::from) {
            None => Self::Proxyd(proxyd()),
            Some(path)
                if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("proxyd")) =>
            {
                Self::Proxyd(path)
            }
            Some(path) => Self::Envoy(path),
        })
    }

    /// A command that serves `config`, keeps its files under `directory` and writes its admin address to
    /// `directory/admin`. Two workers, so that nothing passes only because it has one.
    pub(crate) fn serve(&self, config: &Path, directory: &Path, base_id: &BaseId) -> Command {
        let mut command = match self {
            Self::Envoy(path) => {
                let mut command = Command::new(path);
                command.arg("--disable-hot-restart").args(["-l", "warning"]);
                command
            }
            Self::Proxyd(path) => {
                let mut command = Command::new(path);
                command.arg("run").arg("--run-dir").arg(directory.join("run"));
                command.args(["--base-id", &base_id.to_string(), "-l", "info"]);
                command
            }
        };
        command.arg("-c").arg(config).args(["--concurrency", "2"]);
        command.arg("--admin-address-path").arg(directory.join("admin"));
        command
    }
}

/// A base-id that tells this instance from others of the host; what a killed instance leaves in shared memory goes
/// with it.
#[derive(Debug)]
pub struct BaseId(u32);

impl BaseId {
    /// Different within this run, unlikely to meet another run's.
    #[must_use]
    pub fn unused() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let run = std::process::id() % 20_000;
        Self(run * 1_000 + NEXT.fetch_add(1, Ordering::SeqCst) % 1_000)
    }
}

impl fmt::Display for BaseId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl BaseId {
    pub(crate) fn shared_files(&self) -> impl Iterator<Item = PathBuf> {
        let prefix = format!("proxyd_{self}_");
        let entries = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
        let ours = move |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&prefix);
        entries.filter(ours).map(|entry| entry.path())
    }
}

impl Drop for BaseId {
    fn drop(&mut self) {
        self.shared_files().for_each(|path| drop(fs::remove_file(path)));
    }
}

/// Whether the reference is under test.
#[must_use]
pub fn on_envoy() -> bool {
    matches!(Program::under_test(), Program::Envoy(_))
}

/// The workspace's root directory.
#[must_use]
pub fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package lies in the workspace's root")
}

/// The daemon, built from this workspace.
#[must_use]
pub fn proxyd() -> PathBuf {
    built().join("proxyd")
}

/// The tool, built from this workspace.
#[must_use]
pub fn proxyctl() -> PathBuf {
    built().join("proxyctl")
}

/// The terminal view, built from this workspace.
#[must_use]
pub fn proxytop() -> PathBuf {
    built().join("proxytop")
}

/// Builds the programs once, in the profile and target directory of the running test, and returns where they lie.
/// All workspace members take part, and an example too, which brings in what unit tests depend on: so features come
/// out as in `cargo test --workspace`, and nothing is compiled twice.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = env::current_exe().expect("a running test has a path");
        let profile_dir = test.ancestors().nth(2).expect("tests lie in TARGET/PROFILE/deps");
        let target_dir = profile_dir.parent().expect("a profile's directory lies in the target directory");
        let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(other) => other,
        };
        let status = Command::new(env!("CARGO"))
            .current_dir(workspace_root())
            .args(["build", "--quiet", "--workspace", "--bins", "--example", "generate"])
            .args(["--profile", profile, "--target-dir"])
            .arg(target_dir)
            .status()
            .expect("the cargo that built this test can be started");
        assert!(status.success(), "building the programs under test: {status}");
        profile_dir.to_owned()
    })
}
