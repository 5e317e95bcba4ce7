"""The terms a user may choose for a job, the ones chosen for them, and clear words where they cannot work."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from milon.base.errors import Rejected
from milon.base.ids import AccountId
from milon.base.units import Amount, Count
from milon.chain.params import Parameters
from milon.pol.pipeline import compute_count_needed, parse_pipeline
from milon.pol.quote import compute_audit_chance, compute_stake
from milon.pol.terms import PARTS_PER_MILLION, JobTerms, Settlement, compute_cost_max, verify_terms

ACCOUNT_BYTES = 32
DEFAULT_SLASH_PPM = int(Parameters().slash_ppm)  # what a lie costs of a stake, where the chain does not say otherwise
DEFAULT_PRICE = 1_000  # a segment's and a replay's, where neither prices nor a reward are named
EVALUATION_BATCHES = 16  # an evaluation batch may be so many training batches: without gradients it needs less a row


class JobError(Exception):
    """A job that cannot be submitted as it is: what is wrong, why, and what to do next."""


class TermChoices(TypedDict, total=False):
    """What a user may say about a job; what is left out is chosen as `DEFAULTS` says. Deadlines count blocks."""

    rounds: int  # how many
    segments_per_round: int  # work packages, shared out among the trainers by their speed
    steps_per_segment: int  # optimizer steps in a package
    batch_size: int  # rows a step
    aggregator: str  # a pipeline such as "median" or "arc,nnm,trimmed-mean"; `milon aggregators` lists the parts
    faulty_count: int  # hostile trainers the aggregation must bear
    audit: float | Sequence[float]  # chance that a verifier runs a segment again, 0 to 1; one, or one per round
    audit_ppm: Sequence[int]  # the same in parts per million; instead of `audit`
    committee_size: int  # verifiers per claim
    trainers_min: int  # with fewer the job waits
    trainers_target: int  # as soon as so many are there, it starts
    enrol_blocks: int  # it starts without the target after so many
    claim_blocks: int  # what a trainer has not finished by then does not count
    attest_blocks: int  # for the verifiers
    judge_blocks: int  # for everybody, where a claim is disputed
    aggregate_blocks: int  # for the round's outcome
    settlement: str  # "replay": everybody runs a challenged package again; "bisection": for packages too large for that
    dispute_blocks: int  # for each move of a dispute by bisection
    challenge_blocks: int  # an accepted claim stays open to challenges at least so long
    reassign_blocks: int  # to train what nobody claimed in time, handed out again once a round; 0: it never is
    reward: int  # in all; prices are set so that it covers everything
    segment_price: int  # instead of `reward`: per accepted segment
    replay_price: int  # instead of `reward`: per replayed segment
    bond_min: int  # stake that a trainer must have at risk
    trainers: Sequence[str]  # who may take part, account ids in hexadecimal; nobody named: anyone


DEFAULTS: TermChoices = {
    "rounds": 5,
    "segments_per_round": 20,
    "steps_per_segment": 10,
    "batch_size": 32,
    "aggregator": "arc,nnm,trimmed-mean",
    "faulty_count": 1,
    "committee_size": 3,
    "trainers_target": 5,
    "enrol_blocks": 30,
    "claim_blocks": 60,
    "attest_blocks": 30,
    "judge_blocks": 30,
    "aggregate_blocks": 30,
    "settlement": "replay",
    "dispute_blocks": 30,
    "challenge_blocks": 0,
    "reassign_blocks": 60,
    "trainers": (),
}
# One segment in 64 for each of three verifiers: 4.7 % of the training in all, so that honest work stays cheap. One
# false segment is then met with 4.6 %, and a bond of 83 of its prices keeps it from paying. For few segments, few
# rounds and strangers say more: 0.25, or 1.
DEFAULT_AUDIT_PPM = (15_625,)


def verify_choices(choices: Mapping[str, Any]) -> None:
    """Raise `JobError` for a term that does not exist or is of the wrong type."""
    known = TermChoices.__annotations__
    for name, value in choices.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the terms are {', '.join(known)}."
            raise JobError(f"a job has no term {name!r}; {hint}")
        if name in ("audit", "audit_ppm", "aggregator", "trainers", "settlement"):
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise JobError(f"{name} is {value!r}; it must be a whole number.")


def _read_aggregator(name: object) -> str:
    text = "".join(str(name).split())
    try:
        return parse_pipeline(text).text
    except Rejected as rejected:
        raise JobError(f"aggregator is {name!r}: {rejected.detail}; see `milon aggregators`.") from None


def _read_settlement(name: object) -> Settlement:
    names = [settlement.value for settlement in Settlement]
    if name not in names:
        raise JobError(f"settlement is {name!r}; it may be {' or '.join(names)}.")
    return Settlement(name)


def _read_audit(choices: Mapping[str, Any]) -> tuple[Count, ...]:
    if "audit" in choices and "audit_ppm" in choices:
        raise JobError("audit and audit_ppm say the same thing twice; leave one of them out.")
    if "audit_ppm" in choices:
        return tuple(Count(int(ppm)) for ppm in choices["audit_ppm"])
    if "audit" not in choices:
        return tuple(Count(ppm) for ppm in DEFAULT_AUDIT_PPM)
    audit = choices["audit"]
    shares = [audit] if isinstance(audit, (int, float)) else list(audit)
    if not shares or not all(isinstance(share, (int, float)) and 0 <= share <= 1 for share in shares):
        raise JobError(f"audit is {audit!r}; it must be a share from 0 to 1, or one per round, such as (0.1, 0.5).")
    return tuple(Count(round(share * PARTS_PER_MILLION)) for share in shares)


def _read_trainers(accounts: Sequence[str]) -> tuple[AccountId, ...]:
    try:
        found = [bytes.fromhex(account) for account in accounts]
    except (ValueError, TypeError) as error:
        raise JobError(f"trainers: {error}; name each by its account id in hexadecimal.") from None
    if any(len(account) != ACCOUNT_BYTES for account in found):
        raise JobError("trainers: an account id has 64 hexadecimal digits.")
    return tuple(AccountId(account) for account in sorted(set(found)))


def _compute_prices(choices: Mapping[str, Any], unpriced: JobTerms) -> tuple[int, int]:
    """Prices of a segment and of a replay: as chosen, or equal, for a replay is the same work again."""
    if "reward" not in choices or "segment_price" in choices or "replay_price" in choices:
        segment = choices.get("segment_price", DEFAULT_PRICE)
        return segment, choices.get("replay_price", segment)
    units = compute_cost_max(unpriced)
    price = choices["reward"] // units
    if price < 1:
        raise JobError(
            f"a reward of {choices['reward']} cannot pay for up to {units} segments and replays; "
            f"offer at least {units}, or choose fewer rounds or segments, or a lower audit."
        )
    return price, price


def _compute_bond(audit_ppm: Sequence[int], members: int, segment_price: int) -> int:
    """What `milon job quote` asks for at the least audit rate there is: then one false segment never pays."""
    rates = [ppm for ppm in audit_ppm if ppm]
    if not rates:
        return 0  # nothing is ever replayed, so no bond is ever lost
    return compute_stake(compute_audit_chance(min(rates), members), segment_price, DEFAULT_SLASH_PPM)


def _verify_together(terms: JobTerms) -> None:
    needed = compute_count_needed(terms.aggregator, terms.faulty_count)
    if terms.trainers_min < needed:
        raise JobError(
            f"{terms.aggregator} with faulty_count={terms.faulty_count} needs {needed} trainers, and "
            f"trainers_min is {terms.trainers_min}; raise trainers_min to {needed}, or lower faulty_count."
        )
    if terms.segments_per_round < terms.trainers_min:
        raise JobError(
            f"segments_per_round is {terms.segments_per_round}, fewer than the {terms.trainers_min} trainers it takes; "
            "some of them would have nothing to do. Raise segments_per_round."
        )


def compute_terms(choices: Mapping[str, Any]) -> tuple[JobTerms, int]:
    """The terms that the choices and the defaults come to, and the reward to lock for them.

    Raises `JobError` with what is wrong, why and what to do.
    """
    verify_choices(choices)
    chosen: dict[str, Any] = {**DEFAULTS, **choices}
    aggregator = _read_aggregator(chosen["aggregator"])
    needed = compute_count_needed(aggregator, max(0, chosen["faulty_count"]))
    trainers_min = chosen.get("trainers_min", needed)
    if "trainers_target" not in choices:
        chosen["trainers_target"] = max(chosen["trainers_target"], trainers_min)
    numbers = (
        "rounds", "segments_per_round", "steps_per_segment", "batch_size", "faulty_count", "committee_size",
        "trainers_target", "enrol_blocks", "claim_blocks", "attest_blocks", "judge_blocks", "aggregate_blocks",
        "dispute_blocks", "challenge_blocks", "reassign_blocks",
    )  # fmt: skip
    audit_ppm = _read_audit(chosen)

    def make(segment_price: int, replay_price: int, bond_min: int) -> JobTerms:
        terms = JobTerms(
            **{name: Count(chosen[name]) for name in numbers},
            trainers_min=Count(trainers_min),
            aggregator=aggregator,
            audit_ppm=audit_ppm,
            settlement=_read_settlement(chosen["settlement"]),
            segment_price=Amount(segment_price),
            replay_price=Amount(replay_price),
            bond_min=Amount(bond_min),
            trainers=_read_trainers(chosen["trainers"]),
        )
        try:
            verify_terms(terms)
        except Rejected as rejected:
            raise JobError(f"{rejected.detail}.") from None
        return terms

    segment_price, replay_price = _compute_prices(chosen, make(1, 1, 0))
    bond = chosen.get("bond_min", _compute_bond(audit_ppm, chosen["committee_size"], segment_price))
    terms = make(segment_price, replay_price, bond)
    _verify_together(terms)
    cost = compute_cost_max(terms)
    reward = chosen.get("reward", cost)
    if reward < cost:
        raise JobError(f"the job may cost {cost} and the reward is {reward}; raise the reward or lower the prices.")
    return terms, reward


def compute_evaluation_batches(rows: int, batch_size: int) -> tuple[int, ...]:
    """The batch sizes in which `rows` evaluation rows are covered: one, or one and what is left over."""
    size = min(rows, batch_size * EVALUATION_BATCHES)
    left = rows % size
    return (size, left) if left else (size,)
