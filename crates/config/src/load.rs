//! Loading a bootstrap: file and `--config-yaml` to trees, to one message, to findings.

use std::fs::File;
use std::io::Read;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use prost::Message as _;

use crate::check;
use crate::finding::{Code, Finding, Findings, Path, Place, Severity};
use crate::locate::Locator;
use crate::schema::{self, Message};
use crate::tree::Tree;
use crate::{json, reader, yaml};

/// What to load.
#[derive(Debug, Clone, Default)]
pub struct LoadInputs {
    /// `-c`: YAML, JSON or protobuf binary, by suffix.
    pub file: Option<PathBuf>,
    /// `--config-yaml`: YAML text merged over the file as protobuf merges messages: scalars replace,
    /// lists are appended, messages merged.
    pub yaml_override: Option<String>,
    pub options: LoadOptions,
}

/// How strict to be.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// What proxyd does not implement is a warning instead of an error.
    pub allow_unsupported: bool,
}

/// A bootstrap message and what was found on the way to it.
#[derive(Debug)]
pub struct Loaded {
    /// As far as it could be read; not to be used if `findings.has_errors()`.
    pub bootstrap: Bootstrap,
    /// Places findings of later stages in the sources.
    pub findings: Findings,
    /// Nothing could be read at all: no such file, no permission, wrong suffix.
    pub unreadable: bool,
}

/// What one file holds, with all that was found in it.
#[derive(Debug)]
pub struct FileReport {
    pub path: PathBuf,
    /// In the order of the file.
    pub findings: Vec<Finding>,
    pub unreadable: bool,
}

impl FileReport {
    pub fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }
}

/// Reads and checks a bootstrap against the v3 API and the table of what is supported. Never fails:
/// everything wrong is a finding.
pub fn load_bootstrap(inputs: &LoadInputs) -> Loaded {
    let mut found = Findings::default();
    let mut unreadable = false;
    let mut bytes = Vec::new();
    let mut trees = Vec::new();
    let Some(message) = schema::message("envoy.config.bootstrap.v3.Bootstrap") else {
        unreachable!("the v3 API has a bootstrap")
    };
    let mut add = |source: Result<Source, Box<Finding>>, found: &mut Findings| match source {
        Ok(Source::Tree(tree, problems)) => {
            problems.into_iter().for_each(|problem| found.push(problem));
            if let Some(tree) = tree {
                bytes.extend_from_slice(&reader::read(tree.root(), message, found));
                trees.push(Arc::new(tree));
            }
        }
        // Messages written one after the other are merged (protobuf encoding, "last one wins").
        Ok(Source::Binary(message)) => bytes.extend_from_slice(&message),
        Err(finding) => {
            unreadable = true;
            found.push(*finding);
        }
    };
    if let Some(file) = &inputs.file {
        add(Source::open(file), &mut found);
    }
    if let Some(text) = &inputs.yaml_override {
        let (tree, problems) = yaml::parse("--config-yaml".into(), text);
        add(Ok(Source::Tree(tree, problems)), &mut found);
    }
    found.set_locator(Locator::new(trees));
    finish(message, &bytes, &inputs.options, found, unreadable)
}

fn finish(
    message: &'static Message,
    bytes: &[u8],
    options: &LoadOptions,
    mut findings: Findings,
    unreadable: bool,
) -> Loaded {
    let parsed = !findings.iter().any(|finding| matches!(finding.code, Code::SYNTAX | Code::UNREADABLE));
    if parsed {
        check::check(message, bytes, &Path::root(), options, &mut findings);
    }
    let bootstrap = Bootstrap::decode(bytes).unwrap_or_else(|error| {
        if !findings.has_errors() {
            findings.error(&Path::root(), Code::SYNTAX, format_args!("not a valid bootstrap: {error}"));
        }
        Bootstrap::default()
    });
    Loaded { bootstrap, findings, unreadable }
}

/// Checks each file as a bootstrap of its own.
pub fn validate(paths: &[PathBuf], options: &LoadOptions) -> Vec<FileReport> {
    let report = |path: &PathBuf| {
        let inputs = LoadInputs { file: Some(path.clone()), yaml_override: None, options: options.clone() };
        let loaded = load_bootstrap(&inputs);
        FileReport { path: path.clone(), findings: loaded.findings.into_vec(), unreadable: loaded.unreadable }
    };
    paths.iter().map(report).collect()
}

/// Holds a message that came by discovery or in binary form against the v3 API and the table of what
/// is supported. `type_name` is a full name without a leading slash or host.
pub fn check_message(type_name: &str, bytes: &[u8], options: &LoadOptions, findings: &mut Findings) {
    match schema::message(type_name) {
        Some(message) => check::check(message, bytes, &Path::root(), options, findings),
        None => findings.error(&Path::root(), Code::UNKNOWN_TYPE, format_args!("unknown type `{type_name}`")),
    }
}

/// The content of one input.
enum Source {
    Tree(Option<Tree>, Vec<Finding>),
    Binary(Vec<u8>),
}

impl Source {
    /// Reads a file in the format that its suffix names; like Envoy, JSON if it names none.
    fn open(path: &FilePath) -> Result<Source, Box<Finding>> {
        let name: Arc<str> = path.to_string_lossy().into();
        let lower = name.to_lowercase();
        let suffix = |suffixes: &[&str]| suffixes.iter().any(|suffix| lower.ends_with(suffix));
        if suffix(&[".pb_text"]) {
            return Err(unreadable(&name, "protobuf text format is not supported; use .yaml, .json or .pb"));
        }
        let bytes = read_bounded(path).map_err(|error| unreadable(&name, &error.to_string()))?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(unreadable(&name, &format!("larger than {} MiB", MAX_FILE >> 20)));
        }
        if suffix(&[".pb"]) {
            return Ok(Source::Binary(bytes));
        }
        let text = match std::str::from_utf8(&bytes) {
            Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
            Err(error) => {
                let finding = not_utf8(name, &bytes[..error.valid_up_to()]);
                return Ok(Source::Tree(None, vec![finding]));
            }
        };
        let parse = if suffix(&[".yaml", ".yml"]) { yaml::parse } else { json::parse };
        let (tree, problems) = parse(name, text);
        Ok(Source::Tree(tree, problems))
    }
}

fn read_bounded(path: &FilePath) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn unreadable(name: &str, why: &str) -> Box<Finding> {
    Box::new(Finding {
        severity: Severity::Error,
        code: Code::UNREADABLE,
        path: String::new(),
        place: None,
        message: format!("{name}: {why}"),
    })
}

fn not_utf8(file: Arc<str>, valid: &[u8]) -> Finding {
    let text = String::from_utf8_lossy(valid);
    let line = text.matches('\n').count() + 1;
    let column = text.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Finding {
        severity: Severity::Error,
        code: Code::SYNTAX,
        path: String::new(),
        place: Some(Place { file, line: line as u32, column: column as u32 }),
        message: "not valid UTF-8".to_owned(),
    }
}

/// Bytes of the largest file that is read.
pub const MAX_FILE: u64 = 256 << 20;
