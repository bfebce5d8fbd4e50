//! Time and memory of 10,000 clusters with 60 stats each: budget 100 ms and 1.5 KiB per cluster (2 threads).
//! `cargo run --release -p proxy-stats --example clusters [SEGMENT]`
#![allow(clippy::print_stdout)] // a measuring program prints

use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use proxy_stats::{ImportMode, Store, StoreOptions, ThreadIndex};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).map(std::path::PathBuf::from);
    let store = Store::create(StoreOptions { path: path.clone(), threads: 2, generation: 1, base_id: 0 })?;
    assert!(store.bind_thread(ThreadIndex(0)));
    let names: Vec<String> = (0..60).map(|index| format!("upstream_stat_of_usual_length_{index}")).collect();
    let clusters: Vec<String> = (0..10_000).map(|index| format!("cluster.service_{index}.")).collect();
    let mut scopes = Vec::with_capacity(clusters.len());
    let before = resident()?;
    let start = Instant::now();
    for cluster in &clusters {
        let scope = store.root().scope(cluster);
        for (index, name) in names.iter().enumerate() {
            if index % 6 == 0 {
                scope.gauge(name, ImportMode::Accumulate);
            } else {
                scope.counter(name);
            }
        }
        scopes.push(scope);
    }
    let created = start.elapsed();
    let heap = resident()?.saturating_sub(before);
    let start = Instant::now();
    let mut bytes = 0;
    store.for_each(|metric| bytes += metric.name.len());
    println!("created in {created:?}, walked in {:?} ({bytes} bytes of names)", start.elapsed());
    println!("resident after creation: {} bytes per cluster (cells not yet touched)", heap / clusters.len());
    if let Some(path) = path {
        let file = std::fs::metadata(path)?.blocks() * 512;
        println!("segment: {} bytes per cluster", file / clusters.len() as u64);
    }
    Ok(())
}

/// Anonymous memory only: the segment file is counted by its blocks.
fn resident() -> Result<usize, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? * 1024)
}
