"""Who may import whom: the table of the architecture, as data, held against every import statement."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.tidy.tree import PACKAGES, ROOT, files, module_name, parse

IMPURE = frozenset(
    "asyncio concurrent ctypes http logging multiprocessing os queue secrets select selectors shutil signal"
    " socket sqlite3 ssl subprocess sys tempfile threading time urllib uuid".split()
)
"""Parts of the standard library that reach for the world: no core imports them."""

ENGINE_CORE = " ".join(
    f"node.engine.{name}"
    for name in (
        "accounts blocks constraint core detokenizer door errands guess plan pool scheduler sequence serving speed"
        " text toy"
    ).split()
)
HEAVY = ("torch", "triton", "kernels", "safetensors", "tokenizers", "transformers", "numpy")


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


@attrs.frozen
class Room:
    """A part of the tree and what it may import beside the standard library."""

    name: str
    where: tuple[str, ...] = attrs.field(converter=words)
    """Modules, or packages with a trailing dot for all below; the first room that fits a file is its room."""
    may: tuple[str, ...] = attrs.field(converter=words)
    """Modules or packages that it may import, with what is in them."""
    never: tuple[str, ...] = attrs.field(converter=words, default="")
    """Exceptions to `may`."""
    pure: bool = False


# fmt: off
ROOMS = (
    Room("mesh shells", "mesh.net.", "attrs trio mesh"),
    Room("mesh codec", "mesh.codec mesh.wire", "attrs msgpack mesh", "mesh.net", pure=True),
    Room("mesh seal", "mesh.seal mesh.sessions mesh.keyring mesh.authority",
         "attrs cryptography mesh", "mesh.net", pure=True),
    Room("mesh cores", "mesh.", "attrs mesh", "mesh.net", pure=True),
    Room("kernels", "kernels.", "attrs numpy torch triton kernels"),
    Room("node cores", "node.core node.switchboard node.policy.",
         "attrs mesh node.core node.errors node.policy node.switchboard", "mesh.net", pure=True),
    Room("engine cores", ENGINE_CORE, f"attrs mesh {ENGINE_CORE}", "mesh.net", pure=True),
    Room("engine", "node.engine.",
         "attrs jinja2 kernels llguidance mesh node.engine node.logs numpy safetensors tokenizers torch", "mesh.net"),
    Room("client", "node.client.", "attrs httpx2 node.client"),
    Room("errors", "node.errors", "attrs", pure=True),
    Room("settings", "node.values node.settings node.version", "attrs node.values"),
    Room("shells", "node.", "attrs httptools mesh msgpack node prometheus_client trio trio_websocket wsproto",
         "node.engine node.client"),
    Room("simulator", "sim.", f"attrs matplotlib mesh node.core node.errors node.policy sim {ENGINE_CORE}", "mesh.net"),
)
# fmt: on
"""Architecture, section 4. A module of ours or of others that no row allows is forbidden."""


def within(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(place + ".") for place in places)


def room_of(module: str) -> Room | None:
    for room in ROOMS:
        if any(module == p or (p.endswith(".") and f"{module}.".startswith(p)) for p in room.where):
            return room
    return None


def imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Yield the dotted name of everything imported anywhere in a module; `from a import b` yields `a.b`."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module, names, level):
                above = package.split(".")[: len(package.split(".")) - level + 1] if level else []
                base = ".".join([*above, *([module] if module else [])])
                yield from (f"{base}.{alias.name}" for alias in names)
            case ast.Call(
                ast.Name("__import__") | ast.Attribute(attr="import_module"), [ast.Constant(str(name))]
            ):
                yield name


def objections(module: str, tree: ast.Module, *, is_package: bool = False) -> list[str]:
    """Return what a module imports against the table."""
    room = room_of(module)
    if room is None:
        return [f"{module} is in no room of the table"]
    package = module if is_package else module.rpartition(".")[0]
    return [
        f"{module} ({room.name}) imports {name}"
        for name in imported(tree, package)
        if not allowed(room, name)
    ]


def allowed(room: Room, name: str) -> bool:
    top = name.split(".")[0]
    if top in sys.stdlib_module_names:
        return not (room.pure and top in IMPURE)
    return within(name, room.may) and not within(name, room.never)


@pytest.mark.parametrize("path", [*files(*PACKAGES)], ids=str)
def test_a_module_imports_only_what_its_room_may(path: Path):
    assert objections(module_name(path), parse(path), is_package=path.name == "__init__.py") == []


@pytest.mark.parametrize("package", ["mesh", "node", "node/policy", "node/engine", "sim", "kernels"])
def test_package_files_import_nothing(package: str):
    """So that importing a pure module pulls in nothing else. (`kernels` may list its kernels.)"""
    tree = parse(Path(package) / "__init__.py")
    assert package == "kernels" or [*imported(tree, package)] == []


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("mesh.swim", "import trio"),
        ("mesh.swim", "import time"),
        ("mesh.swim", "from mesh import net"),
        ("mesh.swim", "from mesh.net.udp import Socket"),
        ("mesh.swim", "import msgpack"),
        ("mesh.swim", "from .net import udp"),
        ("mesh.swim", "def later():\n    import node.app"),
        ("mesh.net.udp", "import node.core"),
        ("kernels.rope", "from mesh import link"),
        ("node.core", "from node.driver import Driver"),
        ("node.core", "import trio"),
        ("node.policy.admission", "import torch"),
        ("node.engine.scheduler", "import torch"),
        ("node.engine.scheduler", "from node.engine import runner"),
        ("node.engine.runner", "import trio"),
        ("node.engine.runner", "from node.http import server"),
        ("node.http.server", "import torch.nn"),
        ("node.app", "import importlib\nimportlib.import_module('torch')"),
        ("node.app", "import sim.world"),
        ("node.app", "from node.engine import runner"),
        ("node.settings", "import trio"),
        ("sim.world", "import trio"),
        ("sim.world", "from node import driver"),
        ("sim.world", "from node.engine import runner"),
        ("other.thing", "import os"),
    ],
)
def test_the_check_objects_to(module: str, code: str):
    assert objections(module, ast.parse(code)) != []


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("mesh.swim", "import random, attrs\nfrom mesh import wire"),
        ("mesh.codec", "import msgpack"),
        ("node.core", "from mesh.flight import Flight\nfrom node.policy import admission"),
        ("node.engine.runner", "import torch\nfrom kernels import rope\nfrom mesh import frames"),
        (
            "sim.world",
            "from node.engine.toy import Toy\nfrom node.core import NodeCore\nfrom mesh import swim",
        ),
        ("node.app", "import socket, trio\nfrom mesh.net import udp"),
    ],
)
def test_the_check_allows(module: str, code: str):
    assert objections(module, ast.parse(code)) == []


def loaded_by(modules: list[str], watched: tuple[str, ...]) -> str:
    """Import modules in a fresh process; return which of the watched packages came with them."""
    code = f"import sys, {', '.join(modules)}; print(*(set({watched!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def modules_of(*rooms: str) -> list[str]:
    return [module_name(path) for path in files(*rooms) if path.name not in ("__main__.py", "__init__.py")]


def test_the_simulator_loads_neither_trio_nor_torch():
    assert loaded_by(["sim", *modules_of("sim")], ("trio", "torch", "kernels")) == ""


def test_the_control_process_never_loads_torch():
    modules = [m for m in modules_of("node", "mesh") if not m.startswith("node.engine")]
    assert loaded_by(modules, HEAVY) == ""


def test_the_loading_check_sees_what_is_loaded():
    assert loaded_by(["json", "sqlite3"], ("sqlite3", "trio")) == "sqlite3"
