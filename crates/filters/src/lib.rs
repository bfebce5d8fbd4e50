#![doc = include_str!("../DESIGN.md")]

pub mod extensions;
pub mod hcm;
pub mod http;
pub mod network;
mod relay;
mod retry;
pub mod router;
pub mod tcp_proxy;
pub mod token_bucket;

pub use extensions::Extensions;
pub use hcm::HttpConnectionManager;
