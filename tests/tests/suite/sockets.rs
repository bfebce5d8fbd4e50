//! Sockets of all kinds: UNIX and abstract ones, several addresses of a listener, options on them, and who accepts; and that
//! all of it lives through a hot restart.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use nix::sys::socket::{setsockopt, sockopt};
use proxy_tests::{
    Backend, Bootstrap, Generations, Proxy, Wire, direct_response_chain, eventually, only_proxyd,
    refusing_address, unused_address, yaml,
};
use serde_json::{Value, json};

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn ask(wire: &mut Wire) -> String {
    wire.ask(GET).text().to_owned()
}

/// A listener `main` that answers `hello`, with `fragment`; its address can be replaced.
fn hello(fragment: &str) -> Bootstrap {
    let bootstrap = Bootstrap::empty().listener("main", direct_response_chain("hello")).stat_prefixes();
    let replaced = yaml(fragment)["address"].is_object();
    if replaced { bootstrap.listener_with("address: null") } else { bootstrap }.listener_with(fragment)
}

/// A name in the abstract space that nobody else has.
fn abstract_name() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("proxy-tests-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst))
}

fn pipe(path: impl AsRef<Path>) -> Value {
    json!({"address": {"pipe": {"path": path.as_ref()}}})
}

/// All addresses of the listener `main`, as `/listeners` tells them.
fn addresses(proxy: &Proxy) -> Vec<String> {
    let all = proxy.admin_get("/listeners");
    all.text().lines().filter_map(|line| line.strip_prefix("main::").map(str::to_owned)).collect()
}

fn connect(address: &str) -> Wire {
    match address.strip_prefix('@') {
        Some(name) => Wire::connect_abstract(name),
        None if address.starts_with('/') => Wire::connect_unix(address.as_ref()),
        None => Wire::connect(address.parse().unwrap()),
    }
}

#[test]
fn abstract_sockets_on_both_sides() {
    let (inner, outer) = (abstract_name(), abstract_name());
    let behind = Proxy::start(&hello(&pipe(format!("@{inner}")).to_string()));
    let endpoint = json!({"load_assignment": {"cluster_name": "backend", "endpoints": [
        {"lb_endpoints": [{"endpoint": pipe(format!("@{inner}"))}]}]}});
    let proxy = Proxy::start(
        &Bootstrap::http(refusing_address())
            .listener_with("address: null")
            .listener_with(&pipe(format!("@{outer}")).to_string())
            .cluster_with("backend", &endpoint.to_string()),
    );
    assert_eq!(ask(&mut connect(&format!("@{outer}"))), "hello");
    assert_eq!(addresses(&proxy), [format!("@{outer}")]);
    drop(behind);
}

#[test]
fn a_listener_may_have_several_addresses() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("socket");
    let ip = |ip: &str| json!({"address": {"socket_address": {"address": ip, "port_value": 0}}});
    let additional = json!({"additional_addresses": [ip("127.0.0.2"), ip("127.0.0.1"), pipe(&path)]});
    let proxy = Proxy::start(&hello(&additional.to_string()));
    let all = addresses(&proxy);
    assert_eq!(all.len(), 4, "{all:?}");
    assert!(all[0].starts_with("127.0.0.1:") && all[1].starts_with("127.0.0.2:"), "{all:?}");
    assert_eq!(all[3], path.to_str().unwrap());
    for address in &all {
        assert_eq!(ask(&mut connect(address)), "hello", "{address}");
    }
    proxy.stat_becomes("listener.main.downstream_cx_total", 4);
    let answer: Value = serde_json::from_str(proxy.admin_get("/listeners?format=json").text()).unwrap();
    let additional = &answer["listener_statuses"][0]["additional_local_addresses"];
    assert_eq!(additional[0]["socket_address"]["address"], "127.0.0.2");
    assert_eq!(additional[2]["pipe"]["path"], path.to_str().unwrap());
}

#[test]
fn a_listener_that_does_not_bind_has_no_socket() {
    let address = unused_address();
    let fragment = format!(
        "{{bind_to_port: false, address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}",
        address.port()
    );
    let proxy = Proxy::start(&hello(&fragment));
    assert_eq!(addresses(&proxy), [address.to_string()]);
    assert!(TcpStream::connect(address).is_err());
    proxy.stat_becomes("listener_manager.total_listeners_active", 1);
}

/// Whether a keepalive timer runs on an established connection with these ends, as the system tells.
fn keeps_alive(local: Option<SocketAddr>, remote: SocketAddr) -> bool {
    let name = |address: SocketAddr| match address {
        SocketAddr::V4(address) => {
            format!("{:08X}:{:04X}", u32::from_le_bytes(address.ip().octets()), address.port())
        }
        SocketAddr::V6(_) => panic!("IPv4 is expected"),
    };
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let of_connection = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        local.is_none_or(|local| fields[1] == name(local)) && fields[2] == name(remote) && fields[3] == "01"
    };
    let line = table.lines().skip(1).find(of_connection).expect("the connection is in the table");
    line.split_whitespace().nth(5).unwrap().starts_with("02:")
}

#[test]
fn tcp_keepalive_on_both_sides() {
    let backend = Backend::saying("hello");
    let ask = |bootstrap: &Bootstrap| {
        let proxy = Proxy::start(bootstrap);
        let mut wire = proxy.connect();
        assert_eq!(wire.ask(GET).text(), "hello");
        let downstream = keeps_alive(Some(proxy.listener("main")), wire.local_address());
        (downstream, keeps_alive(None, backend.address()))
    };
    let plain = || Bootstrap::http(backend.address());
    let keepalive = "tcp_keepalive: {keepalive_time: 100, keepalive_interval: 10, keepalive_probes: 3}";
    let upstream = format!("upstream_connection_options: {{{keepalive}}}");
    assert_eq!(ask(&plain()), (false, false));
    assert_eq!(ask(&plain().listener_with(keepalive).cluster_with("backend", &upstream)), (true, true));
    let off = "tcp_keepalive: {keepalive_time: 0}";
    let upstream = format!("upstream_connection_options: {{{off}}}");
    assert_eq!(ask(&plain().listener_with(off).cluster_with("backend", &upstream)), (false, false));
}

#[test]
fn an_additional_address_may_have_options_of_its_own() {
    // SO_KEEPALIVE, which the connections have from the socket.
    let option = "[{level: 1, name: 9, int_value: 1, state: STATE_BOUND}]";
    let address = "address: {socket_address: {address: 127.0.0.1, port_value: 0}}";
    let none = "socket_options: {socket_options: []}";
    for (fragment, expected) in [
        (format!("{{socket_options: {option}, additional_addresses: [{{{address}}}]}}"), [true, true]),
        (
            format!("{{socket_options: {option}, additional_addresses: [{{{address}, {none}}}]}}"),
            [true, false],
        ),
        (
            format!("additional_addresses: [{{{address}, socket_options: {{socket_options: {option}}}}}]"),
            [false, true],
        ),
        (
            format!(
                "{{tcp_keepalive: {{}}, additional_addresses: [{{{address}, tcp_keepalive: {{keepalive_time: 0}}}}]}}"
            ),
            [true, false],
        ),
        (format!("{{tcp_keepalive: {{}}, additional_addresses: [{{{address}}}]}}"), [true, true]),
    ] {
        let proxy = Proxy::start(&hello(&fragment));
        let kept: Vec<bool> = addresses(&proxy)
            .iter()
            .map(|address| {
                let mut wire = connect(address);
                assert_eq!(ask(&mut wire), "hello");
                keeps_alive(Some(address.parse().unwrap()), wire.local_address())
            })
            .collect();
        assert_eq!(kept, expected, "{fragment}");
    }
}

#[test]
fn foreign_addresses_can_be_listened_on() {
    // No interface has it (RFC 5737).
    let address = "address: {socket_address: {address: 192.0.2.7, port_value: 0}}";
    let proxy = Proxy::start(&hello(&format!("{{freebind: true, {address}}}")));
    assert!(addresses(&proxy)[0].starts_with("192.0.2.7:"));
    let probe = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    if setsockopt(&probe, sockopt::IpTransparent, &true).is_err() {
        println!("without CAP_NET_ADMIN transparent is not tested");
        return;
    }
    let proxy = Proxy::start(&hello(&format!("{{transparent: true, {address}}}")));
    assert!(addresses(&proxy)[0].starts_with("192.0.2.7:"));
}

/// Connections of `main` that the two workers have.
fn of_workers(proxy: &Proxy) -> [u64; 2] {
    [0, 1].map(|worker| proxy.stat(&format!("listener.main.worker_{worker}.downstream_cx_active")))
}

#[test]
fn exact_balance_gives_each_connection_to_the_worker_with_the_fewest() {
    for reuse_port in [true, false] {
        let balanced = format!(
            "{{connection_balance_config: {{exact_balance: {{}}}}, enable_reuse_port: {reuse_port}}}"
        );
        let proxy = Proxy::start(&hello(&balanced));
        let open = || {
            let mut wire = proxy.connect();
            assert_eq!(ask(&mut wire), "hello");
            wire
        };
        let mut all: Vec<Wire> = (0..20).map(|_| open()).collect();
        assert_eq!(of_workers(&proxy), [10, 10]);
        // Which worker has which is unknown; however many stay, the next ones make it even.
        all.truncate(7);
        eventually("the others to be gone", || (of_workers(&proxy).iter().sum::<u64>() == 7).then_some(()));
        all.extend((0..13).map(|_| open()));
        assert_eq!(of_workers(&proxy), [10, 10]);
        assert!(all.iter_mut().all(|wire| ask(wire) == "hello"));
    }
}

#[test]
fn exact_balance_over_unix_sockets() {
    let name = format!("@{}", abstract_name());
    let mut fragment = pipe(&name);
    fragment["connection_balance_config"] = json!({"exact_balance": {}});
    let proxy = Proxy::start(&hello(&fragment.to_string()));
    let mut all: Vec<Wire> = (0..10).map(|_| connect(&name)).collect();
    assert!(all.iter_mut().all(|wire| ask(wire) == "hello"));
    assert_eq!(of_workers(&proxy), [5, 5]);
}

/// Idle connections to all addresses go on, new ones find somebody without a pause.
fn lives_through_restarts(fragment: &str) -> Generations {
    let proxy = Generations::start(&hello(fragment), &["--confirm-after", "0.1"]);
    let before = addresses(&proxy);
    let mut idle: Vec<Wire> =
        before.iter().flat_map(|address| [connect(address), connect(address)]).collect();
    assert!(idle.iter_mut().all(|wire| ask(wire) == "hello"));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = || {
            let mut asked = 0;
            while !stop.load(Ordering::SeqCst) {
                before.iter().for_each(|address| assert_eq!(ask(&mut connect(address)), "hello"));
                asked += 1;
            }
            asked
        };
        let clients = [scope.spawn(asking), scope.spawn(asking)];
        for _ in 0..2 {
            proxy.restart(&[]);
        }
        stop.store(true, Ordering::SeqCst);
        let asked = clients.map(|client| client.join().expect("no request is lost"));
        assert!(asked.iter().all(|asked| *asked > 0));
    });
    let _ = proxy.only(3);
    assert_eq!(addresses(&proxy), before);
    assert!(idle.iter_mut().all(|wire| ask(wire) == "hello"));
    assert!(before.iter().all(|address| ask(&mut connect(address)) == "hello"));
    proxy
}

#[test]
fn several_addresses_live_through_restarts() {
    only_proxyd!("proxyctl is ours");
    let ip = |ip: &str| json!({"address": {"socket_address": {"address": ip, "port_value": 0}}});
    let pipe = pipe(format!("@{}", abstract_name()));
    let additional = json!({"additional_addresses": [ip("127.0.0.1"), ip("127.0.0.1"), pipe]});
    drop(lives_through_restarts(&additional.to_string()));
}

#[test]
fn a_socket_that_all_workers_share_lives_through_restarts() {
    only_proxyd!("proxyctl is ours");
    drop(lives_through_restarts("enable_reuse_port: false"));
}

#[test]
fn a_unix_socket_lives_through_restarts() {
    only_proxyd!("proxyctl is ours");
    let directory = tempfile::TempDir::new().unwrap();
    drop(lives_through_restarts(&pipe(directory.path().join("socket")).to_string()));
}

#[test]
fn balanced_connections_live_through_restarts() {
    only_proxyd!("proxyctl is ours");
    let proxy = lives_through_restarts("connection_balance_config: {exact_balance: {}}");
    proxy.stat_becomes("listener.main.downstream_cx_active", 0);
    let mut all: Vec<Wire> = (0..10).map(|_| proxy.connect()).collect();
    assert!(all.iter_mut().all(|wire| ask(wire) == "hello"));
    assert_eq!(of_workers(&proxy), [5, 5]);
}

#[test]
fn a_listener_that_does_not_bind_does_not_after_a_restart() {
    only_proxyd!("proxyctl is ours");
    let address = unused_address();
    let fragment = format!(
        "{{bind_to_port: false, address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}",
        address.port()
    );
    let proxy = Generations::start(&hello(&fragment), &["--confirm-after", "0.1"]);
    proxy.restart(&[]);
    let _ = proxy.only(2);
    assert_eq!(addresses(&proxy), [address.to_string()]);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn socket_options_of_the_new_configuration_hold_after_a_restart() {
    only_proxyd!("proxyctl is ours");
    let proxy = Generations::start(&hello("{}"), &["--confirm-after", "0.1"]);
    let kept = || {
        let mut wire = proxy.connect();
        assert_eq!(ask(&mut wire), "hello");
        keeps_alive(Some(proxy.listener("main")), wire.local_address())
    };
    assert!(!kept());
    let other = proxy.file("other.yaml", &hello("tcp_keepalive: {keepalive_time: 100}").to_yaml());
    proxy.restart(&["-c", &other]);
    assert!(kept());
}
