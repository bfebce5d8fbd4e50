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

/// Also warnings are told by the exit code.
fn validate_strictly(file: &PathBuf) -> Output {
    validate(file, &["--deny", "warnings"])
}

fn validate(file: &PathBuf, arguments: &[&str]) -> Output {
    let mut command = match Program::under_test() {
        Program::Envoy(envoy) => {
            let mut command = Command::new(envoy);
            command.args(["--mode", "validate", "-l", "error", "-c"]);
            command
        }
        Program::Proxyd(_) => {
            let mut command = Command::new(proxyctl());
            command.args(["validate", "config"]).args(arguments);
            let content = fs::read_to_string(file).unwrap();
            let arguments = content.lines().find_map(|line| line.strip_prefix("# With ")?.split_once(':'));
            command.args(arguments.into_iter().flat_map(|(arguments, _)| arguments.split(' ')));
            command
        }
    };
    command.arg(file).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn every_good_example_loads_without_a_warning() {
    let files = examples("ok");
    assert!(files.len() >= 10);
    for file in files {
        let output = validate_strictly(&file);
        assert!(output.status.success(), "{}: {}", file.display(), text(&output));
    }
}

#[test]
fn every_bad_example_fails() {
    for file in examples("bad") {
        let content = fs::read_to_string(&file).unwrap();
        let otherwise = ["# Envoy accepts this", "# Envoy hangs on this", "# Envoy crashes on this"];
        if on_envoy() && otherwise.iter().any(|words| content.contains(words)) {
            continue;
        }
        let output = validate_strictly(&file);
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
        let said = text(&validate_strictly(&file));
        let name = file.file_name().unwrap().to_str().unwrap();
        for part in expected.split(", ") {
            let (code, place) = part.split_once(" at ").unwrap_or_else(|| panic!("{name}: {part}"));
            let found =
                said.lines().any(|line| line.contains(code) && line.contains(&format!("{name}:{place}")));
            assert!(found, "{name}: {part} is not in\n{said}");
        }
    }
}

#[test]
fn there_is_a_bad_example_for_every_code() {
    only_proxyd!("codes are proxyctl's");
    let listed = Command::new(proxyctl()).arg("explain").output().unwrap();
    let listed = text(&listed);
    let first_lines: Vec<String> = examples("bad")
        .iter()
        .map(|file| fs::read_to_string(file).unwrap().lines().next().unwrap_or_default().to_owned())
        .collect();
    // A file without text has no first line, and some are too large to be kept.
    let without = ["unreadable", "not-utf8", "empty-document", "too-many-findings"];
    let mut count = 0;
    for code in
        listed.lines().filter_map(|line| line.split(' ').next()).filter(|code| !without.contains(code))
    {
        let named = |line: &String| line.contains(&format!(" {code} at "));
        assert!(first_lines.iter().any(named), "no example of {code}");
        count += 1;
    }
    assert!(count >= 60, "{count} codes");
}

/// What is wrong with a file is told at once, and nothing else.
#[test]
fn a_dozen_mistakes_are_told_at_once() {
    only_proxyd!("Envoy tells one");
    let file = workspace_root().join("config-examples/bad/18-a-dozen-mistakes.yaml");
    let said = text(&validate_strictly(&file));
    let first = fs::read_to_string(&file).unwrap().lines().next().unwrap().to_owned();
    assert_eq!(first.split(", ").count(), 12);
    assert!(said.ends_with("12 errors, 0 warnings\n"), "{said}");
}
