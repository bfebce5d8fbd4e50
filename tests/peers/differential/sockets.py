"""The clients and the hosts around a proxy, all in one event loop: each sends a script and keeps what comes. Python's
standard library only."""

import asyncio
import re
import socket
import struct

import frames
import messages

CASE_ADDRESS = re.compile(rb"x-forwarded-for: [^\r\n]*?(127\.1\.\d+\.\d+)\r\n")


class Patience:
    """How long silence has to last, in seconds, before it counts as an answer; and how long an end may take that comes."""

    def __init__(self, silence, end):
        self.silence, self.end = silence, end


QUICK = Patience(0.7, 3)
CAREFUL = Patience(2, 6)


class Wire:
    """One side of a connection; `reader` takes apart what comes."""

    def __init__(self, stream_reader, stream_writer, reader):
        self.input, self.output, self.reader = stream_reader, stream_writer, reader
        self.closed, self.garbage = False, None
        self.changed = asyncio.Event()
        self.pump = asyncio.ensure_future(self.read())

    @classmethod
    async def connect(cls, port, source, reader):
        return cls(*await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0)), reader)

    async def read(self):
        try:
            while data := await self.input.read(65536):
                try:
                    if self.garbage is None:
                        self.reader.feed(data)
                except messages.Garbage as error:
                    self.garbage = str(error)
                self.changed.set()
        except OSError:
            pass  # a reset is an end too: which of them it is depends on what was left unread
        self.reader.finish()
        self.closed = True
        self.changed.set()

    async def until(self, there, seconds):
        """Waits until `there()` or the end of the connection; whether either came in time."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not (there() or self.closed):
            self.changed.clear()
            left = deadline - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self.changed.wait(), max(left, 0))
            except asyncio.TimeoutError:
                return False
        return True

    async def perform(self, script):
        """Goes through a script of bytes, pause, fin and rst. Whether the script ended this side."""
        for step in script:
            try:
                if step == "pause":
                    await asyncio.sleep(0.15)
                elif step == "fin":
                    self.output.write_eof()
                elif step == "rst":
                    self.reset()
                else:
                    self.output.write(step)
                    await asyncio.wait_for(self.output.drain(), 2)
            except (OSError, RuntimeError, asyncio.TimeoutError):
                break  # the proxy has ended the connection, or reads no more
        return "fin" in script or "rst" in script

    def reset(self):
        self.output.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.output.transport.abort()

    def close(self):
        self.pump.cancel()
        self.output.transport.abort()


def until_the_end(serve):
    """Serves connections until the script ends, which is no error of theirs."""

    async def served(stream_reader, stream_writer):
        try:
            await serve(stream_reader, stream_writer)
        except asyncio.CancelledError:
            pass

    return served


class Backend:
    """An HTTP/1 host that answers every whole request and keeps all of them by the client's address."""

    def __init__(self):
        self.of_source, self.unknown = {}, []

    async def listen(self):
        server = await asyncio.start_server(until_the_end(self.serve), "127.0.0.1", 0, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]

    async def serve(self, stream_reader, stream_writer):
        wire = Wire(stream_reader, stream_writer, messages.requests())
        got = wire.reader.messages
        await wire.until(lambda: got or wire.garbage, 600)
        source = source_of(got[0]) if got else None
        (self.of_source.setdefault(source, []) if source else self.unknown).append(wire)
        answered = 0
        while await wire.until(lambda: len(got) > answered and got[answered].end, 600):
            if len(got) <= answered or not got[answered].end:
                break
            await wire.perform([answer(got[answered])])
            answered += 1
        wire.output.close()

    def of(self, source):
        """What came of the client at `source`: whole requests, those that were cut off, and what was no request."""
        whole, cut, garbage = [], [], []
        for wire in self.of_source.get(source, []):
            seen = wire.reader.messages
            whole += [m.told() for m in seen if m.end and not m.start.startswith(b"GET /probe ")]
            cut += [m.start.decode("latin-1") for m in seen if not m.end]
            if wire.garbage:
                garbage.append(wire.garbage)
            if len(seen) > 1:
                garbage.append(f"{len(seen)} requests on a connection that was to have one")
        return whole, cut, garbage

    def strays(self):
        """What cannot be told to be any case's."""
        for wire in self.unknown:
            if wire.garbage or wire.reader.messages:
                yield f"{wire.garbage} {[m.told() for m in wire.reader.messages]}"


def source_of(message):
    values = message.values(b"x-forwarded-for")
    last = values[-1].rpartition(b",")[2].strip().decode("latin-1") if values else ""
    return last if last.startswith("127.1.") else None


def answer(request, body=None):
    method, target = request.start.split(b" ")[:2]
    body = body or b"%s %s" % (method, target[:100])
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nx-to: %s\r\n\r\n" % (len(body), method)
    return head if method == b"HEAD" else head + body


class Scripted:
    """A host that answers the first request with a script, and each after it as a host should."""

    def __init__(self, case, http2):
        self.case, self.http2, self.wires, self.second_on = case, http2, [], None

    async def listen(self):
        server = await asyncio.start_server(until_the_end(self.serve), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    def begin_anew(self):
        """Forgets what was, and ends the connections that a proxy may have kept from it."""
        for wire in self.wires:
            wire.close()
        self.wires, self.second_on = [], None

    async def serve(self, stream_reader, stream_writer):
        reader = frames.Reader() if self.http2 else messages.requests()
        if self.http2:
            reader.feed = PrefaceFirst(reader.feed)
        wire = Wire(stream_reader, stream_writer, reader)
        self.wires.append(wire)
        await (self.serve_http2 if self.http2 else self.serve_http1)(wire, len(self.wires))
        await wire.until(lambda: False, 600)
        wire.close()

    async def serve_http1(self, wire, number):
        got, answered = wire.reader.messages, 0
        # The script of an answer may come before the end of the request's body.
        while await wire.until(lambda: len(got) > answered, 600) and len(got) > answered:
            if b"/second" in got[answered].start:
                self.second_on = number
                await wire.perform([answer(got[answered], b"second")])
            elif await wire.perform(self.case.script):
                return
            answered += 1

    async def serve_http2(self, wire, number):
        streams = wire.reader.streams
        settings = frames.frame(frames.SETTINGS) + frames.frame(frames.SETTINGS, 1)
        await wire.until(lambda: streams, 600)
        if number == 1:
            if await wire.perform([settings if step == "opening" else step for step in self.case.script]):
                return
        else:
            await wire.perform([settings])
        answered = {1} if number == 1 else set()
        while await wire.until(lambda: set(streams) - answered, 600) and set(streams) - answered:
            stream = min(set(streams) - answered)
            answered.add(stream)
            self.second_on = number
            head = frames.field(b":status", b"200") + frames.field(b"content-length", b"6")
            await wire.perform([frames.frame(1, 4, stream, head) + frames.frame(0, 1, stream, b"second")])


class PrefaceFirst:
    """Takes the client's preface off the bytes that a reader is fed."""

    def __init__(self, feed):
        self.feed, self.left = feed, len(frames.PREFACE)

    def __call__(self, data):
        taken = min(self.left, len(data))
        self.left -= taken
        self.feed(data[taken:])
