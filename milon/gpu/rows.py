"""Datasets as the network keeps them: shards of safetensors under a manifest, read into one tensor per column.

A shard's header follows from the manifest alone, so a reader compares bytes and parses nothing: the columns stand in
the order of their element size (largest first, which keeps each aligned) and then of their names, rows row-major,
little-endian, the header padded with spaces to 8 bytes. Any safetensors reader opens such a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from milon.base.codec import decode
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import Digest
from milon.base.units import Count
from milon.pol.terms import DataManifest, Field

SHARD_BYTES_MAX = 16 << 20  # sixteen chunks of the network's: a lost line costs little, and providers share the load
ROWS_MAX = 1 << 40  # a row's place in an endless sequence of batches stays far inside 63 bits
FIELDS_MAX = 64  # the inputs of a model and its target
DIMENSIONS_MAX = 8  # of one row; images have three
DATASET_BYTES_MAX = 4 << 30  # a dataset is held in memory whole; the chain allows a job no more
DTYPES: dict[str, torch.dtype] = {"F32": torch.float32, "I64": torch.int64}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")  # no character that JSON would escape
_FINITE_CHECK_ROWS = 1 << 16  # bounds what the check holds beside the data


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows in memory; every column has the same number of them."""

    fields: tuple[Field, ...]  # as in the manifest: the last one is the target
    columns: tuple[Tensor, ...]  # one a field, of shape (rows, *field.shape)

    @property
    def rows(self) -> int:
        """How many."""
        return int(self.columns[0].shape[0])

    @property
    def size_bytes(self) -> int:
        """What the columns take."""
        return sum(column.numel() * column.element_size() for column in self.columns)

    def take(self, rows: Sequence[int]) -> tuple[Tensor, ...]:
        """These rows of every column, in this order."""
        index = torch.tensor(list(rows), dtype=torch.int64)
        return tuple(column.index_select(0, index) for column in self.columns)

    def cut(self, first: int, count: int) -> tuple[Tensor, ...]:
        """`count` consecutive rows of every column, from `first` on."""
        return tuple(column[first : first + count] for column in self.columns)


def _row_bytes(field: Field) -> int:
    elements = 1
    for dimension in field.shape:
        elements *= dimension
    return elements * DTYPES[field.dtype].itemsize


def _file_order(fields: Sequence[Field]) -> list[Field]:
    return sorted(fields, key=lambda field: (-DTYPES[field.dtype].itemsize, field.name))


def compute_header(fields: Sequence[Field], rows: int) -> bytes:
    """The length and the JSON header of a shard of `rows` rows."""
    entries = []
    begin = 0
    for field in _file_order(fields):
        end = begin + rows * _row_bytes(field)
        shape = ",".join(str(dimension) for dimension in (rows, *field.shape))
        entries.append(f'"{field.name}":{{"dtype":"{field.dtype}","shape":[{shape}],"data_offsets":[{begin},{end}]}}')
        begin = end
    text = "{" + ",".join(entries) + "}"
    text += " " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text.encode("ascii")


def compute_shard_bytes(fields: Sequence[Field], rows: int) -> int:
    """The size of a shard of `rows` rows."""
    return len(compute_header(fields, rows)) + rows * sum(_row_bytes(field) for field in fields)


def _verify_fields(fields: Sequence[Field]) -> None:
    require(2 <= len(fields) <= FIELDS_MAX, Reason.OUT_OF_RANGE, f"{len(fields)} columns; 2 to {FIELDS_MAX} may be")
    names = [field.name for field in fields]
    require(len(set(names)) == len(names), Reason.DUPLICATE, "two columns of one name")
    for field in fields:
        good_name = _NAME.fullmatch(field.name) is not None
        require(good_name, Reason.MALFORMED, f"a column named {field.name[:64]!r}; letters, digits and _.- may be")
        require(field.dtype in DTYPES, Reason.UNSUPPORTED, f"column {field.name} is {field.dtype[:16]!r}")
        good_shape = len(field.shape) <= DIMENSIONS_MAX and all(0 < size < ROWS_MAX for size in field.shape)
        require(good_shape, Reason.OUT_OF_RANGE, f"column {field.name} has rows of shape {field.shape[:16]}")


def verify_data_manifest(manifest: DataManifest) -> None:
    """Raise `Rejected` unless the manifest describes a dataset: good columns, shards of the sizes their rows give."""
    _verify_fields(manifest.fields)
    require(0 < manifest.rows < ROWS_MAX, Reason.OUT_OF_RANGE, f"a dataset of {manifest.rows} rows")
    total = sum(shard.rows for shard in manifest.shards)
    require(total == manifest.rows, Reason.DIFFERS, f"shards of {total} rows; the manifest has {manifest.rows}")
    row_bytes = sum(_row_bytes(field) for field in manifest.fields)
    size = row_bytes * manifest.rows
    require(size <= DATASET_BYTES_MAX, Reason.TOO_LARGE, f"a dataset of {size} bytes; {DATASET_BYTES_MAX} are allowed")
    for shard in manifest.shards:
        require(shard.rows > 0, Reason.OUT_OF_RANGE, "a shard without rows")
        expected = compute_shard_bytes(manifest.fields, shard.rows)
        fits = shard.size_bytes == expected
        require(fits, Reason.DIFFERS, f"a shard of {shard.size_bytes} bytes where its rows make {expected}")


def encode_shards(fields: Sequence[Field], columns: Sequence[Tensor]) -> Iterator[tuple[int, bytes]]:
    """(rows, bytes) of the shards of a dataset in row order, each at most `SHARD_BYTES_MAX` unless one row is more."""
    _verify_fields(fields)
    rows = int(columns[0].shape[0])
    row_bytes = sum(_row_bytes(field) for field in fields)
    header_bytes = len(compute_header(fields, ROWS_MAX))
    step = max(1, (SHARD_BYTES_MAX - header_bytes) // max(1, row_bytes))
    by_name = {field.name: column for field, column in zip(fields, columns, strict=True)}
    for first in range(0, rows, step):
        count = min(step, rows - first)
        parts = [compute_header(fields, count)]
        for field in _file_order(fields):
            part = by_name[field.name][first : first + count].contiguous()
            parts.append(part.reshape(-1).view(torch.uint8).numpy().tobytes())
        yield count, b"".join(parts)


def _read_shard(path: Path, fields: Sequence[Field], first: int, rows: int, columns: Mapping[str, Tensor]) -> None:
    header = compute_header(fields, rows)
    with path.open("rb") as file:
        if file.read(len(header)) != header:
            raise Rejected(Reason.DIFFERS, f"shard {path.name} does not open as its manifest says")
        for field in _file_order(fields):
            part = columns[field.name][first : first + rows].reshape(-1).view(torch.uint8).numpy()
            if file.readinto(part.data) != part.nbytes:
                raise Rejected(Reason.DIFFERS, f"shard {path.name} ends early")
        if file.read(1):
            raise Rejected(Reason.DIFFERS, f"shard {path.name} goes on after its last row")


def verify_finite(name: str, tensor: Tensor) -> None:
    """Raise `Rejected(NOT_FINITE)` if a float tensor holds NaN or infinity; one that holds integers passes."""
    if not tensor.is_floating_point():
        return
    for first in range(0, max(1, tensor.shape[0] if tensor.dim() else 1), _FINITE_CHECK_ROWS):
        part = tensor[first : first + _FINITE_CHECK_ROWS] if tensor.dim() else tensor
        require(bool(part.isfinite().all()), Reason.NOT_FINITE, f"{name} holds NaN or infinity")


def read_dataset(manifest: DataManifest, find: Callable[[Digest], Path]) -> Dataset:
    """The rows that `manifest` names, from the files that `find` gives for its shards.

    Raises `Rejected` for a manifest that is none, a shard that is missing or has other bytes than its manifest says,
    and values that are not finite.
    """
    verify_data_manifest(manifest)
    paths = [find(shard.blob) for shard in manifest.shards]
    for path, shard in zip(paths, manifest.shards, strict=True):  # before memory is taken for what is not there
        size = path.stat().st_size
        fits = size == shard.size_bytes
        require(fits, Reason.DIFFERS, f"shard {path.name} has {size} bytes; its manifest says {shard.size_bytes}")
    columns = {
        field.name: torch.empty((manifest.rows, *field.shape), dtype=DTYPES[field.dtype]) for field in manifest.fields
    }
    first = 0
    for path, shard in zip(paths, manifest.shards, strict=True):
        _read_shard(path, manifest.fields, first, shard.rows, columns)
        first += shard.rows
    for field in manifest.fields:
        verify_finite(f"column {field.name}", columns[field.name])
    return Dataset(manifest.fields, tuple(columns[field.name] for field in manifest.fields))


def parse_manifest(raw: bytes) -> DataManifest:
    """The checked manifest that `raw` encodes."""
    manifest = decode(DataManifest, raw)
    verify_data_manifest(manifest)
    return manifest


def describe_columns(names: Sequence[str], columns: Sequence[Tensor]) -> tuple[Field, ...]:
    """The fields of columns in memory; `Rejected(UNSUPPORTED)` for a dtype that datasets do not hold."""
    fields = []
    for name, column in zip(names, columns, strict=True):
        if column.dtype not in DTYPE_NAMES:
            raise Rejected(Reason.UNSUPPORTED, f"column {name} is {column.dtype}; float32 and int64 may be")
        fields.append(Field(name, DTYPE_NAMES[column.dtype], tuple(int(size) for size in column.shape[1:])))
    _verify_fields(fields)
    return tuple(fields)


def count_rows(columns: Sequence[Tensor]) -> Count:
    """The rows of columns in memory; `Rejected(DOES_NOT_FIT)` unless all have the same number, at least one."""
    counts = [int(column.shape[0]) for column in columns]
    require(min(counts) == max(counts) > 0, Reason.DOES_NOT_FIT, f"columns of {counts} rows; all need the same, not 0")
    return Count(counts[0])
