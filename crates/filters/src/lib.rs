#![doc = include_str!("../DESIGN.md")]

pub mod hcm;
pub mod router;

pub use hcm::HttpConnectionManager;
