#![doc = include_str!("../DESIGN.md")]

pub mod hcm;
mod retry;
pub mod router;
pub mod tcp_proxy;

pub use hcm::HttpConnectionManager;
