"""Cheats on the chain's side of proof of learning: on who is drawn, on what is opened, and on other people's words.

Players live jobs on the contracts themselves, blocks and ledger included; training is a made-up function there, so that
a thousand attempts take minutes. What replays say about arithmetic is tried in `forging` and `spoofing`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

from milon.base.hashing import digest
from milon.base.ids import ClaimId, Digest, JobId
from milon.base.signing import SecretKey
from milon.base.units import Count
from milon.chain.learning import ClosedRound
from milon.chain.transaction import Action, Claim, CommitAttestation
from milon.contracts.duties import CommitDuty, Duty, OpenDuty, RevealDuty, TrainDuty
from milon.contracts.records import OpenRound, open_round_key
from milon.pol.sampling import draw_sample
from milon.pol.terms import PARTS_PER_MILLION, audit_ppm_of
from tests.attacks.ground import Tried
from tests.contracts.helpers import make_keys, make_spec, name_of
from tests.contracts.players import Player, World, make_attestation, make_world

SEGMENTS = 64  # of a round, shared by four
QUARTER = Count(250_000)  # the audit rate
GUESSES = 16  # variants of a claim that a grinder makes


def submit(world: World, label: str, **terms: object) -> JobId:
    """A job of its own name, so that its claims and their samples are its own."""
    spec = dataclasses.replace(make_spec(**terms), name=label)
    return world.chain.submit(world.chain.others[0], spec)


def live(label: str, terms: dict[str, object], behaviour: dict[str, object]) -> tuple[World, list[ClosedRound]]:
    """A job of one round in which all four trainers cheat in the same way."""
    world = make_world(4, **{f"p{number}": dict(behaviour) for number in range(4)})
    job = submit(world, label, rounds=Count(1), **terms)
    return world, world.finish(job)


def _is_paid(closed: ClosedRound, trainer: bytes) -> bool:
    return any(entry.account == trainer and entry.reason == "segments" for entry in closed.payments)


def _judge(terms: dict[str, object], behaviour: dict[str, object]) -> Callable[[int], Iterator[Tried]]:
    def attempts(seed: int) -> Iterator[Tried]:
        while True:
            _, rounds = live(f"attack {seed}", terms, behaviour)
            for closed in rounds:
                for claim in closed.claims:
                    is_accepted = claim.status == "accepted" or claim.trainer in closed.outcome.accepted
                    yield Tried(is_accepted or _is_paid(closed, claim.trainer))
            seed += 1

    return attempts


def attempt_withheld(seed: int) -> Iterator[Tried]:
    """No states for those who would replay, or no traces for those who have: turn by turn."""
    checkpoints = _judge({}, {"is_withholding": True})(seed)
    traces = _judge({}, {"skips": (OpenDuty,)})(seed)
    while True:
        yield next(checkpoints)
        yield next(traces)


def attempt_second_claim(seed: int) -> Iterator[Tried]:
    """Grinding in the open: a second claim in the same round, made once the first one's sample is known."""
    while True:
        world = make_world()
        job = submit(world, f"attack {seed}", rounds=Count(1))
        duties: dict[bytes, TrainDuty] = {}
        perform = world.perform

        def note(player, duty, duties=duties, perform=perform):  # type: ignore[no-untyped-def]
            if isinstance(duty, TrainDuty):
                duties[player.key.account] = duty
            return perform(player, duty)

        world.perform = note  # type: ignore[method-assign]
        while not (opened := world.chain.ledger.load(open_round_key(job), OpenRound)) or len(opened.claims) < 4:
            world.step()
        for player in world.players.values():
            first = perform(player, duties[player.key.account])
            if not isinstance(first, Claim):
                raise RuntimeError("training gives a claim")
            for extra in range(4):
                (problem,) = world.chain.do((player.key, dataclasses.replace(first, compute_ms=Count(100 + extra))))
                yield Tried(not problem)
        seed += 1


class Copier:
    """A committee member that replays nothing and shows what others have shown.

    Whose commitment it repeats, whose attestation it repeats, or whose keyed digest a friend let it have before the
    reveals and it puts under its own name.
    """

    def __init__(self, world: World, player: Player, kind: int) -> None:
        self._world = world
        self._player = player
        self._kind = kind
        self._honest = world.perform

    def perform(self, player: Player, duty: Duty) -> Action | None:
        """Its own action, or whatever the others do."""
        if player is not self._player or not isinstance(duty, (CommitDuty, RevealDuty)):
            return self._honest(player, duty)
        return self._commit(duty) if isinstance(duty, CommitDuty) else self._reveal(duty)

    def _commit(self, duty: CommitDuty) -> Action | None:
        claim = duty.claim
        if not claim.commitments:
            return None  # somebody else first
        other = claim.commitments[0]
        if self._kind == 0:
            return CommitAttestation(claim.claim, other.commitment)
        leaked = self._world.opened[other.verifier, claim.claim].keyed_traces
        return self._commit_to(duty, leaked if self._kind == 1 else name_of("nothing"))

    def _commit_to(self, duty: CommitDuty, keyed: Digest) -> Action:
        claim, key = duty.claim, self._player.key
        if claim.beacon is None:
            raise RuntimeError("a committee is drawn from a beacon")
        proof, _ = draw_sample(key, claim.claim, claim.beacon, claim.count, audit_ppm_of(duty.spec.terms, claim.round))
        attest, commitment = make_attestation(key.account, claim, proof, keyed)
        self._world.opened[key.account, claim.claim] = attest
        return commitment

    def _reveal(self, duty: RevealDuty) -> Action | None:
        claim, own = duty.claim, self._player.key.account
        shown = [entry.verifier for entry in claim.attestations if entry.verifier != own]
        if self._kind == 1:
            return self._world.opened[own, claim.claim]
        if not shown:
            return None  # until there is something to copy
        other = self._world.opened[shown[0], claim.claim]
        if self._kind == 0:
            return other
        return dataclasses.replace(self._world.opened[own, claim.claim], keyed_traces=other.keyed_traces)


def attempt_copied_attestation(seed: int) -> Iterator[Tried]:
    """A verifier relays the others' words instead of replaying: whether it counts, or is paid."""
    while True:
        world = make_world()
        copier = world.players[world.chain.keys[seed % 4].account]
        world.perform = Copier(world, copier, seed % 3).perform  # type: ignore[method-assign]
        job = submit(world, f"attack {seed}", rounds=Count(1))
        for closed in world.finish(job):
            is_paid = any(
                entry.account == copier.key.account and entry.reason == "replays" for entry in closed.payments
            )
            for claim in closed.claims:
                if claim.trainer != copier.key.account:
                    yield Tried(is_paid or copier.key.account in claim.verifiers)
        seed += 1


def draw_false(segments: int, false: int, seed: int) -> frozenset[int]:
    """Which of a claim's segments are false: spread by a hash, as an adversary with no better idea would."""
    order = sorted(range(segments), key=lambda place: digest("attack-place", f"{seed} {place}".encode()))
    return frozenset(order[:false])


def is_caught(keys: tuple[SecretKey, ...], claim: ClaimId, beacon: Digest, false: frozenset[int], each: int) -> bool:
    """Whether the members' own draws of `each` segments meet a false one of a claim of `SEGMENTS`."""
    ppm = each * PARTS_PER_MILLION // SEGMENTS
    return any(place in false for key in keys for place in draw_sample(key, claim, beacon, SEGMENTS, ppm)[1])


def try_samples(false: int, members: int, each: int, is_grinding: bool, number: int = 0) -> Iterator[bool]:
    """Claims with so many false segments, one after the other: whether each is caught.

    The grinder makes sixteen variants of its claim and hands in the one that a draw with its own key, on the newest
    beacon there is, would miss. The beacon that counts comes two blocks later, and the keys that count are others'.
    """
    keys, grinder = make_keys(members, "member"), make_keys(1, "grinder")
    while True:
        places = draw_false(SEGMENTS, false, number)
        old, beacon = (digest("attack-beacon", f"{number} {age}".encode()) for age in ("old", "new"))
        variants = [digest("attack-claim", f"{number} {guess}".encode()) for guess in range(GUESSES)]
        chosen = variants[0]
        if is_grinding:
            missed = (name for name in variants if not is_caught(grinder, ClaimId(name), Digest(old), places, each))
            chosen = next(missed, chosen)
        yield is_caught(keys, ClaimId(chosen), Digest(beacon), places, each)
        number += 1


def try_plain_grinding(false: int, each: int) -> Iterator[bool]:
    """The same where the sample follows from the claim alone, as a careless design has it: caught or not."""
    public = make_keys(1, "public")
    number = 0
    while True:
        places = draw_false(SEGMENTS, false, number)
        variants = (ClaimId(digest("attack-claim", f"{number} {guess}".encode())) for guess in range(4 * GUESSES))
        yield all(is_caught(public, name, Digest(bytes(32)), places, each) for name in variants)
        number += 1


def try_contract(false: int, number: int = 0) -> Iterator[bool]:
    """Claims of sixteen segments with so many false, audited at a quarter by three: whether each is refuted."""
    while True:
        lies = frozenset(
            16 * quarter + place for quarter in range(4) for place in sorted(draw_false(16, false, number))
        )
        terms: dict[str, object] = {"segments_per_round": Count(SEGMENTS), "audit_ppm": (QUARTER,)}
        _, rounds = live(f"sampled {number}", terms, {"lies": lies})
        for closed in rounds:
            for claim in closed.claims:
                yield claim.status.startswith("refuted")
        number += 1


ATTACKS: dict[str, Callable[[int], Iterator[Tried]]] = {
    "copying or relaying another's attestation": attempt_copied_attestation,
    "withheld openings": attempt_withheld,
    "grinding: a second claim": attempt_second_claim,
}
