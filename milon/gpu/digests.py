"""Digests of what training gives, quickly: the chunks of a state's bytes, and sums over the bits of gradients."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from milon.base.blob import CHUNK_BYTES, Manifest
from milon.base.hashing import sha256
from milon.base.ids import Digest
from milon.gpu import fast

_FEW = 4  # chunks that are quicker one by one than with most lanes idle
_TRIED_BYTES = 1 << 14  # of a chunk when both ways are timed: a millisecond
_BLOCK_BYTES = 64  # of SHA-256
_WORD_BYTES = 4
_SMALL = 1 << 17  # elements whose sum takes a fraction of a millisecond, and a copy of them no room
_MAGNITUDE = 0x7FFFFFFF
_NAN_BITS = 0x7FC00000


def loops() -> ModuleType | None:
    """The compiled loops, or None where none are used or these gave another digest or sum than the plain way."""
    return None if fast.kernels() is None else load_loops()


@cache
def load_loops() -> ModuleType | None:
    """The compiled loops once they have proven themselves; None, with a warning, where they did not."""
    from milon.gpu import kernels_hash

    if not agrees(kernels_hash):
        warnings.warn("compiled loops of digests differ from the reference and are not used", stacklevel=2)
        return None
    return kernels_hash


def agrees(hashes: ModuleType) -> bool:
    """Whether the loops give the digests of hashlib and the sums of Python's integers."""
    sample = bytes(place * place % 251 for place in range(64 * 3 * hashes.LANES))
    starts = range(0, len(sample), 64 * 3)
    wanted = [sha256(sample[start : start + 64 * 3]) for start in starts]
    words = np.frombuffer(sample, np.uint32)
    if _digest_together(hashes, words, [start // _WORD_BYTES for start in starts], 64 * 3) != wanted:
        return False
    values = torch.arange(-40_000, 40_000, dtype=torch.float32).mul_(0.37)
    values[7], values[8], values[40_001] = torch.nan, -torch.inf, -torch.nan
    bits = torch.where(values.isnan(), _NAN_BITS, values.view(torch.int32)).tolist()
    total = sum(b * (2 * place + 1) for place, b in enumerate(bits))
    parts = [values[:5], values[5:5], values[5:]]
    return bool((_sum_pieces(hashes, parts) - total) % (1 << 64) == 0)


@cache
def is_wide_quicker() -> bool:
    """Whether chunks side by side are quicker than the library, which may have instructions for SHA-256."""
    hashes = loops()
    if hashes is None:
        return False
    raw = bytes(_TRIED_BYTES * hashes.LANES)
    words = np.frombuffer(raw, np.uint32)
    begins = list(range(0, len(words), _TRIED_BYTES // _WORD_BYTES))
    return _time(lambda: _digest_together(hashes, words, begins, _TRIED_BYTES)) < _time(lambda: sha256(raw))


def _time(function: Callable[[], Any]) -> float:
    best = 1.0
    for _ in range(5):
        begun = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - begun)
    return best


def _digest_together(hashes: ModuleType, words: Any, begins: list[int], size_bytes: int) -> list[Digest]:
    """Digests of at most LANES pieces of one size, which begin at these words."""
    idle = hashes.LANES - len(begins)
    state = np.empty(8 * hashes.LANES, np.uint32)
    hashes.digest_chunks(words, np.array(begins + begins[:1] * idle, np.int64), size_bytes // _BLOCK_BYTES, state)
    lanes = state.reshape(8, hashes.LANES).T.astype(">u4")
    return [Digest(lanes[lane].tobytes()) for lane in range(len(begins))]


def compute_manifest(raw: bytes) -> Manifest:
    """`milon.base.blob.compute_manifest`, on as many threads as torch uses and several chunks at a time."""
    view = memoryview(raw)
    whole = len(view) // CHUNK_BYTES
    count = -(-len(view) // CHUNK_BYTES)
    found: list[Digest] = [Digest(bytes(32))] * count
    threads = torch.get_num_threads()
    hashes = loops() if whole >= _FEW and is_wide_quicker() else None
    parts = count if hashes is None else min(max(-(-whole // hashes.LANES), threads), whole // _FEW)
    words = np.frombuffer(view[: whole * CHUNK_BYTES], np.uint32)

    def digest_parts(first: int, last: int) -> None:
        for part in range(first, last):
            if hashes is None:
                found[part] = sha256(view[part * CHUNK_BYTES : (part + 1) * CHUNK_BYTES])
                continue
            begin, end = whole * part // parts, whole * (part + 1) // parts
            begins = [chunk * (CHUNK_BYTES // _WORD_BYTES) for chunk in range(begin, end)]
            found[begin:end] = _digest_together(hashes, words, begins, CHUNK_BYTES)
            if part == 0 and count > whole:
                found[whole] = sha256(view[whole * CHUNK_BYTES :])

    fast.split(digest_parts, parts, len(view))
    return Manifest(len(view), tuple(found))


def sum_bits(tensors: Sequence[Tensor]) -> int | None:
    """The sum of b_p * (2p + 1) over the elements of all these binary32 tensors, p from 0 on; None where there is no
    quick way to it.

    Defined where a fingerprint is, in `milon.gpu.train`; the answer is right modulo 2^64.
    """
    if not all(tensor.device.type == "cpu" and tensor.is_contiguous() for tensor in tensors):
        return None
    hashes = loops()
    if hashes is not None:
        return _sum_pieces(hashes, tensors)
    return _sum_small(tensors) if sum(tensor.numel() for tensor in tensors) <= _SMALL else None


@lru_cache(maxsize=8)
def _cut(sizes: tuple[int, ...], piece: int) -> list[Any]:
    """Tensors of these sizes in pieces: whose each is, its first byte there, its elements, the first one's number."""
    owners, begins, counts, positions = [], [], [], []
    for owner, size in enumerate(sizes):
        before = sum(sizes[:owner])
        for begin in range(0, size, piece):
            owners.append(owner)
            begins.append(_WORD_BYTES * begin)
            counts.append(min(piece, size - begin))
            positions.append(before + begin)
    return [np.array(row, np.int64) for row in (owners, begins, counts, positions)]


def _sum_pieces(hashes: ModuleType, tensors: Sequence[Tensor]) -> int:
    """One call for all tensors: a step of a small model has as many calls' time as elements' otherwise."""
    sizes = tuple(tensor.numel() for tensor in tensors)
    owners, begins, counts, positions = _cut(sizes, hashes.PIECE)
    addresses = np.array([tensor.data_ptr() for tensor in tensors], np.int64)[owners] + begins
    sums = np.empty(len(counts), np.int64)
    fast.split(hashes.add_fingerprints, len(counts), sum(sizes), addresses, counts, positions, sums)
    return int(sums.sum())


def _sum_small(tensors: Sequence[Tensor]) -> int:
    """The same without compiled loops, for so few elements that a call costs more than they do."""
    bits = np.concatenate([fast.patterns(tensor) for tensor in tensors])
    odd = (bits & _MAGNITUDE) > fast.INFINITY_BITS
    if odd.any():
        bits[odd] = _NAN_BITS
    return int(np.dot(bits.astype(np.int64), _weights()[: bits.size]))


@cache
def _weights() -> Any:
    return np.arange(_SMALL, dtype=np.int64) * 2 + 1
