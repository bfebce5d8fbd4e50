//! The sockets of a listener as main has them: duplicates of those that the workers accept on, for updates and for the
//! next generation, and to bind before anything starts.

use std::time::Duration;

use nix::libc;
use proxy_config::settings::{self, ListenAddress, SocketOption, SocketOptionState, SocketOptionValue};
use proxy_net::{Address, BindError, ListenSocket, ListenSocketOptions};

use crate::restart::Inherited;

/// The sockets of all addresses of a listener.
pub(crate) struct ListenSockets {
    addresses: Vec<BoundAddress>,
    /// False for a listener that has none (`bind_to_port`).
    binds: bool,
}

/// One address.
struct BoundAddress {
    place: Place,
    options: ListenSocketOptions,
    /// With the port that the system chose.
    address: Address,
    /// One for each worker, or more, in the order of their reuseport group.
    sockets: Vec<ListenSocket>,
}

/// One of the addresses of a listener, by what is configured; as generations tell each other of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) address: String,
    /// Port 0 may be there several times; this is how often it is before this one.
    pub(crate) occurrence: u32,
}

impl ListenSockets {
    /// Takes the sockets of `before`, the listener in its old form, then those of the process before; binds what is missing.
    pub(crate) fn bind(
        settings: &settings::Listener,
        before: Option<&ListenSockets>,
        inherited: &mut Inherited,
        workers: usize,
    ) -> Result<ListenSockets, BindError> {
        let mut addresses = Vec::new();
        for (place, options) in places(settings) {
            let mut sockets = Vec::new();
            if settings.bind_to_port {
                let old = before.and_then(|before| before.duplicates(&place));
                sockets = old.unwrap_or_else(|| inherited.take(&settings.name, &place));
                for socket in &sockets {
                    if let Err(error) = socket.set_options_again(&options) {
                        let address = &place.address;
                        tracing::warn!(target: "listener", %address, %error, "a socket that is taken over stays as it is");
                    }
                }
                ListenSocket::complete(&mut sockets, &options, workers)?;
            }
            let address = sockets
                .first()
                .map_or_else(|| options.address.clone(), |socket| socket.local_address().clone());
            addresses.push(BoundAddress { place, options, address, sockets });
        }
        Ok(ListenSockets { addresses, binds: settings.bind_to_port })
    }

    /// Where the listener is, with the ports that the system chose; the address that it is called by first.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.addresses.iter().map(|address| &address.address)
    }

    /// Begins to take connections on all of them.
    pub(crate) fn listen(&self) -> Result<(), BindError> {
        // In this order: it is the order in the reuseport group, and has to be the same in every generation.
        let mut all =
            self.addresses.iter().flat_map(|address| address.sockets.iter().map(move |s| (address, s)));
        all.try_for_each(|(address, socket)| socket.listen(&address.options))
    }

    /// Duplicates for each worker: one of each address, or more where they were taken over from a process with more
    /// workers. No socket of a reuseport group may be left without somebody who accepts.
    pub(crate) fn shares(&self, workers: usize) -> Result<Vec<Vec<ListenSocket>>, BindError> {
        let mut shares: Vec<Vec<ListenSocket>> = (0..workers).map(|_| Vec::new()).collect();
        for BoundAddress { address, sockets, .. } in &self.addresses {
            for (index, socket) in sockets.iter().enumerate() {
                let create = |source| BindError::Create { address: address.clone(), source };
                shares[index % workers].push(socket.duplicate().map_err(create)?);
            }
        }
        Ok(shares)
    }

    /// Closes them here.
    pub(crate) fn close(&mut self) {
        self.addresses.iter_mut().for_each(|address| address.sockets.clear());
    }

    /// Closes those that nobody has listened on.
    pub(crate) fn close_silent(&mut self) {
        self.addresses.iter_mut().for_each(|address| address.sockets.retain(ListenSocket::is_listening));
    }

    /// Listens anew after [`ListenSockets::close`], on sockets that another process has given back, or on new ones.
    pub(crate) fn take_back(
        &mut self,
        name: &str,
        inherited: &mut Inherited,
        workers: usize,
    ) -> Result<(), BindError> {
        if !self.binds {
            return Ok(());
        }
        for BoundAddress { place, options, address, sockets } in &mut self.addresses {
            // A port that the system chose is to stay what it is.
            let options = ListenSocketOptions { address: address.clone(), ..options.clone() };
            *sockets = inherited.take(name, place);
            ListenSocket::complete(sockets, &options, workers)?;
            sockets.iter().try_for_each(|socket| socket.listen(&options))?;
        }
        Ok(())
    }

    /// The sockets of an address; `each` of them, if more can be bound. `None` if there are none.
    /// Port 0 is another port for each listener: `of_this_one` says whether it is this one that is asked for.
    pub(crate) fn at(&mut self, place: &Place, of_this_one: bool, each: usize) -> Option<&[ListenSocket]> {
        let bound = self.addresses.iter_mut().find(|address| address.place == *place)?;
        let any_port = bound.options.address.ip().is_some_and(|ip| ip.port() == 0);
        if bound.sockets.is_empty() || (any_port && !of_this_one) {
            return None;
        }
        if let Err(error) = ListenSocket::complete(&mut bound.sockets, &bound.options, each) {
            // The other process may have more luck.
            tracing::debug!(target: "restart", %error, "no more sockets for the new process");
        }
        Some(&bound.sockets)
    }

    fn duplicates(&self, place: &Place) -> Option<Vec<ListenSocket>> {
        let bound = self.addresses.iter().find(|address| address.place == *place)?;
        let duplicates: Vec<_> =
            bound.sockets.iter().map(ListenSocket::duplicate).collect::<Result<_, _>>().ok()?;
        (!duplicates.is_empty()).then_some(duplicates)
    }
}

/// The addresses of a listener, and how to bind them.
pub(crate) fn places(settings: &settings::Listener) -> impl Iterator<Item = (Place, ListenSocketOptions)> {
    settings.addresses().enumerate().map(move |(index, listen)| {
        let before = settings.addresses().take(index).filter(|other| other.address == listen.address).count();
        let occurrence = u32::try_from(before).unwrap_or(u32::MAX);
        let options = socket_options(settings, listen);
        (Place { address: options.address.to_string(), occurrence }, options)
    })
}

fn socket_options(settings: &settings::Listener, listen: &ListenAddress) -> ListenSocketOptions {
    let mut options = ListenSocketOptions::new(Address::from(&listen.address));
    options.reuse_port = settings.reuse_port;
    options.backlog = settings.backlog.unwrap_or(options.backlog);
    options.freebind = settings.freebind.then_some(true);
    options.transparent = settings.transparent.then_some(true);
    options.ipv4_compat = listen.ipv4_compat;
    match listen.address {
        settings::SocketAddress::Pipe { mode, .. } => options.mode = mode,
        settings::SocketAddress::Ip(_) => {
            options.socket_options = listen.tcp_keepalive.iter().flat_map(keepalive).collect();
        }
    }
    options.socket_options.extend(listen.socket_options.iter().cloned());
    options
}

/// Accepted connections have what is set on the listening socket.
fn keepalive(settings: &settings::TcpKeepalive) -> impl Iterator<Item = SocketOption> + use<> {
    let seconds = |time: Option<Duration>| time.map(|time| i32::try_from(time.as_secs()).unwrap_or(i32::MAX));
    let probes = settings.probes.map(|probes| i32::try_from(probes).unwrap_or(i32::MAX));
    [
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, Some(1)),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, probes),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds(settings.time)),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, seconds(settings.interval)),
    ]
    .into_iter()
    .filter_map(|(level, name, value)| {
        let (value, state) = (SocketOptionValue::Int(value?), SocketOptionState::PreBind);
        Some(SocketOption { level, name, value, state })
    })
}
