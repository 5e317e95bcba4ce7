"""What replays say about a claim, and what a round came to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from milon.base.codec import wire
from milon.base.ids import AccountId, Digest
from milon.base.units import Count


class Verdict(StrEnum):
    """What a replay of a segment found."""

    TRUE = "true"  # the same bits
    FALSE = "false"  # other bits
    UNAVAILABLE = "unavailable"  # the states or records could not be fetched from the trainer in time


@wire("refusal/1")
@dataclass(frozen=True, slots=True)
class Refusal:
    """An update that had no part in the aggregate."""

    trainer: AccountId  # whose
    reason: str  # by the rule's own words, numbers included


@wire("round-outcome/1")
@dataclass(frozen=True, slots=True)
class RoundOutcome:
    """What a round came to; validators sign it whole, so every number in it is agreed bit for bit."""

    state: Digest  # blob id of the new global state; the old one's where the round is void
    loss_bits: Count  # binary32 bits of the evaluation loss
    correct: Count  # evaluation rows predicted right; 0 where the job has no classes
    rows: Count  # evaluation rows
    accepted: tuple[AccountId, ...]  # trainers whose updates are in the aggregate, in order
    refused: tuple[Refusal, ...]  # the others, in order of account
    void: str  # why the round closed without a new state; empty where it did not
