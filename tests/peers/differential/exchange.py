"""One case with one proxy: what the client saw and what reached the backend. Python's standard library only."""

import asyncio

import frames
import messages
from sockets import Wire

PROBE = b"GET /probe HTTP/1.1\r\nhost: probe\r\n\r\n"
PROBE_STREAM = 99999
FINAL = 200


class Outcome:
    """`client`: what came back. `whole`, `cut`, `garbage`: what reached the other side, which is the backend, or the client
    where a response is judged."""

    def __init__(self, client, whole=(), cut=(), garbage=()):
        self.client, self.whole, self.cut, self.garbage = client, list(whole), list(cut), list(garbage)

    def compared(self):
        """What the client saw, but for the code of the GOAWAY that a closed connection ended with: h2spec judges these."""
        return [line for line in self.client if not (line.startswith("GOAWAY") and self.client[-1] == "closed")]

    def lines(self):
        yield from (f"  client:  {line}" for line in self.client)
        yield from (f"  passed:  {line}" for line in self.whole)
        yield from (f"  passed (cut): {line}" for line in self.cut)
        yield from (f"  passed (GARBAGE): {line}" for line in self.garbage)


async def http1_client(case, port, source, patience):
    """Sends a case's bytes and tells what came: the answers, then whether the connection went on."""
    to_head = case.sent().startswith(b"HEAD ")
    reader = messages.responses(lambda message: message.values(b"x-to") == [b"HEAD"] or to_head and not message.values(b"x-to"))
    wire = await Wire.connect(port, source, reader)

    def final():
        return [m for m in reader.messages if m.end and m.status() >= FINAL]

    def probed():
        return any(b"/probe" in m.body for m in final())

    if await wire.perform(case.script):
        end = "closed" if await wire.until(lambda: False, patience.end) else "open after the client's end"
    elif not await wire.until(final, patience.silence):
        end = await end_of_silence(wire, patience)
    elif await probe(wire, probed, patience):
        end = "kept" if probed() else "closed"
    else:
        end = "then " + await end_of_silence(wire, patience)
    wire.close()
    told = [m.told() for m in reader.messages if b"/probe" not in m.body or not m.end]
    return told + ([f"garbage: {wire.garbage}"] if wire.garbage else []) + [end]


async def probe(wire, probed, patience):
    """Sends one more request, unless the proxy has said that it closes. Whether it was answered or the connection ended."""
    if wire.closed or b"close" in wire.reader.messages[-1].values(b"connection"):
        return await wire.until(lambda: False, patience.end)
    await asyncio.sleep(0.02)
    await wire.perform([PROBE])
    return await wire.until(probed, patience.silence)


async def end_of_silence(wire, patience):
    """The proxy waits for more: what it does when the client ends instead."""
    await wire.perform(["fin"])
    closed = await wire.until(lambda: False, patience.end)
    return "waited; at the client's end " + ("closed" if closed else "still waited")


OPENING = frames.PREFACE + frames.frame(frames.SETTINGS) + frames.frame(frames.SETTINGS, 1)


async def http2_client(case, port, source, patience):
    """As `http1_client`, for frames."""
    reader = frames.Reader()
    wire = await Wire.connect(port, source, reader)
    script = [OPENING if step == "opening" else step for step in case.script]

    def ended(streams):
        return streams and all(stream.end for stream in streams)

    if await wire.perform(script):
        end = "closed" if await wire.until(lambda: False, patience.end) else "open after the client's end"
    else:
        # Frames are taken in order: when the probe is answered, all before it have been seen.
        await wire.perform([frames.frame(frames.PING, 0, 0, b"anyone??")])
        await wire.until(lambda: reader.pongs, patience.silence)
        await wire.until(lambda: ended(reader.streams.values()) or reader.goaway, patience.silence / 2)
        head = frames.request(b"GET", b"/probe", b"probe")
        await wire.perform([frames.frame(frames.HEADERS, 5, PROBE_STREAM, head)])
        probed = lambda: PROBE_STREAM in reader.streams and reader.streams[PROBE_STREAM].end
        if not await wire.until(probed, patience.silence):
            end = await end_of_silence(wire, patience)
        else:
            end = f"kept, {reader.streams[PROBE_STREAM].told()}" if probed() else "closed"
    wire.close()
    told = [f"stream {number}: {stream.told()}" for number, stream in sorted(reader.streams.items()) if number != PROBE_STREAM]
    return told + ([f"GOAWAY {reader.goaway}"] if reader.goaway else []) + [end]


async def response_client(host, port, path, patience):
    """Asks twice for a host that answers the first time by a script, and tells both answers and where the second came from;
    and what of the first reached the client as the host's own, whole."""
    method = host.case.theme.settings.get("to", "GET")
    reader = messages.responses(lambda message: message.values(b"x-to") == [b"HEAD"] or method == "HEAD" and not asked)
    wire = await Wire.connect(port, "127.0.0.1", reader)

    def final():
        return [m for m in reader.messages if m.status() >= FINAL and m.end]

    asked = False
    body = "content-length: 4\r\n\r\nbody" if method == "POST" else "\r\n"
    await wire.perform([f"{method} {path}/first HTTP/1.1\r\nhost: a\r\n{body}".encode()])
    answered = await wire.until(final, patience.silence)
    end = "closed"
    if not answered:
        end = await end_of_silence(wire, patience)
    elif not wire.closed and b"close" not in reader.messages[-1].values(b"connection"):
        await asyncio.sleep(0.1)  # what the host sends behind its answer may come
        asked = True
        await wire.perform([f"GET {path}/second HTTP/1.1\r\nhost: a\r\n\r\n".encode()])
        enough = await wire.until(lambda: len(final()) > 1, patience.silence)
        end = "kept" if enough and not wire.closed else "closed" if enough else await end_of_silence(wire, patience)
    wire.close()
    told = [m.told() for m in reader.messages]
    first = next((m for m in reader.messages if m.status() >= FINAL), None)
    passed = [first.told()] if first and first.end and first.status() not in (502, 503) else []
    if host.second_on:
        told.append("second asked on " + ("the same connection" if host.second_on == 1 else "another connection"))
    return told + ([f"garbage: {wire.garbage}"] if wire.garbage else []) + [end], passed
