"""Wire types: frozen, slotted, named once, and every field said what it is."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from tests.house.source import PRODUCT, Source, expect_none, last_name, source_of, sources

NAME = re.compile(r"[a-z][a-z0-9-]*/[1-9][0-9]*")


def wire_types(source: Source) -> Iterator[tuple[ast.ClassDef, str]]:
    """Each class under `@wire("name/version")` with its schema id."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and last_name(decorator.func) == "wire":
                    schema = decorator.args[0]
                    yield node, schema.value if isinstance(schema, ast.Constant) else ""


def loose_types(source: Source) -> Iterator[str]:
    for node, schema in wire_types(source):
        options = {
            keyword.arg: isinstance(keyword.value, ast.Constant) and keyword.value.value
            for decorator in node.decorator_list
            if isinstance(decorator, ast.Call) and last_name(decorator.func) == "dataclass"
            for keyword in decorator.keywords
        }
        if not (options.get("frozen") is True and options.get("slots") is True):
            yield f"{source.path}:{node.lineno}: {node.name} is not frozen and slotted"
        if options.get("kw_only"):
            yield f"{source.path}:{node.lineno}: {node.name} is built from its fields in their order"
        if not NAME.fullmatch(str(schema)):
            yield f"{source.path}:{node.lineno}: {schema!r} is not a name and a version"


def silent_fields(source: Source) -> Iterator[str]:
    """Fields without a word beside or above them."""
    lines = source.text.splitlines()
    for node, _ in wire_types(source):
        for field in node.body:
            if isinstance(field, ast.AnnAssign):
                beside = "#" in lines[(field.end_lineno or field.lineno) - 1]
                if not beside and not lines[field.lineno - 2].lstrip().startswith("#"):
                    yield f"{source.path}:{field.lineno}: {node.name}.{ast.unparse(field.target)} is not explained"


def shared_names(files: Iterable[Source]) -> list[str]:
    count = Counter(schema for source in files for _, schema in wire_types(source))
    return [f"{schema} names {number} wire types" for schema, number in count.items() if number > 1]


def test_wire_types_are_values() -> None:
    expect_none(finding for source in sources(*PRODUCT) for finding in loose_types(source))


def test_every_schema_names_one_type() -> None:
    expect_none(shared_names(sources(*PRODUCT)))


def test_every_field_is_explained() -> None:
    expect_none(finding for source in sources(*PRODUCT) for finding in silent_fields(source))


def test_each_rule_finds_what_it_forbids() -> None:
    good = '@wire("vote/1")\n@dataclass(frozen=True, slots=True)\nclass Vote:\n    view: int  # which\n'
    assert not list(loose_types(source_of(good))) and not list(silent_fields(source_of(good)))
    for change in (("frozen=True, ", ""), ("slots=True", "slots=False"), ("vote/1", "Vote/1"), ("vote/1", "vote"),
                   ("slots=True", "slots=True, kw_only=True")):  # fmt: skip
        assert list(loose_types(source_of(good.replace(*change)))), change
    assert list(silent_fields(source_of(good.replace("  # which", ""))))
    assert shared_names([source_of(good), source_of(good)])
