//! Look-ups from a name server in the same process.

use std::net::SocketAddr;
use std::path::Path;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record};
use tokio::net::UdpSocket;

use super::*;

/// Answers by name; counts what it was asked.
async fn serve(socket: UdpSocket, asked: Arc<Mutex<Vec<String>>>) {
    let mut buffer = [0; 4096];
    loop {
        let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
        let request = Message::from_vec(&buffer[..length]).unwrap();
        let query = request.queries[0].clone();
        let name = query.name().to_ascii();
        asked.lock().unwrap().push(format!("{name} {}", query.query_type()));
        let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
        reply.add_query(query.clone());
        let texts: &[(&str, u32)] = match (name.as_str(), query.query_type()) {
            ("both.example.", RecordType::A) => &[("10.0.0.1", 30), ("10.0.0.2", 20)],
            ("both.example.", RecordType::AAAA) => &[("fd00::1", 10)],
            ("four.example.", RecordType::A) => &[("10.0.0.4", 0)],
            _ => &[],
        };
        for (text, ttl) in texts {
            let data = match text.parse::<IpAddr>().unwrap() {
                IpAddr::V4(address) => RData::A(address.into()),
                IpAddr::V6(address) => RData::AAAA(address.into()),
            };
            reply.add_answer(Record::from_rdata(query.name().clone(), *ttl, data));
        }
        if name == "gone.example." {
            reply.metadata.response_code = ResponseCode::NXDomain;
        }
        if name != "silent.example." {
            socket.send_to(&reply.to_vec().unwrap(), client).await.unwrap();
        }
    }
}

struct Servers {
    resolver: Resolver,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Servers {
    async fn start(hosts: &Path) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = socket.local_addr().unwrap();
        let asked = Arc::default();
        tokio::spawn(serve(socket, Arc::clone(&asked)));
        Self { resolver: Resolver::with_servers(&[address], hosts.to_owned()).unwrap(), asked }
    }

    async fn addresses(&self, host: &str, family: DnsFamily) -> Vec<String> {
        let answer = self.resolver.resolve(host, family).await;
        answer.map(|answer| answer.addresses.iter().map(ToString::to_string).collect()).unwrap_or_default()
    }
}

/// Runs `test` with a server and the path of an empty hosts file.
fn with_servers(test: impl AsyncFnOnce(&Servers, &Path)) {
    let directory = tempfile::tempdir().unwrap();
    let hosts = directory.path().join("hosts");
    fs::write(&hosts, "").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { test(&Servers::start(&hosts).await, &hosts).await });
}

#[test]
fn families_are_asked_for_as_envoy_does() {
    with_servers(async |servers, _| {
        for (family, both, four) in [
            (DnsFamily::Auto, &["fd00::1"][..], &["10.0.0.4"][..]),
            (DnsFamily::V4Only, &["10.0.0.1", "10.0.0.2"], &["10.0.0.4"]),
            (DnsFamily::V6Only, &["fd00::1"], &[]),
            (DnsFamily::V4Preferred, &["10.0.0.1", "10.0.0.2"], &["10.0.0.4"]),
            (DnsFamily::All, &["fd00::1", "10.0.0.1", "10.0.0.2"], &["10.0.0.4"]),
        ] {
            assert_eq!(servers.addresses("both.example", family).await, both, "{family:?}");
            assert_eq!(servers.addresses("four.example", family).await, four, "{family:?}");
        }
    });
}

#[test]
fn the_shortest_time_to_live_counts_and_is_never_zero() {
    with_servers(async |servers, _| {
        let ttl = async |host, family| servers.resolver.resolve(host, family).await.unwrap().ttl.as_secs();
        assert_eq!(ttl("both.example", DnsFamily::V4Only).await, 20);
        assert_eq!(ttl("both.example", DnsFamily::All).await, 10);
        assert_eq!(ttl("four.example", DnsFamily::V4Only).await, 1);
    });
}

#[test]
fn nothing_is_cached() {
    with_servers(async |servers, _| {
        for _ in 0..3 {
            servers.addresses("both.example", DnsFamily::V4Only).await;
        }
        assert_eq!(*servers.asked.lock().unwrap(), ["both.example. A"; 3]);
    });
}

#[test]
fn the_hosts_file_comes_first_and_is_read_again() {
    with_servers(async |servers, hosts| {
        fs::write(hosts, "10.9.9.9 both.example local-name # comment\n").unwrap();
        assert_eq!(servers.addresses("both.example", DnsFamily::Auto).await, ["10.9.9.9"]);
        assert_eq!(servers.addresses("LOCAL-NAME", DnsFamily::V4Only).await, ["10.9.9.9"]);
        assert!(servers.addresses("both.example", DnsFamily::V6Only).await.is_empty());
        assert!(servers.asked.lock().unwrap().is_empty());
        fs::remove_file(hosts).unwrap();
        assert_eq!(servers.addresses("both.example", DnsFamily::Auto).await, ["fd00::1"]);
    });
}

#[test]
fn localhost_and_literals_are_asked_of_nobody() {
    with_servers(async |servers, _| {
        assert_eq!(servers.addresses("localhost", DnsFamily::V4Only).await, ["127.0.0.1"]);
        assert_eq!(servers.addresses("a.Localhost.", DnsFamily::Auto).await, ["::1"]);
        assert_eq!(servers.addresses("10.1.1.1", DnsFamily::Auto).await, ["10.1.1.1"]);
        assert!(servers.addresses("10.1.1.1", DnsFamily::V6Only).await.is_empty());
        assert!(servers.asked.lock().unwrap().is_empty());
    });
}

#[test]
fn errors_tell_no_from_never() {
    with_servers(async |servers, _| {
        let error = async |host: &str| servers.resolver.resolve(host, DnsFamily::Auto).await.unwrap_err();
        assert!(matches!(error("gone.example").await, DnsError::NotFound(_)));
        assert!(matches!(error("empty.example").await, DnsError::NotFound(_)));
        assert!(matches!(error("").await, DnsError::Name(_)));
        assert!(matches!(error(&"a".repeat(64)).await, DnsError::Name(_)));
    });
}

#[test]
fn silence_ends() {
    with_servers(async |servers, _| {
        tokio::time::pause();
        let error = servers.resolver.resolve("silent.example", DnsFamily::Auto).await.unwrap_err();
        assert!(matches!(error, DnsError::Timeout { .. }), "{error}");
    });
}

#[test]
fn without_servers_names_are_errors() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let resolver = Resolver::with_servers(&[], PathBuf::from("/nonexistent")).unwrap();
        assert!(resolver.resolve("example.com", DnsFamily::Auto).await.is_err());
        assert!(resolver.resolve("localhost", DnsFamily::Auto).await.is_ok());
    });
}
