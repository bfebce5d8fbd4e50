use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};

use proxy_config::lower::LowerOptions;
use proxy_config::{LoadInputs, LoadOptions};
use proxy_http::route::ClusterId;
use proxy_stats::{MetricId, Store, StoreOptions};

use super::*;
use crate::discovery::static_hosts;

fn upstream(address: SocketAddr, store: &Store) -> Upstream {
    let endpoint = format!("{{address: {}, port_value: {}}}", address.ip(), address.port());
    let yaml = format!(
        "static_resources: {{clusters: [{{name: s, type: STATIC, load_assignment: {{cluster_name: s, endpoints: [{{lb_endpoints: [
        {{endpoint: {{address: {{socket_address: {endpoint}}}}}}}]}}]}}}}]}}"
    );
    let inputs = LoadInputs { yaml_override: Some(yaml), file: None, options: LoadOptions::default() };
    let configuration = proxy_config::load(&inputs, &LowerOptions::default()).unwrap();
    let settings = Arc::clone(&configuration.settings.clusters[0]);
    let info = Arc::new(ClusterInfo::new(ClusterId(0), settings, &store.root()));
    Upstream { hosts: Arc::new(static_hosts(&info, 1)), info }
}

/// As many lines as are sure not to fit into what the system buffers, each telling of a counter of its own.
fn many_lines(store: &Store) -> (Lines, Vec<MetricId>) {
    let scope = store.root().scope("many");
    (0..LINES).for_each(|index| scope.counter(&index.to_string()).inc());
    let (mut lines, mut ids, mut deltas) = (Lines::default(), Vec::new(), store.deltas());
    while deltas.advance(|delta| {
        ids.push(delta.id);
        lines.push(Some(delta.mark()), |bytes| bytes.extend_from_slice(&[b'x'; LINE_BYTES - 1]));
    }) {}
    (lines, ids)
}

#[test]
fn a_slow_peer_gets_every_line_once_and_whole() {
    let store = Store::create(StoreOptions::private(1)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream =
        upstream(listener.local_addr().unwrap(), &Store::create(StoreOptions::private(1)).unwrap());
    let (mut lines, ids) = many_lines(&store);
    let (mut stream, mut told) = (Stream::default(), Vec::new());
    stream.open(Some(&upstream), &mut told).unwrap();
    let (mut peer, _) = listener.accept().unwrap();
    assert!(matches!(stream.send(&mut lines, &mut told), Err(SinkError::Slow)));
    assert!(!told.is_empty() && told.len() < LINES, "{} of {LINES} lines are out", told.len());
    let reader = std::thread::spawn(move || {
        let mut received = vec![0; LINES * LINE_BYTES];
        peer.read_exact(&mut received).map(|()| received)
    });
    stream.open(Some(&upstream), &mut told).unwrap();
    let received = reader.join().unwrap().unwrap();
    assert!(
        received
            .chunks(LINE_BYTES)
            .all(|line| line.ends_with(b"x\n") && !line[..LINE_BYTES - 1].contains(&b'\n'))
    );
    assert_eq!(told.iter().map(|mark| mark.id).collect::<Vec<_>>(), ids);
}

#[test]
fn what_a_broken_connection_did_not_take_was_not_told() {
    let store = Store::create(StoreOptions::private(1)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream =
        upstream(listener.local_addr().unwrap(), &Store::create(StoreOptions::private(1)).unwrap());
    let (mut lines, ids) = many_lines(&store);
    let (mut stream, mut told) = (Stream::default(), Vec::new());
    stream.open(Some(&upstream), &mut told).unwrap();
    drop(listener.accept());
    // Said beforehand, so that nothing is written to it: the next one is another connection.
    let peer: TcpStream = loop {
        if stream.connection.as_ref().unwrap().has_ended() {
            stream.open(Some(&upstream), &mut told).unwrap();
            break listener.accept().unwrap().0;
        }
    };
    assert!(matches!(stream.send(&mut lines, &mut told), Err(SinkError::Slow)));
    let before = told.len();
    drop(peer);
    drop(listener);
    let error = stream.open(Some(&upstream), &mut told).unwrap_err();
    assert!(matches!(error, SinkError::Io(_)), "{error}");
    assert_eq!((told.len(), stream.left.bytes().len()), (before, 0));
    assert!(before < ids.len());
    assert!(matches!(stream.open(Some(&upstream), &mut told), Err(SinkError::BackingOff)));
}

const LINES: usize = 2_000;
const LINE_BYTES: usize = 16 << 10;
