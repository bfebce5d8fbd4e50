//! The connections of a socket, of which there are at most so many: when all places are taken, who comes gets that of the connection
//! that has asked nothing for longest. So idle connections, however many, keep nobody out.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

/// All connections of a socket.
#[derive(Clone)]
pub(super) struct Crowd {
    most: usize,
    connections: Rc<RefCell<Vec<Rc<Connection>>>>,
    /// Counts ends of answers, to say which was earlier.
    turn: Rc<Cell<u64>>,
}

/// One of them, while it lives.
pub(super) struct Place {
    crowd: Crowd,
    connection: Rc<Connection>,
}

struct Connection {
    /// Requests that are not answered to the end.
    busy: Cell<usize>,
    idle_since: Cell<u64>,
    displaced: Notify,
}

/// Keeps a connection from being displaced.
struct Busy {
    connection: Rc<Connection>,
    turn: Rc<Cell<u64>>,
}

/// An answer, until the end of which a connection is busy.
pub(super) struct BusyBody<B> {
    body: B,
    _busy: Busy,
}

impl Crowd {
    pub(super) fn new(most: usize) -> Self {
        Self { most, connections: Rc::default(), turn: Rc::default() }
    }

    /// A place for a connection; none if all others are busy.
    pub(super) fn enter(&self) -> Option<Place> {
        let mut connections = self.connections.borrow_mut();
        if connections.len() >= self.most {
            let idle = connections.iter().enumerate().filter(|(_, connection)| connection.busy.get() == 0);
            let (at, _) = idle.min_by_key(|(_, connection)| connection.idle_since.get())?;
            connections.swap_remove(at).displaced.notify_one();
        }
        let connection = Rc::new(Connection {
            busy: Cell::new(0),
            idle_since: Cell::new(next(&self.turn)),
            displaced: Notify::new(),
        });
        connections.push(Rc::clone(&connection));
        drop(connections);
        Some(Place { crowd: self.clone(), connection })
    }
}

impl Place {
    /// Resolves when somebody else has the place, and no answer is under way.
    pub(super) async fn lost(&self) {
        self.connection.displaced.notified().await;
        if self.connection.busy.get() > 0 {
            // It has asked something at the last moment. It is not counted any more, and ends when it is idle for too long.
            std::future::pending::<()>().await;
        }
    }

    /// Marks who answers as busy until the end of the answer.
    pub(super) fn answers<B>(&self, body: impl FnOnce() -> http::Response<B>) -> http::Response<BusyBody<B>> {
        self.connection.busy.update(|busy| busy + 1);
        let busy = Busy { connection: Rc::clone(&self.connection), turn: Rc::clone(&self.crowd.turn) };
        body().map(|body| BusyBody { body, _busy: busy })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let connection = &self.connection;
        self.crowd.connections.borrow_mut().retain(|other| !Rc::ptr_eq(other, connection));
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.connection.busy.update(|busy| busy - 1);
        self.connection.idle_since.set(next(&self.turn));
    }
}

impl<B: Body<Data = Bytes, Error = Infallible> + Unpin> Body for BusyBody<B> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn next(turn: &Cell<u64>) -> u64 {
    turn.update(|turn| turn + 1);
    turn.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_lost(place: &Place) -> bool {
        let mut lost = std::pin::pin!(place.lost());
        lost.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn who_has_been_idle_for_longest_goes() {
        let crowd = Crowd::new(3);
        let places: Vec<_> = (0..3).map(|_| crowd.enter().unwrap()).collect();
        drop(places[0].answers(|| http::Response::new(())));
        let held = places[1].answers(|| http::Response::new(()));
        // The third has never asked, the first has asked since.
        let fourth = crowd.enter().unwrap();
        assert_eq!([0, 1, 2].map(|at| has_lost(&places[at])), [false, false, true]);
        let _of_fourth = fourth.answers(|| http::Response::new(()));
        let fifth = crowd.enter().unwrap();
        assert!(has_lost(&places[0]));
        let _of_fifth = fifth.answers(|| http::Response::new(()));
        assert!(crowd.enter().is_none(), "all are busy");
        drop(held);
        assert!(crowd.enter().is_some() && has_lost(&places[1]));
    }

    #[test]
    fn who_leaves_makes_room() {
        let crowd = Crowd::new(1);
        let one = crowd.enter().unwrap();
        let _busy = one.answers(|| http::Response::new(()));
        assert!(crowd.enter().is_none());
        drop(one);
        assert!(crowd.enter().is_some());
    }
}
