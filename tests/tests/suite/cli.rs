//! The programs as a user starts them.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};

use proxy_tests::{
    Backend, BaseId, Bootstrap, EchoBackend, Proxy, Wire, eventually, only_proxyd, proxyctl, proxyd,
    refusing_address, unused_address,
};
use tempfile::TempDir;

fn run(program: std::path::PathBuf, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn start(arguments: &[&str], directory: &TempDir, base_id: &BaseId) -> Command {
    let mut command = Command::new(proxyd());
    command.arg("run").args(arguments).arg("--run-dir").arg(directory.path().join("run"));
    command.args(["--concurrency", "1", "--base-id", &base_id.to_string()]);
    command
}

/// A proxyd with its own run directory, killed at the end of the test.
struct Running {
    process: Child,
    directory: TempDir,
    base_id: BaseId,
}

impl Running {
    fn new(arguments: &[&str]) -> Self {
        let (directory, base_id) = (TempDir::new().unwrap(), BaseId::unused());
        let mut command = start(arguments, &directory, &base_id);
        let process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        Self { process, directory, base_id }
    }

    fn reaches(&mut self, address: SocketAddr) -> Wire {
        eventually(&format!("{address} to answer"), || {
            if let Some(status) = self.process.try_wait().unwrap() {
                let mut text = String::new();
                let _ = self.process.stderr.take().unwrap().read_to_string(&mut text);
                panic!("proxyd ended with {status}: {text}");
            }
            TcpStream::connect(address).ok().map(Wire::over_tcp)
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const GET: &str = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

#[test]
fn without_a_file_a_page_says_what_to_try_next() {
    only_proxyd!("Envoy needs a file");
    let ports = [SocketAddr::from(([127, 0, 0, 1], 10000)), SocketAddr::from(([127, 0, 0, 1], 9901))];
    if ports.iter().any(|port| TcpListener::bind(port).is_err()) {
        println!("ports 10000 or 9901 are in use here: the default page is not tested");
        return;
    }
    let mut running = Running::new(&[]);
    let page = running.reaches(ports[0]).ask(GET);
    assert_eq!(page.status(), 200);
    assert!(page.text().contains("proxyd"), "{}", page.text());
    assert_eq!(
        running.reaches(ports[1]).ask("GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n").text(),
        "LIVE\n"
    );
}

#[test]
fn from_and_to_are_a_proxy_with_no_file() {
    only_proxyd!("--from and --to are proxyd's");
    let backends = [Backend::saying("one"), Backend::saying("two")];
    let from = unused_address();
    let to = format!("http://{},{}", backends[0].address(), backends[1].address());
    let mut running = Running::new(&["--from", &from.to_string(), "--to", &to]);
    let mut client = running.reaches(from);
    let mut answers = [client.ask(GET).text().to_owned(), client.ask(GET).text().to_owned()];
    answers.sort();
    assert_eq!(answers, ["one", "two"]);
}

#[test]
fn from_and_to_relay_tcp_as_well() {
    only_proxyd!("--from and --to are proxyd's");
    let backend = EchoBackend::new();
    let from = unused_address();
    let mut running =
        Running::new(&["--from", &from.to_string(), "--to", &format!("tcp://{}", backend.address())]);
    assert_eq!(running.reaches(from).send("ping").bytes(4), b"ping");
}

#[test]
fn print_config_is_a_file_that_loads() {
    only_proxyd!("--print-config is proxyd's");
    let printed = run(
        proxyd(),
        &[
            "run",
            "--from",
            "127.0.0.1:8080",
            "--to",
            "http://127.0.0.1:3000,127.0.0.1:3001",
            "--print-config",
        ],
    );
    assert!(printed.status.success(), "{printed:?}");
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("printed.yaml");
    fs::write(&file, &printed.stdout).unwrap();
    let valid = run(proxyctl(), &["validate", "config", file.to_str().unwrap()]);
    assert_eq!(valid.status.code(), Some(0), "{valid:?}\n{}", stdout(&printed));
    assert!(stdout(&printed).contains("127.0.0.1"));
    let unnamed = directory.path().join("stdin");
    fs::write(&unnamed, &printed.stdout).unwrap();
    let valid = run(proxyd(), &["run", "--mode", "validate", "-c", unnamed.to_str().unwrap()]);
    assert_eq!(valid.status.code(), Some(0), "a file without a suffix, as /dev/stdin: {valid:?}");
}

#[test]
fn mode_validate_says_whether_the_file_is_good() {
    only_proxyd!("Envoy's command line is its own");
    let directory = TempDir::new().unwrap();
    let good = directory.path().join("good.yaml");
    fs::write(&good, Bootstrap::http(refusing_address()).to_yaml()).unwrap();
    let output = run(proxyd(), &["run", "--mode", "validate", "-c", good.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let bad = directory.path().join("bad.yaml");
    fs::write(&bad, "static_resources:\n  listeners: 7\n").unwrap();
    let output = run(proxyd(), &["run", "--mode", "validate", "-c", bad.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn version_names_the_program() {
    only_proxyd!("Envoy's command line is its own");
    for (program, name) in [(proxyd(), "proxyd"), (proxyctl(), "proxyctl")] {
        let output = run(program, &["--version"]);
        assert!(output.status.success());
        assert!(stdout(&output).starts_with(name), "{}", stdout(&output));
    }
}

#[test]
fn a_bad_file_does_not_start_and_says_where_it_is_bad() {
    only_proxyd!("Envoy gives offsets into its own JSON");
    let directory = TempDir::new().unwrap();
    let bad = directory.path().join("bad.yaml");
    fs::write(&bad, "static_resources:\n  listeners:\n  - name: a\n    adress: {}\n").unwrap();
    let output = run(proxyd(), &["run", "-c", bad.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("bad.yaml:4:5"), "{text}");
}

#[test]
fn validate_config_exits_0_1_or_2() {
    only_proxyd!("proxyctl is ours");
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("good.yaml"), Bootstrap::http(refusing_address()).to_yaml()).unwrap();
    fs::write(
        path("bad.yaml"),
        "static_resources:\n  clusters:\n  - {name: a, nonsense: 1}\n  - {name: b, other: 2}\n",
    )
    .unwrap();
    let code = |files: &[&str]| {
        let mut arguments = vec!["validate", "config"];
        arguments.extend(files);
        run(proxyctl(), &arguments).status.code()
    };
    let (good, bad, missing) = (path("good.yaml"), path("bad.yaml"), path("missing.yaml"));
    assert_eq!(code(&[&good]), Some(0));
    assert_eq!(code(&[&bad]), Some(1));
    assert_eq!(code(&[&good, &bad]), Some(1));
    assert_eq!(code(&[&missing]), Some(2));
    assert_eq!(code(&["--no-such-option"]), Some(2));
    let output = run(proxyctl(), &["validate", "config", &bad]);
    let text = format!("{}{}", stdout(&output), String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("bad.yaml:3:") && text.contains("bad.yaml:4:"), "all errors at once: {text}");
}

#[test]
fn values_come_from_the_environment_where_asked_for() {
    only_proxyd!("Envoy has no such thing");
    let backend = Backend::saying("");
    let text = |body: &str| {
        let route = format!(
            "[{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: '{body}'}}}}}}]"
        );
        Bootstrap::http(backend.address()).routes(&route)
    };
    // A variable that every test has, and one that none has.
    let bootstrap = text("${PATH}|${NO_SUCH_VARIABLE_7:-otherwise}|$${PATH}");
    let plain = Proxy::start(&bootstrap);
    assert!(plain.get("/").text().starts_with("${PATH}|"), "{}", plain.get("/").text());
    let filled = Proxy::start_with(&bootstrap, &["--env-substitution"]);
    let path = std::env::var("PATH").unwrap();
    assert_eq!(filled.get("/").text(), format!("{path}|otherwise|${{PATH}}"));
    // What is missing is an error with its place, before anything serves.
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("missing.yaml");
    fs::write(&file, "node:\n  id: ${NO_SUCH_VARIABLE_7}\n").unwrap();
    let output = run(proxyd(), &["run", "--env-substitution", "-c", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("missing.yaml:2:7: error[unset-variable]"), "{said}");
}

#[test]
fn config_yaml_is_merged_over_the_file() {
    only_proxyd!("tested through proxyctl and proxyd's run directory");
    let backend = Backend::saying("merged");
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file.yaml");
    let from = unused_address();
    let listener =
        format!("address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}", from.port());
    fs::write(&file, Bootstrap::http(backend.address()).listener_with(&listener).to_yaml()).unwrap();
    let admin = unused_address();
    let over = format!(
        "admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}",
        admin.port()
    );
    let mut running = Running::new(&["-c", file.to_str().unwrap(), "--config-yaml", &over]);
    assert_eq!(running.reaches(from).ask(GET).text(), "merged");
    assert_eq!(running.reaches(admin).ask("GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n").text(), "LIVE\n");
}

#[test]
fn a_port_in_use_is_an_error_that_names_it() {
    only_proxyd!("Envoy's command line is its own");
    let held = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = held.local_addr().unwrap().to_string();
    let directory = TempDir::new().unwrap();
    let arguments = ["--from", &address, "--to", "http://127.0.0.1:1"];
    let output = start(&arguments, &directory, &BaseId::unused()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&address), "{text}");
}

#[test]
fn a_second_instance_is_told_of_the_first() {
    only_proxyd!("base-ids are told apart by proxyd's control sockets");
    let backend = Backend::saying("first");
    let to = format!("http://{}", backend.address());
    let from = unused_address();
    let mut running = Running::new(&["--from", &from.to_string(), "--to", &to]);
    assert_eq!(running.reaches(from).ask(GET).text(), "first");
    let other = unused_address().to_string();
    let second =
        start(&["--from", &other, "--to", &to], &running.directory, &running.base_id).output().unwrap();
    let text = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{text}");
    assert!(text.contains("proxyctl"), "{text}");
    assert_eq!(running.reaches(from).ask(GET).text(), "first");
}

#[test]
fn a_killed_instance_does_not_stand_in_the_way() {
    only_proxyd!("base-ids are told apart by proxyd's control sockets");
    let backend = Backend::saying("up");
    let to = format!("http://{}", backend.address());
    let from = unused_address().to_string();
    let arguments = ["--from", &from, "--to", &to];
    let mut running = Running::new(&arguments);
    for _ in 0..3 {
        assert_eq!(running.reaches(from.parse().unwrap()).ask(GET).text(), "up");
        running.process.kill().unwrap();
        running.process.wait().unwrap();
        let process = start(&arguments, &running.directory, &running.base_id).stderr(Stdio::piped()).spawn();
        running.process = process.unwrap();
    }
    assert_eq!(running.reaches(from.parse().unwrap()).ask(GET).text(), "up");
}

#[test]
fn a_lost_run_directory_does_not_stand_in_the_way() {
    only_proxyd!("segments in shared memory are proxyd's");
    let backend = Backend::saying("up");
    let to = format!("http://{}", backend.address());
    let from = unused_address().to_string();
    let arguments = ["--from", &from, "--to", &to];
    let mut running = Running::new(&arguments);
    assert_eq!(running.reaches(from.parse().unwrap()).ask(GET).text(), "up");
    running.process.kill().unwrap();
    running.process.wait().unwrap();
    running.directory = TempDir::new().unwrap();
    let process = start(&arguments, &running.directory, &running.base_id).stderr(Stdio::piped()).spawn();
    running.process = process.unwrap();
    assert_eq!(running.reaches(from.parse().unwrap()).ask(GET).text(), "up");
}

#[test]
fn the_hot_restart_version_is_told() {
    only_proxyd!("Envoy's command line is its own");
    let version =
        |arguments: &[&str]| run(proxyd(), &[&["run", "--hot-restart-version"], arguments].concat());
    assert_eq!(stdout(&version(&[])), "1\n");
    assert_eq!(stdout(&version(&["--disable-hot-restart"])), "disabled\n");
}

#[test]
fn a_base_id_that_nobody_has_is_found_and_told() {
    only_proxyd!("base-ids are told apart by proxyd's control sockets");
    let directory = TempDir::new().unwrap();
    let shm = directory.path().join("shm");
    fs::create_dir(&shm).unwrap();
    let mut processes = Vec::new();
    let base_ids = ["one", "two"].map(|name| {
        let file = directory.path().join(name);
        let mut command = Command::new(proxyd());
        command.args(["run", "--use-dynamic-base-id", "--from", "127.0.0.1:0", "--to", "tcp://127.0.0.1:1"]);
        command.arg("--base-id-path").arg(&file).arg("--shm-dir").arg(&shm);
        command.arg("--run-dir").arg(directory.path().join("run"));
        processes.push(command.stderr(Stdio::null()).spawn().unwrap());
        eventually("the base-id to be told", || fs::read_to_string(&file).ok()?.parse::<u32>().ok())
    });
    assert_ne!(base_ids[0], base_ids[1]);
    for base_id in base_ids {
        let run_dir = directory.path().join("run");
        let arguments = ["status", "--base-id", &base_id.to_string(), "--run-dir", run_dir.to_str().unwrap()];
        eventually("the instance to answer", || run(proxyctl(), &arguments).status.success().then_some(()));
    }
    for mut process in processes {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let refused = run(proxyd(), &["run", "--use-dynamic-base-id", "--restart-epoch", "auto"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

#[test]
fn idle_connections_to_the_control_socket_keep_no_operator_out() {
    only_proxyd!("Envoy has no control socket");
    let proxy = Proxy::start(&Bootstrap::http(refusing_address()));
    let run_dir = proxy.directory().join("run");
    let sockets = fs::read_dir(&run_dir).unwrap().map(|entry| entry.unwrap().path());
    let socket = sockets.into_iter().find(|path| path.extension().is_some_and(|end| end == "sock")).unwrap();
    let idle: Vec<_> = (0..300).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let output = run(proxyctl(), &["status", "--run-dir", run_dir.to_str().unwrap()]);
    assert!(output.status.success(), "{output:?}");
    drop(idle);
}
