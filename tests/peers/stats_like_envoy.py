#!/usr/bin/env python3
"""The same configuration and traffic through proxyd and Envoy: what they count must be equal.

    tests/peers/stats_like_envoy.py target/debug/proxyd PATH_OF_ENVOY          # judge
    tests/peers/stats_like_envoy.py target/debug/proxyd PATH_OF_ENVOY --all    # and print every difference there is
    tests/peers/stats_like_envoy.py target/debug/proxyd PATH_OF_ENVOY --record # write the list anew

stats_like_envoy.txt lists the counters, gauges and histograms that are compared; of histograms how many values came, for
times are nobody's to repeat. stats_traffic.py is the traffic. Besides, what counts things that are open or held must be
zero in proxyd when nothing is. Python's standard library only. Exit status 1 when a value differs.
"""

import argparse
import os
import re
import sys
import time
import urllib.request

import stats_traffic
from stats_traffic import lab

LIST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "stats_like_envoy.txt")
HEADER = """\
# What stats_like_envoy.py compares: every counter and gauge that its traffic moves, and every histogram that it fills.
# Written by stats_like_envoy.py --record, which takes what is equal. Not here, because the two mean to differ or cannot be
# equal: *delayed_close_timeout (Envoy keeps its end open until that time is over, proxyd ends when the client does),
# bytes of HTTP/2 towards hosts and clients (two encoders), upstream_cx_rx_bytes_buffered (Envoy's keeps the size of the
# last read), remaining_cx_pools (a gauge here ends at 2^63-1), what the process is (server.*) and the admin port, whose
# requests are those of this script.
"""
NOT_RECORDED = re.compile(
    r"^(server|runtime|http\.admin|listener\.admin|main_thread|workers)\.|delayed_close_timeout$|remaining_cx_pools$"
    r"|^(cluster\.http2_\w+|http\.http2)\..*bytes_total$|_buffered$|connections_accepted_per_socket_event$"
)
# Gauges of what is open or held; connections to hosts may lie in a pool.
AT_REST = re.compile(r"(downstream_cx|[a-z]+_rq|rq_pending|streams|frames|flush)_active$|_buffered$|pending_send_bytes$|rq(_\w+)?_open$")
BUCKET = re.compile(r",[\d.e+]+:(\d+)")


def compared_names():
    with open(LIST) as lines:
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def read_stats(admin):
    """Values of counters and gauges, and how many values each histogram has, by name."""
    url = f"http://127.0.0.1:{admin}/stats?histogram_buckets=detailed"
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    stats, histogram = {}, None
    for line in lines:
        if line.startswith("  totals="):
            stats[histogram] = sum(map(int, BUCKET.findall(line)))
        elif line.endswith(":"):
            histogram = line[:-1]
        elif not line.startswith(" "):
            name, _, value = line.partition(": ")
            stats[name] = int(value) if value.isdigit() else 0 if value == "No recorded values" else value
    return stats


def count(name, binary, hosts):
    """Runs a proxy through the traffic and returns what it has counted."""
    admin, ports = lab.free_port(), {listener: lab.free_port() for listener in stats_traffic.LISTENERS}
    command = [os.path.abspath(binary)]
    if name == "envoy":
        command += ["--disable-hot-restart", "-l", "error"]
    else:
        command += ["run", "--run-dir", "{dir}/run", "--base-id", str(admin)]
    command += ["-c", "{dir}/config.json", "--concurrency", "1"]
    files = {"config.json": stats_traffic.config(hosts, admin, ports)}
    program = lab.Program(name, command, files)
    try:
        lab.wait_for_port(admin, name)
        lab.wait_for_port(ports["ready"], name)
        stats_traffic.Traffic(ports).run()
        time.sleep(2.5)  # two flushes: what was recorded shows after the first that follows it
        if not program.alive():
            raise SystemExit(f"{name} has ended:\n{open(program.log).read()}")
        return read_stats(admin)
    finally:
        program.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proxyd")
    parser.add_argument("envoy")
    parser.add_argument("--record", action="store_true", help="write the list of what is compared anew")
    parser.add_argument("--all", action="store_true", help="print every stat that differs, compared or not")
    arguments = parser.parse_args()

    hosts = stats_traffic.Hosts()
    envoy = count("envoy", arguments.envoy, hosts)
    proxyd = count("proxyd", arguments.proxyd, hosts)
    if arguments.record:
        moved = [name for name, value in envoy.items() if value and proxyd.get(name) == value]
        with open(LIST, "w") as out:
            out.write(HEADER + "".join(f"{name}\n" for name in sorted(moved) if not NOT_RECORDED.search(name)))
    compared = compared_names()
    if arguments.all:
        for name in sorted(set(envoy) | set(proxyd)):
            if envoy.get(name, 0) != proxyd.get(name, 0):
                mark = "*" if name in compared else " "
                print(f"{mark} {name}: {envoy.get(name)} in Envoy, {proxyd.get(name)} in proxyd")
    different = [name for name in compared if envoy.get(name) is None or envoy[name] != proxyd.get(name)]
    for name in different:
        print(f"FAIL {name}: {envoy.get(name)} in Envoy, {proxyd.get(name)} in proxyd")
    held = [name for name, value in proxyd.items() if AT_REST.search(name) and value and ".admin." not in name]
    for name in held:
        print(f"FAIL {name} is {proxyd[name]} with nothing open")
    print(f"{len(compared) - len(different)} of {len(compared)} stats are equal, {len(held)} gauges hold something")
    return 1 if different or held else 0


if __name__ == "__main__":
    sys.exit(main())
