#!/usr/bin/env python3
"""What hot restarts cost: requests lost, connections that live through them, and how long a new process takes to lead.

    cargo build --release --bin proxyd
    tests/bench/restart.py target/release/proxyd                    # 15 restarts in a minute, then one with 10,000 clusters
    tests/bench/restart.py target/debug/proxyd --smoke              # three restarts: does everything work?

Needs nginx (the backend) and h2load:  apt-get install nginx nghttp2-client

While h2load asks, and connections stay idle or stream through the TCP listener, one process after another takes over, with 2,
1, 3, 2 workers in turn. Exit status 1 if a request failed or one of these connections broke. HTTP/2 is left out: h2load does
not connect again after GOAWAY, and counts what it then does not send as failed.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import lab

WORKERS = [2, 1, 3, 2]
IDLE = 32
STREAMS = 16
GET = b"GET /small HTTP/1.1\r\nhost: bench\r\n\r\n"


class Lineage:
    """Processes of one base-id, each of which takes over from the one before."""

    def __init__(self, binary, backend, confirm_after, clusters=0):
        self.binary, self.confirm_after = os.path.abspath(binary), confirm_after
        self.admin, self.http, self.tcp = lab.free_port(), lab.free_port(), lab.free_port()
        self.directory = tempfile.TemporaryDirectory(prefix="proxyd-restart-")
        config = json.loads(lab.envoy_config(self.admin, self.http, self.tcp, backend))
        config.update(enable_dispatcher_stats=True, stats_flush_interval="1s")
        template = config["static_resources"]["clusters"][0]
        for number in range(clusters):
            name = f"cluster-{number}"
            assignment = {**template["load_assignment"], "cluster_name": name}
            config["static_resources"]["clusters"].append({**template, "name": name, "load_assignment": assignment})
        self.config = os.path.join(self.directory.name, "config.yaml")
        with open(self.config, "w") as out:
            json.dump(config, out)
        self.programs = []

    def start(self, workers, ready):
        """Starts the next one; seconds until its log says `ready`."""
        command = [self.binary, "run", "-c", self.config, "--run-dir", f"{self.directory.name}/run", "-l", "info"]
        command += ["--base-id", str(self.admin), "--concurrency", str(workers), "--restart-epoch", "auto"]
        command += ["--confirm-after", str(self.confirm_after)]
        begun = time.monotonic()
        program = lab.Program("generation", command)
        self.programs.append(program)
        while True:
            with open(program.log) as log:
                text = log.read()
            if ready in text:
                return time.monotonic() - begun
            if not program.alive() or time.monotonic() - begun > 60:
                raise SystemExit(f"a process does not get to say {ready!r}:\n{text}")
            time.sleep(0.002)

    def restart(self, number):
        """Seconds until the next one leads, without those that it was told to wait."""
        return self.start(WORKERS[number % len(WORKERS)], "this process leads") - self.confirm_after

    def stats(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/stats", timeout=10) as answer:
            return dict(line.split(": ", 1) for line in answer.read().decode().splitlines() if ": " in line)

    def stop(self):
        for program in self.programs:
            program.stop()


class Idle:
    """Connections with one request at the start and one at the end."""

    def __init__(self, port):
        self.sockets = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(IDLE)]
        assert all(map(self.ask, self.sockets))

    @staticmethod
    def ask(connection):
        try:
            connection.sendall(GET)
            return connection.recv(4096).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    def survived(self):
        return sum(map(self.ask, self.sockets))


class Streams:
    """HTTP requests through the TCP listener, each on a connection that is kept: a byte lost or repeated shows."""

    def __init__(self, port):
        self.ended, self.broken = threading.Event(), 0
        self.threads = [threading.Thread(target=self.run, args=(port,)) for _ in range(STREAMS)]
        for thread in self.threads:
            thread.start()

    def run(self, port):
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        while not self.ended.wait(0.01):
            if not Idle.ask(connection):
                self.broken += 1
                return

    def survived(self):
        self.ended.set()
        for thread in self.threads:
            thread.join()
        return STREAMS - self.broken


class Load:
    """h2load on 8 connections that are kept, for some seconds."""

    def __init__(self, port, seconds):
        command = ["h2load", "--h1", "-D", str(seconds), "-c", "8", "-t", "1", f"http://127.0.0.1:{port}/small"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def result(self):
        """Requests answered with 2xx, and those that were not."""
        output = self.process.communicate()[0]
        done = re.search(r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
        good = re.search(r"status codes: (\d+) 2xx", output)
        if not done or not good:
            raise SystemExit(f"h2load: {output}")
        return int(good.group(1)), sum(map(int, done.groups()[1:]))


def under_load(arguments, backend):
    """False if anything was lost."""
    lineage = Lineage(arguments.proxyd, backend, arguments.confirm_after)
    lineage.start(WORKERS[0], " serving")
    lab.wait_for_port(lineage.http, "proxyd")
    idle, streams = Idle(lineage.http), Streams(lineage.tcp)
    pause = arguments.seconds / (arguments.restarts + 1)
    load = Load(lineage.http, arguments.seconds)
    took = []
    for number in range(1, arguments.restarts + 1):
        time.sleep(pause)
        took.append(lineage.restart(number))
    answered, failed = load.result()
    print(f"HTTP/1.1   {answered:9} answered, {failed} failed")
    survivors, relays = idle.survived(), streams.survived()
    print(f"idle       {survivors:9} of {IDLE} survived")
    print(f"TCP        {relays:9} of {STREAMS} survived")
    took.sort()
    print(f"to leading {1000 * took[len(took) // 2]:9.0f} ms in the median, {1000 * took[-1]:.0f} ms at most, of {len(took)}")
    print(f"loop       {longest_turn(lineage)}")
    lineage.stop()
    return failed == 0 and (survivors, relays) == (IDLE, STREAMS)


def longest_turn(lineage):
    """Of main's loops in all processes, in the words of the stat."""
    text = lineage.stats().get("server.dispatcher.loop_duration_us", "")
    found = re.search(r"P100\([^,]*,([^)]*)\)", text)
    return f"{found.group(1)} us in the longest turn of main" if found else "nothing measured yet"


def of_many_clusters(arguments, backend):
    lineage = Lineage(arguments.proxyd, backend, arguments.confirm_after, arguments.clusters)
    lineage.start(WORKERS[0], " serving")
    took = lineage.restart(1)
    print(f"to leading {1000 * took:9.0f} ms with {arguments.clusters} clusters")
    # The old process has one connection left, so that each look at stats is one at those of both.
    slow = socket.create_connection(("127.0.0.1", lineage.http), timeout=10)
    slow.sendall(GET[:-2])
    time.sleep(0.1)
    lineage.restart(2)
    for _ in range(5):
        lineage.stats()
    slow.close()
    # What is left of it is folded within five seconds.
    time.sleep(7)
    print(f"loop       {longest_turn(lineage)}, with {arguments.clusters} clusters")
    lineage.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proxyd")
    parser.add_argument("--restarts", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--confirm-after", type=float, default=0.5)
    parser.add_argument("--clusters", type=int, default=10_000)
    parser.add_argument("--smoke", action="store_true", help="three restarts in six seconds, 100 clusters")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.restarts, arguments.seconds, arguments.clusters, arguments.confirm_after = 3, 6, 100, 0.1
    if not lab.find("h2load"):
        lab.raise_missing("h2load")
    port = lab.free_port()
    lab.nginx_backend(port)
    good = under_load(arguments, port)
    of_many_clusters(arguments, port)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
