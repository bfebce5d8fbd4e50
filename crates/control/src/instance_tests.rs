//! Claims and searches in one process: locks belong to open files, so two instances here are as good as two processes.

use std::os::unix::net::UnixStream;

use tempfile::TempDir;

use super::*;

fn run_dir() -> (TempDir, Arc<RunDir>) {
    let parent = tempfile::tempdir().unwrap();
    let run_dir = Arc::new(RunDir::create(&parent.path().join("run")).unwrap());
    (parent, run_dir)
}

fn files(run_dir: &RunDir) -> Vec<String> {
    let mut names = run_dir.names().unwrap();
    names.sort();
    names
}

/// What a killed process leaves: its files without its lock.
fn dies_without_cleaning_up(instance: Instance) {
    let (lock, socket) = (instance.name.lock(), instance.name.socket());
    let run_dir = Arc::clone(&instance.run_dir);
    drop(instance);
    fs::write(run_dir.file(&lock), "").unwrap();
    fs::write(run_dir.file(&socket), "").unwrap();
}

#[test]
fn a_base_id_belongs_to_one_living_instance() {
    let (_parent, run_dir) = run_dir();
    let first = Instance::claim(run_dir.clone(), BaseId(0), Claim::Alone).unwrap();
    let error = Instance::claim(run_dir.clone(), BaseId(0), Claim::Alone).unwrap_err();
    assert!(matches!(error, ClaimError::Running { generation: Generation(1), .. }));
    assert!(error.to_string().contains("proxyctl stop --base-id 0"), "{error}");
    assert!(error.to_string().contains("run/0.1.sock"), "{error}");
    let other = Instance::claim(run_dir.clone(), BaseId(7), Claim::Alone).unwrap();
    drop(first);
    let second = Instance::claim(run_dir.clone(), BaseId(0), Claim::Alone).unwrap();
    assert_eq!((second.generation(), other.generation()), (Generation(2), Generation(1)));
}

#[test]
fn a_regular_end_leaves_only_the_number() {
    let (_parent, run_dir) = run_dir();
    let instance = Instance::claim(run_dir.clone(), BaseId(3), Claim::Alone).unwrap();
    let _listener = instance.listen().unwrap();
    assert_eq!(files(&run_dir), ["3.1.lock", "3.1.sock", "3.start"]);
    let mode = fs::metadata(instance.socket_path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(instance);
    assert_eq!(files(&run_dir), ["3.start"]);
}

#[test]
fn what_a_killed_instance_left_is_cleaned_up_and_its_number_stays_used() {
    let (_parent, run_dir) = run_dir();
    dies_without_cleaning_up(Instance::claim(run_dir.clone(), BaseId(0), Claim::Alone).unwrap());
    assert!(find(&run_dir).unwrap().is_empty());
    fs::write(run_dir.file("0.start"), "").unwrap(); // the crash also lost the number
    let next = Instance::claim(run_dir.clone(), BaseId(0), Claim::Alone).unwrap();
    assert_eq!(next.generation(), Generation(2));
    assert_eq!(files(&run_dir), ["0.2.lock", "0.start"]);
}

#[test]
fn finding_names_what_is_missing_or_too_many() {
    let (_parent, run_dir) = run_dir();
    let error = find_one(&run_dir, Some(BaseId(4))).unwrap_err();
    assert!(error.to_string().starts_with("no instance is running with base-id 4 (looked in /"), "{error}");
    let _zero = Instance::claim(run_dir.clone(), BaseId(0), Claim::Alone).unwrap();
    assert_eq!(find_one(&run_dir, None).unwrap().base_id(), BaseId(0));
    let _one = Instance::claim(run_dir.clone(), BaseId(1), Claim::Alone).unwrap();
    let error = find_one(&run_dir, None).unwrap_err();
    assert_eq!(error.to_string(), "several instances are running, choose one with --base-id: 0, 1");
    assert_eq!(find_one(&run_dir, Some(BaseId(1))).unwrap().base_id(), BaseId(1));
}

#[test]
fn foreign_files_are_no_instances() {
    let (_parent, run_dir) = run_dir();
    for name in ["x.lock", "1.lock", "1.2.3.lock", "-1.2.lock", "1.2.sock"] {
        fs::write(run_dir.file(name), "").unwrap();
    }
    assert!(find(&run_dir).unwrap().is_empty());
    let _instance = Instance::claim(run_dir, BaseId(1), Claim::Alone).unwrap();
}

#[test]
fn a_deep_directory_works_though_its_path_fits_no_socket_address() {
    let parent = tempfile::tempdir().unwrap();
    let deep = parent.path().join("d".repeat(120));
    let run_dir = Arc::new(RunDir::create(&deep).unwrap());
    let instance = Instance::claim(run_dir.clone(), BaseId(0), Claim::Alone).unwrap();
    let listener = instance.listen().unwrap();
    UnixStream::connect(run_dir.socket_address(&instance.name.socket())).unwrap();
    listener.accept().unwrap();
}

#[test]
fn successors_may_be_many_but_not_too_many() {
    let (_parent, run_dir) = run_dir();
    let first = Instance::claim(run_dir.clone(), BaseId(0), Claim::Successor).unwrap();
    let mut later: Vec<_> = (1..GENERATIONS)
        .map(|_| Instance::claim(run_dir.clone(), BaseId(0), Claim::Successor).unwrap())
        .collect();
    let error = Instance::claim(run_dir.clone(), BaseId(0), Claim::Successor).unwrap_err();
    assert!(matches!(error, ClaimError::Crowded(BaseId(0))), "{error}");
    // Another base-id has a count of its own.
    drop(Instance::claim(run_dir.clone(), BaseId(1), Claim::Successor).unwrap());
    drop(first);
    later.push(Instance::claim(run_dir.clone(), BaseId(0), Claim::Successor).unwrap());
    let generations: Vec<u64> = find(&run_dir).unwrap().iter().map(|found| found.generation().0).collect();
    assert_eq!(generations, [2, 3, 4, 5]);
}
