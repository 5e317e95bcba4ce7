"""The chain's parameters: fixed in genesis, committed to by every header."""

from __future__ import annotations

from dataclasses import dataclass

from milon.base.codec import encode, wire
from milon.base.hashing import digest
from milon.base.ids import Digest
from milon.base.units import Amount, Count


@wire("parameters/1")
@dataclass(frozen=True, slots=True)
class Parameters:
    """What governance may one day change."""

    block_time_ms: Count = Count(1_000)  # pause before an empty block
    busy_block_time_ms: Count = Count(200)  # pause before a block that has something to say
    delta_ms: Count = Count(1_000)  # assumed message delay; timers are multiples of it
    delta_max_ms: Count = Count(20_000)  # where the growing delta stops
    clock_drift_ms_max: Count = Count(5_000)  # a block's time may be so far ahead of a validator's clock
    block_bytes_max: Count = Count(2 << 20)  # travels in well under delta on a slow line
    block_transactions_max: Count = Count(2_000)  # bounds execution time
    transaction_bytes_max: Count = Count(256 << 10)  # the largest honest one: the opening of a claim of 2,000 segments
    epoch_blocks: Count = Count(1 << 40)  # the validator set is fixed in genesis
    fee_min: Amount = Amount(1)  # burned; makes refused transactions cost something
    unbond_blocks: Count = Count(1_000)  # how long unbonding stake stays slashable
    slash_ppm: Count = Count(500_000)  # of a liar's stake: half of it burns, half goes to the refuters
    beacon_delay_blocks: Count = Count(2)  # a beacon is used this many blocks after what it decides about
    data_bytes_max: Count = Count(4 << 30)  # of one job's blobs together: what every validator must fetch
    program_memory_bytes_max: Count = Count(4 << 30)  # of one training step
    program_operations_max: Count = Count(1 << 44)  # of one training step


def compute_parameters_hash(parameters: Parameters) -> Digest:
    """What headers commit to."""
    return digest("parameters", encode(parameters))
