"""Who may import whom: each outside library in one place, rooms only downwards, no circles, pure rooms pure."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter

from tests.house.source import PRODUCT, ROOT, Source, expect_none, imports, source_of, sources, top

# Where each outside library may be met: files, or folders with a slash at the end.
HOMES = {
    "cbor2": ("milon/base/codec.py",),
    "nacl": ("milon/base/signing.py",),
    "lmdb": ("milon/state/lmdb_store.py",),
    "libp2p": ("milon/p2p/seam/", "milon/p2p/libp2p_"),
    "multiaddr": ("milon/p2p/seam/", "milon/p2p/libp2p_"),
    "torch": ("milon/gpu/", "milon/client/"),
    "numpy": ("milon/gpu/", "milon/client/"),
    "numba": ("milon/gpu/kernels_",),
    "llvmlite": ("milon/gpu/kernels_",),
    "safetensors": ("milon/gpu/", "milon/client/"),
    "starlette": ("milon/api/",),
    "hypercorn": ("milon/api/",),
    "psutil": ("milon/node/workers.py",),
    "httpx": ("milon/client/",),
    "typer": ("cli/",),
    "rich": ("cli/",),
    "trio": ("milon/p2p/", "milon/node/", "milon/api/", "milon/client/", "cli/"),
}

# The table of the plan: a room and what it may import besides itself.
ROOMS = {
    "base": (),
    "pol": ("base",),
    "chain": ("pol", "base"),
    "state": ("chain", "base"),
    "contracts": ("state", "pol", "chain", "base"),
    "consensus": ("contracts", "state", "chain", "base"),
    "gpu": ("pol", "base"),
    "p2p": ("base",),
    "node": ("consensus", "contracts", "state", "pol", "chain", "base", "p2p"),
    "api": ("node", "chain", "base"),
    "client": ("gpu", "pol", "chain", "base"),
    "cli": ("client", "api", "node", "chain", "base"),
}
STATE_VALUES_ONLY = ("contracts", "consensus")  # these see values of `state`, never a store on disk

NOT_IN_PURE_ROOMS = {
    "trio", "libp2p", "lmdb", "torch", "numpy", "socket", "random", "time", "os", "pathlib", "logging", "asyncio",
    "threading", "secrets", "subprocess", "multiprocessing", "datetime", "uuid", "tempfile", "shutil", "sys", "io",
}  # fmt: skip


def misplaced_libraries(source: Source) -> Iterator[str]:
    for line, name in imports(source):
        library = top(name)
        homes = HOMES.get(library)
        if homes is None and library not in sys.stdlib_module_names and library not in ("milon", "cli", "milon_cli"):
            yield f"{source.path}:{line}: {library} has no home in this house"
        elif homes is not None and not source.path.startswith(homes):
            yield f"{source.path}:{line}: {library} is met only in {', '.join(homes)}"


def room_of(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "milon":
        return parts[1] if len(parts) > 1 else ""
    return "cli" if parts[0] in ("cli", "milon_cli") else ""


def forbidden_rooms(source: Source) -> Iterator[str]:
    for line, name in imports(source):
        room = room_of(name)
        if not source.room or room in ("", source.room) or room not in ROOMS:
            continue
        if room not in ROOMS[source.room]:
            yield f"{source.path}:{line}: {source.room} must not import {room}"
        if source.room in STATE_VALUES_ONLY and name.startswith("milon.state.lmdb_store"):
            yield f"{source.path}:{line}: {source.room} sees values of state, not the store on disk"
        if source.room == "api" and room == "node" and not name.startswith("milon.node.view"):
            yield f"{source.path}:{line}: api sees only the node's view"


def impure_imports(source: Source) -> Iterator[str]:
    if source.is_pure:
        for line, name in imports(source):
            if top(name) in NOT_IN_PURE_ROOMS:
                yield f"{source.path}:{line}: a pure room never imports {top(name)}"


def graph(files: Iterable[Source]) -> dict[str, set[str]]:
    """Module to the modules of this house it imports, wherever the import stands."""
    files = tuple(files)
    known = {source.module for source in files}

    def owner(name: str) -> str | None:
        while name and name not in known:
            name = name.rpartition(".")[0]
        return name or None

    found = {source.module: {owner(name) for _, name in imports(source)} for source in files}
    return {module: {name for name in names if name and name != module} for module, names in found.items()}


def circle(edges: dict[str, set[str]]) -> str:
    """One circle of imports in words, or nothing."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return " -> ".join(error.args[1])
    return ""


def test_each_library_is_met_in_one_place() -> None:
    expect_none(finding for source in sources(*PRODUCT) for finding in misplaced_libraries(source))


def test_rooms_import_only_downwards() -> None:
    expect_none(finding for source in sources(*PRODUCT) for finding in forbidden_rooms(source))


def test_pure_rooms_import_nothing_that_acts() -> None:
    expect_none(finding for source in sources(*PRODUCT) for finding in impure_imports(source))


def test_no_circles() -> None:
    assert circle(graph(sources(*PRODUCT))) == ""


def test_the_import_contracts_hold() -> None:
    """The contracts of pyproject.toml, which also see indirect imports."""
    lint = "from importlinter.cli import lint_imports; import sys; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", lint], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_nodes_process_never_loads_torch() -> None:
    """Neither the node nor the command line at start-up: five nodes share two cores and little memory."""
    light = [source.module for source in sources("milon") if source.room in ("node", "p2p", "api", *NO_TORCH_BELOW)]
    if (ROOT / "cli" / "app.py").exists():
        light.append("milon_cli.app")
    program = (
        "import importlib, sys\n"
        f"for name in {light!r}:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'torch', 'numba', 'sklearn'} & set(sys.modules)\n"
        "    assert not heavy, f'{name} loads {sorted(heavy)}'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]


NO_TORCH_BELOW = ("base", "pol", "chain", "state", "contracts", "consensus")


# ---- the rules themselves can fail ----


def test_each_rule_finds_what_it_forbids() -> None:
    assert list(misplaced_libraries(source_of("import cbor2", "milon/chain/block.py")))
    assert list(misplaced_libraries(source_of("def f():\n    from torch import nn", "milon/node/runner.py")))
    assert list(misplaced_libraries(source_of("import flask", "milon/api/server.py")))
    assert not list(misplaced_libraries(source_of("import cbor2", "milon/base/codec.py")))
    assert list(forbidden_rooms(source_of("from milon.node import view", "milon/consensus/engine.py")))
    assert list(forbidden_rooms(source_of("from ..node import view", "milon/consensus/engine.py")))
    assert list(forbidden_rooms(source_of("from milon.state.lmdb_store import LmdbStore", "milon/contracts/apply.py")))
    assert list(forbidden_rooms(source_of("from milon.node.runner import Runner", "milon/api/routes.py")))
    assert not list(forbidden_rooms(source_of("from milon.node.view import Snapshot", "milon/api/routes.py")))
    assert list(impure_imports(source_of("import time", "milon/consensus/engine.py")))
    assert not list(impure_imports(source_of("import os", "milon/state/lmdb_store.py")))
    round_trip = [
        source_of("from milon.base.b import x", "milon/base/a.py"),
        source_of("def f():\n    from milon.base import a", "milon/base/b.py"),
    ]
    assert circle(graph(round_trip)) and not circle(graph(round_trip[:1]))
