//! Whatever fails around a hot restart: files, ports, memory, descriptors, space, and who talks on its socket.

use std::fs::{self, Permissions};
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket};
use proxy_tests::{
    EchoBackend, Member, Signal, Start, Traffic, Wire, direct_response_chain, eventually, only_proxyd,
};

use super::{OF_THE_KILLED, answering, bootstrap, ends_well, ends_well_after, relaying};

#[test]
fn a_configuration_with_errors_changes_nothing() {
    only_proxyd!("Envoy's hot restart is another one");
    let generations = answering();
    let first = generations.first(&Start::default());
    let traffic = Traffic::http(generations.main);
    let good = fs::read(generations.config()).unwrap();
    fs::write(generations.config(), "static_resources: {listeners: [{nonsense: 1}]}").unwrap();
    assert_eq!(generations.start(&Start::next()).exit().code(), Some(1));
    fs::remove_file(generations.config()).unwrap();
    assert_eq!(generations.start(&Start::next()).exit().code(), Some(1));
    fs::write(generations.config(), good).unwrap();
    assert_eq!(ends_well(&generations, traffic, first).refused, 0);
}

#[test]
fn a_port_that_is_taken_changes_nothing() {
    only_proxyd!("Envoy's hot restart is another one");
    let generations = answering();
    let mut first = generations.first(&Start::default());
    let traffic = Traffic::http(generations.main);
    let foreign = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = foreign.local_addr().unwrap();
    let config = bootstrap(generations.main).listener_at("other", taken, direct_response_chain("other"));
    generations.configure(&config);
    let mut failing = generations.start(&Start::next());
    assert_eq!(failing.exit().code(), Some(1));
    assert!(failing.log().contains("Address already in use"), "{}", failing.log());
    first.says("the new process did not take over, this one goes on");
    drop(foreign);
    assert_eq!(ends_well(&generations, traffic, first).refused, 0);
}

/// Starts processes that lack something: those that fail change nothing, others take over.
fn starved(limits: &[&str]) {
    only_proxyd!("Envoy's hot restart is another one");
    let generations = answering();
    let mut last = generations.first(&Start::default());
    let traffic = Traffic::http(generations.main);
    let mut failed = 0;
    for limit in limits {
        let mut starving = generations.start(&Start::next().limit(limit));
        if starving.settles() {
            assert!(last.exit().success());
            last = starving;
        } else {
            failed += 1;
        }
        traffic.goes_on();
    }
    assert!(failed > 0, "none of {limits:?} is a limit");
    let tally = ends_well_after(&generations, traffic, last, failed * OF_THE_KILLED);
    assert_eq!(tally.refused, 0);
}

#[test]
fn too_little_memory_changes_nothing() {
    // Of address space, in KiB.
    starved(&["-v 40000", "-v 80000", "-v 120000", "-v 160000"]);
}

#[test]
fn too_few_descriptors_change_nothing() {
    starved(&["-n 8", "-n 12", "-n 16", "-n 20"]);
}

#[test]
fn a_process_without_descriptors_can_be_replaced() {
    only_proxyd!("Envoy's hot restart is another one");
    let generations = answering();
    let mut first = generations.first(&Start::default().limit("-n 200"));
    let mut clients = Vec::new();
    eventually("the descriptors to be used up", || {
        clients.push(TcpStream::connect(generations.main).unwrap());
        first.log().contains("cannot accept, clients wait").then_some(())
    });
    let second = generations.next();
    // Those that could not be duplicated end where they are.
    drop(clients);
    assert!(first.exit().success(), "{}", first.log());
    assert_eq!(Wire::connect(generations.main).ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").text(), "hello");
    second.end();
    generations.assert_nothing_left();
}

#[test]
fn of_two_that_want_to_take_over_one_does() {
    only_proxyd!("Envoy's hot restart is another one");
    let generations = answering();
    let mut first = generations.first(&Start::default());
    let traffic = Traffic::http(generations.main);
    let mut both = [(); 2].map(|()| generations.start(&Start::next()));
    assert!(first.exit().success());
    // The one that comes too late is refused, or takes over from the other.
    let leads = both.each_mut().map(Member::settles);
    assert_ne!(leads, [false, false]);
    let [one, other] = both;
    let (mut early, late) = match (leads, one.log().contains("epoch=2")) {
        ([true, false], _) | (_, true) => (other, one),
        _ => (one, other),
    };
    let _ = early.exit();
    assert_eq!(ends_well(&generations, traffic, late).refused, 0);
}

#[test]
fn ten_restarts_in_a_row() {
    only_proxyd!("Envoy's hot restart is another one");
    let generations = answering();
    let mut all = vec![generations.first(&Start::default())];
    let traffic = Traffic::http(generations.main);
    for concurrency in [1, 3, 2, 4, 1, 2, 3, 1, 4, 2] {
        let start = Start::next().with(&["--concurrency", &concurrency.to_string()]);
        // It may be refused: the one before may still be busy.
        let next = eventually("a process that leads", || {
            let mut next = generations.start(&start);
            next.settles().then_some(next)
        });
        all.push(next);
    }
    let last = all.pop().unwrap();
    all.iter_mut().for_each(|one| assert!(one.exit().success(), "{}", one.log()));
    assert_eq!(ends_well(&generations, traffic, last).refused, 0);
}

#[test]
fn relays_live_through_failures_of_either_side() {
    only_proxyd!("Envoy's hot restart is another one");
    let echo = EchoBackend::new();
    let generations = relaying(&echo);
    let mut old = generations.first(&Start::default());
    let traffic = Traffic::tcp(generations.main);
    traffic.goes_on();
    for fault in ["ChildBeforeServing:crash", "ChildBeforeConfirm:crash", "ChildLeadsUntold:crash"] {
        assert!(!generations.start(&Start::next().fault(fault)).exit().success());
        traffic.goes_on();
    }
    let mut next = generations.start(&Start::next().fault("ChildAccepted:stop"));
    next.is_stopped();
    next.signal(Signal::SIGCONT);
    next.leads();
    traffic.goes_on();
    assert!(old.exit().success());
    old = next;
    let mut next = generations.start(&Start::next().fault("ChildAfterConfirm:stop"));
    next.is_stopped();
    old.says("a connection is taken back");
    // They were offered, and go on where they were.
    traffic.goes_on();
    next.signal(Signal::SIGCONT);
    next.leads();
    traffic.goes_on();
    let tally = traffic.end();
    assert_eq!((tally.broken, tally.refused), (0, 0));
    assert!(old.exit().success());
    next.end();
    generations.assert_nothing_left();
}

#[test]
fn what_killed_processes_leave_is_no_obstacle() {
    only_proxyd!("Envoy's hot restart is another one");
    let generations = answering();
    let mut first = generations.first(&Start::default());
    let traffic = Traffic::http(generations.main);
    traffic.goes_on();
    let mut second = generations.next();
    first.signal(Signal::SIGKILL);
    second.signal(Signal::SIGKILL);
    let _ = (first.exit(), second.exit());
    let third = generations.first(&Start::default());
    ends_well_after(&generations, traffic, third, u64::MAX / 2);
}

#[test]
fn without_space_for_stats_restarts_work_all_the_same() {
    only_proxyd!("Envoy's hot restart is another one");
    // In blocks of 512 bytes: room for a log, not for stats.
    let small = Some("-f 200");
    for (first, second) in [(small, None), (None, small), (small, small)] {
        let limited =
            |start: Start, limit: Option<&str>| limit.map_or(start.clone(), |l| start.clone().limit(l));
        let generations = answering();
        let mut old = generations.first(&limited(Start::default(), first));
        let traffic = Traffic::http(generations.main);
        traffic.goes_on();
        for _ in 0..2 {
            let mut next = generations.start(&limited(Start::next(), second));
            next.leads();
            assert!(old.exit().success(), "{}", old.log());
            old = next;
        }
        traffic.goes_on();
        let tally = traffic.end();
        assert_eq!((tally.lost, tally.refused), (0, 0));
        old.end();
        generations.assert_nothing_left();
    }
}

#[test]
fn a_connection_that_changes_while_it_is_offered() {
    only_proxyd!("Envoy's hot restart is another one");
    let generations = answering();
    let mut first = generations.first(&Start::default());
    let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let [mut asks, mut half_closes] = [(); 2].map(|()| {
        let mut client = Wire::connect(generations.main);
        assert_eq!(client.ask(get).text(), "hello");
        client
    });
    let mut resets = TcpStream::connect(generations.main).unwrap();
    resets.write_all(get.as_bytes()).unwrap();
    // What is there and not read makes a reset of the close.
    assert!(resets.peek(&mut [0]).unwrap() > 0);
    let mut half = Wire::connect(generations.main);
    half.send("GET / HTT");
    let mut second = generations.start(&Start::next().fault("ChildAfterConfirm:stop"));
    second.is_stopped();
    asks.send(get);
    half_closes.send(get).finish();
    half.send("P/1.1\r\nhost: a\r\n\r\n");
    drop(resets);
    second.signal(Signal::SIGCONT);
    assert_eq!(asks.response().text(), "hello");
    assert_eq!(half_closes.response().text(), "hello");
    assert!(half_closes.is_closed());
    assert_eq!(half.response().text(), "hello");
    second.leads();
    drop((asks, half));
    assert!(first.exit().success());
    eventually("all to be counted", || (second.stat("http.ingress.downstream_rq_2xx") == 6).then_some(()));
    second.end();
    generations.assert_nothing_left();
}

#[test]
fn nonsense_on_the_restart_socket_changes_nothing() {
    only_proxyd!("Envoy's hot restart is another one");
    let generations = answering();
    let first = generations.first(&Start::default());
    let traffic = Traffic::http(generations.main);
    let path = generations.restart_socket(1);
    // Not protobuf; nothing that is known; a heartbeat out of turn; a Hello of protocol 99.
    let messages: [&[u8]; 4] = [&[0xff; 40], &[0xc2, 0x3e, 0x00], &[0x42, 0x00], &[0x0a, 0x02, 0x08, 99]];
    for message in messages {
        let answer = say(&path, message);
        let refused = message[0] == 0x0a;
        assert_eq!(answer.windows(9).any(|text| text == b"version 9"), refused, "{answer:?}");
    }
    // Those that say nothing are no obstacle.
    let _silent: Vec<_> = (0..5).map(|_| connected(&path)).collect();
    assert_eq!(ends_well(&generations, traffic, first).refused, 0);
}

#[test]
fn another_user_is_not_let_in() {
    only_proxyd!("Envoy's hot restart is another one");
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can be somebody else");
        return;
    }
    let generations = answering();
    let first = generations.first(&Start::default());
    let path = generations.restart_socket(1);
    // Modes that let everybody in: the socket does not.
    for directory in path.ancestors().skip(1).take_while(|directory| *directory != Path::new("/tmp")) {
        fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    let program = "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(sys.argv[1]); print(s.recv(9))";
    let mut client = Command::new("/usr/bin/python3");
    let Ok(output) = client.uid(65534).gid(65534).arg("-c").arg(program).arg(&path).output() else {
        println!("skipped: there is no Python");
        return;
    };
    assert_eq!(String::from_utf8_lossy(&output.stdout), "b''\n", "{output:?}");
    first.end();
}

#[test]
fn full_directories_change_nothing() {
    only_proxyd!("Envoy's hot restart is another one");
    let generations = answering();
    let mut mounts = Vec::new();
    for directory in [generations.run_dir(), generations.shm()] {
        match Mount::tiny(&directory) {
            Some(mount) => mounts.push(mount),
            None => {
                println!("skipped: nothing can be mounted here");
                return;
            }
        }
    }
    let mut last = generations.first(&Start::default());
    let traffic = Traffic::http(generations.main);
    for directory in [generations.shm(), generations.run_dir()] {
        let filler = directory.join("filler");
        let filled = fs::write(&filler, vec![0; 1 << 20]);
        assert!(filled.is_err(), "there is too much space");
        let mut starving = generations.start(&Start::next());
        if starving.settles() {
            assert!(last.exit().success());
            last = starving;
        }
        traffic.goes_on();
        fs::remove_file(filler).unwrap();
    }
    let mut next = generations.next();
    assert!(last.exit().success());
    traffic.goes_on();
    let tally = traffic.end();
    assert_eq!((tally.lost, tally.refused), (0, 0));
    next.says("handed over all it could");
    next.end();
    generations.assert_nothing_left();
}

/// A small file system, unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn tiny(directory: &Path) -> Option<Mount> {
        fs::create_dir_all(directory).unwrap();
        fs::set_permissions(directory, Permissions::from_mode(0o700)).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs"]).arg(directory);
        command.output().is_ok_and(|output| output.status.success()).then(|| Mount(directory.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

/// What comes back for a message, nothing at the end of file.
fn say(path: &Path, message: &[u8]) -> Vec<u8> {
    let socket = connected(path);
    send(socket.as_raw_fd(), message, MsgFlags::empty()).unwrap();
    let mut answer = vec![0; 1 << 16];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).unwrap();
    answer.truncate(length);
    answer
}

fn connected(path: &Path) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).unwrap();
    connect(socket.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
    socket
}
