"""The configuration and the traffic of stats_like_envoy.py: every way in which a connection or a request can end that
both proxies offer, one after the other. Python's standard library only."""

import json
import os
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))
import lab
import stats_origins as origins
from stats_origins import END_HEADERS, END_STREAM, field, frame

FILTERS = "type.googleapis.com/envoy.extensions.filters"
# Listeners by what their connections go through.
LISTENERS = (
    *("ready", "unmatched", "http", "limits", "durations", "http2", "tcp"),
    *("tcp_idle", "tcp_duration", "tcp_reset", "tcp_goodbye", "tcp_refused", "tcp_tight"),
)


class Hosts:
    """What the clusters lead to."""

    def __init__(self):
        self.ports = {
            "http1": origins.Origin(origins.serve_http1).port,
            "tight": origins.Origin(origins.serve_http1).port,
            "bulk": origins.Origin(origins.serve_http1).port,
            "once": origins.Origin(origins.serve_http1).port,
            "idle": origins.Origin(origins.serve_http1).port,
            "refused": lab.free_port(),
            "deaf": origins.deaf_port(),
            "echo": origins.Origin(origins.serve_echo).port,
            "resets": origins.Origin(origins.serve_reset).port,
            "goodbye": origins.Origin(origins.serve_goodbye).port,
            "silent": origins.Origin(origins.serve_silence).port,
            "narrow": origins.Origin(origins.serve_silence).port,
        }
        self.http2 = {
            name: origins.http2_origin(getattr(origins, name)).port
            for name in dir(origins)
            if name.startswith("http2_") and name not in ("http2_answer", "http2_origin")
        }


def listener(name, port, kind, typed):
    filters = [{"name": f"envoy.filters.network.{kind}", "typed_config": typed}]
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": name, "stat_prefix": name, "address": address, "filter_chains": [{"filters": filters}]}


def manager(prefix, routes, **more):
    router = {"@type": f"{FILTERS}.http.router.v3.Router", "suppress_envoy_headers": True}
    return {
        "@type": f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": prefix,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        "delayed_close_timeout": "0.3s",
        **more,
    }


def relay(prefix, cluster, **more):
    return {"@type": f"{FILTERS}.network.tcp_proxy.v3.TcpProxy", "stat_prefix": prefix, "cluster": cluster, **more}


def cluster(name, port, options=None, **more):
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    made = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "0.3s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        **more,
    }
    if options:
        kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        made["typed_extension_protocol_options"] = {kind: {"@type": f"type.googleapis.com/{kind}", **options}}
    return made


def config(hosts, admin, ports):
    """The file that both run on."""
    http1, http2 = {"http_protocol_options": {}}, {"http2_protocol_options": {}}

    def to(prefix, name, **more):
        return {"match": {"prefix": prefix}, "route": {"cluster": name, **more}}

    routes = [
        {"match": {"prefix": "/direct"}, "direct_response": {"status": 403}},
        {"match": {"prefix": "/redirect"}, "redirect": {"host_redirect": "elsewhere"}},
        {"match": {"prefix": "/missing"}, "route": {"cluster_header": ":authority"}},
        to("/refused", "refused"),
        to("/deaf", "deaf"),
        to("/tight", "tight", prefix_rewrite=""),
        to("/bulk", "bulk", prefix_rewrite=""),
        to("/once", "once", prefix_rewrite=""),
        to("/idle", "idle", prefix_rewrite=""),
        to("/hang/timeout", "http1", timeout="0.3s"),
        to("/hang/idle", "http1", idle_timeout="0.3s"),
        to("/stuck/timeout", "http1", timeout="0.3s"),
        to("/http2_hang/timeout", "http2_hang", timeout="0.3s"),
        # The longer of two names first, for one is the beginning of the other.
        *(to(f"/{name}", name) for name in sorted(hosts.http2, reverse=True)),
        to("/", "http1"),
    ]
    limits = {
        "common_http_protocol_options": {"idle_timeout": "0.4s", "max_requests_per_connection": 2},
        "request_timeout": "0.4s",
        "request_headers_timeout": "0.3s",
    }
    durations = {"common_http_protocol_options": {"max_stream_duration": "0.3s"}}
    duration = {"max_downstream_connection_duration": "0.3s"}
    one = {name: 1 for name in ("max_connections", "max_pending_requests", "max_requests")}
    breakers = {"thresholds": [{**one, "track_remaining": True}]}
    ports_of = hosts.ports
    clusters = [
        cluster("tight", ports_of["tight"], circuit_breakers=breakers),
        cluster("narrow", ports_of["narrow"], circuit_breakers=breakers),
        cluster(
            "once",
            ports_of["once"],
            {"explicit_http_config": http1, "common_http_protocol_options": {"max_requests_per_connection": 1}},
        ),
        cluster(
            "idle",
            ports_of["idle"],
            {"explicit_http_config": http1, "common_http_protocol_options": {"idle_timeout": "0.3s"}},
        ),
        *(cluster(n, p) for n, p in ports_of.items() if n not in ("tight", "once", "idle", "narrow")),
        *(cluster(n, p, {"explicit_http_config": http2}) for n, p in hosts.http2.items()),
    ]
    http, tcp = "http_connection_manager", "tcp_proxy"
    unmatched = listener("unmatched", ports["unmatched"], tcp, relay("unmatched", "echo"))
    unmatched["filter_chains"][0]["filter_chain_match"] = {"destination_port": 1}
    listeners = [
        listener("ready", ports["ready"], tcp, relay("ready", "echo")),
        unmatched,
        listener("http", ports["http"], http, manager("http", routes, normalize_path=True)),
        listener("limits", ports["limits"], http, manager("limits", routes, **limits)),
        listener("durations", ports["durations"], http, manager("durations", routes, **durations)),
        listener("http2", ports["http2"], http, manager("http2", routes)),
        listener("tcp", ports["tcp"], tcp, relay("tcp", "echo")),
        listener("tcp_idle", ports["tcp_idle"], tcp, relay("tcp_idle", "silent", idle_timeout="0.3s")),
        listener("tcp_duration", ports["tcp_duration"], tcp, relay("tcp_duration", "silent", **duration)),
        listener("tcp_reset", ports["tcp_reset"], tcp, relay("tcp_reset", "resets")),
        listener("tcp_goodbye", ports["tcp_goodbye"], tcp, relay("tcp_goodbye", "goodbye")),
        listener("tcp_refused", ports["tcp_refused"], tcp, relay("tcp_refused", "refused", max_connect_attempts=2)),
        listener("tcp_tight", ports["tcp_tight"], tcp, relay("tcp_tight", "narrow")),
    ]
    return json.dumps(
        {
            "stats_flush_interval": "1s",
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
            "static_resources": {"listeners": listeners, "clusters": clusters},
        },
        indent=1,
    )


class Traffic:
    """One run of all scripts against the listeners on `ports`."""

    def __init__(self, ports):
        self.ports = ports

    def run(self):
        for script in (self.http1, self.http1_ends, self.http1_hosts, self.http1_limits, self.http1_breakers):
            script()
        for script in (self.http2, self.http2_ends, self.http2_hosts, self.tcp):
            script()

    def connect(self, name="http"):
        connection = socket.create_connection(("127.0.0.1", self.ports[name]), timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def ask(self, path, method="GET", lines="", body=b"", name="http"):
        """One request on a connection of its own, read to the end that the proxy makes."""
        with self.connect(name) as client:
            client.sendall(request(path, method, lines + "connection: close\r\n") + body)
            return read_all(client)

    # HTTP/1 that goes well.
    def http1(self):
        with self.connect() as client:
            wire = client.makefile("rb")
            for path in ("/status/200", "/status/201", "/status/204", "/status/301", "/status/404", "/status/500"):
                client.sendall(request(path))
                read_response(wire)
            client.sendall(request("/status/200") * 3)  # pipelined
            for _ in range(3):
                read_response(wire)
            client.sendall(request("/status/200", "HEAD"))
            read_response(wire, to_head=True)
            client.sendall(request("/ok", "POST", "content-length: 5\r\n") + b"12345")
            read_response(wire)
            client.sendall(request("/ok", "POST", "transfer-encoding: chunked\r\n") + b"3\r\nabc\r\n0\r\n\r\n")
            read_response(wire)
            for path in ("/direct", "/redirect", "/missing"):
                client.sendall(request(path))
                read_response(wire)
            client.sendall(request("/size/200000"))
            read_response(wire)
        self.ask("/chunked")
        self.ask("/informed")
        self.ask("/ok", "POST", "expect: 100-continue\r\ncontent-length: 2\r\n", b"ok")

    # HTTP/1 that ends badly on the client's side.
    def http1_ends(self):
        self.connect().close()
        with self.connect() as client:
            client.sendall(b"GET / HT")
        with self.connect() as client:
            client.sendall(request("/hang"))
            time.sleep(0.2)
        with self.connect() as client:
            client.sendall(request("/hang"))
            time.sleep(0.2)
            origins.reset_on_close(client)
        with self.connect() as client:
            client.sendall(request("/ok", "POST", "content-length: 10\r\n") + b"half")
            time.sleep(0.2)
        with self.connect() as client:
            client.sendall(request("/ok", "POST", "transfer-encoding: chunked\r\n") + b"4\r\nha")
            time.sleep(0.2)
            origins.reset_on_close(client)
        with self.connect() as client:
            client.sendall(request("/stuck"))
            time.sleep(0.2)
        for broken in (b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nhost: a\r\nbad header\r\n\r\n"):
            with self.connect() as client:
                client.sendall(broken)
                read_all(client)
        self.ask("/ok", lines="x-long: %s\r\n" % ("x" * 70000))
        with self.connect() as client:  # a chunk that is none
            client.sendall(request("/ok", "POST", "transfer-encoding: chunked\r\n"))
            time.sleep(0.2)
            client.sendall(b"zz\r\n")
            read_all(client)
        self.ask("/%00")

    # HTTP/1 hosts that misbehave.
    def http1_hosts(self):
        for path in ("/close", "/reset", "/partial", "/partial-reset", "/garbage", "/announced", "/surplus"):
            self.ask(path)
        with self.connect() as client:
            client.sendall(request("/early", "POST", "content-length: 100\r\n") + b"half")
            read_all(client)
        for _ in range(2):
            self.ask("/refused")
        self.ask("/deaf")
        self.ask("/hang/timeout")
        self.ask("/hang/idle")
        self.ask("/stuck/timeout")
        for _ in range(3):
            self.ask("/once/status/200")
        self.ask("/idle/status/200")
        time.sleep(1.5)

    # Limits on connections and requests.
    def http1_limits(self):
        with self.connect("limits") as client:  # idle
            client.sendall(request("/ok"))
            read_all(client)
        with self.connect("limits") as client:  # two requests and no more
            client.sendall(request("/ok") + request("/ok"))
            read_all(client)
        with self.connect("limits") as client:  # half a head
            client.sendall(b"GET / HTTP/1.1\r\n")
            read_all(client)
        with self.connect("limits") as client:  # half a body
            client.sendall(request("/ok", "POST", "content-length: 10\r\n") + b"half")
            read_all(client)

        for path in ("/hang", "/stuck"):
            self.ask(path, name="durations")

    # One request at a time, one that waits, and no more.
    def http1_breakers(self):
        first = self.connect()
        first.sendall(request("/tight/hang"))
        time.sleep(0.2)
        with self.connect() as client:  # gives up waiting
            client.sendall(request("/tight/ok"))
            time.sleep(0.2)
        time.sleep(0.2)
        second = self.connect()
        second.sendall(request("/tight/ok", lines="connection: close\r\n"))
        time.sleep(0.2)
        self.ask("/tight/ok")  # there is no room to wait
        first.close()
        read_all(second)
        second.close()

    def http2(self):
        with Http2Client(self.connect("http2")) as client:
            for path in (b"/status/200", b"/status/404", b"/direct", b"/size/100000"):
                client.get(path)
            client.wait(client.request(b"/ok", body=b"12345"))
            client.wait(client.request(b"/ok", body=b"12345", trailers=True))
            streams = [client.request(b"/slow/0.1") for _ in range(5)]
            for stream in streams:
                client.wait(stream)

    def http2_ends(self):
        with Http2Client(self.connect("http2")) as client:
            stream = client.request(b"/hang")
            time.sleep(0.2)
            client.send(frame(origins.RST_STREAM, 0, stream, struct.pack(">I", 8)))
            client.get(b"/direct")
            stream = client.request(b"/ok", body=b"half", end=False)
            time.sleep(0.2)
            client.send(frame(origins.RST_STREAM, 0, stream, struct.pack(">I", 8)))
            client.get(b"/direct")
        with Http2Client(self.connect("http2")) as client:
            client.request(b"/hang")
            time.sleep(0.2)
        with Http2Client(self.connect("http2")) as client:
            client.get(b"/direct")
            client.send(frame(origins.GOAWAY, 0, 0, struct.pack(">II", 0, 0)))
        with Http2Client(self.connect("http2")) as client:  # broken framing
            client.send(frame(origins.DATA, 0, 0, b"x"))
            client.drain()
        with Http2Client(self.connect("http2"), window=1000) as client:  # an answer that nobody takes
            client.request(b"/bulk/size/50000")
            time.sleep(0.3)

    def http2_hosts(self):
        for name in ("ok", "trailers", "status", "reset", "reset_midway", "goaway", "cut"):
            self.ask(f"/http2_{name}")
        for _ in range(2):
            self.ask("/http2_goaway")
        self.ask("/http2_hang/timeout")
        with self.connect() as client:
            client.sendall(request("/http2_hang"))
            time.sleep(0.2)
        self.ask("/http2_ok", "POST", "content-length: 3\r\n", b"abc")

    def tcp(self):
        for size in (1, 1000, 300000):
            with self.connect("tcp") as client:
                threading.Thread(target=client.sendall, args=(b"x" * size,)).start()
                take(client, size)
        with self.connect("tcp") as client:  # half-close, the client first
            client.sendall(b"bye")
            client.shutdown(socket.SHUT_WR)
            read_all(client)
        with self.connect("tcp_goodbye") as client:  # half-close, the host first
            read_all(client)
        with self.connect("tcp") as client:
            client.sendall(b"x")
            take(client, 1)
            origins.reset_on_close(client)
        with self.connect("tcp_reset") as client:
            client.sendall(b"x")
            read_all(client)
        for name in ("tcp_idle", "tcp_duration", "tcp_refused"):
            with self.connect(name) as client:
                read_all(client)
        with self.connect("unmatched") as client:
            read_all(client)
        with self.connect("tcp_tight") as client:
            client.sendall(b"x")
            time.sleep(0.2)
            with self.connect("tcp_tight") as second:
                read_all(second)


def request(path, method="GET", lines=""):
    return f"{method} {path} HTTP/1.1\r\nhost: example.com\r\n{lines}\r\n".encode()


def read_response(wire, to_head=False):
    head = origins.read_head(wire)
    if not to_head and head and not head[0].startswith((b"HTTP/1.1 204", b"HTTP/1.1 304")):
        origins.read_body(wire, head)
    return head


def read_all(client):
    got = b""
    try:
        while data := client.recv(65536):
            got += data
    except ConnectionResetError:
        pass
    return got


def take(client, size):
    while size > 0:
        data = client.recv(min(size, 65536))
        assert data, "the proxy closed a connection that was to go on"
        size -= len(data)


class Http2Client:
    """As much of HTTP/2 as the scripts need: requests by literal headers, frames sent as they are."""

    def __init__(self, connection, window=None):
        self.connection = connection
        self.wire = connection.makefile("rb")
        self.next = 1
        self.ended = set()
        settings = b"" if window is None else struct.pack(">HI", 4, window)
        self.send(origins.PREFACE + frame(origins.SETTINGS, 0, 0, settings))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.wire.close()
        self.connection.close()

    def send(self, data):
        self.connection.sendall(data)

    def request(self, path, body=b"", trailers=False, end=True):
        stream, self.next = self.next, self.next + 2
        method = b"POST" if body else b"GET"
        head = field(b":method", method) + field(b":scheme", b"http") + field(b":path", path)
        head += field(b":authority", b"example.com")
        out = frame(origins.HEADERS, END_HEADERS | (0 if body else END_STREAM), stream, head)
        if body:
            out += frame(origins.DATA, END_STREAM if end and not trailers else 0, stream, body)
        if trailers:
            out += frame(origins.HEADERS, END_HEADERS | END_STREAM, stream, field(b"x-trailer", b"1"))
        self.send(out)
        return stream

    def wait(self, stream):
        """Reads until the stream has ended; its data is given back to the window."""
        while stream not in self.ended:
            if not self.step():
                raise AssertionError(f"the connection ended before stream {stream}")

    def step(self):
        got = origins.read_frame(self.wire)
        if got is None:
            return False
        kind, flags, stream, payload = got
        if kind == origins.SETTINGS and not flags & origins.ACK:
            self.send(frame(origins.SETTINGS, origins.ACK))
        elif kind == origins.PING and not flags & origins.ACK:
            self.send(frame(origins.PING, origins.ACK, 0, payload))
        elif kind == origins.DATA and payload:
            update = struct.pack(">I", len(payload))
            self.send(frame(origins.WINDOW_UPDATE, 0, 0, update) + frame(origins.WINDOW_UPDATE, 0, stream, update))
        if kind == origins.RST_STREAM or kind in (origins.HEADERS, origins.DATA) and flags & END_STREAM:
            self.ended.add(stream)
        return True

    def get(self, path):
        self.wait(self.request(path))

    def drain(self):
        try:
            while self.step():
                pass
        except OSError:
            pass
