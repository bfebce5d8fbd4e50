#![doc = include_str!("../DESIGN.md")]

pub mod hcm;
pub mod router;
pub mod tcp_proxy;

pub use hcm::HttpConnectionManager;
