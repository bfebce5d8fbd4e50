//! Any bytes as a configuration file: YAML, JSON or a binary message, by the first byte. Loads to the end, also where
//! something is not supported, so that lowering is reached.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy_config::lower::LowerOptions;
use proxy_config::{LoadInputs, LoadOptions, load, redacted};

fuzz_target!(|data: &[u8]| {
    let Some((form, bytes)) = data.split_first() else { return };
    let options = LoadOptions { allow_unsupported: true, ..Default::default() };
    let mut inputs = LoadInputs { file: None, yaml_override: None, options };
    if form % 4 < 2 {
        // Text needs no file.
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        inputs.yaml_override = Some(text.to_owned());
        return judge(&inputs);
    }
    let suffix = if form % 4 == 2 { ".json" } else { ".pb" };
    let file = tempfile::Builder::new().suffix(suffix).tempfile().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    inputs.file = Some(file.path().to_owned());
    judge(&inputs);
});

fn judge(inputs: &LoadInputs) {
    match load(inputs, &LowerOptions::default()) {
        Ok(configuration) => drop(redacted("envoy.config.bootstrap.v3.Bootstrap", &configuration.message)),
        Err(findings) => assert!(!findings.is_empty(), "refused without a reason"),
    }
}
