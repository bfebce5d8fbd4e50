//! Loads a file as `proxyd` would and says what was found and how long it took: for measuring.

use std::time::Instant;

use proxy_config::{LoadInputs, LoadOptions, load_bootstrap};

#[allow(clippy::print_stdout)]
fn main() {
    let allow_unsupported = std::env::args().any(|argument| argument == "--allow-unsupported");
    for file in std::env::args().skip(1).filter(|argument| !argument.starts_with("--")) {
        let options = LoadOptions { allow_unsupported };
        let inputs = LoadInputs { file: Some(file.into()), yaml_override: None, options };
        let start = Instant::now();
        let loaded = load_bootstrap(&inputs);
        let took = start.elapsed();
        for finding in loaded.findings.into_vec() {
            println!("{finding}");
        }
        println!("{took:?}");
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .filter(|line| line.starts_with("VmHWM") || line.starts_with("VmRSS"))
        .for_each(|line| println!("{line}"));
}
