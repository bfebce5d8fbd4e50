#!/usr/bin/env python3
"""What reloads in place cost: how long 10,000 clusters take to validate and to reload, and whether anybody notices.

    cargo build --release --bins
    tests/bench/reload.py target/release/proxyd                     # ten reloads in 30 seconds
    tests/bench/reload.py target/debug/proxyd --smoke               # three reloads of 100 clusters: does everything work?

Needs nginx (the backend) and h2load:  apt-get install nginx nghttp2-client

Each reload changes one route, while h2load asks, and connections stay idle or stream through the TCP listener. proxyctl is the
one beside proxyd. Exit status 1 if a request failed, one of these connections broke, or a change did not come into force.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import urllib.request

import lab
from restart import IDLE, STREAMS, Idle, Lineage, Load, Streams, longest_turn


def control(lineage, *arguments):
    """Seconds that a command of proxyctl's took, and what it said."""
    command = [os.path.join(os.path.dirname(lineage.binary), "proxyctl"), *arguments]
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    took = time.monotonic() - begun
    if done.returncode:
        raise SystemExit(f"{command}: {done.stdout}{done.stderr}")
    return took, done.stdout


def mark(lineage, number):
    """Has the one route add a header with this number."""
    with open(lineage.config) as file:
        config = json.load(file)
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    header = {"header": {"key": "x-reload", "value": str(number)}}
    manager["route_config"]["virtual_hosts"][0]["routes"][0]["response_headers_to_add"] = [header]
    with open(f"{lineage.config}.new", "w") as out:
        json.dump(config, out)
    os.replace(f"{lineage.config}.new", lineage.config)


def marked(lineage):
    with urllib.request.urlopen(f"http://127.0.0.1:{lineage.http}/small", timeout=10) as answer:
        return answer.headers["x-reload"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proxyd")
    parser.add_argument("--reloads", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--clusters", type=int, default=10_000)
    parser.add_argument("--smoke", action="store_true", help="three reloads in six seconds, 100 clusters")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.reloads, arguments.seconds, arguments.clusters = 3, 6, 100
    if not lab.find("h2load"):
        lab.raise_missing("h2load")
    port = lab.free_port()
    lab.nginx_backend(port)
    lineage = Lineage(arguments.proxyd, port, 0, arguments.clusters)
    validated = sorted(control(lineage, "validate", "config", lineage.config)[0] for _ in range(5))
    print(f"validate   {1000 * validated[2]:9.0f} ms in the median of 5")
    lineage.start(1, " serving")
    lab.wait_for_port(lineage.http, "proxyd")
    idle, streams = Idle(lineage.http), Streams(lineage.tcp)
    load = Load(lineage.http, arguments.seconds)
    took, in_force = [], 0
    for number in range(1, arguments.reloads + 1):
        time.sleep(arguments.seconds / (arguments.reloads + 2))
        mark(lineage, number)
        where = ("--run-dir", f"{lineage.directory.name}/run", "--base-id", str(lineage.admin))
        took.append(control(lineage, "reload", "--wait", *where)[0])
        in_force += marked(lineage) == str(number)
    answered, failed = load.result()
    survivors, relays = idle.survived(), streams.survived()
    took.sort()
    print(f"reload     {1000 * took[len(took) // 2]:9.0f} ms in the median, {1000 * took[-1]:.0f} ms at most, of {len(took)}")
    print(f"in force   {in_force:9} of {len(took)}")
    print(f"HTTP/1.1   {answered:9} answered, {failed} failed")
    print(f"idle       {survivors:9} of {IDLE} survived")
    print(f"TCP        {relays:9} of {STREAMS} survived")
    time.sleep(2)  # until the next flush
    print(f"loop       {longest_turn(lineage)}")
    lineage.stop()
    sys.exit(0 if (failed, survivors, relays, in_force) == (0, IDLE, STREAMS, len(took)) else 1)


if __name__ == "__main__":
    main()
