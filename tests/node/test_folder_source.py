"""`milon verify-block --node`: a folder's chain and blobs, checked as a stranger's would be."""

from __future__ import annotations

from pathlib import Path

import pytest

from milon.base.blob import compute_blob_id, compute_manifest
from milon.base.codec import encode
from milon.base.errors import Reason, Rejected
from milon.base.ids import Digest
from milon.base.units import Height
from milon.chain.genesis import compute_genesis_hash
from milon.node.folder import NodeFolder
from milon.node.folder_source import FolderBlobs, visiting_folder
from milon.node.questions import AskClock
from milon.node.verify_block import Inquiry, verify_from_folder
from milon.p2p.blob_store import BlobStore
from milon.p2p.transport import Channel
from tests.node.chains import grow, make_folder
from tests.node.test_replay import damage, flipped, record_of


def list_files(folder: NodeFolder) -> list[tuple[Path, int]]:
    """Every file of the folder but LMDB's table of readers, with its size."""
    files = (path for path in sorted(folder.root.rglob("*")) if path.is_file() and path.name != "lock.mdb")
    return [(path, path.stat().st_size) for path in files]


def test_a_folder_proves_its_blocks_by_height_and_by_hash(tmp_path: Path) -> None:
    grown = grow()
    folder = make_folder(grown, tmp_path)
    before = list_files(folder)
    report = verify_from_folder(Inquiry(Height(5)), tmp_path / "here", folder.root)
    assert (report.verdict, report.height, report.rounds) == ("valid", 5, 0)
    again = verify_from_folder(
        Inquiry(report.hash), tmp_path / "there", folder.root, compute_genesis_hash(grown.genesis)
    )
    assert (again.hash, again.proved) == (report.hash, report.proved)
    assert list_files(folder) == before


def test_another_genesis_hash_is_refused(tmp_path: Path) -> None:
    folder = make_folder(grow(), tmp_path)
    with pytest.raises(Rejected) as caught:
        verify_from_folder(Inquiry(Height(5)), tmp_path / "here", folder.root, Digest(bytes(32)))
    assert caught.value.reason is Reason.WRONG_CHAIN


def test_a_folder_without_a_chain_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(Rejected):
        verify_from_folder(Inquiry(Height(5)), tmp_path / "here", tmp_path / "nothing")


def test_a_damaged_certificate_proves_nothing(tmp_path: Path) -> None:
    grown = grow()
    folder = make_folder(grown, tmp_path)
    tip = grown.store.tip()
    assert tip is not None
    while True:  # every finalization: none may vouch for the block
        key, value = record_of(folder, b"certificates")
        damage(folder, b"certificates", key, None)
        if not _has_certificate(folder):
            damage(folder, b"certificates", key, flipped(value))
            break
    with pytest.raises(Rejected):
        verify_from_folder(Inquiry(Height(5)), tmp_path / "here", folder.root)


def _has_certificate(folder: NodeFolder) -> bool:
    try:
        record_of(folder, b"certificates")
    except AssertionError:
        return False
    return True


async def test_a_folder_answers_no_other_questions(tmp_path: Path) -> None:
    folder = make_folder(grow(), tmp_path)
    async with visiting_folder(folder, None) as (_, peer):
        (name,) = peer.peers()
        with pytest.raises(Rejected):
            await peer.request(name, Channel.SYNC, encode(AskClock()), timeout_s=1.0)
        with pytest.raises(Rejected):
            await peer.request(name, Channel.BLOB, b"", timeout_s=1.0)


async def test_a_blob_in_a_folder_is_checked_against_its_name(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    blob = store.put_bytes(b"a state")
    blobs = FolderBlobs(tmp_path / "blobs", BlobStore(tmp_path / "own"))
    path = await blobs.ensure(blob, 100, 1.0)
    assert path.read_bytes() == b"a state"
    with pytest.raises(Rejected) as caught:
        await blobs.ensure(blob, 3, 1.0)
    assert caught.value.reason is Reason.TOO_LARGE
    path.chmod(0o600)
    path.write_bytes(b"another")
    with pytest.raises(Rejected) as caught:
        await blobs.ensure(blob, 100, 1.0)
    assert caught.value.reason is Reason.CORRUPT
    with pytest.raises(Rejected) as caught:
        await blobs.ensure(compute_blob_id(compute_manifest(b"missing")), 100, 1.0)
    assert caught.value.reason is Reason.UNAVAILABLE
    own = await blobs.put_bytes(b"mine")
    assert (await blobs.ensure(own, 100, 1.0)).parent.parent == tmp_path / "own"
