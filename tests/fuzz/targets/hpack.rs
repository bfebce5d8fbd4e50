//! Any bytes as a header block of METADATA: what is read stays within its limit, and is the same when it is written and
//! read again.
//!
//! The first two bytes are the limit.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use proxy_http::h2::metadata::hpack::{decode, encode};

fuzz_target!(|data: &[u8]| {
    let Some(([high, low], block)) = data.split_first_chunk() else { return };
    let limit = usize::from(u16::from_be_bytes([*high, *low]));
    let Ok(lines) = decode(block, limit) else { return };
    let size: usize = lines.iter().map(|(name, value)| name.len() + value.len()).sum();
    assert!(size <= limit, "more than was allowed");
    let names: BTreeSet<_> = lines.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), lines.len(), "a name twice");
    assert_eq!(decode(&encode(&lines), limit), Ok(lines), "not the same again");
});
