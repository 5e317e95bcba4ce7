"""Content-addressed files on disk: a blob is a file beside its manifest, complete and verified or not there at all.

Layout: `<folder>/<first two digits>/<blob id>.blob` and `.manifest`; while a download lasts, `.part` and `.manifest`.
A file gets its final name only after its bytes are on disk, so kill -9 at any moment leaves a complete blob or a part
that can be resumed.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from milon.base.blob import BLOB_MAX_BYTES, CHUNK_BYTES, Manifest, compute_blob_id, compute_manifest, verify_manifest
from milon.base.codec import decode, encode
from milon.base.errors import Reason, Rejected, require
from milon.base.hashing import sha256
from milon.base.ids import Digest

MANIFESTS_MAX = 16  # kept decoded: the largest takes half a second and 8 MiB, and each chunk served needs it
SIZE_MAX_BYTES = 256 << 30  # of all blobs of one node, unless the caller knows its disk better


class BlobStore:
    """Blobs in one folder. Every method may block on the disk: call them in threads from an event loop.

    Threads may share it. Two processes must not.
    """

    def __init__(self, folder: Path, size_max_bytes: int = SIZE_MAX_BYTES) -> None:
        self._folder = folder
        self._size_max_bytes = size_max_bytes
        self._lock = Lock()
        self._manifests: dict[Digest, Manifest] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob("incoming-*"):
            leftover.unlink(missing_ok=True)  # of a process that was killed while it wrote
        self._size_bytes = sum(_size_on_disk(path) for path in folder.glob("??/*"))

    @property
    def size_bytes(self) -> int:
        """Disk space taken, parts included."""
        return self._size_bytes

    def _named(self, blob_id: bytes, ending: str) -> Path:
        name = blob_id.hex()
        return self._folder / name[:2] / f"{name}.{ending}"

    def has(self, blob_id: Digest) -> bool:
        """Whether the whole blob is here."""
        return self._named(blob_id, "blob").exists()

    def path(self, blob_id: Digest) -> Path | None:
        """The blob's file, never to be written to; None when it is not here."""
        path = self._named(blob_id, "blob")
        return path if path.exists() else None

    def ids(self) -> tuple[Digest, ...]:
        """The ids of all whole blobs, in order."""
        return tuple(sorted(Digest(bytes.fromhex(path.stem)) for path in self._folder.glob("??/*.blob")))

    def manifest(self, blob_id: Digest) -> Manifest | None:
        """What the blob consists of; also of one that is still being fetched. None when unknown or damaged on disk."""
        known = self._manifests.get(blob_id)
        if known is not None:
            return known
        try:
            manifest = decode(Manifest, self._named(blob_id, "manifest").read_bytes())
            verify_manifest(blob_id, manifest)
        except (FileNotFoundError, Rejected):
            return None
        with self._lock:
            while len(self._manifests) >= MANIFESTS_MAX:
                del self._manifests[next(iter(self._manifests))]
            self._manifests[blob_id] = manifest
        return manifest

    def read(self, blob_id: Digest) -> bytes:
        """The whole blob, verified; `Rejected(UNAVAILABLE)` when it is not here, `Rejected(CORRUPT)` when damaged."""
        path, manifest = self.path(blob_id), self.manifest(blob_id)
        if path is None or manifest is None:
            raise Rejected(Reason.UNAVAILABLE, f"blob {blob_id.hex()[:16]} is not here")
        raw = path.read_bytes()
        require(compute_manifest(raw) == manifest, Reason.CORRUPT, f"{path} is damaged")
        return raw

    def read_chunk(self, blob_id: Digest, index: int) -> bytes:
        """One chunk, unverified: who fetches it checks it. `Rejected(UNAVAILABLE)` or `Rejected(OUT_OF_RANGE)`."""
        manifest = self.manifest(blob_id)
        path = self.path(blob_id)
        if manifest is None:
            raise Rejected(Reason.UNAVAILABLE, f"blob {blob_id.hex()[:16]} is not here")
        require(0 <= index < len(manifest.chunks), Reason.OUT_OF_RANGE, f"chunk {index} of {len(manifest.chunks)}")
        if path is None:
            raise Rejected(Reason.UNAVAILABLE, f"chunk {index} of {blob_id.hex()[:16]} is not here yet")
        with path.open("rb") as file:
            file.seek(index * CHUNK_BYTES)
            return file.read(CHUNK_BYTES)

    # Taking in.

    def put_bytes(self, raw: bytes | memoryview) -> Digest:
        """Store `raw` and return its id; storing it again changes nothing. `Rejected(FULL)` when there is no room."""
        manifest = compute_manifest(raw)
        blob_id = compute_blob_id(manifest)
        if self.has(blob_id):
            return blob_id
        with self._reserved(len(raw)), self._incoming() as temporary:
            with temporary.open("wb") as file:
                file.write(raw)
                _to_disk(file)
            self._adopt(blob_id, manifest, temporary)
        return blob_id

    def put_file(self, path: Path, move: bool = True) -> Digest:
        """Store a file and return its id; with `move` the file itself goes into the store where the disk allows it.

        The file must not be written to meanwhile or afterwards. `Rejected(FULL)` when there is no room.
        """
        size = path.stat().st_size
        require(size <= BLOB_MAX_BYTES, Reason.TOO_LARGE, f"{path} has {size} bytes; {BLOB_MAX_BYTES} are allowed")
        manifest = manifest_of(path)
        blob_id = compute_blob_id(manifest)
        if self.has(blob_id):
            if move:
                path.unlink()
            return blob_id
        with self._reserved(size), self._incoming() as temporary:
            _transfer(path, temporary, move)
            if not move:
                require(manifest_of(temporary) == manifest, Reason.DIFFERS, f"{path} changed while it was copied")
            self._adopt(blob_id, manifest, temporary)
            if move:
                path.unlink(missing_ok=True)
        return blob_id

    def remove(self, blob_id: Digest) -> None:
        """Forget a blob, whole or partial; nothing happens when it is not here."""
        with self._lock:
            self._manifests.pop(blob_id, None)
            for ending in ("blob", "part", "manifest"):
                path = self._named(blob_id, ending)
                self._size_bytes -= _size_on_disk(path)
                path.unlink(missing_ok=True)

    @contextmanager
    def _reserved(self, size: int) -> Iterator[None]:
        """Count `size` bytes as taken; give them back when the body fails, a full disk included."""
        with self._lock:
            if self._size_bytes + size > self._size_max_bytes:
                raise Rejected(Reason.FULL, f"{size} bytes more than the {self._size_max_bytes} allowed for blobs")
            self._size_bytes += size
        is_kept = False
        try:
            with _full_disk_refused():
                yield
            is_kept = True
        finally:
            if not is_kept:
                with self._lock:
                    self._size_bytes -= size

    @contextmanager
    def _incoming(self) -> Iterator[Path]:
        handle, name = tempfile.mkstemp(prefix="incoming-", dir=self._folder)
        os.close(handle)
        path = Path(name)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _adopt(self, blob_id: Digest, manifest: Manifest, complete: Path) -> None:
        """Give a file that is on disk its final name; the manifest goes first, so that a blob always has one."""
        self._write_manifest(blob_id, manifest)
        target = self._named(blob_id, "blob")
        os.replace(complete, target)
        _folder_to_disk(target.parent)

    def _write_manifest(self, blob_id: Digest, manifest: Manifest) -> None:
        target = self._named(blob_id, "manifest")
        if self.manifest(blob_id) is not None:
            return
        target.parent.mkdir(exist_ok=True)
        raw = encode(manifest)
        with self._incoming() as temporary:
            with temporary.open("wb") as file:
                file.write(raw)
                _to_disk(file)
            os.replace(temporary, target)
        with self._lock:
            self._size_bytes += len(raw)

    # Fetching: a part is as long as the blob from the start and filled chunk by chunk.

    def begin(self, blob_id: Digest, manifest: Manifest) -> frozenset[int]:
        """Prepare to fetch a blob; the indices of chunks that an earlier attempt left here, each verified again.

        `Rejected` when the manifest is not the blob's, or there is no room.
        """
        verify_manifest(blob_id, manifest)
        part = self._named(blob_id, "part")
        if part.exists() and self.manifest(blob_id) is not None:
            return _verified_chunks(part, manifest)
        with self._reserved(manifest.size_bytes), _removed_on_failure(part):
            self._write_manifest(blob_id, manifest)
            with part.open("wb") as file:
                os.truncate(file.fileno(), manifest.size_bytes)
                if manifest.size_bytes and hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, manifest.size_bytes)  # a full disk shows now, not at the end
        return frozenset()

    def put_chunk(self, blob_id: Digest, manifest: Manifest, index: int, chunk: bytes) -> None:
        """Write one chunk into the part; `Rejected(DIFFERS)` unless it is the one the manifest names."""
        require(sha256(chunk) == manifest.chunks[index], Reason.DIFFERS, f"chunk {index} has another digest")
        with _full_disk_refused(), self._named(blob_id, "part").open("r+b") as file:
            file.seek(index * CHUNK_BYTES)
            file.write(chunk)

    def finish(self, blob_id: Digest) -> Path:
        """All chunks are here: the part becomes the blob."""
        part, target = self._named(blob_id, "part"), self._named(blob_id, "blob")
        with part.open("rb") as file:
            _to_disk(file)
        os.replace(part, target)
        _folder_to_disk(target.parent)
        return target


@contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    is_done = False
    try:
        yield
        is_done = True
    finally:
        if not is_done:
            path.unlink(missing_ok=True)


@contextmanager
def _full_disk_refused() -> Iterator[None]:
    """A full disk is an answer, not a crash."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise Rejected(Reason.FULL, f"the disk is full: {error}") from None


def manifest_of(path: Path) -> Manifest:
    """The manifest of a file, read chunk by chunk."""
    chunks: list[Digest] = []
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            chunks.append(sha256(chunk))
            size += len(chunk)
    return Manifest(size, tuple(chunks))


def _verified_chunks(part: Path, manifest: Manifest) -> frozenset[int]:
    present: set[int] = set()
    with part.open("rb") as file:
        for index, expected in enumerate(manifest.chunks):
            if sha256(file.read(CHUNK_BYTES)) == expected:
                present.add(index)
    return frozenset(present)


def _transfer(source: Path, target: Path, move: bool) -> None:
    """Make `target` hold the source's bytes on disk; a hard link where that is enough."""
    if move:
        try:
            target.unlink()
            os.link(source, target)
            with target.open("rb") as file:
                _to_disk(file)
            return
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
                raise
    with source.open("rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(CHUNK_BYTES):
            writer.write(chunk)
        _to_disk(writer)


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _folder_to_disk(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _size_on_disk(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
