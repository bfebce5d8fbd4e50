#!/usr/bin/env python3
"""A real statsd behind proxyd: what it adds up must be what proxyd counted, over UDP and over TCP, also when statsd goes
away and comes back.

    npm install statsd
    tests/peers/statsd_sums.py target/debug/proxyd node_modules/statsd/stats.js

Exit status 1 when a sum differs.
"""

import argparse
import json
import os
import re
import socket
import sys
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))
import lab

PATIENCE = 20
ROUNDS = 4
REQUESTS = 25


class Statsd:
    """Takes UDP and TCP, and forgets all when it is stopped."""

    def __init__(self, program):
        self.program, self.udp, self.tcp, self.management = program, lab.free_port(), lab.free_port(), lab.free_port()
        self.running = None

    def start(self):
        servers = (("./servers/udp", self.udp), ("./servers/tcp", self.tcp))
        config = {
            "servers": [{"server": server, "address": "127.0.0.1", "port": port} for server, port in servers],
            "mgmt_address": "127.0.0.1", "mgmt_port": self.management, "backends": [], "flushInterval": 3_600_000,
        }
        self.running = lab.Program("statsd", ["node", self.program, "{dir}/config.json"], {"config.json": json.dumps(config)})
        for port in (self.tcp, self.management):
            lab.wait_for_port(port, "statsd")

    def stop(self):
        self.running.stop()

    def ask(self, command):
        """Answers of the management port look like `'udp.http.ingress.rq_total': 3,`."""
        with socket.create_connection(("127.0.0.1", self.management), timeout=PATIENCE) as connection:
            connection.sendall(command.encode() + b"\n")
            answer = b""
            while not answer.endswith(b"END\n\n") and (piece := connection.recv(65536)):
                answer += piece
        return answer.decode()

    def numbers(self, command, prefix):
        found = re.findall(r"[\"']?([\w.-]+)[\"']?: (\d+)", self.ask(command))
        pairs = ((name.removeprefix(prefix + "."), int(value)) for name, value in found if name.startswith(prefix + "."))
        return {name: value for name, value in pairs if of_traffic(name)}

    def values(self, name):
        """How many values of a timer are here."""
        found = re.search(rf"'{re.escape(name)}': \[([^\]]*)\]", self.ask("timers"))
        return len(found[1].split(",")) if found else 0

    def bad_lines(self):
        return int(re.search(r"bad_lines_seen'?: (\d+)", self.ask("counters"))[1])


class Proxy:
    def __init__(self, program, statsd):
        self.admin, self.http = lab.free_port(), lab.free_port()
        config = CONFIG.format(udp=statsd.udp, tcp=statsd.tcp, admin=self.admin, http=self.http)
        command = [program, "run", "--run-dir", "{dir}/run", "--base-id", str(self.admin), "-c", "{dir}/config.yaml"]
        lab.Program("proxyd", command + ["--concurrency", "2", "-l", "error"], {"config.yaml": config})
        for port in (self.admin, self.http):
            lab.wait_for_port(port, "proxyd")

    def traffic(self):
        for _ in range(REQUESTS):
            assert get(self.http, "/") == "ok"

    def flush(self):
        get(self.admin, "/stats?filter=^$")

    def counters(self):
        """What traffic has raised, when it has ended."""
        eventually(lambda: "http.ingress.downstream_cx_active: 0\n" in get(self.admin, "/stats"), lambda: None)
        lines = (line.split(": ") for line in get(self.admin, "/stats?usedonly&type=Counters").splitlines())
        return {name: int(value) for name, value in lines if of_traffic(name)}


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
        return answer.read().decode()


def of_traffic(name):
    return name.startswith(("http.ingress.", "listener.main."))


def eventually(condition, meanwhile):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            return False
        meanwhile()
        time.sleep(0.1)
    return True


def add(one, other):
    return {name: one.get(name, 0) + other.get(name, 0) for name in one.keys() | other.keys()}


def check(statsd, proxy):
    """Every second round finds no statsd: what it counts is for the one after."""
    sums = dict.fromkeys(PREFIXES, {})
    for number in range(ROUNDS):
        statsd.start()
        proxy.traffic()
        expected = proxy.counters()
        for prefix in PREFIXES:
            told = lambda: add(sums[prefix], statsd.numbers("counters", prefix))
            right = eventually(lambda: told() == expected, proxy.flush)
            print(("ok   " if right else "FAIL ") + f"round {number}, {prefix}: {len(expected)} counters", flush=True)
            if not right:
                print("     counted here and there:", {n: (v, told().get(n)) for n, v in expected.items() if told().get(n) != v})
                return False
            sums[prefix] = told()
        # Those of the round before are told to this statsd, too, as long as they are few.
        values = [statsd.values(f"{prefix}.http.ingress.downstream_rq_time") for prefix in PREFIXES]
        expected_values = REQUESTS if number == 0 else 2 * REQUESTS
        if statsd.bad_lines() or values != [expected_values] * 2:
            print(f"FAIL round {number}: {statsd.bad_lines()} bad lines, {values} values instead of {expected_values}")
            return False
        open_connections = statsd.numbers("gauges", "udp").get("http.ingress.downstream_cx_active")
        statsd.stop()
        if open_connections:
            print(f"FAIL round {number}: {open_connections} connections of none are open")
            return False
        proxy.traffic()
        proxy.flush()
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proxyd")
    parser.add_argument("statsd", help="stats.js of the npm package")
    arguments = parser.parse_args()
    statsd = Statsd(os.path.abspath(arguments.statsd))
    return 0 if check(statsd, Proxy(os.path.abspath(arguments.proxyd), statsd)) else 1


PREFIXES = ("udp", "tcp")
CONFIG = """
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}
stats_flush_on_admin: true
stats_sinks:
- name: envoy.stat_sinks.statsd
  typed_config:
    "@type": type.googleapis.com/envoy.config.metrics.v3.StatsdSink
    address: {{socket_address: {{address: 127.0.0.1, port_value: {udp}}}}}
    prefix: udp
- name: envoy.stat_sinks.statsd
  typed_config:
    "@type": type.googleapis.com/envoy.config.metrics.v3.StatsdSink
    tcp_cluster_name: statsd
    prefix: tcp
static_resources:
  listeners:
  - name: main
    stat_prefix: main
    address: {{socket_address: {{address: 127.0.0.1, port_value: {http}}}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: /}}, direct_response: {{status: 200, body: {{inline_string: ok}}}}}}]
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: statsd
    type: STATIC
    load_assignment:
      cluster_name: statsd
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {tcp}}}}}}}}}]}}]
"""

if __name__ == "__main__":
    sys.exit(main())
