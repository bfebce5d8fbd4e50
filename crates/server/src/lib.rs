#![doc = include_str!("../DESIGN.md")]

pub mod logging;
pub mod options;
pub mod signals;
