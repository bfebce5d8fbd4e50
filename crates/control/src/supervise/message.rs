//! What a generation and its supervisor say to each other, as protobuf. The supervisor is the older of the two most of the time:
//! what it does not know it answers with [`Unknown`], and unknown fields are passed over.

use prost::Message;

/// One message on the wire.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Envelope {
    #[prost(oneof = "Body", tags = "1, 2, 3, 4, 5, 6")]
    pub(super) body: Option<Body>,
}

/// What a message says.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Body {
    #[prost(message, tag = "1")]
    Spawn(Spawn),
    #[prost(message, tag = "2")]
    Leads(Leads),
    #[prost(message, tag = "3")]
    Spawned(Spawned),
    #[prost(message, tag = "4")]
    NotSpawned(NotSpawned),
    #[prost(message, tag = "5")]
    Ended(Ended),
    #[prost(message, tag = "6")]
    Unknown(Unknown),
}

/// Generation: wants another one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Spawn {
    /// [`PROTOCOL`].
    #[prost(uint32, tag = "1")]
    pub(super) protocol: u32,
    /// Chosen by who asks; answers carry it.
    #[prost(uint64, tag = "2")]
    pub(super) id: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) program: Vec<u8>,
    /// Without the program's name.
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub(super) arguments: Vec<Vec<u8>>,
}

/// Generation: leads from now on. Not answered.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Leads {}

/// Supervisor: it runs.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Spawned {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    /// In the supervisor's PID namespace, which is that of its generations.
    #[prost(uint32, tag = "2")]
    pub(super) pid: u32,
}

/// Supervisor: it does not.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct NotSpawned {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    /// For people.
    #[prost(string, tag = "2")]
    pub(super) text: String,
}

/// Supervisor: it does not any more. With an exit code or a signal.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Ended {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(int32, optional, tag = "2")]
    pub(super) code: Option<i32>,
    #[prost(int32, optional, tag = "3")]
    pub(super) signal: Option<i32>,
}

/// The last message was not understood.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Unknown {}

pub(super) fn encode(body: Body) -> Vec<u8> {
    Envelope { body: Some(body) }.encode_to_vec()
}

/// `None`: nothing this version understands.
pub(super) fn decode(bytes: &[u8]) -> Option<Body> {
    Envelope::decode(bytes).ok()?.body
}

/// Of the messages and their meaning. Raised only by a change that the other side must not pass over.
pub(super) const PROTOCOL: u32 = 1;
/// Largest message, of which the arguments make up most. A UNIX socket's buffer takes one of this size.
pub(super) const MESSAGE_BYTES: usize = 128 << 10;
