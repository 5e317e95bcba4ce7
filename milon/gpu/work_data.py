"""A user's data as columns of tensors, and columns as a dataset's blobs in a folder."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from milon.base.codec import encode
from milon.base.errors import Reason, Rejected, require
from milon.base.units import Count
from milon.gpu.rows import count_rows, describe_columns, encode_shards, verify_finite
from milon.gpu.work_library import write_blob
from milon.pol.terms import DataManifest, Shard
from milon.pol.work import BlobFile

_NUMPY_KINDS = "biuf"  # truth values, integers, floats


def _to_column(name: str, values: Any) -> Tensor:
    """float32 or int64 rows: narrower types are widened, binary64 is rounded to binary32."""
    if isinstance(values, Tensor):
        known = values.layout is torch.strided
        require(known, Reason.UNSUPPORTED, f"column {name} is {values.layout}; call its to_dense()")
        tensor = values.detach().cpu()
    else:
        try:
            array = numpy.asarray(values)
        except ValueError as error:
            raise Rejected(Reason.MALFORMED, f"column {name}: {error}; rows of one shape are needed") from None
        known = array.dtype.kind in _NUMPY_KINDS
        require(known, Reason.UNSUPPORTED, f"column {name} holds {array.dtype}; numbers are needed")
        tensor = torch.from_numpy(numpy.ascontiguousarray(array).astype(array.dtype.newbyteorder("="), copy=True))
    require(tensor.dim() > 0, Reason.DOES_NOT_FIT, f"column {name} is a single number; rows are needed")
    require(not tensor.is_complex(), Reason.UNSUPPORTED, f"column {name} holds complex numbers")
    return tensor.to(torch.float32 if tensor.is_floating_point() else torch.int64).contiguous()


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        with numpy.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise Rejected(Reason.UNAVAILABLE, f"there is no file {path}") from None
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error, AttributeError) as error:
        raise Rejected(Reason.MALFORMED, f"{path} cannot be read as .npz: {error}") from None


def collect_columns(source: Any, what: str = "data") -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
    """Names and columns of tuples of tensors or arrays, or of an .npz file; the target last.

    Raises `Rejected`, which names `what` the columns are, for what is no rows of finite numbers, or where the columns
    differ in their number of rows.
    """
    try:
        return _collect(source)
    except Rejected as refusal:
        raise Rejected(refusal.reason, f"{what}: {refusal.detail}; nothing was sent") from None


def _collect(source: Any) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
    if isinstance(source, (str, Path)):
        named = _read_npz(Path(source))
    elif isinstance(source, (tuple, list)) and source:
        named = {f"input{place}": values for place, values in enumerate(source[:-1])}
        named["target"] = source[-1]
    else:
        wanted = "give a tuple (inputs, ..., target) of tensors or arrays, or the path of an .npz file"
        raise Rejected(Reason.WRONG_TYPE, f"a {type(source).__name__} where columns are needed; {wanted}")
    require(len(named) >= 2, Reason.TOO_FEW, f"{len(named)} columns; inputs and, last, a target are needed")
    columns = tuple(_to_column(name, values) for name, values in named.items())
    is_empty = all(len(column) == 0 for column in columns)
    require(not is_empty, Reason.TOO_FEW, f"no rows in {', '.join(named)}; at least one is needed")
    count_rows(columns)
    for name, column in zip(named, columns, strict=True):
        verify_finite(f"column {name}", column)
    return tuple(named), columns


def write_dataset(names: Sequence[str], columns: Sequence[Tensor], folder: Path) -> list[BlobFile]:
    """Write the shards and, last in the list, the manifest of a dataset into `folder`."""
    fields = describe_columns(names, columns)
    written: list[BlobFile] = []
    shards: list[Shard] = []
    for rows, raw in encode_shards(fields, columns):
        written.append(write_blob(folder, raw))
        shards.append(Shard(written[-1].blob, Count(rows), Count(len(raw))))
    manifest = DataManifest(count_rows(columns), fields, tuple(shards))
    written.append(write_blob(folder, encode(manifest)))
    return written
