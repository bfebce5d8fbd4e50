"""The hosts behind the proxies of stats_like_envoy.py: HTTP/1, HTTP/2 and plain TCP, each doing exactly one thing to
the connection for each path or port. Python's standard library only."""

import socket
import struct
import threading
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4


def frame(kind, flags=0, stream=0, payload=b""):
    """One frame (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def field(name, value):
    """A header line as HPACK's literal without indexing: needs no table on either side (RFC 7541, section 6.2.2)."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def read_frame(wire):
    """The next frame as (kind, flags, stream, payload); None at the end of the connection."""
    head = wire.read(9)
    if len(head) < 9:
        return None
    payload = wire.read(int.from_bytes(head[:3], "big"))
    return head[3], head[4], int.from_bytes(head[5:9], "big") & 0x7FFFFFFF, payload


def reset_on_close(connection):
    """Makes the coming close a RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Origin:
    """A listening port; each connection is served by `serve(connection)` in a thread of its own."""

    def __init__(self, serve):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.socket.getsockname()[1]
        self.serve = serve
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.socket.accept()
            threading.Thread(target=self.guarded, args=(connection,), daemon=True).start()

    def guarded(self, connection):
        try:
            self.serve(connection)
        except (OSError, ValueError):
            pass  # the proxy ended the connection, perhaps within a request: which is what many scripts are about
        finally:
            connection.close()


def deaf_port():
    """A port where connecting takes for ever: its queue is full and nobody accepts."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listening.getsockname())
        fillers.append(filler)
    deaf_port.kept.append((listening, fillers))
    return listening.getsockname()[1]


deaf_port.kept = []


def read_head(wire):
    """Request line and headers; None at the end of the connection."""
    lines = []
    while True:
        line = wire.readline()
        if not line:
            return None
        if line == b"\r\n":
            return lines
        lines.append(line.rstrip(b"\r\n"))


def read_body(wire, lines):
    headers = dict(line.lower().split(b": ", 1) for line in lines[1:])
    if b"content-length" in headers:
        wire.read(int(headers[b"content-length"]))
    elif headers.get(b"transfer-encoding") == b"chunked":
        while int(wire.readline().split(b";")[0], 16) > 0:
            wire.readline()
        while wire.readline() not in (b"\r\n", b""):
            pass


def answer(status, body=b"ok", lines=b""):
    head = b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n%s\r\n" % (status, len(body), lines)
    return head + body


def serve_http1(connection):
    """Does what the path says."""
    wire = connection.makefile("rb")
    while lines := read_head(wire):
        action, _, argument = lines[0].split()[1].decode().strip("/").partition("/")
        if action == "early":  # answered before the request's body has come
            connection.sendall(answer(413))
            wire.read()
            return
        if action == "hang":
            wire.read()
            return
        if action == "reset":
            reset_on_close(connection)
            return
        read_body(wire, lines)
        if action == "status":
            connection.sendall(answer(int(argument), b"" if argument in ("204", "304") else b"ok"))
        elif action == "close":
            return
        elif action == "announced":
            connection.sendall(answer(200, lines=b"connection: close\r\n"))
            return
        elif action == "partial":
            connection.sendall(answer(200, b"x" * 100)[:-60])
            return
        elif action == "partial-reset":
            connection.sendall(answer(200, b"x" * 100)[:-60])
            time.sleep(0.1)
            reset_on_close(connection)
            return
        elif action == "stuck":
            connection.sendall(answer(200, b"x" * 100)[:-60])
            wire.read()
            return
        elif action == "garbage":
            connection.sendall(b"what is this\r\n\r\n")
            wire.read()
            return
        elif action == "surplus":
            connection.sendall(answer(200) + b"more")
        elif action == "size":
            connection.sendall(answer(200, b"x" * int(argument)))
        elif action == "chunked":
            connection.sendall(b"HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n")
        elif action == "informed":
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" + answer(200))
        elif action == "slow":
            time.sleep(float(argument))
            connection.sendall(answer(200))
        else:
            connection.sendall(answer(200))


def http2_answer(stream, status=b"200", body=b"ok", trailers=False):
    out = frame(HEADERS, END_HEADERS, stream, field(b":status", status))
    out += frame(DATA, 0 if trailers else END_STREAM, stream, body)
    if trailers:
        out += frame(HEADERS, END_HEADERS | END_STREAM, stream, field(b"x-trailer", b"1"))
    return out


def http2_origin(on_request):
    """A port that speaks HTTP/2; `on_request(connection, stream)` is called at the end of each request. False: the
    connection is over."""

    def serve(connection):
        wire = connection.makefile("rb")
        wire.read(len(PREFACE))
        connection.sendall(frame(SETTINGS))
        while got := read_frame(wire):
            kind, flags, stream, payload = got
            if kind == SETTINGS and not flags & ACK:
                connection.sendall(frame(SETTINGS, ACK))
            elif kind == PING and not flags & ACK:
                connection.sendall(frame(PING, ACK, 0, payload))
            elif kind in (HEADERS, DATA) and flags & END_STREAM:
                if on_request(connection, stream) is False:
                    return

    return Origin(serve)


def http2_ok(connection, stream):
    connection.sendall(http2_answer(stream))


def http2_trailers(connection, stream):
    connection.sendall(http2_answer(stream, trailers=True))


def http2_status(connection, stream):
    connection.sendall(http2_answer(stream, status=b"503"))


def http2_reset(connection, stream):
    connection.sendall(frame(RST_STREAM, 0, stream, struct.pack(">I", 8)))  # CANCEL


def http2_reset_midway(connection, stream):
    connection.sendall(http2_answer(stream, trailers=True)[: 9 + 13 + 9 + 2])
    time.sleep(0.1)
    connection.sendall(frame(RST_STREAM, 0, stream, struct.pack(">I", 2)))  # INTERNAL_ERROR


def http2_goaway(connection, stream):
    """Answers, and says that this was the last one."""
    connection.sendall(frame(GOAWAY, 0, 0, struct.pack(">II", stream, 0)) + http2_answer(stream))


def http2_hang(_connection, _stream):
    pass


def http2_cut(_connection, _stream):
    return False


def serve_echo(connection):
    while data := connection.recv(65536):
        connection.sendall(data)


def serve_reset(connection):
    connection.recv(1)
    reset_on_close(connection)


def serve_goodbye(connection):
    """Says something and ends its side, then waits for the other."""
    connection.sendall(b"goodbye")
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(65536):
        pass


def serve_silence(connection):
    while connection.recv(65536):
        pass
