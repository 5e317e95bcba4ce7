"""Votes collected per view, certificates built from them, and contradictions found among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from milon.base.ids import AccountId
from milon.chain.certificate import Certificate, Validator, Vote, VoteContent, VoteKind, compute_quorum
from milon.chain.evidence import Contradiction, find_offence, make_contradiction

Pool = Mapping[tuple[VoteKind, AccountId], Vote]  # of one view: the first vote of each kind from each validator

EMPTY_POOL: Pool = {}


def is_quorum(power: int, total: int) -> bool:
    """Whether votes of `power` decide."""
    return power >= compute_quorum(total)


def find_contradiction(pool: Pool, vote: Vote) -> Vote | None:
    """A vote in the pool that no honest validator signs beside this one: same signer and view, or None.

    Two NOTARIZE for different blocks, two FINALIZE for different blocks, NULLIFY with FINALIZE, or FINALIZE for another
    block than the one notarized. NOTARIZE with NULLIFY is honest: the block was good, then time ran out.
    """
    kind, block, signer = vote.content.kind, vote.content.block, vote.signer
    same = pool.get((kind, signer))
    if same is not None and same.content != vote.content:
        return same
    if kind is VoteKind.NOTARIZE:
        other = pool.get((VoteKind.FINALIZE, signer))
        return other if other is not None and other.content.block != block else None
    if kind is VoteKind.NULLIFY:
        return pool.get((VoteKind.FINALIZE, signer))
    nullify, notarize = pool.get((VoteKind.NULLIFY, signer)), pool.get((VoteKind.NOTARIZE, signer))
    if nullify is None and notarize is not None and notarize.content.block != block:
        return notarize
    return nullify


def find_offences(pool: Pool, vote: Vote) -> tuple[Contradiction, ...]:
    """Evidence from what the pool has of the vote's signer and the vote together."""
    held = (pool.get((kind, vote.signer)) for kind in VoteKind)
    return tuple(
        make_contradiction(other, vote)
        for other in held
        if other is not None and find_offence(other.content, vote.content) is not None
    )


def with_vote(pool: Pool, vote: Vote) -> Pool:
    """The pool with the vote in it, unless its signer has one of that kind there already."""
    place = (vote.content.kind, vote.signer)
    return pool if place in pool else {**pool, place: vote}


def build_certificate(pool: Pool, content: VoteContent, validators: Sequence[Validator]) -> Certificate | None:
    """The certificate for `content` from all its votes in the pool, or None where they are too few."""
    votes: list[Vote] = []
    power = 0
    for validator in validators:
        vote = pool.get((content.kind, validator.account))
        if vote is not None and vote.content == content:
            votes.append(vote)
            power += validator.power
    if not is_quorum(power, sum(validator.power for validator in validators)):
        return None
    return Certificate(content, tuple(vote.signer for vote in votes), tuple(vote.signature for vote in votes))
