"""Random numbers that depend on nothing but their place: Philox4x32-10, keyed per draw (rule N5 of the numerics).

Source: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, Parallel random numbers: as easy as 1, 2, 3, SC 2011.
"""

from __future__ import annotations

import torch
from torch import Tensor

from milon.base.hashing import digest
from milon.pol.program import StepKey

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF


def philox(counter: Tensor, key: tuple[int, int]) -> Tensor:
    """Ten rounds over counters [4, n] of 32-bit words (in int64) under `key` (two such words); words [4, n] again."""
    multipliers = torch.tensor(MULTIPLIERS, dtype=torch.int64, device=counter.device).unsqueeze(1)
    even, odd = counter[0::2], counter[1::2]
    for round_number in range(ROUNDS):
        words = [(word + round_number * step) & _WORD for word, step in zip(key, WEYL, strict=True)]
        product = even * multipliers  # wraps modulo 2^64, which keeps all 64 bits
        high = (product >> 32).bitwise_and_(_WORD).flip(0)
        keys = torch.tensor(words, dtype=torch.int64, device=counter.device).unsqueeze(1)
        even, odd = high.bitwise_xor_(odd).bitwise_xor_(keys), product.bitwise_and_(_WORD).flip(0)
    return torch.stack((even[0], odd[0], even[1], odd[1]))


def draw_uniform(key: StepKey, operation: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Uniform binary32 in [0, 1) in steps of 2^-24 for draw number `operation` of a step.

    Element i (row-major) is the upper 24 bits of word i mod 4 of counter i div 4. The Philox key and the upper half of
    the counter are the first 16 bytes of the digest of (job seed, round, trainer, step, operation).
    """
    elements = 1
    for size in shape:
        elements *= size
    words = _words(key, operation, torch.arange(-(-elements // 4), dtype=torch.int64, device=device))
    return _to_uniform(words.reshape(-1)[:elements]).reshape(shape)


def draw_elements(key: StepKey, operation: int, elements: Tensor) -> Tensor:
    """The same for some elements only, by their places (int64, row-major) in the whole draw; shape of `elements`."""
    blocks, places = torch.unique(elements >> 2, return_inverse=True)
    return _to_uniform(_words(key, operation, blocks)[places, elements & 3])


def _words(key: StepKey, operation: int, blocks: Tensor) -> Tensor:
    """The words [n, 4] of these counters."""
    numbers = (key.round, key.trainer, key.step, operation)
    named = digest("draw", key.job_seed, *(number.to_bytes(4, "big") for number in numbers))
    words = [int.from_bytes(named[start : start + 4], "big") for start in range(0, 16, 4)]
    upper = torch.tensor(words[2:], dtype=torch.int64, device=blocks.device).unsqueeze(1).expand(2, blocks.numel())
    counter = torch.cat((torch.stack((blocks & _WORD, blocks >> 32)), upper))
    return philox(counter, (words[0], words[1])).t()


def _to_uniform(words: Tensor) -> Tensor:
    return (words >> 8).to(torch.float32).mul_(2.0**-24)
