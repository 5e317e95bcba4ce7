"""A node's folder: what lies where, the lock, and writing so that a crash leaves the old file or the new one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from milon.base.errors import Reason, Rejected

PRIVATE = 0o600  # for keys and the token: nobody but the owner
PUBLIC = 0o644
_ADDRESS_MAX_BYTES = 128  # a loopback URL

_ADVICE = {
    errno.ENOSPC: (Reason.FULL, "the disk is full; free some space or name another folder"),
    errno.EDQUOT: (Reason.FULL, "your quota on this disk is used up; free some space or name another folder"),
    errno.EACCES: (Reason.NOT_ALLOWED, "this user may not do that; change the owner or name another folder"),
    errno.EPERM: (Reason.NOT_ALLOWED, "this user may not do that; change the owner or name another folder"),
    errno.EROFS: (Reason.NOT_ALLOWED, "the file system is read-only; name another folder"),
    errno.ENOENT: (Reason.UNAVAILABLE, "there is no such file"),
    errno.EEXIST: (Reason.DUPLICATE, "it is there already; nothing was overwritten"),
}


@contextlib.contextmanager
def refusing_os_errors(action: str) -> Iterator[None]:
    """Turn what the operating system refuses into `Rejected`: what was tried, why it failed, what to do next."""
    try:
        yield
    except OSError as error:
        reason, advice = _ADVICE.get(error.errno or 0, (Reason.UNAVAILABLE, os.strerror(error.errno or 0)))
        raise Rejected(reason, f"{action}: {advice}") from None


@dataclass(frozen=True, slots=True)
class NodeFolder:
    """Where a node keeps its things."""

    root: Path  # the folder that `--data` names

    @property
    def config(self) -> Path:
        """Settings, TOML; people edit it."""
        return self.root / "config.toml"

    @property
    def genesis(self) -> Path:
        """The encoded genesis."""
        return self.root / "genesis.cbor"

    @property
    def validator_key(self) -> Path:
        """The account's key: signs votes and transactions."""
        return self.root / "keys" / "validator.key"

    @property
    def network_key(self) -> Path:
        """The host key: makes the peer id."""
        return self.root / "keys" / "network.key"

    @property
    def chain(self) -> Path:
        """The database."""
        return self.root / "chain"

    @property
    def votes(self) -> Path:
        """The log of own votes, written before a vote leaves."""
        return self.root / "votes"

    @property
    def blobs(self) -> Path:
        """Blobs by id."""
        return self.root / "blobs"

    @property
    def work(self) -> Path:
        """What workers and uploads write; may be emptied while the node is down."""
        return self.root / "work"

    @property
    def reports(self) -> Path:
        """What this node's aggregations came to, a file a round."""
        return self.root / "reports"

    @property
    def token(self) -> Path:
        """The secret that requests which spend must show."""
        return self.root / "api.token"

    @property
    def address(self) -> Path:
        """Where the HTTP API answers; there only while the node runs."""
        return self.root / "api.address"

    @property
    def lock(self) -> Path:
        """Held while the node runs: one process per folder."""
        return self.root / "node.lock"

    @property
    def snapshots(self) -> Path:
        """Snapshots of the ledger, for those who join without the past; may be emptied at any time."""
        return self.root / "snapshots"

    @property
    def sync(self) -> Path:
        """Chunks of a snapshot on their way in."""
        return self.root / "sync"

    @property
    def moved(self) -> Path:
        """The last move of the validator to or from another machine; see `moving`."""
        return self.root / "moved"

    @property
    def log(self) -> Path:
        """What the node says, where a testnet starts it."""
        return self.root / "node.log"

    def make(self) -> None:
        """Create the folder and those inside it; existing ones stay. Keys and votes are for the owner alone."""
        with refusing_os_errors(f"cannot create the folder {self.root}"):
            for path, mode in ((self.root, 0o755), (self.root / "keys", 0o700), (self.chain, 0o700)):
                path.mkdir(mode=mode, parents=True, exist_ok=True)
            for path in (self.votes, self.blobs, self.work):
                path.mkdir(mode=0o700, exist_ok=True)


def write_file(path: Path, raw: bytes, mode: int = PUBLIC, overwrite: bool = True) -> None:
    """Write a whole file, durable, through a temporary one beside it; with `overwrite` off, only where none is yet."""
    with refusing_os_errors(f"cannot write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            if overwrite:
                os.replace(temporary, path)
            else:
                os.link(temporary, path)  # fails where the name exists, unlike a rename
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_file(path: Path, size_max_bytes: int) -> bytes:
    """A whole file; `Rejected` where it is missing, may not be read or is larger than it can honestly be."""
    with refusing_os_errors(f"cannot read {path}"), path.open("rb") as file:
        raw = file.read(size_max_bytes + 1)
    if len(raw) > size_max_bytes:
        raise Rejected(Reason.TOO_LARGE, f"{path} is larger than {size_max_bytes} bytes")
    return raw


@contextlib.contextmanager
def locked(folder: NodeFolder) -> Iterator[None]:
    """Hold the folder's lock, which dies with the process; `Rejected(IN_USE)` while another process has it."""
    with refusing_os_errors(f"cannot open {folder.lock}"):
        descriptor = os.open(folder.lock, os.O_RDWR | os.O_CREAT, PRIVATE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Rejected(
                Reason.IN_USE,
                f"a node already runs on {folder.root}; stop it first, or name another folder with --data",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def publish_address(folder: NodeFolder, url: str) -> None:
    """Say where the HTTP API answers; the node calls it once it does, and `withdraw_address` when it ends."""
    write_file(folder.address, f"{url}\n".encode())


def withdraw_address(folder: NodeFolder) -> None:
    """The API no longer answers."""
    folder.address.unlink(missing_ok=True)


def read_address(folder: NodeFolder) -> str | None:
    """Where the node of this folder answers; None while none runs."""
    if not folder.address.exists():
        return None
    return read_file(folder.address, _ADDRESS_MAX_BYTES).decode("ascii", "replace").strip()
