"""Parameters: heights and epochs, and what a genesis with them must hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from milon.base.errors import Reason, Rejected
from milon.base.units import Amount, Count, Epoch, Height, TimeMs
from milon.chain.genesis import EPOCHS_KEPT_MAX, SUPPLY_MAX, Genesis, GenesisAccount, verify_genesis
from milon.chain.params import (
    EPOCH_NEVER_ENDS,
    Parameters,
    compute_epoch,
    compute_last_height,
    compute_parameters_hash,
    is_last_of_epoch,
)
from tests.contracts.helpers import account_id


def verify(parameters: Parameters, validators: int = 2) -> None:
    """What genesis says of the parameters."""
    accounts = (GenesisAccount(account_id(index + 1), Amount(5), Amount(9), True) for index in range(validators))
    verify_genesis(Genesis("x", TimeMs(0), parameters, tuple(accounts)))


def test_every_height_lies_in_one_epoch() -> None:
    for blocks in (1, 2, 7):
        parameters = Parameters(epoch_blocks=Count(blocks))
        epochs = [compute_epoch(Height(height), parameters) for height in range(1, 50)]
        assert epochs == sorted(epochs) and set(epochs) == set(range(max(epochs) + 1))
        for height, epoch in enumerate(epochs, start=1):
            last = compute_last_height(epoch, parameters)
            assert last - blocks < height <= last
            assert is_last_of_epoch(Height(height), parameters) == (height == last)


def test_by_default_no_epoch_ends() -> None:
    assert Parameters().epoch_blocks == EPOCH_NEVER_ENDS
    assert compute_epoch(Height(1 << 39), Parameters()) == Epoch(0)
    verify(Parameters())


def test_every_parameter_is_in_the_hash() -> None:
    start = compute_parameters_hash(Parameters())
    for name in Parameters.__slots__:  # type: ignore[attr-defined]  # of a slotted dataclass
        changed = replace(Parameters(), **{name: getattr(Parameters(), name) + 1})
        assert compute_parameters_hash(changed) != start, name


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch_blocks": 0},
        {"epoch_blocks": EPOCH_NEVER_ENDS + 1},
        {"evidence_age_blocks": 0},
        {"evidence_age_blocks": 1_000},
        {"unbond_blocks": 500},
        {"epoch_blocks": 5, "evidence_age_blocks": 5 * (EPOCHS_KEPT_MAX + 1)},
        {"validators_max": 0},
        {"validators_max": 513},
        {"epoch_blocks": 100, "validators_max": 1},
        {"power_cap_ppm": 0},
        {"power_cap_ppm": 1_000_001},
        {"learning_ppm": 1_000_001},
        {"protocol_fee_ppm": 1_000_001},
        {"evidence_slash_ppm": 1_000_001},
        {"evidence_correlation": 1_000_001},
        {"jail_missed_ppm": 1_000_001},
        {"jail_blocks": (1 << 32) + 1},
        {"block_reward": SUPPLY_MAX + 1},
        {"lapse_ppm": 100_001},
        {"withhold_ppm": 500_001},
        {"audit_ppm_min": 1_000_001},
        {"committee_size_min": 33},
        {"deadline_blocks_min": (1 << 32) + 1},
    ],
)
def test_parameters_that_break_a_rule_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(Rejected) as refusal:
        verify(replace(Parameters(), **changes))  # type: ignore[arg-type]  # units are plain integers
    assert refusal.value.reason is Reason.OUT_OF_RANGE


def test_the_bounds_themselves_hold() -> None:
    verify(Parameters(unbond_blocks=Count(501)))
    verify(Parameters(epoch_blocks=Count(5), evidence_age_blocks=Count(5 * EPOCHS_KEPT_MAX)))
    verify(Parameters(epoch_blocks=Count(1), evidence_age_blocks=Count(1), unbond_blocks=Count(2)))
    verify(Parameters(validators_max=Count(1)))
