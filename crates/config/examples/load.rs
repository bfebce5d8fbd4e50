//! Loads files as `proxyd` would and says what was found, how long it took and how much memory: for
//! measuring. `cargo run --profile fast -p proxy-config --example load -- [--allow-unsupported] FILE...`

use std::process::ExitCode;
use std::time::Instant;

use proxy_config::lower::LowerOptions;
use proxy_config::{LoadInputs, LoadOptions, load};

#[allow(clippy::print_stdout)]
fn main() -> ExitCode {
    let allow_unsupported = std::env::args().any(|argument| argument == "--allow-unsupported");
    let mut exit = ExitCode::SUCCESS;
    for file in std::env::args().skip(1).filter(|argument| !argument.starts_with("--")) {
        let options = LoadOptions { allow_unsupported, ..Default::default() };
        let inputs = LoadInputs { file: Some(file.into()), yaml_override: None, options };
        let start = Instant::now();
        let loaded = load(&inputs, &LowerOptions::default());
        let took = start.elapsed();
        let findings = match &loaded {
            Ok(configuration) => &configuration.warnings,
            Err(findings) => {
                exit = ExitCode::FAILURE;
                findings
            }
        };
        findings.iter().for_each(|finding| println!("{finding}"));
        println!("{took:?}");
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory = status.lines().filter(|line| line.starts_with("VmHWM") || line.starts_with("VmRSS"));
    memory.for_each(|line| println!("{line}"));
    exit
}
