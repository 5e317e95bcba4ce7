"""Canonical bytes of a training state: one safetensors file per state, whatever dictionary or machine it came from.

A state is a flat mapping. "model.<name>" holds parameters and buffers, "optimizer.<slot>.<name>" the optimizer's slots;
a round's state may also hold "outer.<slot>.<name>", what its aggregation remembers, which no training step reads.
The file is safetensors (an 8-byte length, a JSON header, the tensors' bytes) in one form only: names in the order of
their bytes in header and body alike, no metadata, no spaces but the header's padding to 8 bytes, every NaN 0x7FC00000.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from mmap import ACCESS_COPY, mmap
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from milon.base.blob import compute_blob_id
from milon.base.errors import Reason, Rejected, require
from milon.base.ids import Digest
from milon.gpu import fast
from milon.gpu.digests import compute_manifest

STATE_MAX_BYTES = 16 << 30  # a state is held in memory, twice while it is written
TENSORS_MAX = 16_384  # a thousand layers with sixteen tensors each; bounds the time of reading a header
HEADER_MAX_BYTES = TENSORS_MAX * 256  # a name of 100 bytes with four dimensions, on average
NAME_MAX_BYTES = 256  # the longest names in public models have about 120
DIMENSIONS_MAX = 8  # convolutions have five
MODEL_PREFIX = "model."
OPTIMIZER_PREFIX = "optimizer."
OUTER_PREFIX = "outer."
NAN_BITS = 0x7FC00000
_FEW = 1 << 12  # numbers that cost less than handing them to torch: small models have a hundred such tensors

DTYPES: dict[str, torch.dtype] = {  # names of the safetensors format; binary32 is the only float of the numerics
    "F32": torch.float32,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

_NAME = re.compile(r"(?:model|optimizer|outer)\.[ !#-\[\]-~]+")  # printable ASCII without the two that JSON escapes
_NUMBER = r"(?:0|[1-9][0-9]{0,14})"
_ENTRY = re.compile(
    rf'"(?P<name>{_NAME.pattern})":\{{"dtype":"(?P<dtype>[A-Z0-9]{{1,5}})",'
    rf'"shape":\[(?P<shape>(?:{_NUMBER}(?:,{_NUMBER})*)?)\],"data_offsets":\[(?P<begin>{_NUMBER}),(?P<end>{_NUMBER})\]\}}'
)


def _verify_name(name: str) -> None:
    if len(name) > NAME_MAX_BYTES or not _NAME.fullmatch(name):
        raise Rejected(Reason.MALFORMED, f"a tensor named {name[:NAME_MAX_BYTES]!r}")


def _verify_dimensions(name: str, dimensions: int) -> None:
    if dimensions > DIMENSIONS_MAX:
        raise Rejected(Reason.TOO_LARGE, f"{name} has {dimensions} dimensions; {DIMENSIONS_MAX} are allowed")


def _header(layout: list[tuple[str, str, tuple[int, ...], int]]) -> bytes:
    """The length and the JSON header for (name, dtype, shape, bytes) in order of name."""
    entries = []
    begin = 0
    for name, dtype, shape, size_bytes in layout:
        dimensions = ",".join(str(dimension) for dimension in shape)
        end = begin + size_bytes
        entries.append(f'"{name}":{{"dtype":"{dtype}","shape":[{dimensions}],"data_offsets":[{begin},{end}]}}')
        begin = end
    text = "{" + ",".join(entries) + "}"
    text += " " * (-len(text) % 8)
    require(len(text) <= HEADER_MAX_BYTES, Reason.TOO_LARGE, f"a header of {len(text)} bytes")
    return len(text).to_bytes(8, "little") + text.encode("ascii")


def _tensor_bytes(tensor: Tensor) -> memoryview:
    if 0 < tensor.numel() <= _FEW and tensor.device.type == "cpu":
        few = np.ascontiguousarray(tensor.detach().numpy()).reshape(-1)
        if few.dtype != np.float32 or not np.isnan(few).any():
            return few.data.cast("B")
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    if flat.dtype == torch.float32 and fast.has_nan(flat):
        bits = flat.view(torch.int32)
        flat = torch.where(flat.isnan(), torch.full_like(bits, NAN_BITS), bits)
    return flat.numpy().data.cast("B") if flat.numel() else memoryview(b"")


def to_bytes(state: Mapping[str, Tensor]) -> bytes:
    """The one file of `state`; `Rejected` for a name, a dtype or a size that no state has."""
    require(len(state) <= TENSORS_MAX, Reason.TOO_LARGE, f"{len(state)} tensors; {TENSORS_MAX} are allowed")
    layout = []
    for name in sorted(state):
        tensor = state[name]
        _verify_name(name)
        _verify_dimensions(name, tensor.dim())
        if tensor.dtype not in DTYPE_NAMES:
            raise Rejected(Reason.UNSUPPORTED, f"{name} is {tensor.dtype}; a state holds {', '.join(DTYPES)}")
        size_bytes = tensor.numel() * tensor.element_size()
        layout.append((name, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape), size_bytes))
    size_bytes = sum(entry[3] for entry in layout)
    require(size_bytes <= STATE_MAX_BYTES, Reason.TOO_LARGE, f"a state of {size_bytes} bytes")
    return b"".join([_header(layout), *(_tensor_bytes(state[entry[0]]) for entry in layout)])


def _split(raw: bytes | memoryview, size_max_bytes: int) -> tuple[str, memoryview]:
    """The header's text and the tensors' bytes."""
    require(len(raw) <= size_max_bytes, Reason.TOO_LARGE, f"{len(raw)} bytes where {size_max_bytes} are allowed")
    require(len(raw) >= 8, Reason.MALFORMED, "a state ends inside its header's length")
    length = int.from_bytes(raw[:8], "little")
    require(length <= HEADER_MAX_BYTES, Reason.TOO_LARGE, f"a header of {length} bytes")
    require(length <= len(raw) - 8, Reason.MALFORMED, "a state ends inside its header")
    head = bytes(raw[8 : 8 + length])
    require(head.isascii(), Reason.MALFORMED, "a header that is not ASCII")
    return head.decode("ascii"), memoryview(raw)[8 + length :]


def _read_layout(text: str) -> list[tuple[str, str, tuple[int, ...], int]]:
    """(name, dtype, shape, bytes) of every tensor that the header describes, checked entry by entry.

    The header is matched against the one form it may have, never handed to a general JSON reader: no nesting, no
    escapes, no repeated keys.
    """
    layout: list[tuple[str, str, tuple[int, ...], int]] = []
    position = 1
    while position < len(text) and text[position] == '"':
        match = _ENTRY.match(text, position)
        if match is None:
            raise Rejected(Reason.MALFORMED, f"no tensor's entry at byte {position} of the header")
        name, dtype = match["name"], match["dtype"]
        _verify_name(name)
        require(dtype in DTYPES, Reason.UNSUPPORTED, f"{name} is {dtype}; a state holds {', '.join(DTYPES)}")
        shape = tuple(int(dimension) for dimension in match["shape"].split(",")) if match["shape"] else ()
        _verify_dimensions(name, len(shape))
        size_bytes = extent = DTYPES[dtype].itemsize
        for dimension in shape:
            size_bytes *= dimension
            extent *= max(dimension, 1)  # strides of an empty tensor must not overflow either
        require(extent <= STATE_MAX_BYTES, Reason.TOO_LARGE, f"{name} has the shape {shape}")
        layout.append((name, dtype, shape, size_bytes))
        require(len(layout) <= TENSORS_MAX, Reason.TOO_LARGE, f"more than {TENSORS_MAX} tensors")
        position = match.end() + (text[match.end() : match.end() + 1] == ",")
    return layout


def _verify_values(name: str, tensor: Tensor) -> None:
    """Refuse the other encodings of the same value: odd NaNs, and truth values that are neither 0 nor 1."""
    if tensor.dtype == torch.float32 and fast.has_nan(tensor):
        odd = bool((tensor.isnan() & (tensor.view(torch.int32) != NAN_BITS)).any())
        require(not odd, Reason.NOT_CANONICAL, f"{name} holds another NaN")
    elif tensor.dtype == torch.bool:
        odd = bool((tensor.view(torch.uint8) > 1).any())
        require(not odd, Reason.NOT_CANONICAL, f"{name} holds a truth value that is neither 0 nor 1")


def _open(raw: bytes | memoryview, size_max_bytes: int) -> Iterator[tuple[str, str, tuple[int, ...], int, memoryview]]:
    """(name, dtype, shape, place in the file, bytes) of every tensor, once the header is known to be the one form."""
    text, body = _split(raw, size_max_bytes)
    layout = _read_layout(text)
    names = [entry[0] for entry in layout]
    require(all(a < b for a, b in pairwise(names)), Reason.NOT_CANONICAL, "names are not in order")
    total = sum(entry[3] for entry in layout)
    require(total == len(body), Reason.MALFORMED, f"{len(body)} bytes of tensors where the header needs {total}")
    require(_header(layout)[8:] == text.encode("ascii"), Reason.NOT_CANONICAL, "the header has another form")
    begin = 0
    for name, dtype, shape, size_bytes in layout:
        yield name, dtype, shape, len(raw) - len(body) + begin, body[begin : begin + size_bytes]
        begin += size_bytes


def from_bytes(raw: bytes, size_max_bytes: int = STATE_MAX_BYTES) -> dict[str, Tensor]:
    """The state whose one file is `raw`, on the CPU, in order of name; `Rejected` for any other bytes.

    What is returned shares no memory with `raw`, and `to_bytes` of it is `raw` again.
    """
    state: dict[str, Tensor] = {}
    for name, dtype, shape, _, part in _open(raw, size_max_bytes):
        if not part:
            state[name] = torch.empty(shape, dtype=DTYPES[dtype])
            continue
        flat = torch.frombuffer(bytearray(part), dtype=DTYPES[dtype])
        _verify_values(name, flat)
        state[name] = flat.reshape(shape)
    return state


def map_file(path: Path, size_max_bytes: int = STATE_MAX_BYTES) -> dict[str, Tensor]:
    """The state in a file as `from_bytes` has it, mapped into memory: read when it is used, and given up when other
    things need the memory. Changing a tensor changes no file. The file must stay as it is while the tensors live.

    Numbers that are none are left to whoever reads the tensors: their many forms are not looked for.
    """
    require(path.stat().st_size >= 8, Reason.MALFORMED, "a state ends inside its header's length")
    with path.open("rb") as file:
        whole = memoryview(mmap(file.fileno(), 0, access=ACCESS_COPY))
    state: dict[str, Tensor] = {}
    for name, dtype, shape, place, part in _open(whole, size_max_bytes):
        kind = DTYPES[dtype]
        is_aligned = place % kind.itemsize == 0
        flat = (
            torch.frombuffer(part if is_aligned else bytearray(part), dtype=kind)
            if part
            else torch.empty(0, dtype=kind)
        )
        if kind == torch.bool:
            _verify_values(name, flat)
        state[name] = flat.reshape(shape)
    return state


def verify_same_shape(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raise `Rejected(DOES_NOT_FIT)` unless both have the same names, and under each the same shape and dtype."""
    for name in sorted(expected.keys() ^ found.keys()):
        side = "lacks" if name in expected else "has an unknown tensor"
        raise Rejected(Reason.DOES_NOT_FIT, f"the state {side} {name[:NAME_MAX_BYTES]!r}")
    for name in sorted(expected):
        wanted, got = expected[name], found[name]
        if wanted.shape != got.shape or wanted.dtype != got.dtype:
            detail = f"{name} is {got.dtype} {tuple(got.shape)} where {wanted.dtype} {tuple(wanted.shape)} is needed"
            raise Rejected(Reason.DOES_NOT_FIT, detail)


def state_digest(raw: bytes) -> Digest:
    """The blob id of a state's bytes: the name under which the chain knows the state and the network serves it."""
    return compute_blob_id(compute_manifest(raw))


def export_model(state: Mapping[str, Tensor], aliases: Mapping[str, str] | None = None) -> dict[str, Tensor]:
    """The model's parameters and buffers under the names that torch's `load_state_dict` expects; copies.

    `aliases` has the names under which tied tensors appear again, and the names they have in the state.
    """
    names = {name: name for name in state if name.startswith(MODEL_PREFIX)} | dict(aliases or {})
    for name, held in names.items():
        require(held in state, Reason.UNKNOWN, f"{name[:NAME_MAX_BYTES]!r} names a tensor that the state lacks")
    return {name.removeprefix(MODEL_PREFIX): state[names[name]].clone() for name in sorted(names)}
