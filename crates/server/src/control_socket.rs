//! The control socket: the admin handlers for whoever may open the run directory, whatever the configuration says.

use std::io;
use std::path::Path;
use std::sync::Arc;

use proxy_control::{BaseId, Claim, ClaimError, Instance, RunDir, RunDirError};
use tokio::net::UnixListener;

use crate::admin::{Admin, Bound, Served};

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
}

impl ControlSocket {
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
