//! Network filters that turn connections away.

use std::sync::Arc;
use std::time::Duration;

use super::{Cidr, StringMatcher};

/// `envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit`.
#[derive(Debug)]
pub struct ConnectionLimit {
    pub stat_prefix: String,
    /// At least 1.
    pub max_connections: u64,
    /// How long a connection too many is kept before it is closed; closed at once when `None`.
    pub delay: Option<Duration>,
    /// `runtime_enabled`, true when unset.
    pub enabled: bool,
}

/// `envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit`.
#[derive(Debug)]
pub struct NetworkRateLimit {
    pub stat_prefix: String,
    pub bucket: TokenBucket,
    /// `runtime_enabled`, true when unset.
    pub enabled: bool,
    /// `share_key`: filters with the same one and the same bucket take from one bucket; from their own when `None`.
    pub share_key: Option<Arc<str>>,
}

/// `envoy.type.v3.TokenBucket`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenBucket {
    pub max_tokens: u32,
    /// At least 1.
    pub tokens_per_fill: u32,
    /// At least 50 ms.
    pub fill_interval: Duration,
}

/// `envoy.extensions.filters.network.rbac.v3.RBAC`.
#[derive(Debug)]
pub struct NetworkRbac {
    pub stat_prefix: String,
    /// `rules`: decide whether a connection is served.
    pub rules: Option<RbacRules>,
    /// `shadow_rules`: only counted.
    pub shadow_rules: Option<RbacRules>,
    pub shadow_rules_stat_prefix: String,
    /// `delay_deny`: how long a denied connection is kept before it is closed; closed at once when `None`.
    pub delay_deny: Option<Duration>,
}

/// `envoy.config.rbac.v3.RBAC`.
#[derive(Debug)]
pub struct RbacRules {
    pub action: RbacAction,
    /// In the order of their names. A connection matches a policy if it has one of its permissions and one of its
    /// principals.
    pub policies: Vec<RbacPolicy>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RbacAction {
    /// Only what matches a policy is allowed.
    Allow,
    /// What matches a policy is not allowed.
    Deny,
    /// All is allowed.
    Log,
}

#[derive(Debug)]
pub struct RbacPolicy {
    pub name: Box<str>,
    pub permissions: Vec<RbacRule>,
    pub principals: Vec<RbacRule>,
}

/// `envoy.config.rbac.v3.Permission` and `Principal`, as far as they are about connections.
#[derive(Debug)]
pub enum RbacRule {
    Any,
    All(Vec<RbacRule>),
    OneOf(Vec<RbacRule>),
    Not(Box<RbacRule>),
    /// `destination_ip`.
    Destination(Cidr),
    /// `destination_port` and `destination_port_range`: from the first to before the second.
    DestinationPorts {
        start: u32,
        end: u32,
    },
    /// `requested_server_name`; a connection without one has the empty name.
    ServerName(StringMatcher),
    /// `remote_ip` and its older name `source_ip`.
    Remote(Cidr),
    /// `direct_remote_ip`.
    DirectRemote(Cidr),
}
