#![doc = include_str!("../DESIGN.md")]

pub mod extensions;
pub mod hcm;
pub mod http;
mod retry;
pub mod router;
pub mod tcp_proxy;

pub use extensions::Extensions;
pub use hcm::HttpConnectionManager;
