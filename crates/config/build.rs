//! Compiles the .proto files that travel inside `envoy-types` into the descriptor set that `config`
//! embeds: field names, message rules and annotations, with no protoc and no network.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{collections::BTreeSet, env, fs};

use prost::Message;
use prost_types::FileDescriptorProto;
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver};

/// Where the .proto roots lie inside the `envoy-types` package.
const ROOTS: &[&str] = &[
    "data-plane-api",
    "xds",
    "protoc-gen-validate",
    "googleapis",
    "cel-spec/proto",
    "opentelemetry-proto",
    "client_model",
];

/// Names that even a pool of their own resolves wrongly, because the file imports what shadows them
/// indirectly: file, name as written, name as meant.
const QUALIFIED: &[(&str, &str, &str)] = &[(
    "envoy/extensions/clusters/dynamic_forward_proxy/v3/cluster.proto",
    " common.dynamic_forward_proxy.v3.",
    " .envoy.extensions.common.dynamic_forward_proxy.v3.",
)];

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let protos = envoy_types_dir()?.join("proto");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={}", protos.display());

    let roots: Vec<PathBuf> = ROOTS.iter().map(|root| protos.join(root)).collect();
    let mut files = Vec::new();
    for root in &roots {
        list_protos(root, root, &mut files)?;
    }
    files.sort();
    let mut set = DescriptorSet::default();
    while !files.is_empty() {
        let put_off = set.add(&roots, &files)?;
        println!("descriptor set: {} files, {} in a further pool", files.len(), put_off.len());
        files = put_off;
    }
    fs::write(out.join("descriptors.bin"), set.bytes)?;
    Ok(())
}

/// The directory of the `envoy-types` package that this build uses.
fn envoy_types_dir() -> Result<PathBuf, Box<dyn Error>> {
    println!("cargo:rerun-if-changed=Cargo.toml");
    let output = Command::new(env::var("CARGO")?)
        .args(["metadata", "--offline", "--format-version=1", "--filter-platform", &env::var("TARGET")?])
        .current_dir(env::var("CARGO_MANIFEST_DIR")?)
        .output()?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let package = packages.iter().find(|package| package["name"] == "envoy-types");
    let manifest =
        package.and_then(|package| package["manifest_path"].as_str()).ok_or("envoy-types not found")?;
    Ok(Path::new(manifest).parent().ok_or("envoy-types has no directory")?.to_owned())
}

fn list_protos(root: &Path, dir: &Path, files: &mut Vec<String>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            list_protos(root, &path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            let name = path.strip_prefix(root)?.to_str().ok_or("a .proto path is not UTF-8")?;
            files.push(name.to_owned());
        }
    }
    Ok(())
}

fn resolver(roots: &[PathBuf]) -> ChainFileResolver {
    let mut chain = ChainFileResolver::new();
    chain.add(Qualifying { roots: roots.to_vec() });
    for root in roots {
        chain.add(IncludeFileResolver::new(root.clone()));
    }
    chain.add(GoogleFileResolver::new());
    chain
}

/// Opens the files of [`QUALIFIED`] with their names written out.
struct Qualifying {
    roots: Vec<PathBuf>,
}

impl FileResolver for Qualifying {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let entry = QUALIFIED.iter().find(|(file, ..)| *file == name);
        let source = self.roots.iter().find_map(|root| fs::read_to_string(root.join(name)).ok());
        match (entry, source) {
            (Some((_, written, meant)), Some(source)) => {
                File::from_source(name, &source.replace(written, meant))
            }
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// An encoded FileDescriptorSet under construction, each file once.
#[derive(Default)]
struct DescriptorSet {
    names: BTreeSet<String>,
    bytes: Vec<u8>,
}

impl DescriptorSet {
    /// Compiles `files` and what they import in one pool and adds what is new; answers the files that
    /// need another pool. A name written relative to its package, `config.core.v3.Address`, is looked
    /// up from the inside out: protoc looks only at what a file imports, protox at all of the pool, so
    /// `envoy.extensions.config` of an unrelated file shadows `envoy.config`.
    fn add(&mut self, roots: &[PathBuf], files: &[String]) -> Result<Vec<String>, Box<dyn Error>> {
        let mut compiler = Compiler::with_file_resolver(resolver(roots));
        compiler.include_imports(true);
        let mut put_off = Vec::new();
        for file in files {
            if let Err(error) = compiler.open_file(file) {
                if put_off.len() + 1 == files.len() {
                    return Err(error.into());
                }
                put_off.push(file.clone());
            }
        }
        // Taken as bytes: decoding into prost types would lose the options, which are extensions.
        let encoded = compiler.encode_file_descriptor_set();
        let mut rest = encoded.as_slice();
        while !rest.is_empty() {
            let frame = rest;
            let (_, _) = prost::encoding::decode_key(&mut rest)?;
            let length = prost::encoding::decode_varint(&mut rest)? as usize;
            let (file, after) = rest.split_at(length);
            rest = after;
            if self.names.insert(FileDescriptorProto::decode(file)?.name().to_owned()) {
                self.bytes.extend_from_slice(&frame[..frame.len() - after.len()]);
            }
        }
        Ok(put_off)
    }
}
