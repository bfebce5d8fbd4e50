//! Listening sockets on their way from one generation to the next: all sockets of a listener, in the order of their
//! reuseport group, so that none is left without somebody who accepts.
//!
//! What the old process does not have it binds for the new one, which may lack the privilege, or have the user id that the
//! kernel does not let into the group. Such a socket does not listen yet, and does not stay with the old process: its own
//! listeners do not need it, whatever becomes of the restart.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use proxy_config::settings::{self, SocketAddress, SocketOption, SocketOptionState, SocketOptionValue};
use proxy_control::restart::channel::DESCRIPTORS;
use proxy_control::restart::message::{
    Bind, BindOption, Sockets, SocketsOfListener, SocketsWanted, WantedListener,
};
use proxy_control::restart::{Body, Channel, ChannelError};
use proxy_net::{Address, ListenSocket, ListenSocketOptions};
use tracing::debug;

use super::{ANSWER_LIMIT, TalkError, called, next};
use crate::admin::AdminPort;
use crate::listen_sockets::{self, Place};
use crate::listeners::ListenerManager;

/// Sockets taken over from the generation before, until listeners ask for them.
#[derive(Debug, Default)]
pub(crate) struct Inherited(HashMap<Key, Vec<ListenSocket>>);

/// Which listener, by name and configured address. The admin port has no name, a listener always has one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    name: String,
    address: String,
    occurrence: u32,
}

impl Inherited {
    /// The sockets of an address of a listener, none if it is new.
    pub(crate) fn take(&mut self, listener: &str, place: &Place) -> Vec<ListenSocket> {
        self.0.remove(&Key::of(listener, place)).unwrap_or_default()
    }

    /// The admin port's socket.
    pub(crate) fn take_admin(&mut self, address: &SocketAddress) -> Option<OwnedFd> {
        self.0.remove(&Key::of_admin(address))?.pop().map(OwnedFd::from)
    }
}

impl Key {
    fn of(listener: &str, place: &Place) -> Key {
        let Place { address, occurrence } = place;
        Key { name: listener.to_owned(), address: address.clone(), occurrence: *occurrence }
    }

    fn of_admin(address: &SocketAddress) -> Key {
        Key { name: String::new(), address: Address::from(address).to_string(), occurrence: 0 }
    }

    fn wanted(self, bind: Option<Bind>) -> WantedListener {
        WantedListener { name: self.name, address: self.address, bind, occurrence: self.occurrence }
    }
}

/// How the parent is to bind sockets for as many workers. A UNIX socket's file is made where the child sees it.
fn bind(options: ListenSocketOptions, workers: usize) -> Option<Bind> {
    options.address.ip()?;
    let sockets = if options.reuse_port { workers } else { 1 };
    let before_listen =
        options.socket_options.into_iter().filter(|option| option.state != SocketOptionState::Listening);
    Some(Bind {
        sockets: u32::try_from(sockets).unwrap_or(u32::MAX),
        reuse_port: options.reuse_port,
        freebind: options.freebind == Some(true),
        transparent: options.transparent == Some(true),
        ipv4_compat: options.ipv4_compat,
        options: before_listen.map(bind_option).collect(),
    })
}

fn bind_option(option: SocketOption) -> BindOption {
    let (number, bytes) = match option.value {
        SocketOptionValue::Int(number) => (Some(number), Vec::new()),
        SocketOptionValue::Bytes(bytes) => (None, bytes),
    };
    let once_bound = option.state == SocketOptionState::Bound;
    BindOption { level: option.level, name: option.name, number, bytes, once_bound }
}

/// The opposite of [`bind`]. `None` when the address is not one that can be bound here.
fn bind_options(bind: &Bind, address: &str) -> Option<ListenSocketOptions> {
    let mut options = ListenSocketOptions::new(Address::Ip(address.parse().ok()?));
    options.reuse_port = bind.reuse_port;
    options.freebind = bind.freebind.then_some(true);
    options.transparent = bind.transparent.then_some(true);
    options.ipv4_compat = bind.ipv4_compat;
    options.socket_options = bind.options.iter().cloned().map(socket_option).collect();
    Some(options)
}

fn socket_option(option: BindOption) -> SocketOption {
    let BindOption { level, name, number, bytes, once_bound } = option;
    let value = number.map_or(SocketOptionValue::Bytes(bytes), SocketOptionValue::Int);
    let state = if once_bound { SocketOptionState::Bound } else { SocketOptionState::PreBind };
    SocketOption { level, name, value, state }
}

/// Child: asks for the sockets of its listeners, of which each worker is to have one, and of its admin port.
pub(super) async fn ask<'a>(
    channel: &Channel,
    listeners: impl Iterator<Item = &'a settings::Listener>,
    admin: Option<&SocketAddress>,
    workers: usize,
) -> Result<Inherited, TalkError> {
    let listeners = listeners.filter(|listener| listener.bind_to_port).flat_map(|listener| {
        listen_sockets::places(listener)
            .map(|(place, options)| Key::of(&listener.name, &place).wanted(bind(options, workers)))
    });
    let wanted: Vec<_> = listeners.chain(admin.map(|admin| Key::of_admin(admin).wanted(None))).collect();
    super::say(channel, Body::SocketsWanted(SocketsWanted { listeners: wanted.clone() })).await?;
    let mut inherited = Inherited::default();
    loop {
        let received = next(channel, ANSWER_LIMIT).await?;
        let Body::Sockets(sockets) = received.body else {
            return Err(TalkError::Unexpected(called(&received.body)));
        };
        let mut descriptors = received.descriptors.into_iter();
        for entry in sockets.entries {
            let Some(listener) = wanted.get(entry.listener as usize) else {
                return Err(TalkError::Unexpected("sockets of a listener that was not asked for"));
            };
            let WantedListener { name, address, occurrence, .. } = listener.clone();
            let key = Key { name, address, occurrence };
            let of_listener = inherited.0.entry(key).or_default();
            for descriptor in descriptors.by_ref().take(entry.count as usize) {
                let socket = ListenSocket::from_descriptor(descriptor);
                of_listener
                    .push(socket.map_err(|_| TalkError::Unexpected("a descriptor that is no socket"))?);
            }
        }
        if !sockets.more {
            return Ok(inherited);
        }
    }
}

/// Parent: duplicates what it has of what is wanted, and binds what it can of the rest; returns how many sockets that were.
pub(super) async fn give(
    channel: &Channel,
    wanted: &SocketsWanted,
    listeners: &ListenerManager,
    admin: Option<&AdminPort>,
) -> Result<usize, TalkError> {
    // Own duplicates, because the listeners may change while these are sent.
    let mut left: Vec<(u32, OwnedFd)> = Vec::new();
    for (index, listener) in (0..).zip(&wanted.listeners) {
        if listener.name.is_empty() {
            let port = admin.filter(|port| port.configured().to_string() == listener.address);
            let socket = port.map(AdminPort::duplicate).transpose().map_err(ChannelError::Io)?;
            left.extend(socket.map(|socket| (index, socket)));
            continue;
        }
        let sockets = sockets_for(listener, listeners).map_err(ChannelError::Io)?;
        left.extend(sockets.into_iter().map(|socket| (index, socket.into())));
    }
    let count = left.len();
    loop {
        let rest = left.split_off(left.len().min(DESCRIPTORS));
        let descriptors: Vec<BorrowedFd<'_>> = left.iter().map(|(_, socket)| socket.as_fd()).collect();
        let entries = left.chunk_by(|(one, _), (other, _)| one == other);
        let entries = entries.map(|same| SocketsOfListener { listener: same[0].0, count: same.len() as u32 });
        let sockets = Sockets { entries: entries.collect(), more: !rest.is_empty() };
        let more = sockets.more;
        match tokio::time::timeout(ANSWER_LIMIT, channel.send(Body::Sockets(sockets), &descriptors)).await {
            Ok(sent) => sent?,
            Err(_) => return Err(TalkError::Silence(ANSWER_LIMIT)),
        }
        if !more {
            return Ok(count);
        }
        left = rest;
    }
}

/// Duplicates of the listener's sockets, up to the number that is wanted; new ones if there is no such listener. If those
/// cannot be bound here, the child may try.
fn sockets_for(listener: &WantedListener, listeners: &ListenerManager) -> io::Result<Vec<ListenSocket>> {
    let count = listener.bind.as_ref().map_or(0, |bind| bind.sockets as usize).min(SOCKETS_OF_LISTENER);
    let place = Place { address: listener.address.clone(), occurrence: listener.occurrence };
    let of_listener = listeners.with_sockets(&listener.name, &place, count, |sockets| {
        sockets.iter().map(ListenSocket::duplicate).collect::<io::Result<Vec<_>>>()
    });
    let mut sockets = of_listener.transpose()?.unwrap_or_default();
    let options = listener.bind.as_ref().and_then(|bind| bind_options(bind, &listener.address));
    if let Some(options) = options
        && let Err(error) = ListenSocket::complete(&mut sockets, &options, count)
    {
        debug!(target: "restart", listener = listener.name, %error, "cannot bind for the new process");
    }
    Ok(sockets)
}

/// A process has at most so many workers.
const SOCKETS_OF_LISTENER: usize = u16::MAX as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_binds_as_the_child_would() {
        let option = |name, value, state| SocketOption { level: 1, name, value, state };
        let mut options = ListenSocketOptions::new(Address::Ip("[::1]:81".parse().unwrap()));
        options.freebind = Some(true);
        options.ipv4_compat = true;
        options.socket_options = vec![
            option(2, SocketOptionValue::Int(0), SocketOptionState::PreBind),
            option(3, SocketOptionValue::Bytes(b"x".to_vec()), SocketOptionState::Bound),
        ];
        let wanted = bind(options.clone(), 3).unwrap();
        let parents = bind_options(&wanted, &options.address.to_string()).unwrap();
        assert_eq!(format!("{parents:?}"), format!("{options:?}"));
        assert_eq!(wanted.sockets, 3);
        // What is set on a listening socket is the child's to set.
        options.socket_options = vec![option(4, SocketOptionValue::Int(1), SocketOptionState::Listening)];
        options.reuse_port = false;
        let wanted = bind(options, 3).unwrap();
        assert_eq!((wanted.options.len(), wanted.sockets), (0, 1));
    }

    #[test]
    fn a_unix_socket_is_bound_where_its_path_is_the_childs() {
        let options = ListenSocketOptions::new(Address::pipe("/tmp/socket").unwrap());
        assert_eq!(bind(options, 2), None);
    }
}
