#!/usr/bin/env python3
"""What Prometheus' own tools make of proxyd's metrics: promtool of the text format, the parser of Prometheus' Python client of
OpenMetrics, and both formats of each other.

    apt-get install prometheus; pip install prometheus-client
    tests/peers/scrapes.py target/debug/proxyd

Exit status 1 when one of them does not take what it is given, or the two differ.
"""

import argparse
import gzip
import os
import subprocess
import sys
import urllib.error
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))
import lab

REQUESTS = 25
OPEN_METRICS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
QUERIES = ("", "?usedonly", "?text_readouts", "?histogram_buckets=summary")


class Proxy:
    def __init__(self, program):
        self.admin, self.http = lab.free_port(), lab.free_port()
        config = CONFIG.format(admin=self.admin, http=self.http)
        command = [program, "run", "--run-dir", "{dir}/run", "--base-id", str(self.admin), "-c", "{dir}/config.yaml"]
        lab.Program("proxyd", command + ["--concurrency", "2", "-l", "error"], {"config.yaml": config})
        for port in (self.admin, self.http):
            lab.wait_for_port(port, "proxyd")

    def traffic(self):
        for number in range(REQUESTS):
            get(self.http, "/missing" if number % 5 == 0 else "/")

    def scrape(self, query="", **headers):
        return get(self.admin, f"/stats/prometheus{query}", **headers)


def get(port, path, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        return error.read()


def promtool(text):
    """0, or 3: its taste in names is not Envoy's."""
    checked = subprocess.run([lab.find("promtool"), "check", "metrics"], input=text, capture_output=True, timeout=60)
    trouble = [line for line in (checked.stdout + checked.stderr).decode().splitlines() if "error" in line]
    return checked.returncode in (0, 3), trouble


def samples(families):
    """Values by name and labels, of what traffic alone moves."""
    found = {}
    for family in families:
        for sample in family.samples:
            bounds = {name: float(sample.labels[name]) for name in ("le",) if name in sample.labels}
            labels = frozenset((sample.labels | bounds).items())
            if sample.labels.get("envoy_http_conn_manager_prefix") == "ingress":
                found[sample.name, labels] = sample.value
    return found


def differences(text, metrics):
    """Series of the text format that OpenMetrics has not, under the same name or with `_total`."""
    ours = samples(open_metrics(metrics))
    named = lambda name, labels: ours.get((name, labels), ours.get((f"{name}_total", labels)))
    theirs = samples(plain(text)).items()
    return [(key, value) for (key, value) in theirs if named(*key) != value]


def check(proxy):
    proxy.traffic()
    for query in QUERIES:
        yield f"promtool takes /stats/prometheus{query}", *promtool(proxy.scrape(query))
        families = list(open_metrics(proxy.scrape(query, accept=OPEN_METRICS).decode()))
        yield f"OpenMetrics is parsed, {len(families)} families{query}", len(families) > 5, []
    text, metrics = proxy.scrape().decode(), proxy.scrape(accept=OPEN_METRICS).decode()
    found = differences(text, metrics)
    yield "both formats have the same values", not found and len(samples(plain(text))) > 50, found
    requests = {key: value for key, value in samples(open_metrics(metrics)).items() if key[0] == "envoy_http_downstream_rq_total"}
    yield "requests are counted", list(requests.values()) == [REQUESTS], requests
    compressed = proxy.scrape("?filter=ingress.downstream_rq", accept_encoding="gzip")
    same = gzip.decompress(compressed) == proxy.scrape("?filter=ingress.downstream_rq")
    yield "compressed is the same", same, []


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proxyd")
    arguments = parser.parse_args()
    failed = False
    for what, right, trouble in check(Proxy(os.path.abspath(arguments.proxyd))):
        print("ok   " if right else "FAIL ", what, *([] if right else [trouble]), flush=True)
        failed |= not right
    return 1 if failed else 0


CONFIG = """
admin: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {admin}}}}}}}
static_resources:
  listeners:
  - name: main
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
              routes: [{{match: {{path: /}}, direct_response: {{status: 200, body: {{inline_string: ok}}}}}}]
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: 'of "odd" \\ name'
    type: STATIC
    load_assignment:
      cluster_name: x
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {http}}}}}}}}}]}}]
"""

if __name__ == "__main__":
    sys.exit(main())
