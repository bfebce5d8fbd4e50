#![doc = include_str!("../DESIGN.md")]

pub mod admin;
pub mod control_socket;
pub mod logging;
pub mod options;
pub mod signals;
