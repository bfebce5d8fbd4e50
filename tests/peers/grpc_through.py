#!/usr/bin/env python3
"""gRPC's own client and server with proxyd between them: the four kinds of calls, metadata, errors, deadlines,
cancellation and large messages, as another implementation of HTTP/2 speaks it.

    pip install grpcio
    tests/peers/grpc_through.py target/debug/proxyd

Messages are plain bytes, so nothing has to be generated. Exit status 1 when an expectation does not hold.
"""

import argparse
import os
import sys
import threading
from concurrent import futures

import grpc

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))
import lab

SERVICE = "test.Echo"
CANCELLED = threading.Event()


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    if request == b"fail":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: \u00fc")
    if request == b"hang":
        context.add_callback(CANCELLED.set)
        threading.Event().wait(5)
    context.set_trailing_metadata((("x-seen", metadata.get("x-sent", "")), ("bin-bin", b"\0\1\xff")))
    return request


def client_stream(requests, _context):
    return b"".join(requests)


def server_stream(request, _context):
    for number in range(100):
        yield request + str(number).encode()


def both(requests, _context):
    yield from requests


HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "Both": grpc.stream_stream_rpc_method_handler(both),
}


def check(what, holds):
    print(("ok   " if holds else "FAIL ") + what, flush=True)
    check.failed |= not holds


check.failed = False


def error_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    return None


def talk(channel):
    def method(kind, name):
        return getattr(channel, kind)(f"/{SERVICE}/{name}")

    echo = method("unary_unary", "Unary")
    answer, call = echo.with_call(b"hello", metadata=(("x-sent", "value"),), timeout=10)
    trailing = dict(call.trailing_metadata())
    check("unary", answer == b"hello")
    check("metadata and trailers", trailing["x-seen"] == "value" and trailing["bin-bin"] == b"\0\1\xff")
    big = os.urandom(3_000_000)
    check("a message of 3 MB", echo(big, timeout=20) == big)
    check("an empty message", echo(b"", timeout=10) == b"")
    parts = [bytes([n]) * 1000 for n in range(200)]
    check("client stream", method("stream_unary", "ClientStream")(iter(parts), timeout=10) == b"".join(parts))
    got = list(method("unary_stream", "ServerStream")(b"n", timeout=10))
    check("server stream", got == [b"n%d" % n for n in range(100)])

    turns = []
    ready = threading.Semaphore(1)

    def questions():
        for number in range(50):
            ready.acquire()
            yield b"turn %d" % number

    for answer in method("stream_stream", "Both")(questions(), timeout=10):
        turns.append(answer)
        ready.release()
    check("both streams, turn by turn", turns == [b"turn %d" % n for n in range(50)])

    error = error_of(lambda: echo(b"fail", timeout=10))
    check("an error with its text", error.code() == grpc.StatusCode.NOT_FOUND and error.details() == "no such thing: \u00fc")
    error = error_of(lambda: echo(b"hang", timeout=0.3))
    check("a deadline", error is not None and error.code() == grpc.StatusCode.DEADLINE_EXCEEDED)
    check("the server learns of the cancellation", CANCELLED.wait(10))
    with futures.ThreadPoolExecutor(32) as pool:
        many = list(pool.map(lambda n: echo(b"%d" % n, timeout=20) == b"%d" % n, range(2000)))
    check("2000 calls from 32 threads", all(many))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proxyd")
    arguments = parser.parse_args()

    server = grpc.server(futures.ThreadPoolExecutor(40))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, HANDLERS),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    proxy = lab.EnvoyLike("proxyd", os.path.abspath(arguments.proxyd), port, workers=2, http2=True)
    with grpc.insecure_channel(f"127.0.0.1:{proxy.http}") as channel:
        talk(channel)
    server.stop(None)
    stats = proxy.stats()
    check("no upstream protocol error", stats.get("cluster.backend.upstream_cx_protocol_error", 0) == 0)
    check("nothing left open", stats.get("http.http.downstream_rq_active", 0) == 0)
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
