"""The two proxies, started on the same configuration but for the ports. Python's standard library only."""

import json
import os
import random
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "bench"))
import lab

FILTERS = "type.googleapis.com/envoy.extensions.filters"
PROTOCOLS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def manager(routes, options):
    return {
        "@type": f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "differential",
        # The client's address in x-forwarded-for tells the backend which case a request belongs to.
        "use_remote_address": True,
        "delayed_close_timeout": "0.1s",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{FILTERS}.http.router.v3.Router"}}
        ],
        **options,
    }


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def listener(name, port, routes, options):
    typed = manager(routes, options)
    return {
        "name": name,
        "address": address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": typed}]}],
    }


def cluster(name, port, http2=False, options=None):
    http = {"http2_protocol_options": {}} if http2 else {"http_protocol_options": {}}
    endpoint = {"endpoint": {"address": address(port)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "circuit_breakers": {"thresholds": [{"max_connections": 10000, "max_requests": 10000, "max_pending_requests": 10000}]},
        "typed_extension_protocol_options": {
            PROTOCOLS: {
                "@type": f"type.googleapis.com/{PROTOCOLS}",
                "explicit_http_config": http,
                "common_http_protocol_options": options or {},
            }
        },
    }


def bootstrap(listeners, clusters, admin):
    return {
        "admin": {"address": address(admin)},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


class Proxy:
    """A running proxy; `ports` are those of its listeners by name."""

    def __init__(self, name, binary, configuration, ports):
        self.name, self.ports = name, ports
        command = [os.path.abspath(binary)]
        if name == "envoy":
            command += ["--disable-hot-restart", "-l", "error"]
        else:
            base_id = str(configuration["admin"]["address"]["socket_address"]["port_value"])
            command += ["run", "--run-dir", "{dir}/run", "--base-id", base_id]
        command += ["-c", "{dir}/config.json", "--concurrency", "1"]
        self.program = lab.Program(name, command, {"config.json": json.dumps(configuration, indent=1)})
        for port in ports.values():
            try:
                lab.wait_for_port(port, name)
            except SystemExit as error:
                raise SystemExit(f"{error}\n{self.log()}") from None

    def log(self):
        with open(self.program.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def stop(self):
        self.program.stop()


handed_out = set()


def free_port():
    """A port that nothing listens on, below those that the system hands out to whoever asks for any; each only once, for
    listeners share a port without a word."""
    while True:
        port = random.randrange(12000, 32000)
        if port in handed_out:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                handed_out.add(port)
                return port
            except OSError:
                continue
