"""The chain's parameters: fixed in genesis, committed to by every header."""

from __future__ import annotations

from dataclasses import dataclass

from milon.base.codec import encode, wire
from milon.base.hashing import digest
from milon.base.ids import Digest
from milon.base.units import Amount, Count, Epoch, Height

EPOCH_NEVER_ENDS = 1 << 40  # blocks of an epoch that no chain lives to the end of: the set is fixed in genesis


@wire("parameters/3")
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
    epoch_blocks: Count = Count(EPOCH_NEVER_ENDS)  # how long a validator set holds; by default it is fixed in genesis
    fee_min: Amount = Amount(1)  # burned; makes refused transactions cost something
    unbond_blocks: Count = Count(1_000)  # how long unbonding stake stays slashable
    slash_ppm: Count = Count(500_000)  # of a liar's stake: half of it burns, half goes to the refuters
    beacon_delay_blocks: Count = Count(2)  # a beacon is used this many blocks after what it decides about
    data_bytes_max: Count = Count(4 << 30)  # of one job's blobs together: what every validator must fetch
    program_memory_bytes_max: Count = Count(4 << 30)  # of one training step
    program_operations_max: Count = Count(1 << 44)  # of one training step
    validators_max: Count = Count(100)  # members of a set: every one of them votes on every block
    validator_bond_min: Amount = Amount(1)  # own stake of a member; makes a place in the set cost something
    power_cap_ppm: Count = Count(333_332)  # of a set's power that one member has at most: nobody alone stops the chain
    learning_ppm: Count = Count(500_000)  # of the leader weights that learning decides; stake decides the rest
    protocol_fee_ppm: Count = Count(10_000)  # of what a trainer is paid: burned, and its learning share
    block_reward: Amount = Amount(0)  # minted for whoever proposed the block and those who delegated to it
    evidence_age_blocks: Count = Count(500)  # after its epoch's end an offence is too old; less than `unbond_blocks`
    evidence_slash_ppm: Count = Count(50_000)  # of an offender's stake that burns however small it is
    evidence_correlation: Count = Count(3)  # and so many times the share of power that offends together
    jail_missed_ppm: Count = Count(500_000)  # of its turns to lead in an epoch: who misses more is jailed
    jail_turns_min: Count = Count(4)  # fewer turns in an epoch show nothing
    jail_blocks: Count = Count(100)  # a jailed validator asks to come back after as many
    lapse_ppm: Count = Count(10_000)  # of a committee member's stake that burns when it does not do its part
    withhold_ppm: Count = Count(50_000)  # of a trainer's stake, for states that a quorum could not have; half burns
    challenge_bond: Amount = Amount(100)  # the least stake of a challenger, and what it forfeits by its clock
    audit_ppm_min: Count = Count(0)  # the least audit rate of a job
    committee_size_min: Count = Count(1)  # the smallest committee of a job
    trainer_bond_min: Amount = Amount(0)  # the least bond of a job's trainers
    deadline_blocks_min: Count = Count(1)  # the shortest deadline for commitments, openings, judgements and moves


def compute_parameters_hash(parameters: Parameters) -> Digest:
    """What headers commit to."""
    return digest("parameters", encode(parameters))


def compute_epoch(height: Height, parameters: Parameters) -> Epoch:
    """The epoch of the block at `height` (1 or more): epoch e holds heights `e * L + 1` to `(e + 1) * L`."""
    return Epoch((height - 1) // parameters.epoch_blocks)


def compute_last_height(epoch: Epoch, parameters: Parameters) -> Height:
    """The height of an epoch's last block."""
    return Height((epoch + 1) * parameters.epoch_blocks)


def is_last_of_epoch(height: Height, parameters: Parameters) -> bool:
    """Whether the block at `height` (1 or more) ends its epoch, and so fixes the next validator set."""
    return height % parameters.epoch_blocks == 0
