#!/usr/bin/env python3
"""gRPC's own client and server with proxyd between them: the four kinds of calls, metadata, errors (also such that are trailers
and nothing else), deadlines, cancellation and messages of 20 MB, as another implementation of HTTP/2 speaks it.

    pip install grpcio
    tests/peers/grpc_through.py target/debug/proxyd [--calls 100000]

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
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
CANCELLED = threading.Event()
STREAM_CANCELLED = threading.Event()


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


def server_stream(request, context):
    if request == b"fail":
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "before any message")
    if request == b"endless":
        context.add_callback(STREAM_CANCELLED.set)
        yield b"first"
        threading.Event().wait(5)
    if request == b"half":
        yield b"first"
        context.abort(grpc.StatusCode.DATA_LOSS, "after a message")
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


def talk(channel, calls):
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

    stream = method("unary_stream", "ServerStream")
    for name, ask in (("unary", echo), ("a stream", lambda request, timeout: list(stream(request, timeout=timeout)))):
        error = error_of(lambda ask=ask: ask(b"fail", timeout=10))
        only_trailers = not error.initial_metadata()
        check(f"an error before any message, {name}", error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.PERMISSION_DENIED))
        check(f"it is trailers only, {name}", only_trailers)
    error = error_of(lambda: method("unary_unary", "Missing")(b"", timeout=10))
    check("an unknown method", error.code() == grpc.StatusCode.UNIMPLEMENTED)
    answers = stream(b"half", timeout=10)
    first = next(answers)
    error = error_of(lambda: next(answers))
    check("an error after a message", first == b"first" and error.code() == grpc.StatusCode.DATA_LOSS)
    answers = stream(b"endless", timeout=0.5)
    first = next(answers)
    error = error_of(lambda: next(answers))
    check("a deadline within a stream", first == b"first" and error.code() == grpc.StatusCode.DEADLINE_EXCEEDED)
    check("the server learns of it", STREAM_CANCELLED.wait(10))
    STREAM_CANCELLED.clear()
    answers = stream(b"endless", timeout=10)
    next(answers)
    answers.cancel()
    check("the server learns that a client has cancelled a stream", STREAM_CANCELLED.wait(10))

    big = os.urandom(20_000_000)
    check("20 MB, unary", echo(big, timeout=60) == big)
    check("20 MB, client stream", method("stream_unary", "ClientStream")(iter([big]), timeout=60) == big)
    check("20 MB, both streams", list(method("stream_stream", "Both")(iter([big, b"end"]), timeout=60)) == [big, b"end"])

    failed = 0
    with futures.ThreadPoolExecutor(32) as pool:
        for begin in range(0, calls, 1000):
            numbers = range(begin, min(begin + 1000, calls))
            failed += sum(error is not None for error in pool.map(lambda n: wrong(echo, b"%d" % n), numbers))
    check(f"{calls} calls from 32 threads, {failed} failed", failed == 0)


def wrong(echo, request):
    """What is wrong with the answer to `request`; None if nothing."""
    try:
        return None if echo(request, timeout=20) == request else "another answer"
    except grpc.RpcError as error:
        return error


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proxyd")
    parser.add_argument("--calls", type=int, default=2000, help="how many calls of which none may fail")
    arguments = parser.parse_args()

    server = grpc.server(futures.ThreadPoolExecutor(40), options=UNLIMITED)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, HANDLERS),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    proxy = lab.EnvoyLike("proxyd", os.path.abspath(arguments.proxyd), port, workers=2, http2=True)
    with grpc.insecure_channel(f"127.0.0.1:{proxy.http}", options=UNLIMITED) as channel:
        talk(channel, arguments.calls)
    server.stop(None)
    stats = proxy.stats()
    check("no upstream protocol error", stats.get("cluster.backend.upstream_cx_protocol_error", 0) == 0)
    check("nothing left open", stats.get("http.http.downstream_rq_active", 0) == 0)
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
