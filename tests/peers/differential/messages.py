"""HTTP/1 messages as they come over the wire, read strictly: what cannot be read exactly is told as garbage, never guessed.
Python's standard library only."""

import re

LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([^\r\n\0]*)")
REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP/1\.1")
STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3}) ([^\r\n]*)")
UUID = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Lines whose value is no one's to repeat.
VOLATILE = {b"date": b"<date>", b"x-envoy-upstream-service-time": b"<ms>"}
# proxyd says its own name.
NAMES = {(b"server", b"proxyd"): b"envoy"}


class Garbage(Exception):
    """The bytes are no message."""


class Message:
    """A head and what has come of its body. `end`: how the message ends, or nothing while it has not."""

    def __init__(self, start, lines):
        self.start, self.lines = start, lines
        self.body, self.trailers, self.end = b"", [], None

    def values(self, name):
        return [value for key, value in self.lines if key.lower() == name]

    def status(self):
        match = STATUS_LINE.fullmatch(self.start)
        return int(match.group(1)) if match else 0

    def told(self):
        """A form to compare and to print: lines by name, those of one name in their order."""
        lines = [b"%s: %s" % (key, normal(key, value)) for key, value in self.lines]
        trailers = [b"%s: %s" % (key, normal(key, value)) for key, value in self.trailers]
        by_name = sorted(lines, key=lambda line: line.split(b":")[0])
        body = self.body if len(self.body) < 200 else b"%s... %d bytes" % (self.body[:40], len(self.body))
        parts = [self.start, *by_name, b"| " + body, *sorted(trailers), (self.end or "cut").encode()]
        return " | ".join(part.decode("latin-1") for part in parts)


def normal(key, value):
    if key.lower() in VOLATILE:
        return VOLATILE[key.lower()]
    if UUID.fullmatch(value):
        return b"<uuid>"
    return NAMES.get((key, value), value)


def parse_lines(block):
    lines = []
    for line in block.split(b"\r\n") if block else []:
        match = LINE.fullmatch(line)
        if not match:
            raise Garbage(f"header line {line!r}")
        lines.append((match.group(1), match.group(2)))
    return lines


class Reader:
    """Takes a byte stream apart into messages. `bodiless(message)` says of a response that it has no body whatever its
    lines say; of a request nothing has."""

    def __init__(self, start_line, bodiless=lambda message: False):
        self.start_line, self.bodiless = start_line, bodiless
        self.data, self.messages, self.chunk_left = b"", [], None

    def open(self):
        """The message that has begun and not ended."""
        return self.messages[-1] if self.messages and self.messages[-1].end is None else None

    def feed(self, data):
        """Raises Garbage when no message can be read from it."""
        self.data += data
        while self.open() or self.head():
            if not self.more_body(self.open()):
                return

    def finish(self):
        """The stream has ended: so does a body that ends with it."""
        message = self.open()
        if message and message.end is None and self.framing(message) == "close":
            message.end = "close"

    def head(self):
        end = self.data.find(b"\r\n\r\n")
        if end < 0:
            return False
        start, _, block = self.data[:end].partition(b"\r\n")
        if not self.start_line.fullmatch(start):
            raise Garbage(f"start line {start!r}")
        self.messages.append(Message(start, parse_lines(block)))
        self.data = self.data[end + 4 :]
        return True

    def framing(self, message):
        coding, length = message.values(b"transfer-encoding"), message.values(b"content-length")
        if self.bodiless(message):
            return 0
        if len(coding) + len(length) > 1:
            raise Garbage(f"framed twice: {coding} {length}")
        if coding:
            if coding != [b"chunked"]:
                raise Garbage(f"transfer-encoding {coding}")
            return "chunked"
        if length:
            if not length[0].isdigit():
                raise Garbage(f"content-length {length}")
            return int(length[0])
        return "close" if self.start_line is STATUS_LINE else 0

    def more_body(self, message):
        framing = self.framing(message)
        if framing == "close":
            message.body, self.data = message.body + self.data, b""
            return False
        if framing == "chunked":
            return self.more_chunks(message)
        wanted = framing - len(message.body)
        message.body, self.data = message.body + self.data[:wanted], self.data[wanted:]
        if len(message.body) < framing:
            return False
        message.end = "whole"
        return True

    def more_chunks(self, message):
        while True:
            if self.chunk_left is None:
                line, end, rest = self.data.partition(b"\r\n")
                if not end:
                    return False
                if not re.fullmatch(rb"[0-9a-fA-F]+", line):
                    raise Garbage(f"chunk size {line!r}")
                self.chunk_left, self.data = int(line, 16), rest
            if self.chunk_left == 0:
                return self.trailers(message)
            if len(self.data) < self.chunk_left + 2:
                return False
            chunk, after = self.data[: self.chunk_left], self.data[self.chunk_left : self.chunk_left + 2]
            if after != b"\r\n":
                raise Garbage("a chunk without an end")
            message.body, self.data = message.body + chunk, self.data[self.chunk_left + 2 :]
            self.chunk_left = None

    def trailers(self, message):
        if self.data.startswith(b"\r\n"):
            self.data = self.data[2:]
        else:
            end = self.data.find(b"\r\n\r\n")
            if end < 0:
                return False
            message.trailers, self.data = parse_lines(self.data[:end]), self.data[end + 4 :]
        self.chunk_left, message.end = None, "whole"
        return True


def requests():
    return Reader(REQUEST_LINE)


def responses(to_head):
    """`to_head(message)`: it answers HEAD."""
    return Reader(
        STATUS_LINE, lambda message: message.status() < 200 or message.status() in (204, 304) or to_head(message)
    )
