//! How much CPU time a start takes to go on from a killed process with traffic on 10,000 clusters: budget 100 ms.
//! `cargo run --release -p proxy-stats --example adoption`.
#![allow(clippy::print_stdout)] // a measuring program prints

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use proxy_stats::{Lineage, LineageOptions, LineagePath, LineageReader};

const CLUSTERS: usize = 10_000;
const NAMES: usize = 60;
const COUNTED: usize = 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(directory) = std::env::args().nth(1) {
        count_and_die(Path::new(&directory))?;
    }
    let directory = tempfile::tempdir_in("/dev/shm")?;
    // The first adopts one segment, later ones a base and a segment.
    for generation in 1..=4 {
        let program = std::env::current_exe()?;
        let status =
            Command::new(program).arg(directory.path()).env("GENERATION", generation.to_string()).status()?;
        assert!(status.success(), "{status}");
    }
    let start = cpu_time()?;
    let mut seen = (0, 0);
    LineageReader::open(&path(directory.path()))?.for_each(|metric| {
        seen = (seen.0 + 1, seen.1 + metric.value.number().unwrap_or(0));
    })?;
    println!("reader: {} names, sum {}, in {:?}", seen.0, seen.1, cpu_time()? - start);
    Ok(())
}

fn path(directory: &Path) -> LineagePath {
    LineagePath { directory: directory.to_owned(), prefix: "proxyd_adoption_".into() }
}

fn count_and_die(directory: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let generation = std::env::var("GENERATION")?.parse()?;
    let start = cpu_time()?;
    let (lineage, warnings) =
        Lineage::join(LineageOptions { path: path(directory), base_id: 1, generation, threads: 2 })?;
    let joined = cpu_time()? - start;
    assert!(warnings.is_empty(), "{warnings:?}");
    let root = lineage.store().root();
    let names: Vec<String> = (0..NAMES).map(|index| format!("upstream_some_usual_name_{index}")).collect();
    let start = cpu_time()?;
    let scopes: Vec<_> = (0..CLUSTERS).map(|index| root.scope(&format!("cluster.backend_{index}"))).collect();
    for scope in &scopes {
        let counters: Vec<_> = names.iter().map(|name| scope.counter(name)).collect();
        counters.iter().take(COUNTED).for_each(|counter| counter.inc());
    }
    let made = cpu_time()? - start;
    let start = cpu_time()?;
    lineage.settle();
    lineage.look();
    println!(
        "generation {generation}: joined in {joined:?}, stats made in {made:?}, settled in {:?}",
        cpu_time()? - start
    );
    lineage.tend();
    // As killed: nothing is dropped.
    std::process::exit(0);
}

fn cpu_time() -> Result<Duration, Box<dyn std::error::Error>> {
    let line = std::fs::read_to_string("/proc/self/schedstat")?;
    Ok(Duration::from_nanos(line.split(' ').next().ok_or("no CPU time")?.parse()?))
}
