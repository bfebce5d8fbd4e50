"""The files under cases/: what is sent, written so that it reads well. Python's standard library only.

A file is one theme. Comments begin with `#`. Lines before the first case are settings, `options: {JSON}` for the connection
manager or `to: METHOD` for the request whose response is scripted. Then comes one case a line, `NAME: BYTES`, where

    ↵              is CR LF
    \\r \\n \\t \\s \\0 \\\\ \\xNN  are bytes (\\s a blank, where a bare one would end the line)
    {TEXT*N}       is TEXT, N times
    <pause>        lets what comes after it arrive as a packet of its own
    <fin> <rst>    end the sender's side of the connection, in order or not

`with: TEMPLATE` sets what the cases that follow are put into, at its `@`. `each byte NAME: TEMPLATE` is 256 cases, and
`each cut NAME: BYTES` one for every place where the connection may end within BYTES.
"""

import json
import os
import re

CASES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases")
ESCAPE = re.compile(r"↵|\\x[0-9a-fA-F]{2}|\\[rnts0\\]|\{((?:[^{}*]|\\.)+)\*(\d+)\}")
LETTERS = {"\\r": b"\r", "\\n": b"\n", "\\t": b"\t", "\\s": b" ", "\\0": b"\0", "\\\\": b"\\", "↵": b"\r\n"}
STEP = re.compile(r"<(pause|fin|rst)>")


class Case:
    """`script` is what is sent: bytes, and the words pause, fin and rst."""

    def __init__(self, theme, name, script):
        self.theme, self.name, self.script = theme, name, script

    @property
    def key(self):
        return f"{self.theme.name}/{self.name}"

    def sent(self):
        return b"".join(step for step in self.script if isinstance(step, bytes))


class Theme:
    """One file."""

    def __init__(self, kind, file):
        self.kind, self.name = kind, os.path.splitext(file)[0]
        self.settings, self.cases = {}, []
        self.path = os.path.join(CASES, kind, file)

    def lines(self):
        with open(self.path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                line = line.rstrip("\n")
                if line and not line.startswith("#"):
                    yield number, line

    def add(self, name, script):
        if any(case.name == name for case in self.cases):
            raise SystemExit(f"{self.path}: two cases are called {name}")
        self.cases.append(Case(self, name, script))

    def option(self, name, value):
        self.settings[name] = json.loads(value) if name == "options" else value


def unescape(text):
    """The bytes that `text` stands for."""
    out, end = b"", 0
    for match in ESCAPE.finditer(text):
        out += text[end : match.start()].encode()
        token = match.group()
        if token in LETTERS:
            out += LETTERS[token]
        elif token.startswith("\\x"):
            out += bytes([int(token[2:], 16)])
        else:
            out += unescape(match.group(1)) * int(match.group(2))
        end = match.end()
    return out + text[end:].encode()


def script(text):
    """What is to be done for `text`: bytes to send, and the words between angle brackets."""
    parts = STEP.split(text)
    return [part if at % 2 else unescape(part) for at, part in enumerate(parts) if part]


def themes(kind, read):
    """Every theme of `kind`; `read(theme)` takes in its lines."""
    found = []
    for file in sorted(os.listdir(os.path.join(CASES, kind))):
        theme = Theme(kind, file)
        read(theme)
        found.append(theme)
    return found


def read_bytes(theme):
    """Takes in a theme whose cases are bytes."""
    template = "@"
    for number, line in theme.lines():
        name, colon, text = line.partition(": ")
        if not colon:
            raise SystemExit(f"{theme.path}:{number}: no `NAME: BYTES`")
        if name in ("options", "to"):
            theme.option(name, text)
        elif name == "with":
            template = text
        elif name.startswith("each byte "):
            for byte in range(256):
                byte_there = script(text.replace("@", f"\\x{byte:02x}"))
                theme.add(f"{name[len('each byte '):]} 0x{byte:02x}", byte_there)
        elif name.startswith("each cut "):
            whole = unescape(text)
            for length in range(len(whole)):
                theme.add(f"{name[len('each cut '):]} {length:03}", [whole[:length], "fin"])
        else:
            theme.add(name, script(template.replace("@", text)))
