"""Nothing dead: every module is imported by the product or is an entry point, and says what it is for."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from tests.house.source import PRODUCT, Source, expect_none, source_of, sources
from tests.house.test_imports import graph

# Started by name, or imported by users; each with who does it.
ENTRY_POINTS = {
    "cli.app": "the command `milon`",
    "cli.__main__": "`python -m milon_cli`",
    "milon.state.memory_store": "the twin of the store, for tests and simulations",
    "milon.p2p.memory_transport": "the twin of the transport, for tests and simulations",
    "milon.client.attack": "users: the attack lab",
    "milon.client.schedules": "users: schedules of learning rates",
}


def names_in_strings(files: Iterable[Source]) -> set[str]:
    """Modules named in a string, such as the program a worker process is started with."""
    return {
        node.value.replace("milon_cli", "cli", 1)
        for source in files
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(("milon", "cli."))
    }


def dead_modules(files: Iterable[Source]) -> list[str]:
    files = tuple(files)
    edges = graph(files)
    alive = set(ENTRY_POINTS) | names_in_strings(files) | {name for names in edges.values() for name in names}
    packages = {source.module for source in files if source.path.endswith("__init__.py")}
    return sorted(source.module for source in files if source.module not in alive | packages)


def silent(source: Source) -> Iterator[str]:
    """Modules, public functions and public classes at the top of a module that do not say what they are for."""
    if ast.get_docstring(source.tree) is None:
        yield f"{source.path}: opens without saying what it is for"
    for node in source.tree.body:
        is_definition = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if is_definition and not node.name.startswith("_") and ast.get_docstring(node) is None:
            yield f"{source.path}:{node.lineno}: {node.name} has no docstring"


def test_no_dead_modules() -> None:
    expect_none(dead_modules(sources(*PRODUCT)))


def test_everything_public_says_what_it_is_for() -> None:
    expect_none(finding for source in sources(*PRODUCT) for finding in silent(source))


def test_each_rule_finds_what_it_forbids() -> None:
    files = [
        source_of("", "milon/base/__init__.py"),
        source_of("from milon.base import used", "milon/base/lonely.py"),
        source_of("", "milon/base/used.py"),
        source_of("x = 'milon.base.named'", "cli/app.py"),
        source_of("", "milon/base/named.py"),
    ]
    assert dead_modules(files) == ["milon.base.lonely"]
    assert list(silent(source_of("def f(): ...")))
    assert len(list(silent(source_of('"""Said."""\ndef f(): ...\nclass C: ...\ndef _g(): ...')))) == 2
