"""What the code never does, and what the repository never says."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator

from tests.house.source import (
    PRODUCT,
    PYTHON_FOLDERS,
    ROOT,
    Source,
    dotted,
    expect_none,
    imports,
    last_name,
    source_of,
    sources,
    top,
)

SUPERVISOR = "milon/node/supervisor.py"  # the one place that may catch anything: it restarts or ends the node
DEVICES = "milon/gpu/devices.py"  # the one file that tells one kind of device from another
BROAD = {"Exception", "BaseException"}
GROUPS = {"BaseExceptionGroup", "ExceptionGroup"}  # trio hands them over: taken apart and raised on, never swallowed

BANNED_IMPORTS = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
BANNED_CALLS = {
    "eval", "exec", "compile", "__import__", "torch.load", "time.sleep", "os.system", "os.popen", "pickle.loads",
    "pickle.load", "numpy.random.seed", "breakpoint",
}  # fmt: skip

IGNORE = re.compile(r"#\s*type:\s*ignore(?P<code>\[[a-z0-9, -]+\])?(?P<rest>.*)")
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")

# Assembled, so that this file does not hold what it looks for.
MACHINE_PATHS = tuple("/" + folder + "/" for folder in ("work", "home", "root", "Users", "mnt"))
REGISTRY_HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"), ("pythonhosted", "org"), ("pypi", "python"), ("npmjs", "com"), ("npmjs", "org"),
        ("crates", "io"), ("anaconda", "org"), ("download", "pytorch"), ("docker", "io"), ("ghcr", "io"),
    )
)  # fmt: skip
TEXT_SUFFIXES = {"", ".py", ".md", ".toml", ".txt", ".lock", ".cfg", ".sh", ".json", ".yml", ".yaml", ".js", ".html",
                 ".css", ".service"}  # fmt: skip
NOT_OURS = {".git", ".venv", "build", "dist", "node_modules", "__pycache__", "testnet", "demo-run"}


def broad_excepts(source: Source) -> Iterator[str]:
    if source.path == SUPERVISOR:
        return
    for node in ast.walk(source.tree):
        caught: list[ast.AST] = []
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                yield f"{source.path}:{node.lineno}: a bare except"
                continue
            caught = list(node.type.elts) if isinstance(node.type, ast.Tuple) else [node.type]
        elif isinstance(node, ast.Call) and last_name(node.func) == "suppress":
            caught = list(node.args)
        raises_on = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
        for kind in caught:
            name = last_name(kind)
            if name in BROAD or (name in GROUPS and not raises_on):
                yield f"{source.path}:{getattr(kind, 'lineno', 0)}: catches {dotted(kind)}; only {SUPERVISOR} may"


def banned(source: Source) -> Iterator[str]:
    for line, name in imports(source):
        if top(name) in BANNED_IMPORTS or name in BANNED_CALLS:
            yield f"{source.path}:{line}: imports {name}"
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        if dotted(node.func) in BANNED_CALLS:
            yield f"{source.path}:{node.lineno}: calls {dotted(node.func)}"
        for keyword in node.keywords:
            is_on = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
            if keyword.arg in ("allow_pickle", "shell") and is_on:
                yield f"{source.path}:{node.lineno}: {keyword.arg}=True"


def comments(source: Source) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def bare_ignores(source: Source) -> Iterator[str]:
    is_product = source.path.startswith(PRODUCT)
    for line, comment in comments(source):
        found = IGNORE.search(comment)
        if found is not None and found["code"] is None:
            yield f"{source.path}:{line}: a type: ignore without its code"
        elif found is not None and is_product and not re.search(r"#\s*\w", found["rest"]):
            yield f"{source.path}:{line}: a type: ignore without its reason"


def texts() -> Iterator[tuple[str, str]]:
    """Path and content of every text file of the repository."""
    for path in sorted(ROOT.rglob("*")):
        relative = path.relative_to(ROOT)
        if NOT_OURS & set(relative.parts) or any(part.endswith((".egg-info", "_cache")) for part in relative.parts):
            continue
        if relative.parts[0].startswith(".") and relative.parts[0] not in (".ci", ".github", ".gitignore"):
            continue
        if path.is_file() and path.suffix in TEXT_SUFFIXES:
            yield relative.as_posix(), path.read_text(encoding="utf-8", errors="replace")


def forbidden_texts(path: str, text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        for piece in MACHINE_PATHS:
            if re.search(r"(?<![\w.}/-])" + re.escape(piece), line):
                yield f"{path}:{number}: the path of one machine: {piece}"
        for host in REGISTRY_HOSTS:
            if host in line:
                yield f"{path}:{number}: a package registry's host: {host}"
        if UNFINISHED.search(line):
            yield f"{path}:{number}: says that it is not finished"


def named_gpus(source: Source) -> Iterator[str]:
    """Nothing but `devices.py` knows what kinds of device there are."""
    if source.path != DEVICES:
        for number, line in enumerate(source.text.splitlines(), 1):
            if "cu" + "da" in line.lower():
                yield f"{source.path}:{number}: names a kind of GPU; only {DEVICES} may"


def test_a_kind_of_gpu_is_named_in_one_place() -> None:
    expect_none(finding for source in sources(*PRODUCT) for finding in named_gpus(source))
    assert list(named_gpus(source_of("device = 'cu" + "da:1'")))


def test_nothing_catches_everything() -> None:
    expect_none(finding for source in sources(*PRODUCT) for finding in broad_excepts(source))


def test_nothing_banned_is_called() -> None:
    expect_none(finding for source in sources(*PRODUCT) for finding in banned(source))


def test_no_type_is_ignored_without_a_reason() -> None:
    expect_none(finding for source in sources(*PYTHON_FOLDERS) for finding in bare_ignores(source))


def test_no_text_of_forbidden_kinds() -> None:
    expect_none(finding for path, text in texts() for finding in forbidden_texts(path, text))


def test_each_rule_finds_what_it_forbids() -> None:
    attempt = "try:\n    pass\nexcept {}:\n    pass\n"
    for bad in ("Exception", "(ValueError, Exception)", "BaseException as error", "builtins.Exception"):
        assert list(broad_excepts(source_of(attempt.format(bad)))), bad
    assert list(broad_excepts(source_of("try:\n    pass\nexcept:\n    pass\n")))
    assert list(broad_excepts(source_of("try:\n    pass\nexcept* Exception:\n    pass\n")))
    assert list(broad_excepts(source_of("with contextlib.suppress(Exception):\n    pass\n")))
    assert list(broad_excepts(source_of(attempt.format("ExceptionGroup"))))
    assert not list(broad_excepts(source_of("try:\n    pass\nexcept ExceptionGroup as group:\n    raise group\n")))
    assert not list(broad_excepts(source_of(attempt.format("ValueError"))))
    assert not list(broad_excepts(source_of(attempt.format("Exception"), SUPERVISOR)))
    for bad in ("import pickle", "from pickle import loads", "eval('1')", "torch.load(path)", "time.sleep(1)",
                "from time import sleep", "numpy.load(path, allow_pickle=True)", "run(x, shell=True)"):  # fmt: skip
        assert list(banned(source_of(bad))), bad
    for good in ("trio.sleep(1)", "re.compile('x')", "numpy.load(path, allow_pickle=False)"):
        assert not list(banned(source_of(good))), good
    assert list(bare_ignores(source_of("x = 1  # type: " + "ignore\n")))
    assert list(bare_ignores(source_of("x = 1  # type: " + "ignore[misc]\n")))
    assert not list(bare_ignores(source_of("x = 1  # type: " + "ignore[misc]  # lmdb has no types\n")))
    for bad in (MACHINE_PATHS[0] + "file", "https://" + REGISTRY_HOSTS[0] + "/simple", "# TO" + "DO: later"):
        assert list(forbidden_texts("x", bad)), bad
    assert not list(forbidden_texts("x", "milon/work/file and ./home/x and todo lists"))
