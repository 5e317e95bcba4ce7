"""The rules as a table of the lab names them: the same text as a job's `aggregator`, and the same code behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from milon.base.ids import Digest
from milon.pol.aggregation import verify_bearable
from milon.pol.pipeline import parse_pipeline

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Aggregated:
    """What a rule made of a round."""

    state: Mapping[str, Tensor]  # the new one
    parts: Mapping[bytes, int]  # share of each update that was taken in, by account, parts per million


def verify_rule(text: str, trainers: int, tolerance: int) -> None:
    """Raise `Rejected` unless the pipeline is known and bears `tolerance` of `trainers`."""
    verify_bearable(parse_pipeline(text), [1] * trainers, tolerance)


def apply_rule(
    text: str,
    tolerance: int,
    round_state: Mapping[str, Tensor],
    finals: Sequence[tuple[bytes, int, Mapping[str, Tensor]]],
    statistics: frozenset[str],
    slots: Mapping[str, Tensor],
    seed: Digest,
) -> Aggregated:
    """The round's result, as a job with this aggregator and tolerance computes it; `Rejected` closes a round void.

    `seed`: the round's, for rules that draw.
    """
    from milon.gpu.aggregate import aggregate_round

    state, report = aggregate_round(
        round_state, finals, text, tolerance, slots, statistics=statistics, seed=bytes(seed)
    )
    return Aggregated(state, {bytes(standing.account): standing.part_ppm for standing in report.accepted})
