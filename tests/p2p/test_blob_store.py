"""Blobs on disk: whole and verified or not there, whatever happens meanwhile."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from milon.base.blob import CHUNK_BYTES, compute_blob_id, compute_manifest
from milon.base.errors import Reason, Rejected
from milon.base.ids import NO_DIGEST
from milon.p2p.blob_store import BlobStore

SOME = os.urandom(2 * CHUNK_BYTES + 17)


def test_bytes_come_back(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    for raw in (b"", b"x", SOME):
        blob_id = store.put_bytes(raw)
        assert blob_id == compute_blob_id(compute_manifest(raw)) == store.put_bytes(raw)
        assert store.has(blob_id)
        assert store.read(blob_id) == raw
        path = store.path(blob_id)
        assert path is not None
        assert path.read_bytes() == raw
    assert len(store.ids()) == 3
    assert BlobStore(tmp_path).size_bytes == store.size_bytes


@pytest.mark.parametrize("move", [True, False])
def test_files_come_back(tmp_path: Path, move: bool) -> None:
    store = BlobStore(tmp_path / "store")
    for _ in range(2):  # the second time it is here already
        source = tmp_path / "source"
        source.write_bytes(SOME)
        blob_id = store.put_file(source, move=move)
        assert source.exists() is not move
        assert store.read(blob_id) == SOME


def test_what_is_not_here_is_said(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    assert not store.has(NO_DIGEST)
    assert store.path(NO_DIGEST) is None
    assert store.manifest(NO_DIGEST) is None
    with pytest.raises(Rejected) as refused:
        store.read(NO_DIGEST)
    assert refused.value.reason is Reason.UNAVAILABLE
    blob_id = store.put_bytes(SOME)
    assert store.read_chunk(blob_id, 2) == SOME[2 * CHUNK_BYTES :]
    for index in (-1, 3):
        with pytest.raises(Rejected) as refused:
            store.read_chunk(blob_id, index)
        assert refused.value.reason is Reason.OUT_OF_RANGE
    store.remove(blob_id)
    assert not store.has(blob_id)
    assert store.size_bytes == 0


def test_damage_on_disk_is_found_when_read(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    blob_id = store.put_bytes(SOME)
    path = store.path(blob_id)
    assert path is not None
    path.write_bytes(b"y" + SOME[1:])
    with pytest.raises(Rejected) as refused:
        store.read(blob_id)
    assert refused.value.reason is Reason.CORRUPT


def test_a_full_store_refuses_and_keeps_nothing(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, size_max_bytes=3 * CHUNK_BYTES)
    store.put_bytes(SOME)
    before = store.size_bytes
    for attempt in (lambda: store.put_bytes(bytes(CHUNK_BYTES)), lambda: store.begin(*_begun(bytes(CHUNK_BYTES)))):
        with pytest.raises(Rejected) as refused:
            attempt()
        assert refused.value.reason is Reason.FULL
    assert store.size_bytes == before
    assert BlobStore(tmp_path).size_bytes == before


def _begun(raw: bytes):
    manifest = compute_manifest(raw)
    return compute_blob_id(manifest), manifest


def test_a_full_disk_refuses_and_keeps_nothing(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK_BYTES, limits[1]))  # larger files fail as on a full disk
        for attempt in (lambda: store.put_bytes(SOME), lambda: store.begin(*_begun(SOME))):
            with pytest.raises(Rejected) as refused:
                attempt()
            assert refused.value.reason is Reason.FULL
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not list(tmp_path.glob("incoming-*")) + list(tmp_path.glob("??/*.part")) + list(tmp_path.glob("??/*.blob"))
    assert store.read(store.put_bytes(SOME)) == SOME


def test_a_part_is_resumed_and_each_chunk_verified_again(tmp_path: Path) -> None:
    manifest = compute_manifest(SOME)
    blob_id = compute_blob_id(manifest)
    store = BlobStore(tmp_path)
    assert store.begin(blob_id, manifest) == frozenset()
    store.put_chunk(blob_id, manifest, 0, SOME[:CHUNK_BYTES])
    store.put_chunk(blob_id, manifest, 2, SOME[2 * CHUNK_BYTES :])
    with pytest.raises(Rejected) as refused:
        store.put_chunk(blob_id, manifest, 1, SOME[:CHUNK_BYTES])
    assert refused.value.reason is Reason.DIFFERS
    part = next(tmp_path.glob("??/*.part"))
    damaged = bytearray(part.read_bytes())
    damaged[0] ^= 1
    part.write_bytes(damaged)

    again = BlobStore(tmp_path)
    assert not again.has(blob_id)
    assert again.begin(blob_id, manifest) == frozenset({2})
    for index in (0, 1):
        again.put_chunk(blob_id, manifest, index, SOME[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES])
    assert again.finish(blob_id).read_bytes() == SOME


KILLED = """
import os, sys
from pathlib import Path
from milon.p2p.blob_store import BlobStore
replace = os.replace
def die(source, target):
    if str(target).endswith(".blob"):
        os.kill(os.getpid(), 9)
    replace(source, target)
os.replace = die
BlobStore(Path(sys.argv[1])).put_bytes(bytes(3 << 20))
"""


def test_a_process_killed_while_it_stores_leaves_nothing_half_done(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, timeout=30)
    assert ended.returncode == -signal.SIGKILL
    store = BlobStore(tmp_path)
    assert store.ids() == ()
    assert not list(tmp_path.glob("incoming-*"))
    blob_id = store.put_bytes(bytes(3 << 20))
    assert store.read(blob_id) == bytes(3 << 20)
