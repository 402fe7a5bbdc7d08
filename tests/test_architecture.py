"""The architecture, written down once as data and compared with the imports that are in the files.

Change a table here when you mean to change the architecture, and say why in the commit.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Who may import whom at the top: each package itself, and what stands here.
PACKAGES: dict[str, set[str]] = {
    "appliance": {"control", "derp", "stun"},
    "control": set(),
    "derp": set(),
    "stun": set(),
}

# Inside appliance, main alone knows the three services; the rest gets callables and plain values from it. Three helpers
# of main translate: settings into the relay region that clients are given and into the limits of the parts, counters
# into what `status` shows.
COMPOSITION: dict[str, list[str]] = {
    "appliance.main": ["*"],
    "appliance.bounds": ["control.limits.*", "derp.limits.*"],
    "appliance.overview": ["derp.counters.*"],
    "appliance.region": ["control.tailcfg.*"],
}

# Inside control, downwards only: a module may import its own unit and the units of lower rows.
CONTROL: list[set[str]] = [
    {"service"},
    {"api", "duties"},
    {"machine"},
    {"admission", "login", "troubles"},
    {"mapper"},
    {"state"},
    {"model"},
    {"tailcfg"},
    {"capver", "dnsname", "keys", "prefixes", "secret"},
    {"limits", "errors"},
]
# Beside the rows: used by service and machine alone, and leaning on nothing but the lowest row and the keys.
BESIDE: dict[str, set[str]] = {"noise": {"errors", "limits", "keys"}}
USERS_OF_BESIDE = {"service", "machine"}

# No async, no trio, no clock, no log, no socket, no file: values in, values or one documented error out.
PURE = [
    "appliance.bounds",
    "appliance.config.check",
    "appliance.config.draft",
    "appliance.config.kinds",
    "appliance.config.load",
    "appliance.config.schema",
    "appliance.door.answers",
    "appliance.door.head",
    "appliance.door.limits",
    "appliance.door.names",
    "appliance.door.preauth",
    "appliance.door.proxy",
    "appliance.door.routes",
    "appliance.door.takeover",
    "appliance.errors",
    "appliance.printable",
    "appliance.tls.clienthello",
    "appliance.tls.limits",
    "control.capver",
    "control.dnsname",
    "control.errors",
    "control.keys",
    "control.limits",
    "control.machine.abuse",
    "control.machine.identity",
    "control.machine.presence",
    "control.machine.reports",
    "control.machine.request",
    "control.mapper.[!f]*",  # all but fanout, which wakes tasks
    "control.model",
    "control.noise.early",
    "control.noise.errors",
    "control.noise.handshake",
    "control.noise.records",
    "control.prefixes",
    "control.secret",
    "control.state.changes",
    "control.state.commands",
    "control.state.facts",
    "control.state.lookup",
    "control.state.naming",
    "control.state.registration",
    "control.state.rules",
    "control.state.volatile",
    "control.tailcfg.*",
    "derp.backlog",
    "derp.counters",
    "derp.errors",
    "derp.frames",
    "derp.handshake",
    "derp.limits",
    "derp.relay",
    "derp.wheel",
    "stun.errors",
    "stun.limits",
    "stun.message",
]
IMPURE_IMPORTS = {
    "asyncio", "logging", "os", "pathlib", "queue", "random", "select", "selectors", "socket", "sqlite3", "ssl",
    "subprocess", "threading", "time", "trio",
}  # fmt: skip
CLOCKS = {"now", "utcnow", "today"}  # datetime's; a pure module takes `now` as an argument

# A third-party package has an owner: the modules that alone may import it. Replacing it is a change there.
OWNERS: dict[str, list[str]] = {
    "hypercorn": ["appliance.door.asgi"],
    "quart": ["appliance.door.asgi", "appliance.pages.*"],
    "quart_trio": ["appliance.door.*", "appliance.pages.*"],
    "h11": ["appliance.door.*", "appliance.socket_api"],
    "wsproto": ["appliance.door.websocket"],
    "h2": ["control.machine.http2", "control.machine.writer"],
    "nacl": ["derp.handshake"],
    "cryptography": ["appliance.server_keys", "appliance.tls.*", "control.noise.*", "control.service"],
    "sqlite_utils": ["control.state.*"],
    "sqlite3": ["control.state.*"],
    "click": ["appliance.cli.*"],
    "msgspec": ["control.*", "derp.handshake"],
    "backports": ["control.mapper.encode"],
}

# The fields of log lines: one word per thing, whoever writes the line. A text is constant, so that lines of a kind can be
# counted and limited (appliance/logs.py); whatever a client or a person chose is a field, where it is escaped and cut.
LOG_FIELDS = {
    "changes": "how many were given up",
    "command": "the name of a command of control/state/commands.py",
    "conn": "a relay connection, while it is open",
    "expires": "RFC 3339",
    "hint": "what the operator can do; every WARNING has one",
    "host": "a name in DNS",
    "limit": "bytes",
    "login": "the id of a login that waits for a person",
    "machine": "a machine key in its short form",
    "node": "a node's id",
    "node_key": "in the form that clients log",
    "node_name": "a node's name",
    "nodes": "ids",
    "path": "of a request, without its query",
    "reason": "why",
    "received": "bytes",
    "remote": "the address of the other end: lines are limited per network of it",
    "seconds": "how long",
    "sent": "bytes",
    "signal": "its name",
    "uid": "a user of this machine",
}
LOG_METHODS = {"log", "debug", "info", "warning", "error", "exception", "critical"}

# A command that only talks to the running server starts in under 200 ms, so it imports none of these at its top.
FAST = "appliance.__main__"
HEAVY = {
    "trio",
    "quart",
    "quart_trio",
    "hypercorn",
    "h2",
    "nacl",
    "cryptography",
    "sqlite_utils",
    "control",
    "derp",
    "stun",
}


def modules() -> dict[str, Path]:
    """Every module of the four packages: dotted name → file."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(), str(MODULES[name]))


def imported(name: str, nodes: Iterator[ast.AST]) -> Iterator[tuple[str, int]]:
    """What the nodes import, as full dotted names (a module, or a name in one), and the line."""
    package = name if MODULES[name].stem == "__init__" else name.rpartition(".")[0]
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            origin = node.module or ""
            if node.level:
                base = package.split(".")[: len(package.split(".")) - node.level + 1]
                origin = ".".join([*base, *([origin] if origin else [])])
            for alias in node.names:
                yield f"{origin}.{alias.name}", node.lineno


def imports(name: str) -> list[tuple[str, int]]:
    """All imports of a module, those inside functions and under TYPE_CHECKING too: they are knowledge as well."""
    return list(imported(name, ast.walk(tree(name))))


def at_start(name: str) -> Iterator[ast.AST]:
    """The statements that run when the module is imported."""
    waiting: list[ast.AST] = list(tree(name).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


def place(name: str, line: int) -> str:
    return f"{MODULES[name].relative_to(ROOT)}:{line}"


def matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def row(unit: str) -> int | None:
    return next((number for number, units in enumerate(CONTROL) if unit in units), None)


def test_packages_import_only_what_the_table_allows() -> None:
    wrong = [
        f"{place(name, line)} imports {target}"
        for name in MODULES
        for target, line in imports(name)
        if (top := target.split(".")[0]) in PACKAGES
        and top != (own := name.split(".")[0])
        and not (top in PACKAGES[own] and matches(target, COMPOSITION.get(name, [])))
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_in_the_product_imports_the_tests() -> None:
    wrong = [
        place(name, line)
        for name in MODULES
        for target, line in imports(name)
        if target.split(".")[0] == "tests"
    ]
    assert not wrong, "\n".join(wrong)


def test_every_unit_of_control_has_its_row() -> None:
    units = {name.split(".")[1] for name in MODULES if name.startswith("control.")}
    homeless = {unit for unit in units if row(unit) is None and unit not in BESIDE}
    assert not homeless, f"not in the table CONTROL: {homeless}"


def allowed_in_control(unit: str, target: str) -> bool:
    if unit == target:
        return True
    if unit in BESIDE:
        return target in BESIDE[unit]
    if target in BESIDE:
        return unit in USERS_OF_BESIDE
    above, below = row(unit), row(target)
    return above is not None and below is not None and above < below


def test_control_imports_downwards_only() -> None:
    wrong = []
    for name in MODULES:
        if not name.startswith("control."):
            continue
        unit = name.split(".")[1]
        for target, line in imports(name):
            parts = target.split(".")
            if parts[0] == "control" and len(parts) > 1 and not allowed_in_control(unit, parts[1]):
                wrong.append(f"{place(name, line)} imports {target}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", [name for name in MODULES if matches(name, PURE)])
def test_pure_module_stays_pure(name: str) -> None:
    wrong = [
        f"{place(name, line)} imports {target}"
        for target, line in imports(name)
        if target.split(".")[0] in IMPURE_IMPORTS
    ]
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            wrong.append(f"{place(name, node.lineno)} is async")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS:
            wrong.append(f"{place(name, node.lineno)} reads the clock")
    assert not wrong, "\n".join(wrong)


def test_pure_modules_import_no_impure_ones_of_ours() -> None:
    wrong = []
    for name in MODULES:
        if not matches(name, PURE):
            continue
        for target, line in imports(name):
            module = target if target in MODULES else target.rpartition(".")[0]
            package = MODULES.get(module)
            if package and package.stem != "__init__" and not matches(module, PURE):
                wrong.append(f"{place(name, line)} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_every_row_of_the_pure_table_names_something() -> None:
    idle = [pattern for pattern in PURE if not any(fnmatchcase(name, pattern) for name in MODULES)]
    assert not idle, f"no such module: {idle}"


@pytest.mark.parametrize("package", sorted(OWNERS))
def test_third_party_package_is_imported_by_its_owner_only(package: str) -> None:
    wrong = [
        f"{place(name, line)} imports {target}"
        for name in MODULES
        for target, line in imports(name)
        if target.split(".")[0] == package and not matches(name, OWNERS[package])
    ]
    assert not wrong, "\n".join(wrong)


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    for name in MODULES:
        for node in ast.walk(tree(name)):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="log" | "logger"), attr=method)):
                    if method in LOG_METHODS:
                        yield place(name, node.lineno), node


def test_the_text_of_a_log_line_is_constant() -> None:
    """G2: lines are limited by their kind, and nobody's input is in a text."""
    wrong = [
        where
        for where, call in log_calls()
        if len(call.args) != (2 if isinstance(call.func, ast.Attribute) and call.func.attr == "log" else 1)
        or not isinstance(call.args[-1], ast.Constant)
        or not {keyword.arg for keyword in call.keywords} <= {"extra", "exc_info"}
    ]
    assert not wrong, "\n".join(wrong)


def test_log_fields_are_in_the_table() -> None:
    """Those that stand in the call itself, and so most of them."""
    used: set[str] = set()
    for _, call in log_calls():
        for keyword in call.keywords:
            for node in ast.walk(keyword.value):
                if isinstance(node, ast.Dict):
                    used |= {str(key.value) for key in node.keys if isinstance(key, ast.Constant)}
    assert used <= LOG_FIELDS.keys(), used - LOG_FIELDS.keys()
    assert not LOG_FIELDS.keys() & vars(logging.makeLogRecord({})).keys(), "logging would refuse these"


@pytest.mark.parametrize("package", [name for name in MODULES if MODULES[name].stem == "__init__"])
def test_a_package_says_what_is_in_it(package: str) -> None:
    """Its docstring is the map: every module and folder of it is named there."""
    text = ast.get_docstring(tree(package)) or ""
    inside = [name for name in MODULES if name.rpartition(".")[0] == package]
    names = [
        MODULES[name].parent.name + "/" if MODULES[name].stem == "__init__" else MODULES[name].name
        for name in inside
    ]
    assert not [name for name in names if name not in text]


def test_client_commands_import_nothing_heavy() -> None:
    reached: dict[str, str] = {FAST: ""}
    waiting = [FAST]
    wrong = []
    while waiting:
        name = waiting.pop()
        for target, line in imported(name, at_start(name)):
            if target.split(".")[0] in HEAVY:
                wrong.append(f"{place(name, line)} imports {target}")
            for module in (target, target.rpartition(".")[0]):
                if module in MODULES and module not in reached:
                    reached[module] = name
                    waiting.append(module)
    assert not wrong, "\n".join(wrong)
