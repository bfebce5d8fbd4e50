"""HTTP/2 frames: the notation of the cases that are made of them, and reading what a proxy sends back. Python's standard
library only.

    == NAME                                    begins a case
    HEADERS 1 END_HEADERS END_STREAM: GET      a frame: kind, stream, flags, and after the colon its payload
    DATA 1: "abc" + u8 3 + hex 00ff            parts of a payload are joined by ` + `
    PING 0: hex 0000000000000000 x 100         one hundred of them
    DATA 1 length=70000: "abc"                 a frame that is wrong about its length
    raw: BYTES                                 bytes as in the other case files
    bare                                       as the first line: nothing is sent before, not even the preface
    pause, fin, rst                            as in the other case files

Parts of payloads: `GET`, `POST /path` (the four pseudo headers), `[name=value, name=value]` (literal header lines without
Huffman coding or index), `"BYTES"`, `u8`, `u16`, `u32` and a number, `hex` and digits.
"""

import re
import struct

from casefile import unescape

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
KINDS = ["DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE", "CONTINUATION"]
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
FLAGS = {"END_STREAM": 1, "ACK": 1, "END_HEADERS": 4, "PADDED": 8, "PRIORITY": 32, "0x80": 128, "0x40": 64, "0x02": 2}
CODES = [
    *("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED"),
    *("FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM"),
    *("INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"),
]
FRAME = re.compile(r"([A-Z_]+|0x[0-9a-f]+) (\d+)((?: [A-Za-z_0-9=]+)*):(?: (.*?))?(?: x (\d+))?")
NUMBERS = {"u8": ">B", "u16": ">H", "u32": ">I"}
# RFC 7541, appendix B: as much of it as a status needs.
DIGITS = {"00000": "0", "00001": "1", "00010": "2", **{f"{25 + i:06b}": str(3 + i) for i in range(7)}}
# RFC 7541, appendix A.
STATUS_INDEX = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}


def frame(kind, flags=0, stream=0, payload=b"", length=None):
    """RFC 9113, section 4.1."""
    length = len(payload) if length is None else length
    return struct.pack(">I", length)[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def integer(prefix_bits, value):
    """RFC 7541, section 5.1, without the bits ahead of the prefix."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([value])
    out, value = [limit], value - limit
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def field(name, value):
    """A line as a literal without indexing."""
    return b"\0" + integer(7, len(name)) + name + integer(7, len(value)) + value


def request(method, path=b"/", authority=b"a"):
    lines = [(b":method", method), (b":scheme", b"http"), (b":path", path), (b":authority", authority)]
    return b"".join(field(*line) for line in lines)


def part(text):
    """One part of a payload."""
    word, _, rest = text.partition(" ")
    if word in ("GET", "POST", "HEAD", "CONNECT", "OPTIONS"):
        return request(word.encode(), unescape(rest or "/"))
    if word in NUMBERS:
        return struct.pack(NUMBERS[word], int(rest, 0))
    if word == "hex":
        return bytes.fromhex(rest)
    if text.startswith('"'):
        return unescape(text[1:-1])
    if text.startswith("["):
        lines = [re.fullmatch(r"(:?[^=]*)=(.*)", line).groups() for line in text[1:-1].split(", ")]
        return b"".join(field(unescape(name), unescape(value)) for name, value in lines)
    raise ValueError(f"no part of a payload: {text}")


def parse_line(line):
    """The bytes of one line of a case."""
    if line.startswith("raw: "):
        return unescape(line[5:])
    match = FRAME.fullmatch(line)
    if not match:
        raise ValueError(f"no frame: {line}")
    kind, stream, words, payload, times = match.groups()
    kind = int(kind, 16) if kind.startswith("0x") else KINDS.index(kind)
    flags, length = 0, None
    for word in words.split():
        if word.startswith("length="):
            length = int(word[7:])
        else:
            flags |= FLAGS[word]
    content = b"".join(map(part, payload.split(" + "))) if payload else b""
    return frame(kind, flags, int(stream), content, length) * int(times or 1)


def read_frames(theme):
    """Takes in a theme whose cases are frames. Their script begins with `opening`, unless they are bare."""
    name, script = None, []

    def end():
        if name is not None:
            theme.add(name, ["opening", *script] if script[:1] != ["bare"] else script[1:])

    for number, line in theme.lines():
        if line.startswith("== "):
            end()
            name, script = line[3:], []
        elif name is None:
            theme.option(*line.split(": ", 1))
        elif line in ("bare", "pause", "fin", "rst"):
            script.append(line)
        else:
            try:
                script.append(parse_line(line))
            except (ValueError, KeyError, AttributeError) as error:
                raise SystemExit(f"{theme.path}:{number}: {error}") from None
    end()


def status_of(block):
    """The `:status` that a header block begins with; None in trailers, -1 where it is not found."""
    while block and block[0] >> 5 == 1:  # the size of the dynamic table
        long = block[0] & 31 == 31
        block = block[1:]
        while long and block:
            long, block = block[0] >= 128, block[1:]
    if not block:
        return -1
    first = block[0]
    if first >= 128:
        return STATUS_INDEX.get(first - 128)
    index = first & 63 if first >= 64 else first & 15
    if index not in STATUS_INDEX:
        return None
    huffman, length = block[1] >= 128, block[1] & 127
    value = block[2 : 2 + length]
    if not huffman:
        return int(value)
    bits, digits = "".join(f"{byte:08b}" for byte in value), ""
    while len(digits) < 3:
        code = next((code for code in DIGITS if bits.startswith(code)), None)
        if code is None:
            return -1
        digits, bits = digits + DIGITS[code], bits[len(code) :]
    return int(digits)


class Stream:
    """What came on one stream."""

    def __init__(self):
        self.heads, self.body, self.end = [], 0, None

    def told(self):
        heads = " ".join(map(str, self.heads))
        return f"{heads} + {self.body} bytes, {self.end or 'unended'}" if self.heads else str(self.end)


class Reader:
    """Takes what a proxy sends apart."""

    def __init__(self):
        self.data, self.streams, self.goaway, self.pongs, self.settings = b"", {}, None, set(), 0

    def feed(self, data):
        self.data += data
        while len(self.data) >= 9:
            length = int.from_bytes(self.data[:3], "big")
            if len(self.data) < 9 + length:
                return
            kind, flags, stream = struct.unpack(">BBI", self.data[3:9])
            payload, self.data = self.data[9 : 9 + length], self.data[9 + length :]
            self.take(kind, flags, stream & 0x7FFFFFFF, payload)

    def take(self, kind, flags, stream, payload):
        if kind == GOAWAY:
            # The last one counts: the first may only announce it.
            self.goaway = code(payload[4:8])
        elif kind == PING and flags & 1:
            self.pongs.add(payload)
        elif kind == SETTINGS and not flags & 1:
            self.settings += 1
        elif kind in (DATA, HEADERS, RST_STREAM):
            found = self.streams.setdefault(stream, Stream())
            if kind == RST_STREAM:
                # A stream that has ended may be reset besides, to say that no more of the request is wanted.
                found.end = found.end or f"RST {code(payload)}"
            else:
                if kind == HEADERS:
                    found.heads.append(status_of(payload))
                else:
                    found.body += len(payload)
                if flags & 1:
                    found.end = "END_STREAM"

    def finish(self):
        pass


def code(payload):
    number = int.from_bytes(payload, "big")
    return CODES[number] if number < len(CODES) else hex(number)
