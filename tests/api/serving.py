"""Serves a fake node over real HTTP from a thread of its own, for tests that talk to it as users do."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trio

from milon.api.server import make_server
from tests.api.fake_node import FakeNode

TOKEN = "ab" * 32
BLOB_BYTES_MAX = 1 << 20


@dataclass
class Served:
    """A fake node that answers at `url`."""

    node: FakeNode
    url: str


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Served]:
    """Serve until the block ends; `folder` holds blobs and uploads."""
    (folder / "uploads").mkdir()
    (folder / "blobs").mkdir()
    node = FakeNode(folder / "blobs")
    ready = threading.Event()
    found: dict[str, object] = {}

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            found["url"] = await nursery.start(make_server(TOKEN, 0, folder / "uploads", BLOB_BYTES_MAX), node)
            found["token"] = trio.lowlevel.current_trio_token()
            found["scope"] = nursery.cancel_scope
            ready.set()

    thread = threading.Thread(target=trio.run, args=(main,), daemon=True)
    thread.start()
    assert ready.wait(10), "the server did not come up"
    try:
        yield Served(node, str(found["url"]))
    finally:
        token, scope = found["token"], found["scope"]
        assert isinstance(token, trio.lowlevel.TrioToken)
        assert isinstance(scope, trio.CancelScope)
        token.run_sync_soon(scope.cancel)
        thread.join(10)
        assert not thread.is_alive()
