//! Hot restart as an operator sees it: `proxyctl restart --hot`, `rollback` and `epochs`, SIGUSR2, and what clients see of them.

use std::process::Output;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use proxy_tests::{
    After, Backend, Bootstrap, Generations, Signal, Wire, direct_response_chain, eventually, only_proxyd,
    proxyd,
};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const GET_SLOW: &str = "GET /slow HTTP/1.1\r\nhost: a\r\n\r\n";

fn start(arguments: &[&str]) -> Generations {
    let bootstrap = Bootstrap::empty().listener("main", direct_response_chain("hello"));
    Generations::start(&bootstrap, arguments)
}

/// With a backend that answers `/slow` only when it is told to.
fn start_with_slow(arguments: &[&str]) -> (Generations, Backend, Sender<()>) {
    let (tell, told) = channel();
    let told = Mutex::new(told);
    let backend = Backend::new(move |request, wire| {
        if request.target() == "/slow" {
            let _ = told.lock().unwrap().recv();
        }
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        After::KeepOpen
    });
    (Generations::start(&Bootstrap::http(backend.address()), arguments), backend, tell)
}

/// A client with a request that is not answered yet: its process lives on.
fn busy_client(proxy: &Generations, backend: &Backend) -> Wire {
    let before = backend.requests().len();
    let mut busy = proxy.connect();
    busy.send(GET_SLOW);
    eventually("the request to arrive", || (backend.requests().len() > before).then_some(()));
    busy
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Clients that ask without a pause until they are dropped.
struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    clients: Vec<thread::JoinHandle<()>>,
}

impl Load {
    fn begin(proxy: &Generations) -> Load {
        let (stop, asked) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let address = proxy.listener("main");
        let client = |keep_alive: bool| {
            let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
            thread::spawn(move || {
                let mut wire = Wire::connect(address);
                while !stop.load(Ordering::SeqCst) {
                    if !keep_alive {
                        wire = Wire::connect(address);
                    }
                    let answer = wire.ask(GET);
                    assert_eq!(answer.status(), 200);
                    asked.fetch_add(1, Ordering::SeqCst);
                    // As a client should.
                    if answer.header("connection") == Some("close") {
                        wire = Wire::connect(address);
                    }
                }
            })
        };
        let clients = vec![client(true), client(true), client(false)];
        Load { stop, asked, clients }
    }

    /// How many requests were answered, which all were.
    fn end(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.join().expect("no request is lost");
        }
        self.asked.load(Ordering::SeqCst)
    }
}

#[test]
fn a_restart_under_load_loses_no_request_and_no_count() {
    only_proxyd!("proxyctl is ours");
    let proxy = start(&["--confirm-after", "0.2"]);
    let mut idle = proxy.connect();
    assert_eq!(idle.ask(GET).text(), "hello");
    let load = Load::begin(&proxy);
    for _ in 0..2 {
        proxy.restart(&[]);
    }
    let asked = load.end();
    assert_eq!(idle.ask(GET).text(), "hello", "an idle connection lives through restarts");
    assert_eq!(proxy.only(3).epoch, 2);
    proxy.stat_becomes("http.ingress.downstream_rq_total", asked + 2);
    proxy.stat_becomes("server.hot_restart_epoch", 2);
    proxy.stat_becomes("server.hot_restart_generation", 3);
}

#[test]
fn each_step_is_told_as_it_comes() {
    only_proxyd!("proxyctl is ours");
    let proxy = start(&["--confirm-after", "0.1"]);
    let mut idle = proxy.connect();
    assert_eq!(idle.ask(GET).text(), "hello");
    let output = proxy.control(&["restart", "--hot", "--json"]);
    let lines = String::from_utf8(output.stdout).unwrap();
    let steps: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    let begin = ["validating", "validated", "spawned", "greeted", "sockets_passed", "serving", "leads"];
    assert_eq!(names[..begin.len()], begin);
    let last = steps.last().unwrap();
    assert_eq!(
        (names.last(), last["moved"].as_u64(), last["left"].as_u64()),
        (Some(&"done"), Some(1), Some(0))
    );
    assert!(steps.is_sorted_by_key(|step| step["elapsed_ms"].as_u64()), "{lines}");
    let text = text(&proxy.control(&["restart", "--hot"]));
    assert!(text.contains(" ms") && text.contains("it leads") && text.contains("done: "), "{text}");
}

#[test]
fn another_file_and_another_program_are_taken() {
    only_proxyd!("proxyctl is ours");
    let proxy = start(&["--confirm-after", "0.1"]);
    let other = proxy
        .file("other.yaml", &std::fs::read_to_string(proxy.config()).unwrap().replace("hello", "changed"));
    let program = proxy.program("next", &format!("exec {} \"$@\"", proxyd().display()));
    proxy.restart(&["-c", &other, "--binary", &program]);
    assert_eq!(proxy.get("/").text(), "changed");
    proxy.restart(&[]);
    assert_eq!(proxy.get("/").text(), "changed", "the next one is started as this one was");
    let _ = proxy.only(3);
}

#[test]
fn what_cannot_take_over_leaves_the_old_process_as_it_was() {
    only_proxyd!("proxyctl is ours");
    let proxy = start(&["--confirm-after", "0.1"]);
    let mut idle = proxy.connect();
    assert_eq!(idle.ask(GET).text(), "hello");
    let bad = proxy.file("bad.yaml", "static_resources:\n  listeners: 7\n");
    let missing = proxy.directory().join("missing").to_str().unwrap().to_owned();
    let no_program = proxy.file("no-program", "");
    let mute = proxy.program("mute", "exit 3");
    let crashing = proxy.program("crashing", "case \"$*\" in *validate*) exit 0;; esac; kill -9 $$");
    let held = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = held.local_addr().unwrap().port();
    let in_use = Bootstrap::empty()
        .listener("new", direct_response_chain("new"))
        .listener_with(&format!("address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}"))
        .listener("main", direct_response_chain("hello"));
    let in_use = proxy.file("in-use.yaml", &in_use.to_yaml());
    for (arguments, expected) in [
        (["-c", &bad], "bad.yaml:2:"),
        (["-c", &missing], "missing"),
        (["-c", &in_use], "exit status: 1"),
        (["--binary", &missing], "cannot be started"),
        (["--binary", &no_program], "cannot be started"),
        (["--binary", &mute], "exit status: 3"),
        (["--binary", &crashing], "signal: 9"),
    ] {
        let output = proxy.control(&[&["restart", "--hot"], &arguments[..]].concat());
        let text = text(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(expected) && text.contains("goes on as before"), "{text}");
    }
    assert_eq!(proxy.only(1).epoch, 0);
    assert_eq!(idle.ask(GET).text(), "hello");
    proxy.restart(&[]);
    assert_eq!(idle.ask(GET).text(), "hello");
}

#[test]
fn a_new_process_that_hangs_is_killed_in_time() {
    only_proxyd!("proxyctl is ours");
    let proxy = start(&["--confirm-after", "0.1"]);
    let hanging = format!("PROXYD_FAULT=ChildBeforeHello:stop exec {} \"$@\"", proxyd().display());
    let hanging = proxy.program("hanging", &hanging);
    let output = proxy.control(&["restart", "--hot", "--binary", &hanging, "--timeout", "3s"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output);
    assert!(
        said.contains("did not ask to take over within 2.") && said.contains("goes on as before"),
        "{said}"
    );
    assert_eq!(proxy.connect().ask(GET).text(), "hello");
    proxy.restart(&[]);
    assert_eq!(proxy.only(3).epoch, 1);
}

#[test]
fn a_dry_run_changes_nothing() {
    only_proxyd!("proxyctl is ours");
    let proxy = start(&[]);
    let bad = proxy.file("bad.yaml", "static_resources:\n  listeners: 7\n");
    let code = |arguments: &[&str]| {
        proxy.control(&[&["restart", "--hot", "--dry-run"], arguments].concat()).status.code()
    };
    assert_eq!(code(&[]), Some(0));
    assert_eq!(code(&["-c", &bad]), Some(1));
    assert_eq!(proxy.only(1).epoch, 0);
}

#[test]
fn a_second_restart_waits_for_the_first() {
    only_proxyd!("proxyctl is ours");
    let proxy = start(&["--confirm-after", "8"]);
    let first = proxy.control_meanwhile(&["restart", "--hot"]);
    proxy.becomes(2, "serving-not-confirmed");
    assert_eq!(proxy.admin_post("/restart").status(), 409);
    let refused = proxy.control(&["restart", "--hot", "--timeout", "3s"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused).contains("busy"), "{}", text(&refused));
    proxy.restart(&[]);
    assert!(first.wait_with_output().unwrap().status.success());
    let _ = proxy.only(3);
}

#[test]
fn sigusr2_restarts_hot() {
    only_proxyd!("Envoy has no such signal");
    let proxy = start(&["--confirm-after", "0.1"]);
    let mut idle = proxy.connect();
    assert_eq!(idle.ask(GET).text(), "hello");
    proxy.signal(Signal::SIGUSR2);
    let _ = proxy.only(2);
    assert_eq!(idle.ask(GET).text(), "hello");
}

#[test]
fn a_draining_process_is_listed_until_its_last_connection_ends() {
    only_proxyd!("proxyctl is ours");
    let (proxy, backend, tell) = start_with_slow(&["--confirm-after", "0.1"]);
    let mut busy = busy_client(&proxy, &backend);
    proxy.restart(&[]);
    let all = proxy.living();
    let seen: Vec<_> = all.iter().map(|one| (one.number, one.epoch, &*one.state, one.connections)).collect();
    assert_eq!(seen, [(1, 0, "draining", 1), (2, 1, "leads", 0)]);
    let parents = proxy.stat("server.parent_connections");
    assert_eq!((parents, proxy.stat("server.total_connections")), (1, 1), "gauges are of all that live");
    assert_eq!(proxy.stat("http.ingress.downstream_rq_active"), 1);
    let table = text(&proxy.control(&["epochs"]));
    assert!(table.contains("draining") && table.contains(&all[0].pid.to_string()), "{table}");
    tell.send(()).unwrap();
    assert_eq!(busy.response().text(), "ok");
    assert_eq!(proxy.only(2).epoch, 1);
    proxy.stat_becomes("server.parent_connections", 0);
    assert_eq!(proxy.stat("http.ingress.downstream_rq_active"), 0);
}

#[test]
fn a_process_that_does_not_lead_yet_can_be_rolled_back() {
    only_proxyd!("proxyctl is ours");
    let proxy = start(&["--confirm-after", "60"]);
    let mut idle = proxy.connect();
    assert_eq!(idle.ask(GET).text(), "hello");
    let restart = proxy.control_meanwhile(&["restart", "--hot"]);
    proxy.becomes(2, "serving-not-confirmed");
    let mut of_the_new_one = proxy.connect();
    assert_eq!(of_the_new_one.ask(GET).text(), "hello");
    let load = Load::begin(&proxy);
    let rollback = proxy.control(&["rollback"]);
    assert_eq!(rollback.status.code(), Some(0), "{}", text(&rollback));
    let failed = restart.wait_with_output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed).contains("rolled back"), "{}", text(&failed));
    assert_eq!(proxy.only(1).epoch, 0);
    let asked = load.end();
    assert_eq!(idle.ask(GET).text(), "hello");
    proxy.stat_becomes("http.ingress.downstream_rq_total", asked + 3);
}

#[test]
fn a_process_that_leads_can_be_rolled_back_while_the_old_one_lives() {
    only_proxyd!("proxyctl is ours");
    let (proxy, backend, tell) = start_with_slow(&["--confirm-after", "0.1"]);
    let mut idle = proxy.connect();
    assert_eq!(idle.ask(GET).text(), "ok");
    let mut busy = busy_client(&proxy, &backend);
    proxy.restart(&[]);
    let load = Load::begin(&proxy);
    let rollback = proxy.control(&["rollback"]);
    assert_eq!(rollback.status.code(), Some(0), "{}\n{}", text(&rollback), proxy.log());
    assert_eq!(proxy.only(1).epoch, 2);
    let asked = load.end();
    assert_eq!(idle.ask(GET).text(), "ok", "it has moved there and back");
    tell.send(()).unwrap();
    assert_eq!(busy.response().text(), "ok");
    proxy.stat_becomes("http.ingress.downstream_rq_total", asked + 3);
    proxy.stat_becomes("http.ingress.downstream_cx_active", 2);
    let again = proxy.control(&["rollback"]);
    assert_eq!(again.status.code(), Some(1), "{}", text(&again));
    assert!(text(&again).contains("nothing to roll back"), "{}", text(&again));
    proxy.restart(&[]);
    assert_eq!(idle.ask(GET).text(), "ok");
    assert_eq!(proxy.only(3).epoch, 3);
}

#[test]
fn an_old_process_leads_again_when_the_new_one_is_killed() {
    only_proxyd!("proxyctl is ours");
    let (proxy, backend, tell) = start_with_slow(&["--confirm-after", "0.1"]);
    let mut busy = busy_client(&proxy, &backend);
    proxy.restart(&[]);
    let leader = proxy.living().pop().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(leader.pid as i32), Signal::SIGKILL).unwrap();
    let _ = proxy.only(1);
    assert_eq!(proxy.get("/").text(), "ok");
    tell.send(()).unwrap();
    assert_eq!(busy.response().text(), "ok");
}

#[test]
fn a_cold_restart_is_refused_with_a_reason() {
    only_proxyd!("proxyctl is ours");
    let proxy = start(&[]);
    let output = proxy.control(&["restart"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("--hot"), "{}", text(&output));
}

#[test]
fn the_admin_port_starts_no_program_of_the_clients_choice() {
    only_proxyd!("/restart is ours");
    let proxy = start(&[]);
    for query in ["binary=/bin/true", "config=/dev/null"] {
        let answer = proxy.admin_post(&format!("/restart?{query}&dry_run"));
        assert_eq!(answer.status(), 403, "{}", answer.text());
    }
    assert_eq!(proxy.admin_get("/restart").status(), 405);
    let answer = proxy.admin_post("/restart?dry_run");
    assert!(answer.text().contains("\"validated\""), "{}", answer.text());
}

#[test]
fn without_hot_restart_nobody_takes_over() {
    only_proxyd!("proxyctl is ours");
    let proxy = start(&["--disable-hot-restart"]);
    let output = proxy.control(&["restart", "--hot"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("--disable-hot-restart"), "{}", text(&output));
    assert_eq!(proxy.admin_get("/hot_restart_version").text(), "disabled");
}

#[test]
fn a_supervisor_starts_the_next_process() {
    only_proxyd!("Envoy has no supervisor");
    let parent = |pid: u64| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().find_map(|line| line.strip_prefix("PPid:").map(|pid| pid.trim().to_owned())).unwrap()
    };
    let proxy = start(&["--supervise", "--confirm-after", "0.1"]);
    let mut idle = proxy.connect();
    assert_eq!(idle.ask(GET).text(), "hello");
    let supervisor = parent(proxy.only(1).pid);
    proxy.restart(&[]);
    assert_eq!(parent(proxy.only(2).pid), supervisor);
    let crashing = proxy.program("crashing", "case \"$*\" in *validate*) exit 0;; esac; kill -9 $$");
    let failed = proxy.control(&["restart", "--hot", "--binary", &crashing]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed).contains("signal: 9"), "{}", text(&failed));
    proxy.signal(Signal::SIGUSR2);
    assert_eq!(parent(proxy.only(3).pid), supervisor);
    assert_eq!(idle.ask(GET).text(), "hello");
}
