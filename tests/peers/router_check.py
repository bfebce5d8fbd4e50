#!/usr/bin/env python3
"""Envoy's own route tests (router_check) over real connections, judged against a list of what is not supported yet.

    tests/peers/router_check.py target/debug/proxyd ../shared/conformance/router_check            # judge
    tests/peers/router_check.py target/debug/proxyd ../shared/conformance/router_check --record   # write the list anew

Needs PyYAML and openssl. The suite itself is not part of this repository; its checks are known here by name only, in
router_check_unsupported.txt. proxyd runs with --allow-unsupported, so that a route table is not lost for one field.
Exit status 1 when a check fails that is not in the list; one in the list that passes is told.
"""

import argparse
import os
import re
import subprocess
import sys

LIST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "router_check_unsupported.txt")
HEADER = """\
# Checks of Envoy's router_check that proxyd does not pass yet: CONFIGURATION/TEST:WHAT.
# They ask for TLS, access logs, metadata, runtime or other parts of later stages. Written by router_check.py --record.
"""
FAILED = re.compile(r"^   FAIL (.+?:\S+)  ?(.*)")
TOTAL = re.compile(r"^passed (\d+) failed (\d+)$", re.MULTILINE)


def run(suite, proxyd, name):
    """What failed in one route configuration, by check, and how many passed."""
    environment = dict(os.environ, PROXY_ARGS="run --allow-unsupported -c {config}")
    command = [sys.executable, os.path.join(suite, "run.py"), proxyd, name]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        output, errors = done.stdout, done.stderr
    except subprocess.TimeoutExpired as expired:
        output, errors = (expired.stdout or b"").decode(errors="replace"), "no end after 300 s"
    failed = {}
    for line in output.splitlines():
        match = FAILED.match(line)
        if match:
            failed[match[1]] = match[2]
    total = TOTAL.search(output)
    if not total:  # the suite itself gave up, for instance because a listener that it wants to speak TLS does not
        failed[f"{name}/:end"] = errors.strip().splitlines()[-1] if errors.strip() else "no result"
    return failed, int(total[1]) if total else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proxyd")
    parser.add_argument("suite", help="directory of the suite")
    parser.add_argument("--record", action="store_true", help="write the list of unsupported checks anew")
    arguments = parser.parse_args()
    proxyd = os.path.abspath(arguments.proxyd)

    configurations = os.listdir(os.path.join(arguments.suite, "config"))
    names = sorted(file.removesuffix(".yaml") for file in configurations if file.endswith(".yaml"))
    failed, passed = {}, 0
    for name in names:
        failures, good = run(arguments.suite, proxyd, name)
        failed.update(failures)
        passed += good

    if arguments.record:
        with open(LIST, "w") as out:
            out.write(HEADER + "".join(f"{check}\n" for check in sorted(failed)))
        print(f"passed {passed}, {len(failed)} recorded as unsupported")
        return 0
    with open(LIST) as lines:
        known = {line.strip() for line in lines if line.strip() and not line.startswith("#")}
    for check in sorted(known - failed.keys()):
        print(f"passes now, take it off the list: {check}")
    worse = sorted(failed.keys() - known)
    for check in worse:
        print(f"FAIL {check}  {failed[check]}")
    print(f"passed {passed}, not supported yet {len(failed.keys() & known)}, failed {len(worse)}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
