#!/usr/bin/env python3
"""Ten minutes of everything at once, then three questions: is memory flat, are all descriptors back, are all of
proxyd's own gauges zero?

    cargo build --release --bin proxyd
    tests/soak/soak.py target/release/proxyd               # 600 seconds
    tests/soak/soak.py target/release/proxyd --seconds 30  # a look

Needs nginx and h2load (apt-get install nginx nghttp2-client). Traffic, all the time and mixed:
  - h2load over HTTP/1.1 and HTTP/2, small answers, 10 MB answers and uploads, and over the TCP relay;
  - readers that take a 10 MB answer a little at a time, and leave in the middle;
  - clients that leave within the head, within a body, before the answer, and with garbage;
  - idle connections that come and go.
Exit status 1 with the reason when one of the three does not hold, when proxyd ends, or when an orderly client got
anything but 2xx.
"""

import argparse
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))
import lab

# Memory may end this much above where it stood after the first fifth of the run.
GROWTH_ALLOWED = 0.10
GROWTH_FLOOR = 8 * 1024 * 1024

# Gauges that say how it is, not how much is held.
STANDING = re.compile(
    r"^(server|listener_manager|cluster_manager|runtime|main_thread|thread_local_store|filesystem)\.|"
    r"\.(membership_|max_host_weight|lb_|remaining_|version|warming_state|manager\.)|worker_\d+\.watchdog|"
    r"^cluster\.[^.]+\.(upstream_cx_rx_bytes_buffered)$"
)
GAUGE = re.compile(r"(_active|_open|_buffered|_pending|streams_active|pending_send_bytes)$")

# Two workers keep up to 32 idle pipes each, of two descriptors.
PIPES_KEPT = 2 * 32 * 2

GARBAGE = [
    b"",
    b"GET / HT",
    b"GET /small HTTP/1.1\r\nhost: a\r\nx-half",
    b"POST /post HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\nhalf",
    b"POST /post HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhe",
    b"POST /post HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
    b"GET /10m HTTP/1.1\r\nhost: a\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\xff\xff\xff\x00",
    b"GET /small HTTP/1.1\r\nhost: a\r\n\r\n" * 50,
]


class Soak:
    def __init__(self, proxy, seconds, body):
        self.proxy = proxy
        self.body = body
        self.end = time.monotonic() + seconds
        self.failures = []
        self.counts = {}
        self.lock = threading.Lock()

    def running(self):
        return time.monotonic() < self.end and self.proxy.program.alive() and not self.failures

    def count(self, what, number=1):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + number

    def orderly(self, port, target, requests, connections, options):
        """h2load, again and again; everything must be 2xx."""
        while self.running():
            command = ["h2load", "-n", str(requests), "-c", str(connections), *options]
            command.append(f"http://127.0.0.1:{port}{target}")
            done = subprocess.run(command, capture_output=True, text=True)
            good = re.search(r"status codes: (\d+) 2xx", done.stdout)
            good = int(good.group(1)) if good else 0
            self.count(f"h2load {target} {options[0]}", good)
            if good != requests:
                self.failures.append(f"{' '.join(command)}: {good} of {requests}\n{done.stdout}{done.stderr}")

    def connect(self, port):
        client = socket.create_connection(("127.0.0.1", port), timeout=30)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        return client

    def slow_readers(self, port, chance):
        """Takes a large answer slowly and leaves somewhere within."""
        while self.running():
            with self.connect(port) as client:
                client.sendall(b"GET /10m HTTP/1.1\r\nhost: soak\r\n\r\n")
                left = chance.randrange(1, 10 * 1024 * 1024)
                try:
                    while left > 0 and self.running():
                        piece = client.recv(16384)
                        if not piece:
                            break
                        left -= len(piece)
                        time.sleep(0.002)
                except OSError:
                    pass
            self.count("slow readers")

    def aborting(self, ports, chance):
        """Says something, whole or not, and leaves: with a close or with a reset."""
        while self.running():
            try:
                with self.connect(chance.choice(ports)) as client:
                    client.sendall(chance.choice(GARBAGE))
                    if chance.random() < 0.5:
                        client.settimeout(0.05)
                        client.recv(1000)
                    if chance.random() < 0.3:  # SO_LINGER 0: the close is a reset
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            except OSError:
                pass
            self.count("aborted clients")
            time.sleep(0.002)

    def idlers(self, port):
        """A hundred connections at a time that say nothing, or one request and then nothing."""
        while self.running():
            clients = [self.connect(port) for _ in range(100)]
            for client in clients[::2]:
                client.sendall(b"GET /small HTTP/1.1\r\nhost: soak\r\n\r\n")
                client.recv(4096)
            time.sleep(1)
            for client in clients:
                client.close()
            self.count("idle connections", len(clients))

    def start(self):
        http, tcp = self.proxy.http, self.proxy.tcp
        tasks = [
            (self.orderly, http, "/small", 5000, 16, ["--h1"]),
            (self.orderly, http, "/small", 5000, 4, ["-m32"]),
            (self.orderly, http, "/10m", 10, 2, ["--h1"]),
            (self.orderly, http, "/10m", 10, 2, ["-m4"]),
            (self.orderly, http, "/post", 2000, 8, ["--h1", "-d", self.body]),
            (self.orderly, http, "/post", 2000, 4, ["-m8", "-d", self.body]),
            (self.orderly, tcp, "/16k", 2000, 8, ["--h1"]),
            *((self.slow_readers, port, random.Random(port)) for port in (http, http, http, tcp)),
            *((self.aborting, [http, tcp], random.Random(seed)) for seed in range(4)),
            (self.idlers, http),
            (self.idlers, tcp),
        ]
        threads = [threading.Thread(target=task[0], args=task[1:]) for task in tasks]
        for thread in threads:
            thread.start()
        return threads


def gauges_not_zero(proxy):
    stats = proxy.stats()
    return {n: v for n, v in stats.items() if v and GAUGE.search(n) and not STANDING.search(n) and not own(n)}


def own(name):
    """What the question itself holds: the admin connection, and upstream connections that lie in the pool."""
    return name.startswith(("http.admin.", "listener.admin.")) or re.match(r"cluster\.[^.]+\.upstream_cx_(http\d_)?active$", name)


def left_open(descriptors):
    """Without the pipes that the workers keep for the next bulk transfer."""
    return {what: n for what, n in descriptors.items() if what != "pipe" or n > PIPES_KEPT}


def settle(what, holds, seconds=60):
    """Waits until `holds()` is empty; returns what is left."""
    deadline = time.monotonic() + seconds
    while True:
        left = holds()
        if not left or time.monotonic() > deadline:
            return f"{what}: {left}" if left else None
        time.sleep(0.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proxyd")
    parser.add_argument("--seconds", type=int, default=600)
    arguments = parser.parse_args()
    if not lab.find("h2load"):
        lab.raise_missing("h2load")

    backend_port = lab.free_port()
    backend = lab.nginx_backend(backend_port)
    proxy = lab.EnvoyLike("proxyd", os.path.abspath(arguments.proxyd), backend_port, workers=2)
    settle("the probe's connections", lambda: gauges_not_zero(proxy))
    descriptors = proxy.program.descriptors()
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"x" * 100_000)
        body.flush()
        soak = Soak(proxy, arguments.seconds, body.name)
        threads = soak.start()
        warm_at = time.monotonic() + arguments.seconds / 5
        warm = 0
        while any(thread.is_alive() for thread in threads):
            time.sleep(min(10, arguments.seconds / 10))
            if not proxy.program.alive():
                break
            resident = proxy.program.resident_bytes()
            if time.monotonic() < warm_at:
                warm = max(warm, resident)
            print(f"{resident >> 20} MiB, {sum(proxy.program.descriptors().values())} descriptors, {soak.counts}", flush=True)
        for thread in threads:
            thread.join()

    problems = soak.failures
    if not proxy.program.alive():
        problems.append("proxyd has ended")
    else:
        busiest = proxy.program.resident_bytes()
        allowed = warm + max(warm * GROWTH_ALLOWED, GROWTH_FLOOR)
        if busiest > allowed:
            problems.append(f"memory grew from {warm >> 20} to {busiest >> 20} MiB")
        problems.append(settle("gauges that are not zero", lambda: gauges_not_zero(proxy)))
        backend.stop()  # what lies in the pools closes with it
        excess = lambda: left_open(proxy.program.descriptors() - descriptors)
        problems.append(settle("descriptors more than at the start", excess))
        pooled = lambda: {n: v for n, v in proxy.stats().items() if v and n.startswith("cluster.") and n.endswith("cx_active")}
        problems.append(settle("upstream connections after the backend has gone", pooled))
        print(f"memory {warm >> 20} -> {busiest >> 20} MiB, descriptors {sum(descriptors.values())} -> {sum(proxy.program.descriptors().values())}")
    problems = [problem for problem in problems if problem]
    print("\n".join(problems) or "flat memory, no descriptor left, all gauges zero")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
