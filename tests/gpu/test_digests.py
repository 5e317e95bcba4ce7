"""Digests taken quickly are those of the plain ways, whatever the sizes, threads and numbers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from milon.base import blob
from milon.base.blob import CHUNK_BYTES
from milon.gpu import digests, fast
from milon.gpu.checkpoint import state_digest
from milon.gpu.train import compute_fingerprint, float_bits


@pytest.fixture(autouse=True)
def _compiled() -> Iterator[None]:
    fast.choose(fast.COMPILED_OPERATIONS_MIN)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def random_bytes(size: int) -> bytes:
    chance = torch.Generator().manual_seed(size)
    return bytes(torch.randint(0, 256, (size,), dtype=torch.uint8, generator=chance).numpy())


@pytest.mark.parametrize("is_wide", [False, True])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_manifests_are_those_of_hashlib(threads: int, is_wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert digests.loops() is not None
    monkeypatch.setattr(digests, "is_wide_quicker", lambda: is_wide)
    torch.set_num_threads(threads)
    raw = random_bytes(18 * CHUNK_BYTES + 77)
    for size in (0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 4 * CHUNK_BYTES + 1, 17 * CHUNK_BYTES, len(raw)):
        assert digests.compute_manifest(raw[:size]) == blob.compute_manifest(raw[:size])


def test_which_way_is_quicker_is_found_out() -> None:
    assert digests.is_wide_quicker() in (True, False)
    raw = random_bytes(6 * CHUNK_BYTES)
    assert state_digest(raw) == blob.compute_blob_id(blob.compute_manifest(raw))


def sum_slowly(tensors: list[Tensor]) -> int:
    bits = [b for tensor in tensors for b in float_bits(tensor).reshape(-1).tolist()]
    return sum(b * (2 * place + 1) for place, b in enumerate(bits))


@pytest.mark.parametrize("is_compiled", [True, False])
@pytest.mark.parametrize("threads", [1, 2])
def test_sums_of_bits(threads: int, is_compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of all sizes, two of them longer than a piece, with every kind of number."""
    torch.set_num_threads(threads)
    if not is_compiled:
        monkeypatch.setattr(digests, "loops", lambda: None)
    values = torch.randn((1 << 16) + 77, generator=torch.Generator().manual_seed(1)) * 1e-3
    values[5], values[6], values[1 << 15] = torch.nan, -torch.inf, -0.0
    values[7] = torch.tensor(-1, dtype=torch.int32).view(torch.float32)  # another NaN
    parts = [values[3], values[7:7], values[4:8].view(2, 2), values[8:], values[: (1 << 15) + 1], values[6:7]]
    found = digests.sum_bits(parts)
    assert found is not None and (found - sum_slowly(parts)) % (1 << 64) == 0
    assert digests.sum_bits(parts[::-1]) != found, "places count"
    assert digests.sum_bits([values[3], values[::2]]) is None


def test_many_numbers_are_summed_quickly_by_compiled_loops_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [torch.tensor(2.0), torch.randn(1 << 17, generator=torch.Generator().manual_seed(3))]
    found = digests.sum_bits(values)
    assert found is not None
    named = {"a": values[1]}
    wanted = compute_fingerprint(values[0], named)
    monkeypatch.setattr(digests, "loops", lambda: None)
    assert digests.sum_bits(values) is None
    assert compute_fingerprint(values[0], named) == wanted


@pytest.mark.parametrize("name", ["digest_chunks", "add_fingerprints"])
def test_wrong_loops_are_dropped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = digests.loops()
    assert hashes is not None
    right = getattr(hashes, name)

    def wrong(*given: object) -> None:
        right(*given)
        given[-1][1] ^= 1  # type: ignore[index]  # an array

    values = torch.randn(1 << 16, generator=torch.Generator().manual_seed(2))
    raw = random_bytes(5 * CHUNK_BYTES)
    wanted = _results(values, raw)
    monkeypatch.setattr(hashes, name, wrong)
    digests.load_loops.cache_clear()
    digests.is_wide_quicker.cache_clear()
    with pytest.warns(UserWarning, match="digests differ"):
        assert digests.loops() is None
    assert not digests.is_wide_quicker()
    assert _results(values, raw) == wanted
    monkeypatch.undo()
    digests.load_loops.cache_clear()
    digests.is_wide_quicker.cache_clear()
    assert digests.loops() is hashes


def _results(values: Tensor, raw: bytes) -> tuple[int, bytes]:
    return compute_fingerprint(torch.tensor(1.0), {"a": values}), state_digest(raw)
