"""Datasets: what is written is read back, and every other file is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from milon.base.errors import Reason, Rejected
from milon.base.ids import Digest
from milon.base.units import Count
from milon.gpu import rows
from milon.gpu.checkpoint import state_digest
from milon.gpu.rows import (
    compute_shard_bytes,
    count_rows,
    describe_columns,
    encode_shards,
    read_dataset,
    verify_data_manifest,
)
from milon.pol.terms import DataManifest, Field, Shard

COLUMNS = (
    torch.arange(70, dtype=torch.float32).reshape(7, 2, 5) - 30.5,
    torch.arange(7, dtype=torch.int64) * -3,
)


def _write(folder: Path, shard_bytes_max: int = rows.SHARD_BYTES_MAX) -> DataManifest:
    fields = describe_columns(("images", "target"), COLUMNS)
    shards = []
    for count, raw in encode_shards(fields, COLUMNS):
        blob = state_digest(raw)
        (folder / blob.hex()).write_bytes(raw)
        shards.append(Shard(blob, Count(count), Count(len(raw))))
    return DataManifest(Count(7), fields, tuple(shards))


def _find(folder: Path) -> Any:
    return lambda blob: folder / blob.hex()


def test_a_dataset_is_read_back(tmp_path: Path) -> None:
    dataset = read_dataset(_write(tmp_path), _find(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(dataset.columns, COLUMNS, strict=True))
    assert (dataset.rows, dataset.size_bytes) == (7, 7 * 48)
    images, target = dataset.take([6, 0, 6])
    assert target.tolist() == [-18, 0, -18] and torch.equal(images[2], COLUMNS[0][6])
    assert dataset.cut(5, 9)[1].tolist() == [-15, -18]


def test_many_shards_give_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "SHARD_BYTES_MAX", 280)
    manifest = _write(tmp_path)
    assert len(manifest.shards) > 2 and all(shard.size_bytes <= 280 for shard in manifest.shards)
    dataset = read_dataset(manifest, _find(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(dataset.columns, COLUMNS, strict=True))


def test_any_safetensors_reader_opens_a_shard(tmp_path: Path) -> None:
    (shard,) = _write(tmp_path).shards
    found = safetensors.torch.load_file(tmp_path / shard.blob.hex())
    assert torch.equal(found["images"], COLUMNS[0]) and torch.equal(found["target"], COLUMNS[1])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda raw: raw[:-1], Reason.DIFFERS),
        (lambda raw: raw + b"\0", Reason.DIFFERS),
        (lambda raw: raw.replace(b"images", b"imagex"), Reason.DIFFERS),
        (lambda raw: raw.replace(b'"F32"', b'"I32"'), Reason.DIFFERS),
        (lambda raw: raw[:-4] + bytes.fromhex("0000c07f"), Reason.NOT_FINITE),
        (lambda raw: raw[:-4] + bytes.fromhex("000080ff"), Reason.NOT_FINITE),
        (lambda raw: b"", Reason.DIFFERS),
    ],
)
def test_other_bytes_are_refused(tmp_path: Path, change: Any, reason: Reason) -> None:
    manifest = _write(tmp_path)
    path = tmp_path / manifest.shards[0].blob.hex()
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(Rejected) as refused:
        read_dataset(manifest, _find(tmp_path))
    assert refused.value.reason is reason


FIELDS = (Field("x", "F32", (2,)), Field("y", "I64", ()))
SHARD = Shard(Digest(bytes(32)), Count(3), Count(compute_shard_bytes(FIELDS, 3)))
MANIFEST = DataManifest(Count(3), FIELDS, (SHARD,))


@pytest.mark.parametrize(
    "change",
    [
        {"rows": Count(4)},
        {"rows": Count(0), "shards": ()},
        {"rows": Count(1 << 62)},
        {"fields": FIELDS[:1]},
        {"fields": (FIELDS[1], FIELDS[1])},
        {"fields": (Field('x"', "F32", (2,)), FIELDS[1])},
        {"fields": (Field("x", "F64", (2,)), FIELDS[1])},
        {"fields": (Field("x", "F32", (0,)), FIELDS[1])},
        {"fields": (Field("x", "F32", (-2,)), FIELDS[1])},
        {"fields": (Field("x", "F32", (1 << 39,) * 8), FIELDS[1])},
        {"fields": (Field("x", "F32", (1,) * 9), FIELDS[1])},
        {"shards": (dataclasses.replace(SHARD, size_bytes=Count(1)),)},
        {"shards": (SHARD, dataclasses.replace(SHARD, rows=Count(0)))},
    ],
)
def test_a_bad_manifest_is_refused(change: dict[str, Any]) -> None:
    verify_data_manifest(MANIFEST)
    with pytest.raises(Rejected):
        verify_data_manifest(dataclasses.replace(MANIFEST, **change))


def test_no_memory_is_taken_for_shards_that_are_not_there(tmp_path: Path) -> None:
    """A manifest that speaks of 3 GiB over an empty file is refused by the file's size."""
    fields = (Field("x", "F32", (1 << 28,)), Field("y", "I64", ()))
    size = compute_shard_bytes(fields, 3)
    manifest = DataManifest(Count(3), fields, (Shard(Digest(bytes(32)), Count(3), Count(size)),))
    (tmp_path / ("00" * 32)).write_bytes(b"")
    with pytest.raises(Rejected) as refused:
        read_dataset(manifest, _find(tmp_path))
    assert refused.value.reason is Reason.DIFFERS


def test_columns_in_memory_are_described_or_refused() -> None:
    assert count_rows(COLUMNS) == 7
    with pytest.raises(Rejected, match="float64"):
        describe_columns(("x", "y"), (COLUMNS[0].double(), COLUMNS[1]))
    with pytest.raises(Rejected) as refused:
        count_rows((COLUMNS[0], COLUMNS[1][:-1]))
    assert refused.value.reason is Reason.DOES_NOT_FIT
