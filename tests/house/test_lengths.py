"""How long things may be: what does not fit one screen is not read in one sitting."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.house.source import PYTHON_FOLDERS, Source, expect_none, functions, source_of, sources

FUNCTION_LINES_MAX = 50  # one screen, without the docstring
FILE_LINES_MAX = 400  # what a reader keeps in mind


def long_functions(source: Source) -> Iterator[str]:
    for function in functions(source.tree):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        first = function.body[0]
        if ast.get_docstring(function, clean=False) is not None:
            lines -= (first.end_lineno or first.lineno) - first.lineno + 1
        if lines > FUNCTION_LINES_MAX:
            yield f"{source.path}:{function.lineno}: {function.name} has {lines} lines"


def long_files(source: Source) -> Iterator[str]:
    lines = source.text.count("\n")
    if lines > FILE_LINES_MAX:
        yield f"{source.path}: {lines} lines"


def test_no_function_is_too_long() -> None:
    expect_none(finding for source in sources(*PYTHON_FOLDERS) for finding in long_functions(source))


def test_no_file_is_too_long() -> None:
    expect_none(finding for source in sources(*PYTHON_FOLDERS) for finding in long_files(source))


def test_each_rule_finds_what_it_forbids() -> None:
    body = "    x = 1\n"
    docstring = '    """Many.\n' + "    words\n" * 60 + '    """\n'
    assert list(long_functions(source_of("def f():\n" + body * 50)))
    assert list(long_functions(source_of("class C:\n    def f():\n" + ("    " + body) * 50)))
    assert not list(long_functions(source_of("def f():\n" + docstring + body * 49)))
    assert list(long_files(source_of("x = 1\n" * 401)))
    assert not list(long_files(source_of("x = 1\n" * 400)))
