//! Listening sockets on their way from one generation to the next: all sockets of a listener, in the order of their
//! reuseport group, so that none is left without somebody who accepts.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use proxy_config::settings::{self, SocketAddress};
use proxy_control::restart::channel::DESCRIPTORS;
use proxy_control::restart::message::{Sockets, SocketsOfListener, SocketsWanted, WantedListener};
use proxy_control::restart::{Body, Channel, ChannelError};
use proxy_net::{Address, ListenSocket};

use super::{ANSWER_LIMIT, TalkError, called, next};
use crate::admin::AdminPort;
use crate::listeners::ListenerManager;

/// Sockets taken over from the generation before, until listeners ask for them.
#[derive(Debug, Default)]
pub(crate) struct Inherited(HashMap<WantedListener, Vec<ListenSocket>>);

impl Inherited {
    /// The sockets of a listener, none if it is new.
    pub(crate) fn take(&mut self, listener: &settings::Listener) -> Vec<ListenSocket> {
        self.0.remove(&wanted(listener)).unwrap_or_default()
    }

    /// The admin port's socket.
    pub(crate) fn take_admin(&mut self, address: &SocketAddress) -> Option<OwnedFd> {
        self.0.remove(&wanted_admin(address))?.pop().map(OwnedFd::from)
    }
}

fn wanted(listener: &settings::Listener) -> WantedListener {
    WantedListener { name: listener.name.to_string(), address: Address::from(&listener.address).to_string() }
}

/// A listener always has a name.
fn wanted_admin(address: &SocketAddress) -> WantedListener {
    WantedListener { name: String::new(), address: Address::from(address).to_string() }
}

/// Child: asks for the sockets of its listeners, of which each worker is to have one, and of its admin port.
pub(super) async fn ask<'a>(
    channel: &Channel,
    listeners: impl Iterator<Item = &'a settings::Listener>,
    admin: Option<&SocketAddress>,
    each: usize,
) -> Result<Inherited, TalkError> {
    let wanted: Vec<_> = listeners.map(wanted).chain(admin.map(wanted_admin)).collect();
    let each = u32::try_from(each).unwrap_or(u32::MAX);
    super::say(channel, Body::SocketsWanted(SocketsWanted { listeners: wanted.clone(), each })).await?;
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
            let of_listener = inherited.0.entry(listener.clone()).or_default();
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

/// Parent: duplicates what it has of what is wanted, and binds what listeners of its own lack; returns how many sockets that
/// were.
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
        let each = wanted.each.min(MAX_EACH) as usize;
        let sockets = listeners.with_sockets(&listener.name, &listener.address, each, |sockets| {
            sockets.iter().map(|socket| socket.as_fd().try_clone_to_owned()).collect::<Result<Vec<_>, _>>()
        });
        let sockets = sockets.transpose().map_err(ChannelError::Io)?;
        left.extend(sockets.into_iter().flatten().map(|socket| (index, socket)));
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

/// As many workers as a process can have.
const MAX_EACH: u32 = u16::MAX as u32;
