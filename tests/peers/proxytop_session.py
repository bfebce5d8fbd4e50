#!/usr/bin/env python3
"""A session of proxytop in a real terminal (tmux), as a person would have it: every key, while proxyd restarts hot, is killed and
started again; and the terminal is as it was after every way to end.

    tests/peers/proxytop_session.py DIRECTORY_OF_PROGRAMS

Needs tmux, and a proxytop built with debug assertions. Prints what it has seen, and exits with 1 where something was missing.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

PATIENCE = 20
PROGRAMS = os.path.abspath(sys.argv[1])
PROXYD, PROXYCTL, PROXYTOP = (os.path.join(PROGRAMS, name) for name in ("proxyd", "proxyctl", "proxytop"))
HCM = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
FILE_LOG = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def configuration(directory, port, backend):
    address = lambda number: {"socket_address": {"address": "127.0.0.1", "port_value": number}}
    manager = {
        "@type": HCM,
        "stat_prefix": "edge",
        "access_log": [{"name": "file", "typed_config": {"@type": FILE_LOG, "path": f"{directory}/access.log"}}],
        "route_config": {"name": "shop", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/dead"}, "route": {"cluster": "dead"}},
            {"match": {"prefix": "/"}, "route": {"cluster": "web"}}]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
    }
    cluster = lambda name, number: {"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": {
        "cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(number)}}]}]}}
    return {"enable_dispatcher_stats": True, "static_resources": {
        "listeners": [{"name": "main", "stat_prefix": "main", "address": address(port), "filter_chains": [
            {"filters": [{"name": "hcm", "typed_config": manager}]}]}],
        "clusters": [cluster("web", backend), cluster("dead", 1)]}}


class Held:
    """A request that is under way until it is released."""

    def __init__(self):
        self.arrived, self.released = threading.Event(), threading.Event()


def serve_backend(held):
    """A host that says ok, to /held when that is released; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def connection(peer):
        with peer:
            # The proxy is killed at times.
            with contextlib.suppress(ConnectionError):
                while request := peer.recv(65536):
                    if request.startswith(b"GET /held "):
                        held.arrived.set()
                        held.released.wait()
                    peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    def accept():
        while True:
            threading.Thread(target=connection, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1]


def ask_all_the_time(port):
    """Requests, one after the other, whatever becomes of them."""

    def run():
        number = 0
        while True:
            number += 1
            path = "/dead" if number % 10 == 0 else f"/{number}"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).read()
            except OSError:
                pass
            time.sleep(0.005)

    threading.Thread(target=run, daemon=True).start()


class Terminal:
    """A shell in tmux."""

    def __init__(self, directory, columns, lines):
        self.server = ["tmux", "-S", f"{directory}/tmux-{columns}", "-f", "/dev/null"]
        command = ["new-session", "-d", "-x", str(columns), "-y", str(lines), "bash --norc --noprofile"]
        subprocess.run(self.server + command, check=True)
        self.line("export TERM=xterm-256color HISTFILE= RUST_BACKTRACE=0 PS1='shell> '; unset NO_COLOR; clear")
        self.until(lambda screen: screen.strip() == "shell>", "a prompt")
        self.before = self.settings()

    def tmux(self, *words):
        return subprocess.run(self.server + list(words), check=True, capture_output=True, text=True).stdout

    def keys(self, *keys):
        for key in keys:
            self.tmux("send-keys", key)

    def line(self, text):
        self.tmux("send-keys", "-l", text)
        self.keys("Enter")

    def screen(self):
        return self.tmux("capture-pane", "-p")

    def sees(self, *texts):
        """Waits until all texts are on the screen."""
        return self.until(lambda screen: all(text in screen for text in texts), f"{texts} on the screen")

    def until(self, true, what):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            screen = self.screen()
            if true(screen):
                return screen
            time.sleep(0.02)
        raise AssertionError(f"waited in vain for {what}:\n{screen}")

    def settings(self):
        """What the terminal driver and tmux say of the terminal."""
        tty = self.tmux("display", "-p", "#{pane_tty}").strip()
        modes = self.tmux("display", "-p", "#{alternate_on} #{cursor_flag} #{mouse_any_flag} #{keypad_flag}").strip()
        with open(tty, encoding="ascii") as terminal:
            driver = subprocess.run(["stty", "-a"], stdin=terminal, capture_output=True, text=True, check=True).stdout
        return driver, modes

    def is_restored(self, how):
        deadline = time.monotonic() + PATIENCE
        while self.settings() != self.before:
            assert time.monotonic() < deadline, f"after {how} the terminal is {self.settings()}, was {self.before}"
            time.sleep(0.02)
        print(f"the terminal is as it was after {how}")

    def close(self):
        subprocess.run(self.server + ["kill-server"], check=False, capture_output=True)


class Session:
    def __init__(self, directory):
        self.directory = directory
        self.port = free_port()
        self.held = Held()
        with open(f"{directory}/proxyd.json", "w", encoding="ascii") as file:
            json.dump(configuration(directory, self.port, serve_backend(self.held)), file)
        self.where = ["--run-dir", f"{directory}/run"]
        self.shm = tempfile.mkdtemp(dir="/dev/shm")
        self.log = open(f"{directory}/log", "a", encoding="ascii")
        self.proxy = None
        self.start()
        deadline = time.monotonic() + PATIENCE
        while not self.pids():
            assert time.monotonic() < deadline, "proxyd does not start"
            time.sleep(0.02)
        ask_all_the_time(self.port)

    def start(self):
        command = [PROXYD, "run", "-c", f"{self.directory}/proxyd.json", "--concurrency", "2", "--base-id", "3",
                   "--confirm-after", "0.5", "--drain-time-s", "1", "--shm-dir", self.shm, "--file-flush-interval-msec", "200", *self.where]
        self.proxy = subprocess.Popen(command, stdout=self.log, stderr=self.log)

    def top(self, *arguments):
        return " ".join([PROXYTOP, "--shm-dir", self.shm, *self.where, *arguments])

    def accepts(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), PATIENCE).close()
        except ConnectionRefusedError:
            return False
        return True

    def pids(self):
        output = subprocess.run([PROXYCTL, "epochs", "--json", *self.where], capture_output=True, text=True, check=False)
        try:
            return [process["pid"] for process in json.loads(output.stdout) if "pid" in process]
        except ValueError:
            return []

    def end(self):
        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        self.proxy.wait()
        subprocess.run(["rm", "-rf", self.shm], check=False)


def nothing_is_allowed(session, terminal):
    before = session.pids()
    terminal.line(f"clear; {session.top()}")
    terminal.sees("base-id 3", "live", "Requests")
    terminal.keys("a")
    terminal.sees("actions are off: start proxytop with --allow-actions")
    for line in range(5):
        terminal.keys("a", *["Down"] * line, "Enter", "y", "Escape")
    # The thread that would act is asked for this after all of them.
    terminal.keys("7")
    terminal.sees("prefix /dead")
    assert session.pids() == before and session.accepts(), "nothing was done to the proxy"
    status = subprocess.run([PROXYCTL, "status", *session.where], check=True, capture_output=True, text=True).stdout
    assert "LIVE" in status, status
    terminal.keys("q")
    terminal.is_restored("keys that do nothing without --allow-actions")


def every_pane(terminal):
    terminal.sees("base-id 3", "live", "Requests", "edge")
    for key, texts in [
        ("2", ("CLUSTER", "web", "dead")),
        ("3", ("LISTENER", "main")),
        ("4", ("THREAD", "worker_0", "worker_1")),
        ("5", ("GEN", "leads")),
        ("6", ("STAT", "cluster.dead.")),
        ("7", ("ACTION", "prefix /dead")),
        ("8", ("LINE", "GET /")),
        ("9", ("EVENT",)),
        ("1", ("Requests/s", "Errors by response flag")),
    ]:
        terminal.keys(key)
        terminal.sees(*texts)
    terminal.keys("Tab")
    terminal.sees("CLUSTER")
    terminal.keys("BTab")
    terminal.sees("Requests/s")
    print("all panes are shown")


def every_key(terminal):
    terminal.keys("2", "Down", "Enter")
    terminal.sees("HOST of", "127.0.0.1:")
    terminal.keys("Escape")
    terminal.sees("CLUSTER")
    terminal.keys("/")
    terminal.sees("enter keeps it")
    terminal.keys("w", "e", "x", "BSpace", "Enter")
    terminal.until(lambda screen: "/we" in screen and "dead  " not in screen, "only the cluster web")
    terminal.keys("Escape")
    terminal.sees("dead ")
    terminal.keys("<", ">", "Left", "Right", "r", "j", "k", "Up", "Down", "g", "G", "Home", "End", "PPage", "NPage")
    terminal.keys("Space")
    terminal.sees("paused")
    terminal.keys("Space")
    terminal.until(lambda screen: "paused" not in screen, "no pause")
    terminal.keys("b")
    terminal.sees("since ")
    terminal.keys("B")
    terminal.until(lambda screen: "since " not in screen, "no baseline")
    terminal.keys("+")
    terminal.sees("every 2s")
    terminal.keys("-", "-")
    terminal.sees("every 0.5s")
    terminal.keys("?")
    terminal.sees("panes; the mouse works too")
    terminal.keys("NPage", "Up", "Down", "PPage", "Escape")
    terminal.until(lambda screen: "the mouse works too" not in screen, "no help")
    terminal.keys("6", "/", "r", "q", "_", "t", "o", "t", "a", "l", "Enter", "p", "u", "Escape", "u", "p")
    terminal.sees("STAT")
    terminal.keys("8", ">", "<", "C-l", "[", "]", "{", "}", "i")
    terminal.sees("LINE")
    # A click on the second tab, as a terminal sends it.
    terminal.keys("2")
    terminal.tmux("send-keys", "-l", "\x1b[<0;3;3M\x1b[<0;3;3m\x1b[<64;3;6M\x1b[<65;3;6M")
    terminal.sees("CLUSTER")
    print("all keys do what they should")


def resizes(terminal):
    for columns, lines in [(120, 40), (60, 20), (200, 60), (80, 24)]:
        terminal.tmux("resize-window", "-x", str(columns), "-y", str(lines))
        said = "needs 80 x 24" if columns < 80 else "q quit"
        terminal.sees(said)
    print("every size is drawn")


def restarts(session, terminal):
    terminal.keys("5")
    terminal.sees("leads")
    leader = session.pids()[0]
    subprocess.run([PROXYCTL, "restart", "--hot", *session.where], check=True, capture_output=True)
    terminal.until(lambda screen: str(leader) not in screen or "ended" in screen, "the new generation")
    terminal.keys("9")
    terminal.sees("generation 2 leads")
    session.proxy.wait()
    for pid in session.pids():
        os.kill(pid, signal.SIGKILL)
    terminal.sees("dead", "was killed")
    terminal.keys("2")
    terminal.sees("web")
    session.start()
    terminal.sees(" live ")
    terminal.keys("9")
    terminal.sees("generation 2 was killed or has crashed", "starts, pid")
    print("a hot restart, a kill and a start were followed")


def actions(terminal):
    terminal.keys("a")
    terminal.sees("enter chooses")
    terminal.keys("Down", "Enter")
    terminal.sees("Fail health checks?")
    terminal.keys("n")
    terminal.sees("nothing was done")
    terminal.keys("a", "Down", "Enter", "y")
    terminal.sees("done", "draining")
    terminal.keys("a", "Down", "Down", "Enter", "y")
    terminal.sees("done", " live ")
    terminal.keys("a", "Down", "Down", "Down", "Enter")
    terminal.sees("critical")
    terminal.keys("Enter", "y")
    terminal.until(lambda screen: screen.rstrip().splitlines()[-1].startswith("done"), "the level to be set")
    print("actions are done after yes, and only then")


def generations(screen):
    """Numbers and states of the processes that have not ended, from their pane."""
    rows = re.findall(r"^(\d+) +(starts|leads|drains|ended|killed) ", screen, re.MULTILINE)
    return [(int(number), state) for number, state in rows if state != "ended"]


def restart_by_key(session, terminal):
    """A request that is under way keeps the old process until it is answered."""
    answers = []
    url = f"http://127.0.0.1:{session.port}/held"
    asking = threading.Thread(target=lambda: answers.append(urllib.request.urlopen(url, timeout=PATIENCE).read()), daemon=True)
    asking.start()
    assert session.held.arrived.wait(PATIENCE), "the request arrives"
    terminal.keys("5")
    (old, _), = generations(terminal.sees("STATE", "leads"))
    terminal.keys("a", "Down", "Down", "Down", "Down", "Enter")
    terminal.sees("Restart hot?")
    terminal.keys("y")
    terminal.sees("a new process leads, after")
    two = [(old, "drains"), (old + 1, "leads")]
    terminal.until(lambda screen: generations(screen) == two, f"the generations {two}")
    session.held.released.set()
    terminal.until(lambda screen: generations(screen) == two[1:], f"the generations {two[1:]}")
    asking.join(PATIENCE)
    assert answers == [b"ok"], "the request outlives the restart"
    session.proxy.wait()
    print("a hot restart by key: two generations, then one")


def drain_by_key(session, terminal):
    terminal.keys("a", "Enter")
    terminal.sees("Drain the listeners?")
    terminal.keys("n")
    terminal.sees("nothing was done")
    assert session.accepts(), "nothing is drained without yes"
    terminal.keys("a", "Enter", "y")
    terminal.sees("done")
    terminal.keys("9")
    terminal.sees("the drain time is over: ")
    assert not session.accepts(), "the listener has stopped"
    print("a drain by key: events show it")


def endings(session, terminal):
    terminal.keys("q")
    terminal.is_restored("q")
    for name in ["TERM", "INT", "HUP", "QUIT"]:
        terminal.line(f"clear; {session.top()}; echo ended with $?")
        terminal.sees("base-id 3", "live")
        pid = terminal.tmux("display", "-p", "#{pane_pid}").strip()
        top = subprocess.run(["pgrep", "-P", pid], capture_output=True, text=True, check=True).stdout.split()[0]
        number = getattr(signal, f"SIG{name}")
        os.kill(int(top), number)
        terminal.sees(f"ended with {128 + number}")
        terminal.is_restored(f"SIG{name}")
    terminal.line(f"clear; {session.top()}")
    terminal.sees("base-id 3", "live")
    terminal.keys("C-z")
    terminal.sees("shell>")
    terminal.is_restored("ctrl-z")
    terminal.line("fg")
    terminal.sees("base-id 3", "Requests/s")
    terminal.keys("C-c")
    terminal.is_restored("ctrl-c")


def panics(session, terminal):
    """Of the main thread in drawing, and of the threads that look and ask; see `fault.rs` of proxytop."""
    for place, key in [("DrawHelp", "?"), ("ChangeInterval", "+"), ("AskForMore", "7")]:
        terminal.line(f"clear; PROXYTOP_FAULT={place} {session.top()}; echo ended with $?")
        terminal.sees("base-id 3", "live")
        assert terminal.settings() != terminal.before, "the screen is up"
        terminal.keys(key)
        terminal.sees("panicked at", f"a fault was wanted: {place}", "ended with 101")
        terminal.is_restored(f"a panic at {place}")


def recording(session, terminal):
    terminal.line(f"clear; {session.top('--record', 'looks', '--interval', '0.2')}")
    terminal.sees("recording", "live")
    terminal.keys("Space")
    terminal.sees("paused")

    def times():
        with open(f"{session.directory}/looks", encoding="utf-8") as file:
            return [json.loads(line)["at_ms"] for line in file if line.endswith("\n")]

    first = len(times())
    terminal.until(lambda _: len(times()) >= first + 4, "looks in the file while the screen is paused")
    found = times()
    assert len(set(found)) == len(found), f"each look is recorded once, also during a pause: {found}"
    terminal.keys("q")
    terminal.is_restored("recording")
    terminal.line(f"clear; {PROXYTOP} --replay looks")
    terminal.sees("replay 1/")
    terminal.keys("]", "]")
    terminal.sees("replay 3/")
    terminal.keys("[")
    terminal.sees("replay 2/")
    terminal.keys("}")
    terminal.until(lambda screen: "replay 2/" not in screen, "the end of the recording")
    terminal.keys("q")
    terminal.is_restored("replay")


def run(directory):
    session = Session(directory)
    terminal = None
    try:
        terminal = Terminal(directory, 80, 24)
        terminal.line(f"cd {directory}")
        nothing_is_allowed(session, terminal)
        terminal.line(f"clear; {session.top('--allow-actions')}")
        every_pane(terminal)
        every_key(terminal)
        resizes(terminal)
        restarts(session, terminal)
        actions(terminal)
        restart_by_key(session, terminal)
        drain_by_key(session, terminal)
        endings(session, terminal)
        panics(session, terminal)
        recording(session, terminal)
        terminal.line(f"clear; NO_COLOR=1 {session.top('--ascii')}")
        assert terminal.sees("base-id 3", "Requests/s").isascii(), "only ASCII with --ascii"
        terminal.keys("q")
        terminal.is_restored("--ascii")
    finally:
        if terminal:
            terminal.close()
        session.end()
    print("a whole session: passed")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as own:
        run(own)
