//! Any bytes as a configuration file: YAML, JSON or a binary message, by the first byte, which also says whether variables are
//! filled in, and what is warned of. Loads to the end, also where something is not supported, so that lowering is reached, and
//! validates with all lints.
//!
//! Whatever the bytes are, each of the two takes at most [`MOST_TIME`] of the processor and [`MOST_MEMORY`], and both say the same.
#![no_main]

use std::alloc::System;
use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use cap::Cap;
use libfuzzer_sys::fuzz_target;
use nix::time::{ClockId, clock_gettime};
use proxy_config::lower::LowerOptions;
use proxy_config::{LintOptions, LoadInputs, LoadOptions, ValidateOptions, load, redacted, validate};
use tempfile::NamedTempFile;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

fuzz_target!(|data: &[u8]| {
    let Some((form, bytes)) = data.split_first() else { return };
    let has = |bit: u8| form & bit != 0;
    let suffix = match form % 4 {
        0 | 1 => ".yaml",
        2 => ".json",
        _ => ".pb",
    };
    let mut file = tempfile::Builder::new().suffix(suffix).tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let environment = [("A", "1"), ("LIST", "[a, b]"), ("TEXT", "x: \"y\" # ${A}"), ("EMPTY", "")];
    let environment: HashMap<_, _> =
        environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let load = LoadOptions {
        allow_unsupported: !has(32),
        environment: has(4).then(|| Arc::new(environment)),
        ..LoadOptions::default()
    };
    let over = std::str::from_utf8(bytes).ok().filter(|_| form % 4 == 1).map(str::to_owned);
    let loads = within_bounds(|| loads(&file, over, &load, !has(16)));
    let lint = Some(LintOptions { edge: has(8) });
    let options = ValidateOptions { load: LoadOptions { lint, ..load }, no_files: has(16) };
    let paths = [file.path().to_owned()];
    let reports = within_bounds(|| validate(&paths, &options));
    if form % 4 != 1 {
        assert_eq!(reports[0].has_errors(), !loads, "{:?}", reports[0].findings);
    }
});

/// Whether the file, or what is merged over it, can be run.
fn loads(file: &NamedTempFile, over: Option<String>, options: &LoadOptions, read_files: bool) -> bool {
    let inputs =
        LoadInputs { file: Some(file.path().to_owned()), yaml_override: over, options: options.clone() };
    match load(&inputs, &LowerOptions { read_files, ..LowerOptions::default() }) {
        Ok(configuration) => {
            drop(redacted("envoy.config.bootstrap.v3.Bootstrap", &configuration.message));
            true
        }
        Err(findings) => {
            assert!(!findings.is_empty(), "refused without a reason");
            false
        }
    }
}

/// An allocation past the bound aborts the process, which is a finding.
fn within_bounds<T>(work: impl FnOnce() -> T) -> T {
    ALLOCATOR.set_limit(ALLOCATOR.allocated() + MOST_MEMORY).unwrap();
    let before = processor_time();
    let done = work();
    let took = processor_time() - before;
    ALLOCATOR.set_limit(usize::MAX).unwrap();
    assert!(took <= MOST_TIME, "took {took:?}");
    done
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

const MOST_TIME: Duration = Duration::from_secs(2);
const MOST_MEMORY: usize = 512 << 20;
