//! The control socket: the admin handlers for whoever may open the run directory, whatever the configuration says.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proxy_control::{BaseId, Claim, ClaimError, Instance, RunDir, RunDirError};
use tokio::net::UnixListener;

use crate::admin::{Admin, Bound, Served};
use crate::options::{Options, RestartEpoch};

/// This process among the instances of the run directory. Dropped last: until then nobody else can take the base-id.
#[derive(Debug)]
pub struct ControlSocket {
    instance: Instance,
    served: Option<Served>,
}

/// Why an instance cannot take its place.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    #[error(transparent)]
    Claim(#[from] ClaimError),
    #[error("control socket: {0}")]
    Socket(io::Error),
    #[error("--base-id-path {}: {error}", path.display())]
    BaseIdPath { path: PathBuf, error: io::Error },
}

impl ControlSocket {
    /// Claims the base-id of `options`, or one that nobody has; it is told in the file of `--base-id-path`.
    ///
    /// # Errors
    /// Those of [`ControlSocket::claim`]; the file cannot be written.
    pub(crate) fn claim_as_asked(options: &mut Options) -> Result<Self, ControlError> {
        let claim = match options.restart.epoch {
            RestartEpoch::Cold => Claim::Alone,
            RestartEpoch::Auto | RestartEpoch::Number(_) => Claim::Successor,
        };
        let claimed = loop {
            if options.dynamic_base_id {
                // Not the lowest: what an instance that was killed has counted is for those of its own kind.
                options.base_id = BaseId(fastrand::u32(1..));
            }
            match Self::claim(&options.run_dir, options.base_id, claim) {
                Err(ControlError::Claim(ClaimError::Running { .. })) if options.dynamic_base_id => {}
                claimed => break claimed?,
            }
        };
        if let Some(path) = &options.base_id_path {
            let told = std::fs::write(path, options.base_id.to_string());
            told.map_err(|error| ControlError::BaseIdPath { path: path.clone(), error })?;
        }
        Ok(claimed)
    }

    /// Claims `base_id`. May block for a few seconds, while another instance with the same base-id is starting.
    ///
    /// # Errors
    /// One is running, or the directory is not ours.
    pub fn claim(run_dir: &Path, base_id: BaseId, claim: Claim) -> Result<Self, ControlError> {
        let instance = Instance::claim(Arc::new(RunDir::create(run_dir)?), base_id, claim)?;
        Ok(Self { instance, served: None })
    }

    /// Answers from now on.
    ///
    /// # Errors
    /// The socket cannot be bound.
    pub fn serve(&mut self, admin: &Admin) -> Result<(), ControlError> {
        let listener =
            self.instance.listen().and_then(UnixListener::from_std).map_err(ControlError::Socket)?;
        self.served = Some(admin.serve(Bound::Unix(listener)));
        Ok(())
    }

    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.instance
    }
}
