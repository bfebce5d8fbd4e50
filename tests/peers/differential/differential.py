#!/usr/bin/env python3
"""The same bytes to proxyd and to Envoy, from clients and from hosts: what comes of them must be the same.

    differential.py target/debug/proxyd PATH_OF_ENVOY                 # judge
    differential.py target/debug/proxyd PATH_OF_ENVOY --show PATTERN  # and print what both did with these cases

The cases are the files under cases/ (see casefile.py and frames.py for how they are written): requests of HTTP/1, frames
of HTTP/2, and responses of hosts of either version. Compared are each answer as the client got it, whether the connection
went on, and each request as it reached the backend. differences.txt lists what may differ, with the reason. Whatever it
says: proxyd never lets a message reach the backend that Envoy stopped, unless the section is called laxer.

Python's standard library only. Exit status 1 when something differs that is not listed, or is listed and does not differ.
"""

import argparse
import asyncio
import fnmatch
import os
import resource
import sys
import time

import casefile
import exchange
import frames
import proxies
from sockets import CAREFUL, QUICK, Backend, Scripted

LIST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "differences.txt")
AT_ONCE = 200
MOST_AGAIN = 600
KINDS = ("stricter", "answer", "forward", "laxer")
# What a section of the list covers besides its own kind.
COVERS = {
    "answer": {"answer"},
    "stricter": {"stricter", "answer"},
    "forward": {"forward", "answer"},
    "laxer": {"laxer", "answer"},
}


class Side:
    """A proxy, its backend and its scripted hosts."""

    def __init__(self, name, binary):
        self.name, self.binary = name, binary
        self.backend, self.hosts = Backend(), {}

    async def start(self, themes):
        await self.backend.listen()
        route = [{"match": {"prefix": "/"}, "route": {"cluster": "backend"}}, {"match": {"connect_matcher": {}}, "route": {"cluster": "backend"}}][:1]
        listeners, clusters, ports = [], [], {}
        clusters.append(proxies.cluster("backend", self.backend.port, options={"max_requests_per_connection": 1}))
        for theme in themes:
            ports[theme.name] = proxies.free_port()
            routes = route
            if theme.kind.startswith("responses"):
                routes = []
                for case in theme.cases:
                    host = self.hosts[case.key] = Scripted(case, theme.kind == "responses2")
                    await host.listen()
                    host.path = f"/{len(self.hosts)}"
                    clusters.append(proxies.cluster(case.key, host.port, host.http2))
                    routes.append({"match": {"prefix": host.path + "/"}, "route": {"cluster": case.key}})
            options = theme.settings.get("options", {})
            listeners.append(proxies.listener(theme.name, ports[theme.name], routes, options))
        configuration = proxies.bootstrap(listeners, clusters, proxies.free_port())
        self.proxy = await asyncio.to_thread(proxies.Proxy, self.name, self.binary, configuration, ports)

    async def run(self, case, source, patience):
        port = self.proxy.ports[case.theme.name]
        if case.theme.kind.startswith("responses"):
            host = self.hosts[case.key]
            host.begin_anew()
            return exchange.Outcome(*await exchange.response_client(host, port, host.path, patience))
        client = exchange.http2_client if case.theme.kind == "frames" else exchange.http1_client
        told = await client(case, port, source, patience)
        return exchange.Outcome(told, *self.backend.of(source))


class Runs:
    """Outcomes by case and side."""

    def __init__(self, sides):
        self.sides, self.source = sides, 0

    async def run(self, cases, patience, at_once):
        """The outcome of each case with each side."""
        turn = asyncio.Semaphore(at_once)

        async def one(case, side, source):
            async with turn:
                return await side.run(case, source, patience)

        asked = []
        for case in cases:
            self.source += 1
            source = f"127.1.{self.source // 250}.{self.source % 250 + 1}"
            asked += [one(case, side, source) for side in self.sides]
        outcomes = await asyncio.gather(*asked)
        return {case.key: outcomes[at * 2 : at * 2 + 2] for at, case in enumerate(cases)}


def kinds_of(proxyd, envoy):
    """How the two outcomes differ."""
    kinds = set()
    if proxyd.whole != envoy.whole:
        extra = [told for told in proxyd.whole if told not in envoy.whole]
        if not extra:
            kinds.add("stricter")
        else:
            kinds.add("forward" if len(proxyd.whole) == len(envoy.whole) else "laxer")
    if proxyd.garbage:
        kinds.add("laxer")
    if proxyd.compared() != envoy.compared():
        kinds.add("answer")
    return kinds


def read_list():
    """Sections as (kind, reason, patterns)."""
    sections = []
    with open(LIST, encoding="utf-8") as lines:
        for line in lines:
            line = line.rstrip("\n")
            if line.startswith("["):
                kind, _, reason = line[1:].partition("] ")
                if kind not in KINDS:
                    raise SystemExit(f"{LIST}: no kind {kind}")
                sections.append((kind, reason, []))
            elif line.strip() and not line.startswith("#"):
                sections[-1][2].append(line.strip())
    return sections


def allowed(case, outcomes, sections):
    """Whether the outcomes differ as the list says they may, and the entries that say so."""
    kinds = kinds_of(*outcomes)
    matching = [
        (kind, pattern)
        for kind, _, patterns in sections
        for pattern in patterns
        if kinds and fnmatch.fnmatchcase(case.key, pattern)
    ]
    return kinds <= set().union(*(COVERS[kind] for kind, _ in matching)), matching


def judge(cases, outcomes, sections):
    """Prints what is wrong, and returns how many cases are equal, listed and wrong."""
    used, equal, listed, wrong = set(), 0, 0, 0
    for case in cases:
        fine, matching = allowed(case, outcomes[case.key], sections)
        used.update(matching)
        if not fine:
            wrong += 1
            print(f"FAIL {case.key}: {', '.join(sorted(kinds_of(*outcomes[case.key])))}")
            show(case, outcomes)
        elif matching:
            listed += 1
        else:
            equal += 1
    for kind, pattern in sorted({(kind, pattern) for kind, _, patterns in sections for pattern in patterns} - used):
        if fnmatch.filter((case.key for case in cases), pattern) or len(cases) > 1000:
            wrong += 1
            print(f"FAIL {pattern} is listed as {kind}, and does not differ")
    return equal, listed, wrong


def show(case, outcomes):
    print(f"  sent: {case.sent()[:300]!r} {[step for step in case.script if isinstance(step, str)]}")
    for name, outcome in zip(("proxyd", "envoy"), outcomes[case.key]):
        print(f" {name}")
        print("\n".join(outcome.lines()))


async def compare(arguments, themes, cases, sections):
    sides = [Side("proxyd", arguments.proxyd), Side("envoy", arguments.envoy)]
    await asyncio.gather(*(side.start(themes) for side in sides))
    runs = Runs(sides)
    outcomes = await runs.run(cases, QUICK, AT_ONCE)
    # What differs is asked once more, with few at once and patience: a busy machine is no difference.
    again = [case for case in cases if not allowed(case, outcomes[case.key], sections)[0]]
    outcomes.update(await runs.run(again[:MOST_AGAIN], CAREFUL, 60))
    strays = [f"{side.name}: {stray}" for side in sides for stray in side.backend.strays()]
    for side in sides:
        if not side.proxy.program.alive():
            strays.append(f"{side.name} has ended:\n{side.proxy.log()}")
        side.proxy.stop()
    return outcomes, strays


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proxyd")
    parser.add_argument("envoy")
    parser.add_argument("--only", default="*", help="only the cases whose THEME/NAME is like this")
    parser.add_argument("--show", help="print what both did with the cases like this")
    arguments = parser.parse_args()

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    themes = [
        *casefile.themes("requests", casefile.read_bytes),
        *casefile.themes("frames", frames.read_frames),
        *casefile.themes("responses", casefile.read_bytes),
        *casefile.themes("responses2", frames.read_frames),
    ]
    cases = [case for theme in themes for case in theme.cases if fnmatch.fnmatchcase(case.key, arguments.only)]
    sections = read_list()
    began = time.monotonic()
    outcomes, strays = asyncio.run(compare(arguments, themes, cases, sections))
    if arguments.show:
        for case in cases:
            if fnmatch.fnmatchcase(case.key, arguments.show):
                print(f"{case.key}: {', '.join(sorted(kinds_of(*outcomes[case.key]))) or 'equal'}")
                show(case, outcomes)
    for stray in strays:
        print(f"FAIL reached a backend, and no case sent it: {stray}")
    equal, listed, wrong = judge(cases, outcomes, sections)
    counts = {kind: sum(len(theme.cases) for theme in themes if theme.kind == kind) for kind in ("requests", "frames", "responses", "responses2")}
    print(
        f"{counts['requests']} requests, {counts['frames']} frame sequences, {counts['responses'] + counts['responses2']} responses"
        f" in {time.monotonic() - began:.0f} s: {equal} equal, {listed} listed, {wrong + len(strays)} wrong"
    )
    return 1 if wrong or strays else 0


if __name__ == "__main__":
    sys.exit(main())
