#!/usr/bin/env python3
"""The JSON Schema that proxyctl prints, as an editor sees it: through the language server that most editors use for YAML.

    npm install yaml-language-server
    tests/peers/schema_in_editor.py target/debug/proxyctl config-examples node_modules/yaml-language-server/bin/yaml-language-server

Good examples have no complaints but of what is deprecated, mistakes have theirs at their place, and within a typed_config the
fields of its type are offered. Exit status 1 when something differs.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

proxyctl, examples, server = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
folder = tempfile.TemporaryDirectory()
schema = pathlib.Path(folder.name) / "schema.json"
schema.write_bytes(subprocess.run([proxyctl, "config", "schema"], check=True, capture_output=True).stdout)
MODELINE = f"# yaml-language-server: $schema=file://{schema}\n"


class Editor:
    """Speaks the Language Server Protocol over standard input and output."""

    def __init__(self):
        command = ["node", server, "--stdio"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.asked = 0
        self.ask("initialize", {"processId": None, "rootUri": None, "capabilities": {}})
        self.send({"method": "initialized", "params": {}})

    def send(self, message):
        content = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(content), content))
        self.process.stdin.flush()

    def receive(self):
        length = 0
        while line := self.process.stdout.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        if not length:
            sys.exit("the language server ended")
        return json.loads(self.process.stdout.read(length))

    def until(self, wanted):
        """The first message that is wanted; what the server asks for meanwhile is answered."""
        while True:
            message = self.receive()
            if "method" in message and "id" in message:
                items = message["params"].get("items", []) if message["method"] == "workspace/configuration" else []
                settings = {"validate": True, "completion": True}
                answer = [settings if item.get("section") == "yaml" else {} for item in items]
                self.send({"id": message["id"], "result": answer or None})
            elif wanted(message):
                return message

    def ask(self, method, params):
        self.asked += 1
        self.send({"id": self.asked, "method": method, "params": params})
        return self.until(lambda message: message.get("id") == self.asked and "method" not in message)["result"]

    def open(self, name, text):
        """Shows a file; gives what is complained of, as line (from 1) and text."""
        uri = f"file://{folder.name}/{name}"
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": MODELINE + text}
        self.send({"method": "textDocument/didOpen", "params": {"textDocument": document}})
        told = self.until(
            lambda message: message.get("method") == "textDocument/publishDiagnostics" and message["params"]["uri"] == uri
        )
        # The modeline is the first line.
        return [(one["range"]["start"]["line"], one["message"]) for one in told["params"]["diagnostics"]]

    def offered(self, name, line, column):
        """What is offered in this line (from 1) and column (from 0) of an open file."""
        position = {"line": line, "character": column}
        answer = self.ask(
            "textDocument/completion", {"textDocument": {"uri": f"file://{folder.name}/{name}"}, "position": position}
        )
        return {item["label"] for item in answer["items"]}


editor = Editor()
failures = []
files = sorted((examples / "ok").glob("*.yaml"))
for path in files:
    for line, text in editor.open(path.name, path.read_text()):
        if "is deprecated" not in text:
            failures.append(f"{path.name}:{line}: {text}")

MISTAKES = {
    "admin: {address: 127.0.0.1:80}\n": [(1, "Incorrect type")],
    "node: {id: a}\nlisteners: []\n": [(2, "listeners is not allowed")],
    "static_resources:\n  clusters:\n  - name: a\n    connect_timeout: 5\n    type: STATICC\n": [
        (4, "Incorrect type"),
        (5, "Value is not accepted"),
    ],
}
for index, (text, expected) in enumerate(MISTAKES.items()):
    told = editor.open(f"mistake-{index}.yaml", text)
    for line, words in expected:
        if not any(at == line and words in said for at, said in told):
            failures.append(f"{text!r}: no complaint of {words!r} in line {line}: {told}")
    if len(told) != len(expected):
        failures.append(f"{text!r}: {told}")

FILTER = """static_resources:
  listeners:
  - name: a
    filter_chains:
    - filters:
      - name: x
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          
"""
editor.open("offered.yaml", FILTER)
offered = editor.offered("offered.yaml", 9, 10)
if not {"stat_prefix", "cluster", "max_connect_attempts"} <= offered or "route_config" in offered:
    failures.append(f"offered for tcp_proxy: {sorted(offered)}")

print("\n".join(failures))
print(f"{len(files)} good examples, {len(MISTAKES)} with mistakes, {len(offered)} fields offered: {len(failures)} wrong")
editor.process.terminate()
sys.exit(bool(failures))
