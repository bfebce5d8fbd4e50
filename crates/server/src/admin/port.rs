//! The admin port of the configuration: served, paused while another process tries to take over, and passed to it.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::{Rc, Weak};

use proxy_config::settings::SocketAddress;
use proxy_net::Address;
use proxy_stats::Scope;
use tracing::error;

use super::bind::Bound;
use super::serve::{Admin, Served};

/// The port as this process has it.
pub struct AdminPort {
    settings: SocketAddress,
    configured: Address,
    /// Of the same socket as the one that is served.
    socket: OwnedFd,
    /// Which sees the state that holds this port.
    admin: Weak<Admin>,
    root: Scope,
    served: RefCell<Option<Served>>,
}

impl AdminPort {
    /// Serves `bound`, which is at the address of the configuration.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn serve(
        configured: &SocketAddress,
        bound: Bound,
        admin: &Rc<Admin>,
        root: Scope,
    ) -> io::Result<Self> {
        let socket = bound.as_fd().try_clone_to_owned()?;
        let served = RefCell::new(Some(admin.serve_counted(bound, &root)));
        let settings = configured.clone();
        Ok(AdminPort {
            settings,
            configured: Address::from(configured),
            socket,
            admin: Rc::downgrade(admin),
            root,
            served,
        })
    }

    /// As configured; the port may be 0.
    pub fn configured(&self) -> &Address {
        &self.configured
    }

    /// The address as the configuration has it.
    pub fn settings(&self) -> &SocketAddress {
        &self.settings
    }

    /// The socket, for another process.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// Accepts no more. Open connections stay.
    pub fn pause(&self) {
        self.served.take();
    }

    /// Accepts again.
    pub fn resume(&self) {
        let Some(admin) = self.admin.upgrade() else { return };
        let resumed = self.duplicate().and_then(Bound::from_descriptor);
        match resumed {
            Ok(bound) => drop(self.served.replace(Some(admin.serve_counted(bound, &self.root)))),
            Err(error) => error!(%error, "the admin port cannot be served again"),
        }
    }
}
