"""Which rows each step trains on: a keyed permutation of the data, fixed by the round's seed and nobody's choice."""

from __future__ import annotations

from functools import lru_cache

from milon.base.hashing import digest
from milon.base.ids import Digest, JobId

_FEISTEL_ROUNDS = 4  # four rounds of a random function give a pseudorandom permutation (Luby and Rackoff 1988)


def compute_round_seed(job: JobId, round_number: int, beacon: Digest) -> Digest:
    """The seed of a round's batches and draws, from the beacon two blocks after the round's start."""
    return digest("round-seed", job, round_number.to_bytes(8, "big"), beacon)


@lru_cache(maxsize=1 << 16)  # a sweep over n rows asks for about 4 * sqrt(n) of these, each many times
def _half(seed: Digest, sweep: int, number: int, right: int) -> int:
    """The network's round function, before it is cut to a half's width."""
    block = digest("feistel", seed, sweep.to_bytes(8, "big"), bytes([number]), right.to_bytes(8, "big"))
    return int.from_bytes(block[:8], "big")


def _permute(seed: Digest, sweep: int, position: int, rows: int) -> int:
    """Place `position` (0 to rows - 1) goes to in the permutation of the sweep: a Feistel network, cycle-walked."""
    half_bits = max(1, ((rows - 1).bit_length() + 1) // 2)
    mask = (1 << half_bits) - 1
    while True:
        left, right = position >> half_bits, position & mask
        for number in range(_FEISTEL_ROUNDS):
            left, right = right, left ^ (_half(seed, sweep, number, right) & mask)
        position = left << half_bits | right
        if position < rows:
            return position


def compute_batch(seed: Digest, step: int, batch_size: int, rows: int) -> tuple[int, ...]:
    """The rows of one step, `step` counted over the round's segments in order; `rows` is at least 1.

    Step s takes the places s * batch_size and on of an endless sequence that runs through all rows in a fresh order per
    sweep, so trainers of one round share out the data and no row returns before every row was seen.
    """
    first = step * batch_size
    return tuple(_permute(seed, place // rows, place % rows, rows) for place in range(first, first + batch_size))
