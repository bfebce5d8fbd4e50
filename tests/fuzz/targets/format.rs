//! Any text as a format string of an access log: an operator is either compiled or refused with a reason.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy_config::lower::format::{FormatFacts, parse};

fuzz_target!(|text: &str| {
    match parse(text, &FormatFacts::default()) {
        // Without a percent sign there is nothing to compile: it is text.
        Ok(format) if !text.contains('%') => assert!(format.pieces.len() <= 1),
        Ok(_) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
