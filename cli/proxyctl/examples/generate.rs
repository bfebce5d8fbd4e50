//! Writes `man/` and `completions/` from the command lines of the programs. `--check`: only says whether they are current.
//!
//! `cargo run -q -p proxyctl --example generate`

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::Shell;

#[allow(dead_code, reason = "only its definition is used here")]
#[path = "../src/arguments.rs"]
mod proxyctl;
#[allow(dead_code, reason = "only its definition is used here")]
#[path = "../../proxyd/src/arguments.rs"]
mod proxyd;
#[allow(dead_code, reason = "only its definition is used here")]
#[path = "../../proxytop/src/arguments.rs"]
mod proxytop;
#[allow(dead_code, reason = "only its manual is used here")]
#[path = "../../proxytop/src/columns.rs"]
mod proxytop_columns;

fn main() -> io::Result<ExitCode> {
    let root = root();
    let wanted = generated()?;
    let stale = stale(&root, &wanted)?;
    if std::env::args().any(|argument| argument == "--check") {
        for path in &stale {
            writeln!(
                io::stderr(),
                "{} is not current: run cargo run -p proxyctl --example generate",
                path.display()
            )?;
        }
        return Ok(if stale.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    for path in stale {
        match wanted.get(&path) {
            Some(content) => fs::write(root.join(path), content)?,
            None => fs::remove_file(root.join(path))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every file, by its path in the workspace.
fn generated() -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    // The page explains every column.
    let proxytop = proxytop::Arguments::command().after_long_help(proxytop_columns::manual());
    for command in [proxyd::Arguments::command(), proxyctl::Arguments::command(), proxytop] {
        let program = command.get_name().to_owned();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut command.clone(), &program, &mut text);
            let name = match shell {
                Shell::Zsh => format!("_{program}"),
                Shell::Fish => format!("{program}.fish"),
                _ => format!("{program}.bash"),
            };
            files.insert(Path::new("completions").join(name), text);
        }
        pages(command.disable_help_subcommand(true), &program, &mut files)?;
    }
    Ok(files)
}

/// The page of a command and those of its subcommands.
fn pages(command: Command, name: &str, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> io::Result<()> {
    let mut command = command.name(name.to_owned()).bin_name(name.replace('-', " "));
    command = command.version(env!("CARGO_PKG_VERSION"));
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        pages(subcommand.clone(), &format!("{name}-{}", subcommand.get_name()), files)?;
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text)?;
    files.insert(Path::new("man").join(format!("{name}.1")), text);
    Ok(())
}

/// Files that are missing, different, or left over.
fn stale(root: &Path, wanted: &BTreeMap<PathBuf, Vec<u8>>) -> io::Result<Vec<PathBuf>> {
    let mut stale: Vec<_> = wanted
        .iter()
        .filter(|(path, content)| fs::read(root.join(path)).ok().as_ref() != Some(*content))
        .map(|(path, _)| path.clone())
        .collect();
    for directory in ["man", "completions"] {
        for entry in fs::read_dir(root.join(directory))? {
            let path = Path::new(directory).join(entry?.file_name());
            if !wanted.contains_key(&path) {
                stale.push(path);
            }
        }
    }
    Ok(stale)
}

#[test]
fn manual_pages_and_completions_are_current() {
    let stale = stale(&root(), &generated().unwrap()).unwrap();
    assert!(stale.is_empty(), "{stale:?}: run cargo run -p proxyctl --example generate");
}
