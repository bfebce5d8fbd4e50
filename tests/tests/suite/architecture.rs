//! The workspace's shape: a crate depends only on floors below it, as DESIGN.md draws them.

use std::collections::BTreeMap;
use std::process::Command;

use proxy_tests::workspace_root;
use serde_json::Value;

/// Floors from the ground up; on floor 1 the order of the row itself is the order of dependence.
const FLOORS: &[(&str, u32)] = &[
    ("proxy-stats", 0),
    ("proxy-config", 0),
    ("proxy-runtime", 10),
    ("proxy-net", 11),
    ("proxy-http", 12),
    ("proxy-upstream", 13),
    ("proxy-control", 10),
    ("proxy-filters", 20),
    ("proxy-xds", 20),
    ("proxy-server", 30),
    ("proxyd", 40),
    ("proxyctl", 40),
    ("proxytop", 40),
    ("proxy-tests", 50),
    ("proxyd-with-greetings", 50),
];

/// Crates that floor 0 must not know: it is shared by programs that have none of them.
const NOT_ON_FLOOR_0: &[&str] = &["tokio", "hyper", "h2"];

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .current_dir(workspace_root())
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// Names of a package's dependencies for its own code; `dev` adds those of its tests.
fn dependencies(package: &Value) -> Vec<String> {
    let all = package["dependencies"].as_array().unwrap();
    all.iter()
        .filter(|dependency| dependency["kind"].is_null())
        .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn dependencies_point_down_only() {
    let floors: BTreeMap<&str, u32> = FLOORS.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        let Some(floor) = floors.get(name) else {
            wrong.push(format!("{name} stands on no floor: add it to DESIGN.md and here"));
            continue;
        };
        for dependency in dependencies(&package) {
            if floors.get(dependency.as_str()).is_some_and(|below| below >= floor) {
                wrong.push(format!("{name} depends on {dependency}, which is not below it"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn floor_0_knows_no_runtime() {
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        if !matches!(name, "proxy-stats" | "proxy-config") {
            continue;
        }
        for dependency in dependencies(&package) {
            assert!(!NOT_ON_FLOOR_0.contains(&dependency.as_str()), "{name} depends on {dependency}");
        }
    }
}

#[test]
fn every_crate_takes_the_workspaces_lints() {
    for package in packages() {
        let manifest = std::fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{}", package["name"]);
    }
}
