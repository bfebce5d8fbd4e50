//! What a connection manager does to requests before filters see them, where it is told to do more than usual.

use bytes::Bytes;

use super::{Cidr, HeaderMutations};

/// Fields of `HttpConnectionManager` of which most configurations set none.
#[derive(Debug, Default)]
pub struct Forwarding {
    /// `early_header_mutation_extensions`: one after the other, before anything else is done to a request.
    pub early_mutations: Vec<HeaderMutations>,
    pub strip_port: StripPort,
    /// `strip_trailing_host_dot`.
    pub strip_trailing_dot: bool,
    /// `via`, added to requests and responses.
    pub via: Option<Bytes>,
    /// `add_user_agent`: `node.cluster`, which stands in for a missing `user-agent`, and `node.id`.
    pub add_user_agent: Option<UserAgent>,
    /// `scheme_header_transformation.scheme_to_overwrite`; true: https.
    pub scheme_is_https: Option<bool>,
    /// `original_ip_detection_extensions`: the first one that finds an address, or refuses the request, decides. When
    /// there are none, the address is that of `x-forwarded-for` or the peer's.
    pub detections: Vec<IpDetection>,
    /// Of `request_id_extension`: leave the 15th character of a request id alone.
    pub plain_request_ids: bool,
}

/// `strip_port_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StripPort {
    #[default]
    Never,
    /// `strip_matching_host_port`: the listener's own port.
    Matching,
    Any,
}

/// What `add_user_agent` adds.
#[derive(Debug, Clone, Default)]
pub struct UserAgent {
    /// `x-envoy-downstream-service-cluster`.
    pub cluster: Bytes,
    /// `x-envoy-downstream-service-node`, unless it is empty.
    pub node: Bytes,
}

/// Where a client's address is looked for.
#[derive(Debug, Clone)]
pub enum IpDetection {
    /// `envoy.extensions.http.original_ip_detection.xff.v3.XffConfig`.
    ForwardedFor(ForwardedForDetection),
    /// `envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig`.
    Header {
        /// In lower case.
        name: Box<str>,
        /// `allow_extension_to_set_address_as_trusted`: the address can make a request internal.
        trusted: bool,
        /// `reject_with_status`: requests without an address are answered so.
        reject: Option<u16>,
    },
}

#[derive(Debug, Clone, Default)]
pub struct ForwardedForDetection {
    /// `xff_num_trusted_hops`: so many last entries are left out.
    pub hops: u32,
    /// `xff_trusted_cidrs`: only from these peers, and entries of these networks are passed over.
    pub trusted: Option<Vec<Cidr>>,
    /// `skip_xff_append` is false: the peer is added to `x-forwarded-for`.
    pub append: bool,
}
