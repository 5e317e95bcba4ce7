"""Kills a node's process exactly where it has just written something down, or is about to: loaded beside the product.

A process that finds `MILON_KILL_AT` (NAME:COUNT) in its environment is killed with SIGKILL when it passes that point
for the COUNT-th time; `MILON_KILL_NOTE` is the file that then says so. With `MILON_HEARD` it writes every vote that
reaches it into a file of its own in that folder. `preloading` puts this into the environment of processes: nothing in
the product knows of it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from milon.base.codec import encode
from milon.chain.certificate import Certificate, Vote
from milon.consensus.events import Event, MessageReceived
from milon.consensus.messages import CertificateBatch, Message, Proposal, RangeResponse, Status

REPOSITORY = Path(__file__).parents[2]
PRELOAD = "import tests.system.persist_points\n\ntests.system.persist_points.install()\n"

Passed = Callable[[], None]  # ends the process where it is time to
Hook = Callable[[Passed], None]  # puts a point into the product's functions


class _Death:
    """Counts how often the process came by."""

    def __init__(self, name: str, count: int, note: Path) -> None:
        self._name, self._left, self._note = name, count, note
        self._lock = Lock()

    def __call__(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left:
                return
        self._note.write_text(self._name)
        os.kill(os.getpid(), signal.SIGKILL)


def _around(owner: Any, name: str, before: Passed | None, after: Passed | None, is_it: Callable[..., bool]) -> None:
    """Have `owner.name` pass the points, where `is_it` holds of its arguments."""
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        is_meant = is_it(*arguments)
        if before is not None and is_meant:
            before()
        found = original(*arguments, **options)
        if after is not None and is_meant:
            after()
        return found

    setattr(owner, name, wrapped)


def _always(*arguments: Any) -> bool:
    return True


def _half_written(is_log: bool) -> Hook:
    """Half of a batch, or of a slot of the small file, is in the file."""

    def hook(passed: Passed) -> None:
        from milon.node import vote_log

        original = vote_log._write_all

        def wrapped(handle: int, raw: bytes, start: int) -> None:
            if (os.readlink(f"/proc/self/fd/{handle}").endswith("votes.log")) == is_log:
                original(handle, raw[: len(raw) // 2], start)
                passed()
            original(handle, raw, start)

        vote_log._write_all = wrapped

    return hook


def _log(name: str, *, is_after: bool = False) -> Hook:
    def hook(passed: Passed) -> None:
        from milon.node.vote_log import VoteLog

        _around(VoteLog, name, None if is_after else passed, passed if is_after else None, _always)

    return hook


def _sent(passed: Passed) -> None:
    from milon.p2p.libp2p_transport import LibP2PTransport

    _around(LibP2PTransport, "broadcast", None, passed, _always)


def _store(name: str, *, is_after: bool = False) -> Hook:
    def hook(passed: Passed) -> None:
        from milon.state import lmdb_store

        owner = lmdb_store if name == "_write" else lmdb_store.LmdbStore
        _around(owner, name, None if is_after else passed, passed if is_after else None, _always)

    return hook


def _told(passed: Passed) -> None:
    from milon.node.node import Node

    _around(Node, "_on_final", None, passed, _always)


def _renamed(part: str, *, is_after: bool = False) -> Hook:
    """A whole file or folder gets, or has got, its name: one with `part` in its path."""

    def hook(passed: Passed) -> None:
        def is_it(source: Any, target: Any) -> bool:
            return part in str(target) and ("/validators/" in str(target)) == ("/validators/" in part)

        _around(os, "replace", None if is_after else passed, passed if is_after else None, is_it)

    return hook


def _pruning(hook: Hook) -> Hook:
    """The log is rewritten after every final block, and not only from 4 MiB on."""

    def small(passed: Passed) -> None:
        from milon.node import vote_log

        vote_log.PRUNE_BYTES_MIN = 1
        hook(passed)

    return small


# In the order in which a block passes them; what comes before a point is on the disk, what comes after it is not.
POINTS: Mapping[str, Hook] = {
    "vote-log-before": _log("append"),
    "vote-log-torn": _half_written(is_log=True),
    "vote-log-synced": _log("_write_signed"),
    "votes-signed-torn": _half_written(is_log=False),
    "votes-signed-synced": _log("append", is_after=True),
    "first-message-sent": _sent,
    "commit-before": _store("commit"),
    "commit-inside": _store("_write", is_after=True),
    "commit-after": _store("commit", is_after=True),
    "finality-told": _told,
    "prune-before": _pruning(_log("_rewrite")),
    "prune-written": _pruning(_renamed("votes.log")),
    "prune-renamed": _pruning(_renamed("votes.log", is_after=True)),
    "validators-written": _renamed("/snapshots/validators/"),
    "snapshot-written": _renamed("/snapshots/"),
    "snapshot-renamed": _renamed("/snapshots/", is_after=True),
    "blob-written": _renamed("/blobs/"),
    "blob-renamed": _renamed("/blobs/", is_after=True),
}


def list_votes(message: Message) -> Iterator[Vote]:
    """Every vote in a message, alone or in a certificate."""
    match message:
        case Vote():
            yield message
        case Certificate():
            for signer, signature in zip(message.signers, message.signatures, strict=True):
                yield Vote(message.content, signer, signature)
        case Proposal():
            yield message.vote
            for certificate in message.justification:
                yield from list_votes(certificate)
        case CertificateBatch():
            for certificate in message.certificates:
                yield from list_votes(certificate)
        case RangeResponse() | Status():
            if message.finalization is not None:
                yield from list_votes(message.finalization)
        case _:
            return


def _listen(folder: Path) -> None:
    """Write down all votes that come in, each behind its length."""
    from milon.node.runner import Runner

    original = Runner.feed
    folder.mkdir(exist_ok=True)
    file = (folder / str(os.getpid())).open("ab")

    def feed(self: Runner, event: Event) -> None:
        if isinstance(event, MessageReceived):
            for vote in list_votes(event.message):
                raw = encode(vote)
                file.write(len(raw).to_bytes(4, "big") + raw)
            file.flush()
        original(self, event)

    Runner.feed = feed  # type: ignore[method-assign]  # that is what this module is for


def install() -> None:
    """Called as a process starts, by the file that `preloading` puts in its way."""
    name, _, count = os.environ.get("MILON_KILL_AT", "").partition(":")
    if name:
        POINTS[name](_Death(name, int(count), Path(os.environ["MILON_KILL_NOTE"])))
    if "MILON_HEARD" in os.environ:
        _listen(Path(os.environ["MILON_HEARD"]))


@contextmanager
def preloading(scratch: Path, **names: str) -> Iterator[None]:
    """Processes started inside load this module first and find these names in their environment."""
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "sitecustomize.py").write_text(PRELOAD)
    with ExitStack() as stack:
        for name, value in {**names, "PYTHONPATH": f"{scratch}{os.pathsep}{REPOSITORY}"}.items():
            before = os.environ.get(name)
            stack.callback(_restore, name, before)
            os.environ[name] = value
        yield


def _restore(name: str, value: str | None) -> None:
    if value is None:
        del os.environ[name]
    else:
        os.environ[name] = value
