#!/usr/bin/env python3
"""WebSocket and CONNECT through proxyd as public clients and servers speak them, in every pair of versions.

    apt-get install curl; pip install websockets h2 wsproto hypercorn
    tests/peers/websocket_through.py target/debug/proxyd

Clients: `websockets` over HTTP/1.1, `wsproto` on `h2` over HTTP/2, curl through CONNECT. Servers: `websockets` over
HTTP/1.1, hypercorn over HTTP/2. Tunnels of tcp_proxy go through a second proxyd. Exit status 1 when an expectation does
not hold.
"""

import argparse
import asyncio
import http.server
import os
import socket
import subprocess
import sys
import threading

import h2.config
import h2.connection
import h2.events
import hypercorn.asyncio
import hypercorn.config
import websockets.exceptions
import websockets.sync.client
import websockets.sync.server
import wsproto.connection
import wsproto.events

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))
import lab

BIG = os.urandom(300_000)
PATIENCE = 20


def check(what, holds):
    print(("ok   " if holds else "FAIL ") + what, flush=True)
    check.failed |= not holds


check.failed = False


# --- servers


def http1_server():
    """Echoes messages; the port."""

    def echo(connection):
        for message in connection:
            connection.send(message)

    server = websockets.sync.server.serve(echo, "127.0.0.1", 0, max_size=None)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.socket.getsockname()[1]


async def echo_application(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        event = await receive()
        if event["type"] == "websocket.disconnect":
            return
        text, data = event.get("text"), event.get("bytes")
        await send({"type": "websocket.send"} | ({"text": text} if text is not None else {"bytes": data}))


def http2_server():
    """The same over HTTP/2 with prior knowledge."""
    port = lab.free_port()
    config = hypercorn.config.Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.websocket_max_message_size = 1 << 24
    config.loglevel = "ERROR"

    def run():
        forever = asyncio.Event
        serving = hypercorn.asyncio.serve(echo_application, config, shutdown_trigger=lambda: forever().wait())
        asyncio.run(serving)

    threading.Thread(target=run, daemon=True).start()
    lab.wait_for_port(port, "hypercorn")
    return port


def page_server():
    """Answers GET with a page."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(200)
            self.send_header("content-length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


# --- clients


def talk_http1(name, port):
    try:
        with websockets.sync.client.connect(f"ws://127.0.0.1:{port}/chat", max_size=None, open_timeout=PATIENCE) as client:
            client.send("hello")
            check(f"{name}: text", client.recv(timeout=PATIENCE) == "hello")
            client.send(BIG)
            check(f"{name}: {len(BIG)} bytes", client.recv(timeout=PATIENCE) == BIG)
            for number in range(200):
                client.send(str(number))
            check(f"{name}: 200 messages", [client.recv(timeout=PATIENCE) for _ in range(200)] == [str(n) for n in range(200)])
        check(f"{name}: closed in good order", client.close_code == 1000)
    except (OSError, websockets.exceptions.WebSocketException) as error:
        check(f"{name}: {error!r}", False)


class Http2WebSocket:
    """RFC 8441: a stream of HTTP/2 with the frames of WebSocket on it."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.http2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.http2.initiate_connection()
        self.flush()
        self.frames = wsproto.connection.Connection(wsproto.connection.ConnectionType.CLIENT)
        self.response, self.messages, self.closed = None, [], None
        while not self.http2.remote_settings.enable_connect_protocol:
            self.pump()
        headers = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/chat"),
                   (":authority", "a"), ("sec-websocket-version", "13")]
        self.stream = self.http2.get_next_available_stream_id()
        self.http2.send_headers(self.stream, headers)
        self.flush()
        while self.response is None:
            self.pump()

    def flush(self):
        self.socket.sendall(self.http2.data_to_send())

    def pump(self):
        data = self.socket.recv(65536)
        if not data:
            raise OSError("the connection ended")
        for event in self.http2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self.response = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                self.http2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if event.data:
                    self.frames.receive_data(event.data)
            elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                raise OSError(repr(event))
        self.flush()
        for event in self.frames.events():
            if isinstance(event, wsproto.events.Message):
                if self.messages and not self.messages[-1][1]:
                    self.messages[-1] = (self.messages[-1][0] + event.data, event.message_finished)
                else:
                    self.messages.append((event.data, event.message_finished))
            elif isinstance(event, wsproto.events.CloseConnection):
                self.closed = event.code

    def write(self, data):
        while data:
            room = min(self.http2.local_flow_control_window(self.stream), self.http2.max_outbound_frame_size, len(data))
            if room == 0:
                self.pump()
                continue
            self.http2.send_data(self.stream, data[:room])
            data = data[room:]
            self.flush()

    def send(self, message):
        kind = wsproto.events.TextMessage if isinstance(message, str) else wsproto.events.BytesMessage
        self.write(self.frames.send(kind(data=message)))

    def recv(self):
        while not (self.messages and self.messages[0][1]):
            self.pump()
        return self.messages.pop(0)[0]

    def close(self):
        self.write(self.frames.send(wsproto.events.CloseConnection(code=1000)))
        while self.closed is None:
            self.pump()
        # hypercorn neither ends its stream now nor bears that the client does, so the stream ends with its connection.
        self.socket.close()
        return self.closed


def talk_http2(name, port):
    try:
        client = Http2WebSocket(port)
        check(f"{name}: accepted", client.response[":status"] == "200" and "sec-websocket-accept" not in client.response)
        client.send("hello")
        check(f"{name}: text", client.recv() == "hello")
        client.send(BIG)
        check(f"{name}: {len(BIG)} bytes", bytes(client.recv()) == BIG)
        for number in range(200):
            client.send(str(number))
        check(f"{name}: 200 messages", [client.recv() for _ in range(200)] == [str(n) for n in range(200)])
        check(f"{name}: closed in good order", client.close() == 1000)
    except (OSError, KeyError) as error:
        check(f"{name}: {error!r}", False)


def talk_connect(name, port, page):
    """A page fetched through CONNECT, three times on one connection."""
    proxy = ["--proxytunnel", "--proxy", f"http://127.0.0.1:{port}", "--noproxy", ""]
    urls = [f"http://127.0.0.1:{page}/"] * 3
    command = [lab.find("curl"), "--silent", "--show-error", "--max-time", str(PATIENCE), *proxy, *urls]
    fetched = subprocess.run(command, capture_output=True, text=True, check=False)
    check(f"{name}: {fetched.stderr or 'three requests'}", fetched.stdout == "hello" * 3)


# --- proxyd

TYPES = "type.googleapis.com/envoy.extensions"
ROUTER = f'{{name: router, typed_config: {{"@type": {TYPES}.filters.http.router.v3.Router}}}}'


def manager(cluster, connect):
    """A filter chain that passes WebSocket and, by the route `connect`, CONNECT to `cluster`."""
    return f"""
          - name: http
            typed_config:
              "@type": {TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager
              stat_prefix: http
              http2_protocol_options: {{allow_connect: true}}
              upgrade_configs: [{{upgrade_type: websocket}}, {{upgrade_type: CONNECT}}]
              http_filters: [{ROUTER}]
              route_config:
                virtual_hosts:
                - name: all
                  domains: ["*"]
                  routes:
                  - {{match: {{connect_matcher: {{}}}}, route: {connect}}}
                  - {{match: {{prefix: /}}, route: {{cluster: {cluster}}}}}"""


def tunnel(cluster, how):
    return f"""
          - name: tcp
            typed_config:
              "@type": {TYPES}.filters.network.tcp_proxy.v3.TcpProxy
              stat_prefix: tcp
              cluster: {cluster}
              tunneling_config: {{hostname: "any:80"{how}}}"""


def cluster(name, port, http2=False):
    text = f"""
          - name: {name}
            connect_timeout: 5s
            load_assignment:
              cluster_name: {name}
              endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]"""
    if http2:
        text += f"""
            typed_extension_protocol_options:
              envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
                "@type": {TYPES}.upstreams.http.v3.HttpProtocolOptions
                explicit_http_config: {{http2_protocol_options: {{allow_connect: true}}}}"""
    return text


class Proxyd:
    def __init__(self, program, chains, clusters):
        self.admin, self.ports = lab.free_port(), [lab.free_port() for _ in chains]
        listeners = ""
        for port, chain in zip(self.ports, chains):
            indented = chain.replace("\n", "\n    ")
            listeners += f"""
          - name: listener{port}
            address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
            filter_chains:
            - filters:{indented}"""
        config = f"""
        admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {self.admin}}}}}}}
        static_resources:
          listeners:{listeners}
          clusters:{"".join(clusters)}
        """
        command = [program, "run", "--run-dir", "{dir}/run", "--base-id", str(self.admin), "-c", "{dir}/config.yaml"]
        lab.Program("proxyd", command + ["--concurrency", "2", "-l", "error"], {"config.yaml": config})
        for port in [self.admin, *self.ports]:
            lab.wait_for_port(port, "proxyd")

    stats = lab.EnvoyLike.stats


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proxyd")
    program = os.path.abspath(parser.parse_args().proxyd)
    one, two, page = http1_server(), http2_server(), page_server()

    ending = "{cluster: page, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {allow_post: true}}]}"
    to_websocket = ending.replace("page", "one")
    far = Proxyd(
        program,
        [manager("one", ending), manager("two", ending), manager("one", to_websocket),
         manager("one", to_websocket).replace("{prefix: /}, route: {cluster: one}", "{prefix: /}, route: " + to_websocket)],
        [cluster("one", one), cluster("two", two, http2=True), cluster("page", page)],
    )
    to_one, to_two, connects, posts = far.ports
    near = Proxyd(
        program,
        [manager("first", "{cluster: first}"), manager("second", "{cluster: second}"), tunnel("connects1", ""),
         tunnel("connects2", ""), tunnel("posts1", ", use_post: true"), tunnel("posts2", ", use_post: true")],
        [cluster("first", to_one), cluster("second", to_one, http2=True), cluster("connects1", connects),
         cluster("connects2", connects, http2=True), cluster("posts1", posts), cluster("posts2", posts, http2=True)],
    )
    talk_http1("WebSocket, HTTP/1.1 to HTTP/1.1", to_one)
    talk_http1("WebSocket, HTTP/1.1 to HTTP/2", to_two)
    talk_http2("WebSocket, HTTP/2 to HTTP/1.1", to_one)
    talk_http2("WebSocket, HTTP/2 to HTTP/2", to_two)
    for hop, port in (("HTTP/1.1", near.ports[0]), ("HTTP/2", near.ports[1])):
        talk_http1(f"WebSocket, HTTP/1.1 over {hop} to HTTP/1.1", port)
        talk_http2(f"WebSocket, HTTP/2 over {hop} to HTTP/1.1", port)
    talk_connect("CONNECT that ends here", to_one, page)
    for hop, port in (("HTTP/1.1", near.ports[0]), ("HTTP/2", near.ports[1])):
        talk_connect(f"CONNECT forwarded over {hop}", port, page)
    names = ("CONNECT over HTTP/1.1", "CONNECT over HTTP/2", "POST over HTTP/1.1", "POST over HTTP/2")
    for name, port in zip(names, near.ports[2:]):
        talk_http1(f"tcp_proxy by {name}", port)

    for name, stats in (("far", far.stats()), ("near", near.stats())):
        check(f"{name}: no protocol error", stats.get("http.http.downstream_cx_protocol_error", 0) == 0)
        check(f"{name}: upgrades are counted", stats.get("http.http.downstream_cx_upgrades_total", 0) > 0)
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
