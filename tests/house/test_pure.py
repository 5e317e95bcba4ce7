"""What a pure room never holds: floats, true division, and an order that comes from a bare set."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.house.source import Source, dotted, expect_none, last_name, source_of, sources

INTEGER_MATH = {"gcd", "lcm", "isqrt", "comb", "perm", "prod", "factorial"}
# What gives the same result in whatever order it is fed.
ORDER_DOES_NOT_MATTER = {"sorted", "any", "all", "sum", "len", "set", "frozenset", "min", "max", "isdisjoint"}
ITERATING = {"list", "tuple", "iter", "enumerate", "zip", "map", "filter", "dict", "next", "join"}


def floats(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
            yield f"{source.path}:{line}: the float {node.value}"
        elif isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            yield f"{source.path}:{line}: true division"
        elif isinstance(node, ast.Name) and node.id in ("float", "complex"):
            yield f"{source.path}:{line}: {node.id}"
        elif dotted(node).startswith("math.") and dotted(node).split(".")[1] not in INTEGER_MATH:
            yield f"{source.path}:{line}: {dotted(node)}"
        elif isinstance(node, ast.ImportFrom) and node.module == "math":
            for name in node.names:
                if name.name not in INTEGER_MATH:
                    yield f"{source.path}:{line}: math.{name.name}"
        elif (
            isinstance(node, ast.BinOp)
            and isinstance(node.op, ast.Pow)
            and isinstance(node.right, ast.UnaryOp)
            and isinstance(node.right.op, ast.USub)
        ):
            yield f"{source.path}:{line}: a negative power is a float"


def _is_set_annotation(annotation: ast.AST) -> bool:
    outer = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    return dotted(outer).rpartition(".")[2] in ("set", "frozenset", "AbstractSet", "Set")


def _set_names(scope: ast.AST) -> set[str]:
    """Names that hold a set, as far as the scope's own annotations and assignments say."""
    names: set[str] = set()
    for node in ast.walk(scope):
        if isinstance(node, ast.arg) and node.annotation is not None and _is_set_annotation(node.annotation):
            names.add(node.arg)
        elif isinstance(node, ast.AnnAssign) and _is_set_annotation(node.annotation):
            names.add(dotted(node.target))
        elif isinstance(node, ast.Assign) and _is_set(node.value, set()):
            names.update(dotted(target) for target in node.targets)
    return names - {""}


def _is_set(node: ast.AST, names: set[str]) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.Call):
        name = dotted(node.func)
        if name in ("set", "frozenset"):
            return True
        of, _, method = name.rpartition(".")
        return of in names and method in ("union", "intersection", "difference", "symmetric_difference", "copy")
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor):
        return _is_set(node.left, names) or _is_set(node.right, names)
    return dotted(node) in names


def set_orders(source: Source) -> Iterator[str]:
    """Iterations over a bare set whose order may reach a result."""
    module_names = _set_names(ast.Module(source.tree.body and [n for n in source.tree.body if not _is_scope(n)], []))
    for scope in [source.tree, *(node for node in ast.walk(source.tree) if _is_scope(node))]:
        names = module_names | (_set_names(scope) if scope is not source.tree else set())
        harmless = {
            id(argument)
            for node in ast.walk(scope)
            if isinstance(node, ast.Call) and last_name(node.func) in ORDER_DOES_NOT_MATTER
            for argument in node.args
        }
        yield from _set_orders_in(source, scope, names, harmless)


def _is_scope(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def _set_orders_in(source: Source, scope: ast.AST, names: set[str], harmless: set[int]) -> Iterator[str]:
    for node in ast.walk(scope):
        iterated: list[ast.AST] = []
        if isinstance(node, ast.For):
            iterated = [node.iter]
        elif isinstance(node, ast.ListComp | ast.GeneratorExp | ast.DictComp) and id(node) not in harmless:
            iterated = [generator.iter for generator in node.generators]
        elif isinstance(node, ast.Call) and last_name(node.func) in ITERATING:
            iterated = list(node.args) if id(node) not in harmless else []
        elif isinstance(node, ast.Starred) and id(node) not in harmless:
            iterated = [node.value]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "pop":
            iterated = [node.func.value] if not node.args else []
        for entry in iterated:
            if _is_set(entry, names):
                yield f"{source.path}:{getattr(node, 'lineno', 0)}: iterates over a bare set; sort it"


def test_no_floats_in_pure_rooms() -> None:
    expect_none(finding for source in sources("milon") if source.is_pure for finding in floats(source))


def test_no_order_from_a_bare_set_in_pure_rooms() -> None:
    expect_none({finding for source in sources("milon") if source.is_pure for finding in set_orders(source)})


def test_each_rule_finds_what_it_forbids() -> None:
    for bad in ("x = 0.5", "x = 1 / 2", "x /= 2", "x = float(3)", "def f(x: float): ...", "import math\nmath.sqrt(2)",
                "from math import log", "x = 2 ** -1", "x = 1e9", "x = 2j"):  # fmt: skip
        assert list(floats(source_of(bad))), bad
    for good in ("x = 1 // 2", "x = 10 ** 9", "import math\nmath.isqrt(2)", "x = 'a/b'"):
        assert not list(floats(source_of(good))), good
    for bad in (
        "for x in {1, 2}: pass",
        "for x in set(y): pass",
        "z = [x for x in {y for y in w}]",
        "def f(s: frozenset[int]):\n    return tuple(s)",
        "def f():\n    s = set()\n    for x in s: pass",
        "def f(a: set[int], b):\n    return [x for x in a | b]",
        "S = frozenset({1})\ndef f():\n    return {x: 1 for x in S}",
        "def f(s: set[int]):\n    return [*s]",
        "def f(s: set[int]):\n    return s.pop()",
        "def f(s: set[bytes]):\n    return b''.join(s)",
    ):
        assert list(set_orders(source_of(bad))), bad
    for good in (
        "for x in sorted({1, 2}): pass",
        "def f(s: set[int]):\n    return any(x > 1 for x in s)",
        "def f(s: set[int]):\n    return {x + 1 for x in s}",
        "def f(s: set[int]):\n    return sorted(x for x in s)",
        "def f(s: dict[int, int]):\n    return tuple(s)",
        "def f(s: set[int], x):\n    return x in s and len(s)",
    ):
        assert not list(set_orders(source_of(good))), good
