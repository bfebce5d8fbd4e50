use std::time::Duration;

use bytes::Bytes;

use crate::settings::{Fraction, HeaderMatcher};

/// `envoy.extensions.filters.http.fault.v3.HTTPFault`, of the filter or of a route.
#[derive(Debug, Clone)]
pub struct Fault {
    pub delay: Option<FaultDelay>,
    pub abort: Option<FaultAbort>,
    pub rate: Option<FaultRate>,
    /// Only requests to this cluster.
    pub cluster: Option<Box<str>>,
    pub headers: Vec<HeaderMatcher>,
    /// Only requests from these (`x-envoy-downstream-service-node`); empty: from all.
    pub nodes: Vec<Box<str>>,
    /// `max_active_faults`.
    pub most: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
pub struct FaultDelay {
    /// `None`: what `x-envoy-fault-delay-request` says.
    pub fixed: Option<Duration>,
    pub share: Fraction,
}

#[derive(Debug, Clone)]
pub struct FaultAbort {
    pub status: AbortStatus,
    pub share: Fraction,
    /// `response_body`, with Envoy's default filled in.
    pub body: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortStatus {
    /// 200 to 599.
    Http(u16),
    Grpc(u32),
    /// What `x-envoy-fault-abort-request` or `x-envoy-fault-abort-grpc-request` says.
    Headers,
}

/// `response_rate_limit`.
#[derive(Debug, Clone, Copy)]
pub struct FaultRate {
    /// KiB per second, at least 1; `None`: what `x-envoy-fault-throughput-response` says.
    pub fixed: Option<u64>,
    pub share: Fraction,
}
