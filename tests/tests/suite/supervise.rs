//! Life under a service manager, in containers, and without privileges.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proxy_tests::{
    Backend, Bootstrap, PATIENCE, Proxy, Service, Signal, Wire, direct_response_chain, only_proxyd, proxyctl,
    proxyd, refusing_address, unused_address, workspace_root,
};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
/// Takes over, and leads soon.
const SUCCESSOR: &[&str] = &["--restart-epoch", "auto", "--confirm-after", "0.1"];

#[test]
fn a_supervisor_passes_the_end_on() {
    only_proxyd!("Envoy has no supervisor");
    let backend = Backend::saying("ok");
    let mut proxy = Proxy::start_with(&Bootstrap::http(backend.address()), &["--supervise"]);
    let mut client = proxy.connect();
    assert_eq!(client.ask(GET).text(), "ok");
    proxy.signal(Signal::SIGTERM);
    assert_eq!(proxy.exit().code(), Some(0));
    assert!(client.is_closed(), "nobody is left");
}

#[test]
fn a_supervisor_ends_like_its_proxy() {
    only_proxyd!("Envoy has no supervisor");
    let service = Service::new(&Bootstrap::http(refusing_address()));
    let mut supervisor = service.start(&["--supervise"]);
    supervisor.says("serving");
    let [child] = supervisor.children()[..] else { panic!("{:?}", supervisor.children()) };
    kill(child);
    assert_eq!(supervisor.exit().code(), Some(128 + 9));
    // A file that does not load is told by the exit code, for whoever has rules about restarts.
    fs::write(service.path().join("envoy.yaml"), "admin: 7").unwrap();
    assert_eq!(service.start(&["--supervise"]).exit().code(), Some(1));
}

#[test]
fn a_service_manager_hears_of_start_restart_and_end() {
    only_proxyd!("Envoy does not notify");
    let service = Service::new(&Bootstrap::http(refusing_address()));
    let path = service.path().join("notify");
    let manager = Manager(UnixDatagram::bind(&path).unwrap());
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let mut first = service.start_under(&[], &[], &variables);
    assert_eq!(manager.hears(), "READY=1\nSTATUS=generation 1 leads");
    let mut second = service.start_under(&[], SUCCESSOR, &variables);
    let restarts = manager.hears();
    let (reloading, status) = restarts.split_once("\nSTATUS=").unwrap();
    let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(since.parse::<u64>().unwrap() > 0, "{since}");
    assert_eq!(status, "generation 1 hands over");
    // Two processes: in any order.
    let mut both = [manager.hears(), manager.hears()];
    both.sort();
    let main = format!("READY=1\nSTATUS=generation 2 leads\nMAINPID={}", second.pid());
    assert_eq!(both, ["READY=1".to_owned(), main]);
    assert_eq!(first.exit().code(), Some(0));
    second.signal(Signal::SIGTERM);
    assert_eq!(manager.hears(), "STOPPING=1\nSTATUS=generation 2 drains");
    assert_eq!(second.exit().code(), Some(0));
}

#[test]
fn a_service_manager_hears_of_a_restart_that_fails() {
    only_proxyd!("Envoy does not notify");
    let service = Service::new(&Bootstrap::http(refusing_address()));
    let name = format!("proxyd-test-{}", service.path().display());
    let address = UnixAddress::from_abstract_name(&name).unwrap();
    let manager = Manager(UnixDatagram::bind_addr(&address).unwrap());
    let named = format!("@{name}");
    let variables = [("NOTIFY_SOCKET", named.as_str())];
    let _first = service.start_under(&[], &[], &variables);
    assert!(manager.hears().starts_with("READY=1\n"));
    let mut second =
        service.start_under(&[], &["--restart-epoch", "auto", "--confirm-after", "60"], &variables);
    assert!(manager.hears().starts_with("RELOADING=1\n"));
    second.says("serving");
    second.signal(Signal::SIGKILL);
    assert_eq!(manager.hears(), "READY=1\nSTATUS=generation 1 leads");
}

#[test]
fn containers_need_to_share_two_directories_only() {
    only_proxyd!("Envoy's parent and child find each other through shared memory and abstract sockets");
    let backend = Backend::saying("ok");
    let main = unused_address();
    let service = Service::new(&Bootstrap::http(backend.address()).listener_with(&at(main)));
    // Nothing else in /dev/shm is common, no process sees another one's pid, and each has user ids of its own.
    let namespaces = ["--pid", "--fork", "--kill-child", "--mount-proc", "--map-root-user", "--ipc", "--uts"];
    let mounts = "mount --bind \"$0\" /mnt && mount -t tmpfs none /dev/shm && mkdir \"$0\" && \
                  mount --move /mnt \"$0\" && exec \"$@\"";
    let shell = ["sh", "-c", mounts, service.shm().to_str().unwrap()];
    let container = [&["unshare"][..], &namespaces, &shell].concat();
    if !permitted(&container, &proxyd()) {
        println!("skipped: unshare is not permitted, or not there");
        return;
    }
    // As PID 1.
    let mut first = service.start_under(&container, &["--supervise"], &[]);
    first.says("serving");
    let mut idle = Wire::connect(main);
    assert_eq!(idle.ask(GET).text(), "ok");
    let (busy, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let asked = thread::scope(|scope| {
        let _done = Done(&done);
        let clients: Vec<_> = [false, true]
            .map(|reconnects| {
                let (busy, done) = (&busy, &done);
                scope.spawn(move || {
                    let mut asked = 0;
                    let mut client = Wire::connect(main);
                    while !done.load(Ordering::SeqCst) {
                        if reconnects {
                            client = Wire::connect(main);
                        }
                        assert_eq!(client.ask(GET).text(), "ok");
                        asked += 1;
                        busy.store(true, Ordering::SeqCst);
                    }
                    asked
                })
            })
            .into();
        proxy_tests::eventually("requests to go through", || busy.load(Ordering::SeqCst).then_some(()));
        let mut second = service.start_under(&container, &[SUCCESSOR, &["--supervise"]].concat(), &[]);
        second.says("this process leads");
        done.store(true, Ordering::SeqCst);
        let asked = clients.into_iter().map(|client| client.join().unwrap()).sum::<u64>();
        assert_eq!(first.exit().code(), Some(0));
        assert_eq!(idle.ask(GET).text(), "ok", "it has moved");
        service.stat_becomes("server.hot_restart_epoch", 1);
        service.stat_becomes("http.ingress.downstream_rq_total", asked + 2);
        asked
    });
    assert!(asked > 0);
}

#[test]
fn ports_below_1024_take_one_capability_and_pass_to_a_child_without() {
    only_proxyd!("Envoy binds again in the child");
    let with = as_nobody("-all,+net_bind_service");
    let without = as_nobody("-all");
    let (main, more) = (privileged(81), privileged(82));
    let open = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if open.is_ok_and(|first| first.trim().parse().is_ok_and(|first: u16| first <= 82)) {
        println!("skipped: ports below 1024 need no privilege here");
        return;
    }
    if !permitted(&with, &proxyd()) || !permitted(&without, &proxyd()) {
        println!(
            "skipped: setpriv is not permitted or not there, or nobody cannot run {}",
            proxyd().display()
        );
        return;
    }
    let one = Bootstrap::empty().listener_at("main", main, direct_response_chain("one"));
    let two = one.clone().listener_at("more", more, direct_response_chain("two"));
    let service = Service::new(&one);
    for path in [service.path(), &service.path().join("envoy.yaml"), service.shm()] {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mut alone = service.start_under(&without, &[], &[]);
    assert_eq!(alone.exit().code(), Some(1));
    assert!(alone.log().contains("Permission denied"), "{}", alone.log());

    let mut first = service.start_under(&with, &["--concurrency", "1"], &[]);
    first.says("serving");
    assert_eq!(Wire::connect(main).ask(GET).text(), "one");
    service.configure(&two);
    let more_workers = [SUCCESSOR, &["--concurrency", "3"]].concat();
    let mut second = service.start_under(&without, &more_workers, &[]);
    second.says("this process leads");
    assert_eq!(first.exit().code(), Some(0));
    for _ in 0..12 {
        assert_eq!(Wire::connect(main).ask(GET).text(), "one");
        assert_eq!(Wire::connect(more).ask(GET).text(), "two");
    }
}

#[test]
fn the_unit_file_is_sound() {
    only_proxyd!("the unit is proxyd's");
    let unit = fs::read_to_string(workspace_root().join("config-examples/systemd/proxyd.service")).unwrap();
    // What it runs is there, and its flags exist.
    let started =
        unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/proxyd ")).unwrap();
    let example = workspace_root().join("config-examples/ok/01-edge-proxy.yaml");
    let started = started.replace("/etc/proxyd/proxyd.yaml", example.to_str().unwrap());
    let validated =
        Command::new(proxyd()).args(started.split(' ')).args(["--mode", "validate"]).output().unwrap();
    assert!(validated.status.success(), "{validated:?}");
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("proxyd.service");
    let built = proxyctl();
    let programs = format!("{}/", built.parent().unwrap().display());
    fs::write(&path, unit.replace("/usr/local/bin/", &programs)).unwrap();
    // No manual pages are installed here.
    let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output();
    match verified {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("skipped: systemd-analyze is not there")
        }
        verified => {
            let verified = verified.unwrap();
            let said = String::from_utf8_lossy(&verified.stderr).into_owned();
            assert!(verified.status.success() && !said.contains("proxyd.service"), "{said}");
        }
    }
}

/// systemd's end of the notify socket.
struct Manager(UnixDatagram);

impl Manager {
    fn hears(&self) -> String {
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = [0; 4096];
        let length = self.0.recv(&mut text).unwrap();
        String::from_utf8(text[..length].to_vec()).unwrap()
    }
}

/// Ends clients also when the test fails.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Whether `program` may be run by way of `wrapper`.
fn permitted(wrapper: &[&str], program: &Path) -> bool {
    let mut command = Command::new(wrapper[0]);
    command.args(&wrapper[1..]).arg(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn as_nobody(capabilities: &str) -> [&str; 10] {
    let nobody = "65534";
    [
        "setpriv",
        "--reuid",
        nobody,
        "--regid",
        nobody,
        "--clear-groups",
        "--inh-caps",
        capabilities,
        "--ambient-caps",
        capabilities,
    ]
}

const NOBODY: u32 = 65534;

/// A loopback address that no other test run uses at the same time.
fn privileged(port: u16) -> SocketAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    SocketAddr::from(([127, 77, high, low.max(1)], port))
}

fn at(address: SocketAddr) -> String {
    format!("{{address: {{socket_address: {{address: {}, port_value: {}}}}}}}", address.ip(), address.port())
}

fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
}
