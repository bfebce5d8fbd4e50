//! The messages of a hot restart, as protobuf. A field or message that one side does not know does no harm: unknown fields
//! are passed over, an unknown message is answered with [`Unknown`].

/// One message on the wire.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Envelope {
    #[prost(oneof = "Body", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18")]
    pub body: Option<Body>,
}

/// What a message says.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Body {
    #[prost(message, tag = "1")]
    Hello(Hello),
    #[prost(message, tag = "2")]
    Welcome(Welcome),
    #[prost(message, tag = "3")]
    Refused(Refused),
    #[prost(message, tag = "4")]
    SocketsWanted(SocketsWanted),
    #[prost(message, tag = "5")]
    Sockets(Sockets),
    #[prost(message, tag = "6")]
    Serving(Serving),
    #[prost(message, tag = "7")]
    Stopped(Stopped),
    #[prost(message, tag = "8")]
    Heartbeat(Heartbeat),
    #[prost(message, tag = "9")]
    Confirm(Confirm),
    #[prost(message, tag = "10")]
    Offer(Offer),
    #[prost(message, tag = "11")]
    Accept(Accept),
    #[prost(message, tag = "12")]
    Refuse(Refuse),
    #[prost(message, tag = "13")]
    Release(Release),
    #[prost(message, tag = "14")]
    Withdraw(Withdraw),
    #[prost(message, tag = "15")]
    StopOffering(StopOffering),
    #[prost(message, tag = "16")]
    End(End),
    #[prost(message, tag = "17")]
    Unknown(Unknown),
    #[prost(message, tag = "18")]
    GiveUp(GiveUp),
}

/// Child: wants to take over.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Hello {
    /// [`PROTOCOL`](super::PROTOCOL).
    #[prost(uint32, tag = "1")]
    pub protocol: u32,
    #[prost(uint64, tag = "2")]
    pub generation: u64,
    /// `--restart-epoch` as asked for; absent for `auto`.
    #[prost(uint32, optional, tag = "3")]
    pub epoch: Option<u32>,
    /// For messages to people.
    #[prost(string, tag = "4")]
    pub version: String,
    /// Its number in the lineage of stats.
    #[prost(uint64, tag = "5")]
    pub segment: u64,
}

/// Parent: goes along.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Welcome {
    #[prost(uint64, tag = "1")]
    pub generation: u64,
    /// The child's epoch.
    #[prost(uint32, tag = "2")]
    pub epoch: u32,
    /// When the first epoch began, in milliseconds since 1970.
    #[prost(uint64, tag = "3")]
    pub first_started_ms: u64,
    /// Its number in the lineage of stats.
    #[prost(uint64, tag = "4")]
    pub segment: u64,
    /// Of the leader word: the child may change it as long as it says this, so not after the parent has taken back.
    #[prost(uint32, tag = "5")]
    pub turn: u32,
}

/// Parent: does not.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Refused {
    #[prost(enumeration = "Reason", tag = "1")]
    pub reason: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub text: String,
}

/// Why a parent refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Reason {
    Unspecified = 0,
    /// Another restart is under way, or too many generations live. Worth another try.
    Busy = 1,
    /// It speaks another protocol.
    Protocol = 2,
    /// The epoch asked for is not the next one.
    Epoch = 3,
    /// It does not lead (any more).
    NotLeader = 4,
    /// It is on its way out.
    Ending = 5,
}

/// Child: these sockets are needed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SocketsWanted {
    #[prost(message, repeated, tag = "1")]
    pub listeners: Vec<WantedListener>,
}

/// A listener of the child's configuration.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct WantedListener {
    #[prost(string, tag = "1")]
    pub name: String,
    /// As configured; port 0 is the port that the parent's listener of the same name has.
    #[prost(string, tag = "2")]
    pub address: String,
    /// How to bind what the parent does not have; absent if only the child can.
    #[prost(message, optional, tag = "3")]
    pub bind: Option<Bind>,
    /// How many addresses before this one of the listener read the same, which can be with port 0 alone.
    #[prost(uint32, tag = "4")]
    pub occurrence: u32,
}

/// How sockets of a listener are bound, in Envoy's words.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Bind {
    /// So many.
    #[prost(uint32, tag = "1")]
    pub sockets: u32,
    #[prost(bool, tag = "2")]
    pub reuse_port: bool,
    #[prost(bool, tag = "3")]
    pub freebind: bool,
    #[prost(bool, tag = "4")]
    pub transparent: bool,
    #[prost(bool, tag = "5")]
    pub ipv4_compat: bool,
    #[prost(message, repeated, tag = "6")]
    pub options: Vec<BindOption>,
}

/// A socket option with a number or with bytes.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct BindOption {
    #[prost(int32, tag = "1")]
    pub level: i32,
    #[prost(int32, tag = "2")]
    pub name: i32,
    #[prost(int32, optional, tag = "3")]
    pub number: Option<i32>,
    #[prost(bytes = "vec", tag = "4")]
    pub bytes: Vec<u8>,
    /// Set once the socket is bound, rather than before.
    #[prost(bool, tag = "5")]
    pub once_bound: bool,
}

/// Parent: sockets, as descriptors of this message in the order of the entries.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Sockets {
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<SocketsOfListener>,
    /// More messages follow.
    #[prost(bool, tag = "2")]
    pub more: bool,
}

/// Sockets of one listener, in the order of their reuseport group.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SocketsOfListener {
    /// Index into [`SocketsWanted::listeners`].
    #[prost(uint32, tag = "1")]
    pub listener: u32,
    #[prost(uint32, tag = "2")]
    pub count: u32,
}

/// Child: accepts.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Serving {}

/// Parent: accepts no more.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Stopped {}

/// Child, now and then between `Serving` and `Confirm`: still there.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Heartbeat {}

/// Child: leads from now on; the leader word says so already.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Confirm {}

/// Parent: lends a connection, as descriptors of this message.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Offer {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// What the child needs to go on; not understood here.
    #[prost(bytes = "vec", tag = "2")]
    pub state: Vec<u8>,
}

/// Child: would take it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Accept {
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// Child: has no use for it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Refuse {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// For logs.
    #[prost(string, tag = "2")]
    pub text: String,
}

/// Parent: has let go of an accepted connection. It is the child's.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Release {
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// Parent: goes on with the connection itself; an `Accept` that comes now comes too late.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Withdraw {
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// Child: is being replaced itself; no more offers.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StopOffering {}

/// Parent: the last message; all that it has not released stays with it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct End {}

/// The last message was not understood.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Unknown {}

/// Child, before `Confirm`: it will not come to that.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GiveUp {
    /// For people.
    #[prost(string, tag = "1")]
    pub text: String,
}
