//! Connections of another process, in a hot restart: whether a listener of this worker would go on with one, and going on.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use proxy_net::{Connection, ConnectionInfo, Io, MovedConnection};
use proxy_runtime::clock;

use super::{Listener, listeners, serve};
use crate::listener_stats::ListenerConnection;

/// Whether this worker would go on with a connection of another process: it has the listener, which would serve it in the
/// same way.
pub(crate) fn would_adopt(moved: &MovedConnection) -> Result<(), &'static str> {
    let (listener, info) = find_adopter(moved).ok_or("there is no such listener")?;
    let chain = listener.chain_for(&info).ok_or("no filter chain matches")?;
    let takes = !chain.filters.is_empty() && chain.filters.iter().all(|filter| filter.takes(moved, &info));
    takes.then_some(()).ok_or("its filter chain has changed")
}

/// Goes on with a connection of another process; the first descriptor is its stream.
pub(crate) fn adopt(moved: MovedConnection, descriptors: Vec<OwnedFd>) {
    let Some((listener, mut info)) = find_adopter(&moved) else { return };
    listener.keep_record(&mut info);
    let mut descriptors = descriptors.into_iter();
    let Some(io) = descriptors.next().and_then(|stream| Io::from_descriptor(stream).ok()) else { return };
    let (prefix, moved) = moved.into_parts(descriptors.collect(), clock::now());
    let Some(chain) = listener.chain_for(&info) else { return };
    info.metadata = chain.metadata.clone();
    let connection = Connection { io, prefix, info: Rc::new(info), moved: Some(Box::new(moved)) };
    let logged = listener.logged(Some(&chain), &connection);
    let counted = ListenerConnection::resumed(&listener.counts, connection.info.started);
    let admitted = listener.plan.admission.admit_anyway(listener.worker);
    serve(&listener, chain, connection, (counted, admitted), logged);
}

fn find_adopter(moved: &MovedConnection) -> Option<(Rc<Listener>, ConnectionInfo)> {
    let listeners = listeners();
    let active = listeners.active.borrow();
    let named = active.values().filter(|listener| *listener.name == *moved.listener);
    // Two while one takes the place of the other.
    let listener = named.max_by_key(|listener| !listener.accepting.is_draining())?;
    let info = moved.info(listener.ids.next(), Rc::clone(&listener.name), clock::now())?;
    Some((Rc::clone(listener), info))
}
