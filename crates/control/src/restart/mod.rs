//! What two generations say to each other during a hot restart: messages ([`message`]) and the socket that carries them and
//! descriptors ([`channel`]); and what the operator hears of it. Who says what when is decided in `proxy-server`.
//!
//! ```text
//! child                                 parent (leader)
//! Hello                           ->    Welcome, or Refused
//! SocketsWanted                   ->    Sockets (as many messages as it takes)
//! Serving, then Heartbeat         ->    Stopped: accepts no more
//! Confirm                         ->    leads no more
//!                                 <-    Offer (lends descriptors)
//! Accept or Refuse                ->    Release (they are the child's), or Withdraw (they never were)
//! StopOffering                    ->
//!                                 <-    End
//! ```

pub mod channel;
pub mod message;
mod progress;

pub use channel::{Channel, ChannelError, Received, RestartSocket};
pub use message::Body;
pub use progress::{Moved, Progress, Standing, Status, Step};

/// Of the messages and their order. A process that speaks another one is refused before anything has happened.
pub const PROTOCOL: u32 = 1;
