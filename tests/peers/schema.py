#!/usr/bin/env python3
"""The JSON Schema that proxyctl prints, held against a public validator: schema.py PROXYCTL EXAMPLES

The schema is one; every good example is valid, in its own spelling and with the names of its fields in camelCase; every typical
mistake in one is refused, and so are the bad examples whose mistake is one of form. Needs jsonschema and PyYAML.
"""
import copy
import json
import pathlib
import re
import subprocess
import sys

import jsonschema
import yaml

proxyctl, examples = sys.argv[1], pathlib.Path(sys.argv[2])
schema = json.loads(subprocess.run([proxyctl, "config", "schema"], check=True, capture_output=True).stdout)
jsonschema.Draft7Validator.check_schema(schema)
validator = jsonschema.Draft7Validator(schema)
failures = []


def first_error(config):
    errors = validator.iter_errors(config)
    error = jsonschema.exceptions.best_match(errors)
    return error and f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}"


def camel_case(value):
    """With every field's other name. Keys of maps are left alone: those have capitals, dots or dashes, or are of a Struct."""
    if isinstance(value, list):
        return [camel_case(item) for item in value]
    if not isinstance(value, dict):
        return value
    other = lambda key: re.sub("_([a-z0-9])", lambda found: found[1].upper(), key)
    return {other(key): item if key in STRUCTS else camel_case(item) for key, item in value.items()}


STRUCTS = {"static_layer", "json_format", "filter_metadata", "typed_extension_protocol_options", "typed_per_filter_config"}

good = {path.name: yaml.safe_load(path.read_text()) for path in sorted((examples / "ok").glob("*.yaml"))}
for name, config in good.items():
    for spelled, content in (("as it is", config), ("in camelCase", camel_case(config))):
        error = first_error(content)
        if error:
            failures.append(f"{name} {spelled}: refused: {error}")

edge = good["01-edge-proxy.yaml"]


def listener(config):
    return config["static_resources"]["listeners"][0]


def manager(config):
    return listener(config)["filter_chains"][0]["filters"][0]["typed_config"]


def route(config):
    return manager(config)["route_config"]["virtual_hosts"][0]["routes"][0]


def cluster(config):
    return config["static_resources"]["clusters"][0]


MISTAKES = {
    "a field that does not exist": lambda c: manager(c).update(stat_prefixx="a"),
    "a field of v2": lambda c: cluster(c).update(hosts=[]),
    "a field that is not supported": lambda c: c.update(perf_tracing_file_path="a"),
    "a number for a duration": lambda c: cluster(c).update(connect_timeout=5),
    "milliseconds": lambda c: cluster(c).update(connect_timeout="500ms"),
    "no @type": lambda c: manager(c).pop("@type"),
    "a type of v2": lambda c: manager(c).update({"@type": "type.googleapis.com/envoy.config.filter.network.http_connection_manager.v2.HttpConnectionManager"}),
    "a type that does not exist": lambda c: manager(c).update({"@type": "type.googleapis.com/envoy.Nothing"}),
    "no stat_prefix": lambda c: manager(c).pop("stat_prefix"),
    "an enum value that does not exist": lambda c: cluster(c).update(type="STATICC"),
    "a port in quotes": lambda c: listener(c)["address"]["socket_address"].update(port_value="80"),
    "a port out of range": lambda c: listener(c)["address"]["socket_address"].update(port_value=65536),
    "a mapping for a list": lambda c: c["static_resources"].update(clusters={}),
    "a list for a mapping": lambda c: c.update(admin=[]),
    "an empty value": lambda c: route(c).update(route=None),
    "no match": lambda c: route(c).pop("match"),
    "two actions": lambda c: route(c).update(direct_response={"status": 200}, route={"cluster": "a"}),
    "two kinds of path": lambda c: route(c)["match"].update(path="/a", prefix="/"),
    "a virtual host without domains": lambda c: manager(c)["route_config"]["virtual_hosts"][0].pop("domains"),
    "an address in one piece": lambda c: listener(c).update(address="127.0.0.1:80"),
    "yes in quotes": lambda c: manager(c).update(use_remote_address="yes"),
}
for name, mistake in MISTAKES.items():
    config = copy.deepcopy(edge)
    mistake(config)
    if not first_error(config):
        failures.append(f"{name}: accepted")

FORM = set(
    "unknown-field removed-field unknown-type removed-type bad-type-url missing-type unknown-enum-value type-mismatch needs-quotes "
    "bad-duration unsupported-field unsupported-type".split()
)
refused = 0
for path in sorted((examples / "bad").glob("*.yaml")):
    first = path.read_text().splitlines()[0]
    codes = {part.split(" at ")[0] for part in first.removeprefix("# expect: ").split(", ")}
    if not codes & FORM or "# With " in path.read_text():
        continue
    try:
        config = yaml.safe_load(path.read_text())
    except yaml.YAMLError:
        continue
    if first_error(config):
        refused += 1
    else:
        failures.append(f"bad/{path.name} ({', '.join(sorted(codes & FORM))}): accepted")

print("\n".join(failures))
size = len(json.dumps(schema)) // 1024
print(
    f"{len(schema['definitions'])} definitions, {size} KiB; {len(good)} good examples, {len(MISTAKES)} mistakes and "
    f"{refused} bad examples: {len(failures)} wrong"
)
sys.exit(bool(failures))
