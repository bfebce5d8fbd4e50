//! `config-examples/`: what is in `ok` loads; what is in `bad` fails with the error its first line names.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use proxy_tests::{Program, on_envoy, only_proxyd, proxyctl, workspace_root};

fn examples(kind: &str) -> Vec<PathBuf> {
    let directory = workspace_root().join("config-examples").join(kind);
    let mut files: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn validate(file: &PathBuf) -> Output {
    let mut command = match Program::under_test() {
        Program::Envoy(envoy) => {
            let mut command = Command::new(envoy);
            command.args(["--mode", "validate", "-l", "error", "-c"]);
            command
        }
        Program::Proxyd(_) => {
            let mut command = Command::new(proxyctl());
            command.args(["validate", "config"]);
            command
        }
    };
    command.arg(file).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn every_good_example_loads() {
    let files = examples("ok");
    assert!(files.len() >= 10);
    for file in files {
        let output = validate(&file);
        assert!(output.status.success(), "{}: {}", file.display(), text(&output));
    }
}

#[test]
fn every_bad_example_fails() {
    for file in examples("bad") {
        if on_envoy() && fs::read_to_string(&file).unwrap().contains("# Envoy accepts this") {
            continue;
        }
        let output = validate(&file);
        assert_eq!(output.status.code(), Some(1), "{}: {}", file.display(), text(&output));
    }
}

/// The first line of a bad example is `# expect: CODE at LINE:COLUMN`, one such part for each finding, separated
/// by commas.
#[test]
fn every_bad_example_fails_as_its_first_line_says() {
    only_proxyd!("codes and places are proxyctl's");
    for file in examples("bad") {
        let content = fs::read_to_string(&file).unwrap();
        let first = content.lines().next().unwrap_or_default();
        let expected =
            first.strip_prefix("# expect: ").unwrap_or_else(|| panic!("{}: {first}", file.display()));
        let said = text(&validate(&file));
        let name = file.file_name().unwrap().to_str().unwrap();
        for part in expected.split(", ") {
            let (code, place) = part.split_once(" at ").unwrap_or_else(|| panic!("{name}: {part}"));
            let found =
                said.lines().any(|line| line.contains(code) && line.contains(&format!("{name}:{place}")));
            assert!(found, "{name}: {part} is not in\n{said}");
        }
    }
}
