#![doc = include_str!("../DESIGN.md")]

mod accept;
mod address;
mod balance;
pub mod buffer;
mod chain_match;
mod connect;
mod connection;
mod filter;
mod handover;
mod io;
mod listen;
mod moved;
pub mod pipe;
pub mod record;
pub mod sockopt;

pub use accept::{AcceptHooks, AcceptOptions, QueueAtEnd, accept_loop};
pub use address::{Address, AddressError, PipePath};
pub use balance::{Balance, BalancedConnection};
pub use chain_match::ChainMatcher;
pub use connect::{ConnectOptions, connect};
pub use connection::{
    Connection, ConnectionId, ConnectionIds, ConnectionInfo, FilterState, FilterStateText, ListenerMetadata,
};
pub use filter::{CloseReason, Limit, ListenerFilter, LocalBoxFuture, NetworkFilter, NextNetwork, Refuse};
pub use handover::{Given, Handover, Mobility, Offered, Receipt};
pub use io::Io;
pub use listen::{BindError, ListenSocket, ListenSocketOptions};
pub use moved::{Moved, MovedConnection, MovedKind};
pub use record::{AttemptGuard, Moment, StreamRecord, Transfer, UpstreamAttempt, UpstreamHost};
