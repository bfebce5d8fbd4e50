"""What the benchmark and the soak share: starting programs on free ports, and reading from the kernel what they cost.
Python's standard library only."""

import atexit
import collections
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import textwrap
import time
import urllib.request

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def free_port():
    """A TCP port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def find(program):
    """The path of an installed program, or None; daemons live in sbin on some systems."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin:/sbin")


def wait_for_port(port, what, seconds=10):
    """Returns when something accepts on the port."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise SystemExit(f"{what} does not listen on port {port} after {seconds} s")
            time.sleep(0.02)


class Program:
    """A program in the foreground, in a directory of its own, stopped at the end of the script."""

    def __init__(self, name, command, files=None):
        self.name = name
        self.directory = tempfile.mkdtemp(prefix=f"proxyd-{name}-")
        for file, content in (files or {}).items():
            with open(os.path.join(self.directory, file), "w") as out:
                out.write(content.replace("{dir}", self.directory))
        self.log = os.path.join(self.directory, "log")
        with open(self.log, "w") as log:
            command = [part.replace("{dir}", self.directory) for part in command]
            self.process = subprocess.Popen(command, cwd=self.directory, stdout=log, stderr=log)
        atexit.register(self.stop)

    def pids(self):
        """The process and its descendants: nginx and HAProxy work in children."""
        children = {}
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    parent = int(stat.read().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry))
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            queue += children.get(pid, [])
        return found

    def cpu_seconds(self):
        """User and system time so far."""
        total = 0
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/stat") as stat:
                    fields = stat.read().rpartition(")")[2].split()
            except OSError:
                continue
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def resident_bytes(self):
        """Resident memory of all its processes."""
        total = 0
        for pid in self.pids():
            try:
                with open(f"/proc/{pid}/statm") as statm:
                    total += int(statm.read().split()[1]) * PAGE
            except OSError:
                continue
        return total

    def descriptors(self):
        """Open file descriptors of the process itself: how many by what they are."""
        directory = f"/proc/{self.process.pid}/fd"
        found = collections.Counter()
        for entry in os.listdir(directory):
            try:
                target = os.readlink(os.path.join(directory, entry))
            except OSError:
                continue  # closed meanwhile
            found[re.sub(r"^(socket|pipe):.*", r"\1", target)] += 1
        return found

    def alive(self):
        return self.process.poll() is None

    def stop(self):
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


# What nginx needs to run without root and without leaving anything outside its directory.
NGINX_HOME = """
    client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
"""


def nginx(name, workers, http):
    """nginx in the foreground with this `http` block."""
    binary = find("nginx") or raise_missing("nginx")
    config = (
        "daemon off; pid {dir}/pid; error_log {dir}/error.log; worker_processes %d;\n"
        "events { worker_connections 8192; }\n"
        "http {\n access_log off; keepalive_requests 100000000; keepalive_timeout 3600; tcp_nodelay on;\n"
        " client_max_body_size 0;%s%s\n}\n"
    )
    files = {"nginx.conf": config % (workers, NGINX_HOME, http)}
    return Program(name, [binary, "-e", "{dir}/error.log", "-c", "{dir}/nginx.conf", "-p", "{dir}"], files)


def nginx_backend(port):
    """nginx as an origin: /small (2 bytes), /16k, /10m, and /post, which swallows a body."""
    server = """
        sendfile on;
        server {
            listen 127.0.0.1:%d reuseport backlog=4096; root {dir};
            location = /small { return 200 "ok"; }
            location = /post { return 200 "ok"; }
        }
    """
    program = nginx("nginx-backend", 1, server % port)
    os.chmod(program.directory, 0o755)  # its workers may run as another user
    for name, size in (("16k", 16 * 1024), ("10m", 10 * 1024 * 1024)):
        with open(os.path.join(program.directory, name), "wb") as out:
            out.write(b"x" * size)
    wait_for_port(port, "the nginx backend")
    return program


def raise_missing(program):
    raise SystemExit(f"{program} is not installed")


def envoy_config(admin, http, tcp, backend, http2=False):
    """One file for proxyd and Envoy: HTTP on one port, TCP on another, both to the backend; `http2` speaks HTTP/2
    to it."""
    base = "type.googleapis.com/envoy.extensions.filters"

    def listener(name, port, filter_name, typed):
        return {
            "name": name,
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "filter_chains": [{"filters": [{"name": filter_name, "typed_config": typed}]}],
        }

    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{base}.http.router.v3.Router"}}
    manager = {
        "@type": f"{base}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "backend"}}]}
            ]
        },
        "http_filters": [router],
    }
    relay = {"@type": f"{base}.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "tcp", "cluster": "backend"}
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": backend}}}}
    limits = {name: 100000 for name in ("max_connections", "max_pending_requests", "max_requests")}
    cluster = {
        "name": "backend",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "backend", "endpoints": [{"lb_endpoints": [endpoint]}]},
        "circuit_breakers": {"thresholds": [limits]},
    }
    if http2:
        kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        options = {"@type": f"type.googleapis.com/{kind}", "explicit_http_config": {"http2_protocol_options": {}}}
        cluster["typed_extension_protocol_options"] = {kind: options}
    return json.dumps(
        {
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
            "static_resources": {
                "listeners": [
                    listener("http", http, "envoy.filters.network.http_connection_manager", manager),
                    listener("tcp", tcp, "envoy.filters.network.tcp_proxy", relay),
                ],
                "clusters": [cluster],
            },
        },
        indent=1,
    )


class EnvoyLike:
    """proxyd or Envoy on `envoy_config`."""

    def __init__(self, name, binary, backend, workers=1, http2=False):
        self.admin, self.http, self.tcp = free_port(), free_port(), free_port()
        self.h2 = self.http
        config = envoy_config(self.admin, self.http, self.tcp, backend, http2)
        if name == "envoy":
            command = [binary, "--disable-hot-restart", "-l", "error"]
        else:
            command = [binary, "run", "--run-dir", "{dir}/run", "--base-id", str(self.admin)]
        command += ["-c", "{dir}/config.yaml", "--concurrency", str(workers)]
        self.program = Program(name, command, {"config.yaml": config})
        for port in (self.admin, self.http, self.tcp):
            wait_for_port(port, name)

    def stats(self):
        """Counters and gauges by name."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/stats", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rpartition(": ")[::2] for line in lines)
        return {name: int(value) for name, value in pairs if value.strip().isdigit()}


class Nginx:
    """nginx as a proxy."""

    def __init__(self, backend, workers=1):
        self.http, self.h2, self.tcp = free_port(), None, None
        server = """
            upstream backend { server 127.0.0.1:%d; keepalive 512; keepalive_requests 100000000; }
            server {
                listen 127.0.0.1:%d reuseport backlog=4096;
                location / {
                    proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection "";
                    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                    proxy_request_buffering off; proxy_max_temp_file_size 0;
                }
            }
        """
        self.program = nginx("nginx", workers, server % (backend, self.http))
        wait_for_port(self.http, "nginx")


class Haproxy:
    """HAProxy as a proxy."""

    def __init__(self, backend, workers=1):
        self.http, self.h2, self.tcp = free_port(), free_port(), free_port()
        config = f"""
            global
                nbthread {workers}
            defaults
                mode http
                timeout connect 5s
                timeout client 1h
                timeout server 1h
                option forwardfor
                http-reuse always
            frontend http
                bind 127.0.0.1:{self.http}
                bind 127.0.0.1:{self.h2} proto h2
                default_backend origin
            backend origin
                server one 127.0.0.1:{backend}
            listen tcp
                mode tcp
                bind 127.0.0.1:{self.tcp}
                server one 127.0.0.1:{backend}
        """
        files = {"haproxy.cfg": textwrap.dedent(config)}
        self.program = Program("haproxy", [find("haproxy"), "-db", "-f", "{dir}/haproxy.cfg"], files)
        for port in (self.http, self.h2, self.tcp):
            wait_for_port(port, "haproxy")
