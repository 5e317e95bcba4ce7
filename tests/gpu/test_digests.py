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


@pytest.mark.parametrize("threads", [1, 2])
def test_sums_of_bits(threads: int) -> None:
    torch.set_num_threads(threads)
    values = torch.randn((1 << 17) + 3, generator=torch.Generator().manual_seed(1)) * 1e-3
    values[5], values[6], values[1 << 16] = torch.nan, -torch.inf, -0.0
    values[7] = torch.tensor(-1, dtype=torch.int32).view(torch.float32)  # another NaN
    position = (1 << 40) + 1
    found = digests.sum_bits(values, position)
    assert found is not None
    wanted = sum(b * (2 * place + 1) for place, b in enumerate(float_bits(values).tolist(), position))
    assert (found - wanted) % (1 << 64) == 0
    few = values[:3]
    assert digests.sum_bits(few, 2) == sum(
        b * (2 * place + 1) for place, b in enumerate(few.view(torch.int32).tolist(), 2)
    )
    assert digests.sum_bits(values[::2], 1) is None
    assert digests.sum_bits(values[:0], 1) is None


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
