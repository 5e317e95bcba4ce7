"""The repository's own source as syntax trees, for the tests that hold the rules of the house."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRODUCT = ("milon", "cli")
PYTHON_FOLDERS = (*PRODUCT, "tests", "bench", "examples", "scripts")
PURE_ROOMS = ("base", "chain", "pol", "state", "contracts", "consensus")
SHELLS_IN_PURE_ROOMS = ("milon/state/lmdb_store.py", "milon/state/lmdb_folder.py")


@dataclass(frozen=True, slots=True)
class Source:
    """One Python file."""

    path: str  # from the repository's root, with forward slashes
    text: str  # its content
    tree: ast.Module  # its syntax tree

    @property
    def module(self) -> str:
        """The name it is imported by; `cli/` counts as the package `cli`."""
        name = self.path.removesuffix(".py").replace("/", ".")
        return name.removesuffix(".__init__")

    @property
    def room(self) -> str:
        """The room of `milon` it lies in, or `cli`; empty for the package's own files and for everything else."""
        parts = self.path.split("/")
        if parts[0] == "cli":
            return "cli"
        return parts[1] if parts[0] == "milon" and len(parts) > 2 else ""

    @property
    def is_pure(self) -> bool:
        """Whether the rules for pure rooms hold for it."""
        return self.room in PURE_ROOMS and self.path not in SHELLS_IN_PURE_ROOMS


def source_of(text: str, path: str = "milon/base/sample.py") -> Source:
    """A file that is not on disk, to try a rule on."""
    return Source(path, text, ast.parse(text))


@cache
def sources(*folders: str) -> tuple[Source, ...]:
    """All Python files below the given folders of the repository that exist."""
    return tuple(
        source_of(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "__pycache__" not in path.parts
    )


def expect_none(findings: Iterable[str]) -> None:
    """Fail with all findings, one a line, if there are any."""
    found = sorted(findings)
    assert not found, "\n" + "\n".join(found)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function, nested ones too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def dotted(node: ast.AST) -> str:
    """`a.b.c` for a name or a chain of attributes; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        below = dotted(node.value)
        return f"{below}.{node.attr}" if below else ""
    return ""


def last_name(node: ast.AST) -> str:
    """`c` for `a.b.c`, and for `f().c` too; empty where there is no name."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of every import, wherever it stands; `from a import b` gives `a.b`."""
    package = source.module if source.path.endswith("__init__.py") else source.module.rpartition(".")[0]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for name in node.names:
                yield node.lineno, f"{base}.{name.name}"


def top(name: str) -> str:
    """The first part of a dotted name."""
    return name.partition(".")[0]
