//! What a filter of the connection level is, and why a connection ended.
//!
//! Filters are straight async functions. A chain is built once from the configuration and shared by a worker's
//! connections; a filter that is not the last hands the connection on through [`NextNetwork`].

use std::io;
use std::pin::Pin;
use std::rc::Rc;

use crate::connection::{Connection, ConnectionInfo};
use crate::moved::MovedConnection;

/// A future that stays on its worker.
pub type LocalBoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Looks at a connection before its filter chain is chosen: may read into `prefix` and replace `info`.
pub trait ListenerFilter {
    /// # Errors
    /// When the connection is to be closed instead.
    fn inspect<'a>(&'a self, connection: &'a mut Connection) -> LocalBoxFuture<'a, Result<(), Refuse>>;
}

/// Serves a connection, or wraps those that do.
pub trait NetworkFilter {
    /// Owns the connection to its end. A terminal filter ignores `next`.
    ///
    /// # Errors
    /// When it did not end in good order.
    fn serve<'a>(
        &'a self,
        connection: Connection,
        next: NextNetwork<'a>,
    ) -> LocalBoxFuture<'a, Result<(), CloseReason>>;

    /// Whether the filter can go on with a connection that another process began ([`Connection::moved`]). All filters of
    /// its chain must. One that lets connections through to others has let this one through in that process already: it
    /// counts it where it counts what there is, but does not decide again in `serve`.
    fn takes(&self, _moved: &MovedConnection, _info: &ConnectionInfo) -> bool {
        false
    }

    /// A filter before this one has turned the connection away. To be counted and told of in logs as one that was over
    /// before it began, as in Envoy, where all filters of a chain begin together.
    fn turned_away(&self, _info: &Rc<ConnectionInfo>) {}
}

/// The filters after the one that is serving.
#[derive(Clone, Copy)]
pub struct NextNetwork<'a> {
    filters: &'a [Rc<dyn NetworkFilter>],
}

/// Why a listener filter turned a connection away.
#[derive(Debug, thiserror::Error)]
pub enum Refuse {
    /// The client closed before enough had come (`downstream_listener_filter_remote_close`).
    #[error("the peer closed while listener filters waited for data")]
    RemoteClose,
    /// The listener filters took longer than `listener_filters_timeout` (`downstream_pre_cx_timeout`).
    #[error("listener filters timed out")]
    Timeout,
    /// What came is not what the filter requires (`downstream_listener_filter_error`).
    #[error("refused by a listener filter: {0}")]
    Protocol(&'static str),
    /// The socket failed.
    #[error("reading from the peer failed: {0}")]
    Io(#[from] io::Error),
}

/// Why a connection did not end in good order, by who is at fault.
#[derive(Debug, thiserror::Error)]
pub enum CloseReason {
    /// The downstream socket failed: reset, or gone.
    #[error("downstream connection failed: {0}")]
    Downstream(#[source] io::Error),
    /// The client broke the protocol.
    #[error("downstream protocol error: {0}")]
    DownstreamProtocol(&'static str),
    /// The upstream connection failed after it was made.
    #[error("upstream connection failed: {0}")]
    Upstream(#[source] io::Error),
    /// No upstream connection could be made.
    #[error("no upstream connection: {0}")]
    NoUpstream(&'static str),
    /// The configuration has nowhere to send it.
    #[error("no route: {0}")]
    NoRoute(&'static str),
    /// One of its time limits passed.
    #[error("time limit passed: {0}")]
    Timeout(Limit),
    /// A filter turned it away.
    #[error("denied: {0}")]
    Denied(&'static str),
    /// It goes on in another process; nothing has ended.
    #[error("moved to another process")]
    Moved,
    /// We are at a limit of our own, or going away.
    #[error("closed by the proxy: {0}")]
    Local(&'static str),
}

/// The time limits of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// `idle_timeout`.
    Idle,
    /// `max_connection_duration`, `max_downstream_connection_duration`.
    Duration,
    /// `transport_socket_connect_timeout`.
    Handshake,
}

impl<'a> NextNetwork<'a> {
    /// All filters of a chain; [`NextNetwork::serve`] starts with the first.
    pub fn new(filters: &'a [Rc<dyn NetworkFilter>]) -> Self {
        Self { filters }
    }

    /// Hands the connection to the next filter; past the last, closes it.
    ///
    /// # Errors
    /// As the filter's; `NoRoute` when there is none, which the configuration's check precludes.
    pub async fn serve(self, connection: Connection) -> Result<(), CloseReason> {
        match self.filters.split_first() {
            Some((filter, rest)) => filter.serve(connection, NextNetwork { filters: rest }).await,
            None => Err(CloseReason::NoRoute("no terminal filter")),
        }
    }
}

impl NextNetwork<'_> {
    /// Tells all of them that they will not see the connection.
    pub fn turned_away(self, info: &Rc<ConnectionInfo>) {
        self.filters.iter().for_each(|filter| filter.turned_away(info));
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Idle => "idle timeout",
            Self::Duration => "maximum connection duration",
            Self::Handshake => "transport socket connect timeout",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::{Address, PipePath};
    use crate::buffer::ReadBuffer;
    use crate::connection::ConnectionId;
    use crate::io::Io;
    use std::cell::RefCell;
    use std::sync::Arc;

    #[derive(Default)]
    struct Trace(RefCell<Vec<&'static str>>);

    struct Wrap(Rc<Trace>);
    struct Last(Rc<Trace>);

    impl NetworkFilter for Wrap {
        fn serve<'a>(
            &'a self,
            mut connection: Connection,
            next: NextNetwork<'a>,
        ) -> LocalBoxFuture<'a, Result<(), CloseReason>> {
            Box::pin(async move {
                self.0.0.borrow_mut().push("before");
                connection.prefix = ReadBuffer::from_slice(b"seen");
                let result = next.serve(connection).await;
                self.0.0.borrow_mut().push("after");
                result
            })
        }
    }

    impl NetworkFilter for Last {
        fn serve<'a>(
            &'a self,
            connection: Connection,
            next: NextNetwork<'a>,
        ) -> LocalBoxFuture<'a, Result<(), CloseReason>> {
            Box::pin(async move {
                assert_eq!(connection.prefix.data(), b"seen");
                self.0.0.borrow_mut().push("last");
                next.serve(connection).await
            })
        }
    }

    #[tokio::test]
    async fn filters_run_in_order_and_past_the_last_the_connection_closes() {
        let trace = Rc::new(Trace::default());
        let chain: Vec<Rc<dyn NetworkFilter>> =
            vec![Rc::new(Wrap(Rc::clone(&trace))), Rc::new(Last(Rc::clone(&trace)))];
        let (ours, _theirs) = tokio::net::UnixStream::pair().unwrap();
        let unnamed = Address::Pipe(Arc::new(PipePath::Unnamed));
        let info = ConnectionInfo::accepted(
            ConnectionId(1),
            Rc::from("listener"),
            unnamed.clone(),
            unnamed,
            proxy_runtime::clock::now(),
            proxy_runtime::clock::system_now(),
        );
        let connection = Connection::new(Io::Unix(ours), Rc::new(info));
        let result = NextNetwork::new(&chain).serve(connection).await;
        assert!(matches!(result, Err(CloseReason::NoRoute(_))));
        assert_eq!(*trace.0.borrow(), ["before", "last", "after"]);
    }
}
