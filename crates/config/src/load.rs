//! Loading a bootstrap: file and `--config-yaml` to trees, to one message, to findings.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use prost::Message as _;

use crate::allow;
use crate::check;
use crate::codes::Code;
use crate::excerpt::{self, SourceText};
use crate::extension::ExtensionTypes;
use crate::finding::{Finding, Findings, Path, Place, Severity};
use crate::lint;
use crate::locate::Locator;
use crate::lower::{self, ClusterNames, LowerOptions};
use crate::schema;
use crate::settings;
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
    /// What proxyd does not implement is a warning instead of an error, and left out.
    pub allow_unsupported: bool,
    /// Types of filters that the program has besides proxyd's.
    pub extensions: Arc<ExtensionTypes>,
    /// `${VAR}` in values is filled in from these; left as it is without.
    pub environment: Option<Arc<HashMap<String, String>>>,
    /// Also warns about what is allowed and probably not meant.
    pub lint: Option<LintOptions>,
}

/// What to warn about.
#[derive(Debug, Clone, Default)]
pub struct LintOptions {
    /// Every connection manager serves clients that nobody trusts, not only those with `use_remote_address`.
    pub edge: bool,
}

/// How to validate.
#[derive(Debug, Clone, Default)]
pub struct ValidateOptions {
    pub load: LoadOptions,
    /// What needs files that the configuration names is not looked at.
    pub no_files: bool,
}

/// A bootstrap that can be run.
#[derive(Debug)]
pub struct Configuration {
    pub settings: settings::Bootstrap,
    /// The message it was lowered from, `envoy.config.bootstrap.v3.Bootstrap` in protobuf encoding: for
    /// `/config_dump`, through [`redacted`](crate::redacted).
    pub message: Vec<u8>,
    /// In the order of the file.
    pub warnings: Vec<Finding>,
}

/// A bootstrap message and what was found on the way to it.
#[derive(Debug)]
pub struct Loaded {
    /// As far as it could be read; not to be used if `findings.has_errors()`.
    pub bootstrap: Bootstrap,
    /// The same message encoded, maybe in several pieces that a decoder merges.
    pub bytes: Vec<u8>,
    /// Places findings of later stages in the sources.
    pub findings: Findings,
    /// Nothing could be read at all: no such file, no permission, wrong suffix.
    pub unreadable: bool,
    /// As it was read.
    pub file: Option<settings::NamedFile>,
    /// The texts that it was read from.
    sources: Vec<SourceText>,
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

/// Loads, checks and lowers a bootstrap; every finding if there is an error among them.
/// `options.allow_unsupported` of either kind of options counts for both.
pub fn load(inputs: &LoadInputs, lowering: &LowerOptions) -> Result<Configuration, Vec<Finding>> {
    let Loaded { bootstrap, bytes, mut findings, file, .. } = load_bootstrap(inputs);
    let names = lower::cluster_names(&bootstrap);
    let mut settings = lower_readable(&bootstrap, &names, &inputs.options, lowering, &mut findings);
    if let Some(settings) = &mut settings {
        settings.files.extend(file);
    }
    // The largest thing in memory while loading; what follows only needs the settings.
    drop(bootstrap);
    match settings {
        Some(settings) if !findings.has_errors() => {
            Ok(Configuration { settings, message: bytes, warnings: findings.into_vec() })
        }
        _ => Err(findings.into_vec()),
    }
}

/// Checks each file as a bootstrap of its own, with all that lowering and the lints can tell.
pub fn validate(paths: &[PathBuf], options: &ValidateOptions) -> Vec<FileReport> {
    paths.iter().map(|path| validate_file(path, options)).collect()
}

fn validate_file(path: &FilePath, options: &ValidateOptions) -> FileReport {
    let inputs =
        LoadInputs { file: Some(path.to_owned()), yaml_override: None, options: options.load.clone() };
    let Loaded { bootstrap, mut findings, unreadable, sources, .. } = load_bootstrap(&inputs);
    let lowering = LowerOptions { read_files: !options.no_files, ..LowerOptions::default() };
    let names = lower::cluster_names(&bootstrap);
    lower_readable(&bootstrap, &names, &options.load, &lowering, &mut findings);
    if let Some(lint) = options.load.lint.as_ref().filter(|_| is_readable(&findings)) {
        lint::bootstrap(&bootstrap, &names, lint, &mut findings);
    }
    let secrets = findings.secrets().to_vec();
    let mut findings = findings.into_vec();
    if options.load.lint.is_some() {
        findings = allow::apply(findings, &sources);
    }
    excerpt::attach(&mut findings, &sources, &secrets);
    FileReport { path: path.to_owned(), findings, unreadable }
}

/// Lowers a message that has been read, with errors or without, so that all of them come together.
fn lower_readable(
    bootstrap: &Bootstrap,
    names: &ClusterNames,
    options: &LoadOptions,
    lowering: &LowerOptions,
    findings: &mut Findings,
) -> Option<settings::Bootstrap> {
    if !is_readable(findings) {
        return None;
    }
    let allow_unsupported = options.allow_unsupported || lowering.allow_unsupported;
    let extensions = Arc::clone(&options.extensions);
    let lowering = LowerOptions { allow_unsupported, extensions, ..lowering.clone() };
    lower::bootstrap_with(names, bootstrap, &lowering, findings)
}

/// Whether there is a message to go on with.
fn is_readable(findings: &Findings) -> bool {
    let hopeless = findings.is_full() && findings.has_errors();
    !hopeless && !findings.iter().any(|finding| finding.code.is_hopeless())
}

/// Reads and checks a bootstrap against the v3 API and the table of what is supported. Never fails:
/// everything wrong is a finding.
pub fn load_bootstrap(inputs: &LoadInputs) -> Loaded {
    let message = schema::message(BOOTSTRAP).expect("the v3 API has a bootstrap, tests load one");
    let (mut sources, mut file) = (Vec::new(), None);
    if let Some(path) = &inputs.file {
        sources.push(Source::open(path, &mut file));
    }
    if let Some(text) = &inputs.yaml_override {
        let (tree, problems) = yaml::parse("--config-yaml".into(), text);
        sources.push(Ok(Source::Tree(tree, problems, text.clone())));
    }
    let mut findings = Findings::default();
    let mut texts = Vec::new();
    let mut unreadable = false;
    // Messages written one after the other are merged (protobuf encoding, "last one wins").
    let mut bytes = Vec::new();
    let mut trees = Vec::new();
    for source in sources {
        match source {
            Ok(Source::Tree(mut tree, mut problems, text)) => {
                problems.retain(|problem| problem.code != Code::MERGE_KEY || inputs.options.lint.is_some());
                if let (Some(tree), Some(environment)) = (&mut tree, &inputs.options.environment) {
                    problems.extend(tree.substitute(environment));
                }
                let file =
                    problems.first().and_then(|problem| problem.place.as_ref()).map(|place| &place.file);
                if let Some(file) = tree.as_ref().map(|tree| tree.root().file()).or(file) {
                    texts.push(SourceText { file: Arc::clone(file), text });
                }
                problems.into_iter().for_each(|problem| findings.push(problem));
                if let Some(tree) = tree {
                    bytes.extend_from_slice(&reader::read(
                        tree.root(),
                        message,
                        &inputs.options.extensions,
                        &mut findings,
                    ));
                    trees.push(Arc::new(tree));
                }
            }
            Ok(Source::Binary(message)) => bytes.extend_from_slice(&message),
            Err(finding) => {
                unreadable = true;
                findings.push(*finding);
            }
        }
    }
    findings.set_locator(Locator::new(trees));
    if is_readable(&findings) {
        check::check(message, &bytes, &Path::root(), &inputs.options, &mut findings);
    }
    let bootstrap = decode(&bytes, &mut findings);
    Loaded { bootstrap, bytes, findings, unreadable, file, sources: texts }
}

/// The decoded message may be hundreds of times as large as its text, so it is left alone where nothing
/// more could be said about it.
fn decode(bytes: &[u8], findings: &mut Findings) -> Bootstrap {
    if !is_readable(findings) {
        return Bootstrap::default();
    }
    Bootstrap::decode(bytes).unwrap_or_else(|error| {
        findings.error(&Path::root(), Code::SYNTAX, format_args!("not a valid bootstrap: {error}"));
        Bootstrap::default()
    })
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
    Tree(Option<Tree>, Vec<Finding>, String),
    Binary(Vec<u8>),
}

impl Source {
    /// Reads a file in the format that its suffix names. If it names none (`/dev/stdin`), a file that starts with a brace is
    /// JSON, as it is to Envoy, and any other YAML.
    fn open(path: &FilePath, read: &mut Option<settings::NamedFile>) -> Result<Source, Box<Finding>> {
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
        *read = Some(settings::NamedFile::new(path, &bytes, String::new()));
        if suffix(&[".pb"]) {
            return Ok(Source::Binary(bytes));
        }
        let text = match String::from_utf8(bytes) {
            Ok(text) => text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let finding = not_utf8(name, &error.as_bytes()[..valid]);
                return Ok(Source::Tree(None, vec![finding], String::new()));
            }
        };
        let is_yaml =
            suffix(&[".yaml", ".yml"]) || !suffix(&[".json"]) && !text.trim_start().starts_with('{');
        let parse = if is_yaml { yaml::parse } else { json::parse };
        let (tree, problems) = parse(name, &text);
        Ok(Source::Tree(tree, problems, text))
    }
}

fn read_bounded(path: &FilePath) -> std::io::Result<Vec<u8>> {
    // Standard input may be a pipe; that one has no name in any directory.
    if fs::metadata(path)?.file_type().is_fifo() && fs::canonicalize(path).is_ok() {
        return Err(std::io::Error::other("a named pipe, where reading may wait for ever"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Names its file, having no place to do it.
fn unreadable(name: &str, why: &str) -> Box<Finding> {
    let message = format!("cannot read {name}: {why}");
    Box::new(Finding::new(Severity::Error, Code::UNREADABLE, String::new(), None, message))
}

fn not_utf8(file: Arc<str>, valid: &[u8]) -> Finding {
    let text = String::from_utf8_lossy(valid);
    let line = text.matches('\n').count() + 1;
    let column = text.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let place = Place { file, line: line as u32, column: column as u32 };
    Finding::new(Severity::Error, Code::NOT_UTF8, String::new(), Some(place), "not valid UTF-8".to_owned())
}

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// Bytes of the largest file that is read.
pub const MAX_FILE: u64 = 256 << 20;
