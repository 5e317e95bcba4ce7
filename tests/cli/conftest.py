"""Runs the command in this process, against a fake node served over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from milon.base.signing import secret_key_from
from milon.node.folder import PRIVATE, NodeFolder, publish_address, write_file
from milon.node.keys import write_key
from milon_cli.app import main
from tests.api.serving import TOKEN, Served, serving


@dataclass
class Told:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output as JSON."""
        return json.loads(self.out)


Milon = Callable[..., Told]


@pytest.fixture
def milon(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Milon:
    """Run `milon` with these words."""
    monkeypatch.delenv("MILON_DATA", raising=False)

    def run(*words: object) -> Told:
        capsys.readouterr()
        code = main([str(word) for word in words])
        told = capsys.readouterr()
        return Told(code, told.out, told.err)

    return run


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A fake node that answers."""
    (tmp_path / "served").mkdir()
    with serving(tmp_path / "served") as found:
        yield found


@pytest.fixture
def node(tmp_path: Path, served: Served) -> Path:
    """The folder of the fake node: its address, its token and its key."""
    folder = NodeFolder(tmp_path / "node")
    folder.make()
    write_key(folder.validator_key, secret_key_from("node 0"))
    write_file(folder.token, TOKEN.encode() + b"\n", PRIVATE)
    publish_address(folder, served.url)
    return folder.root
