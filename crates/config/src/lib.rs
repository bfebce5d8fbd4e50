#![doc = include_str!("../DESIGN.md")]
