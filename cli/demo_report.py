"""What a demonstration came to: the figures as JSON, the summary for people, and what was expected and is not so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .output import decimal, percent
from .watch import list_refusals

Json = dict[str, Any]

FULL_AUDIT_PPM = 1_000_000
PLAIN_DIFFERENCE_MAX = 0.01  # plain PyTorch adds in another order: a row on the edge may fall on the other side


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything the run observed."""

    job: Json  # the job's last view
    digests: Mapping[str, str | None]  # state by node's account; None where the node did not answer
    verify: Json  # {"height", "verdict", "segments_replayed"}
    plain_accuracy: float | None  # of the downloaded model in plain PyTorch
    seconds: float  # from the first node's start to the last check
    poisoners: tuple[str, ...]  # accounts of the nodes told to misbehave


def build_report(outcome: Outcome) -> Json:
    """The JSON of `milon demo --json`; its shape is fixed."""
    rounds = outcome.job["rounds"]
    return {
        "rounds": [
            {
                "round": closed["round"],
                "accuracy": closed["outcome"]["accuracy"],
                "loss": closed["outcome"]["loss"],
                "accepted": closed["outcome"]["accepted"],
                "refused": [{"trainer": trainer, "reason": reason} for trainer, reason in list_refusals(closed)],
            }
            for closed in rounds
        ],
        "slashed": [entry for closed in rounds for entry in list_slashes(closed)],
        "rewards": sum_rewards(rounds),
        "model_digest": outcome.job["state"],
        "digests_by_node": dict(outcome.digests),
        "verify": dict(outcome.verify),
        "plain_torch_accuracy": outcome.plain_accuracy,
        "seconds": round(outcome.seconds, 1),
    }


def list_slashes(closed: Json) -> list[Json]:
    """Stake taken in a round, and for which claim."""
    return [
        {
            "account": payment["account"],
            "amount": payment["amount"],
            "reason": f"round {closed['round']}: " + _why_slashed(closed, payment["account"]),
        }
        for payment in closed["payments"]
        if payment["reason"] == "slash"
    ]


def _why_slashed(closed: Json, account: str) -> str:
    for claim in closed["claims"]:
        if claim["trainer"] == account and claim["status"].startswith("refuted"):
            return f"claim {claim['claim'][:8]} {claim['status']}"
    return "a false statement about another's claim"


def sum_rewards(rounds: Sequence[Json]) -> dict[str, int]:
    """What each account earned by training, verifying and refuting; refunds and slashes are not earned."""
    earned: dict[str, int] = {}
    for closed in rounds:
        for payment in closed["payments"]:
            if payment["reason"] in ("segments", "replays", "refutation"):
                earned[payment["account"]] = earned.get(payment["account"], 0) + payment["amount"]
    return dict(sorted(earned.items()))


def final_accuracy(job: Json) -> float | None:
    """The accuracy on the chain after the last round."""
    accuracy: float | None = job["rounds"][-1]["outcome"]["accuracy"] if job["rounds"] else None
    return accuracy


def list_failures(outcome: Outcome, expectation: str, accuracy_min: float) -> list[str]:
    """What was expected and did not happen; `expectation` is "good", "collapse" or "nothing"."""
    job = outcome.job
    failures: list[str] = []
    if expectation == "nothing":
        return failures
    if job["status"] != "finished":
        failures.append(f"the job is {job['status']}: {job['reason'] or 'not finished in time'}")
    if set(outcome.digests.values()) != {job["state"]}:
        failures.append("the model's digest is not the same on every node")
    verdict = outcome.verify["verdict"]
    accuracy = final_accuracy(job)
    if expectation == "collapse":
        if verdict == "unchecked":  # where nobody audits, a lie may well stand in the last block: "invalid" is right
            failures.append("verify-block could not check the last block")
        if accuracy is not None and accuracy >= accuracy_min:
            failures.append(f"accuracy {percent(accuracy)} did not collapse below {percent(accuracy_min)}")
        return failures
    if verdict != "valid":
        failures.append(f"verify-block says {verdict}")
    if accuracy is None or accuracy < accuracy_min:
        failures.append(f"accuracy {percent(accuracy)} is below {percent(accuracy_min)}")
    plain = outcome.plain_accuracy
    if plain is None or accuracy is None or abs(plain - accuracy) > PLAIN_DIFFERENCE_MAX:
        failures.append(f"plain PyTorch measures {percent(plain)}, the chain says {percent(accuracy)}")
    failures += [
        f"round {closed['round']} closed void: {closed['outcome']['void']}"
        for closed in job["rounds"]
        if closed["outcome"]["void"]
    ]
    return failures + _list_misjudged(outcome)


def _list_misjudged(outcome: Outcome) -> list[str]:
    """Poisoned updates that were taken, poisoners that kept their stake under a full audit, honest nodes slashed."""
    job = outcome.job
    slashed = {entry["account"] for closed in job["rounds"] for entry in list_slashes(closed)}
    failures = [
        f"round {closed['round']} took the poisoned update of {account[:8]}"
        for closed in job["rounds"]
        for account in outcome.poisoners
        if account in closed["outcome"]["accepted"]
    ]
    failures += [f"honest node {account[:8]} was slashed" for account in sorted(slashed - set(outcome.poisoners))]
    rates = job["terms"]["audit_ppm"]
    is_audited = any(
        rates[min(closed["round"], len(rates) - 1)] == FULL_AUDIT_PPM and not closed["outcome"]["void"]
        for closed in job["rounds"]
    )
    if is_audited:
        failures += [f"poisoner {name[:8]} was not slashed" for name in outcome.poisoners if name not in slashed]
    return failures


def summarize(report: Json, job: Json, name_of: Callable[[str], str]) -> list[str]:
    """The summary for people; `name_of` gives a node's name for its account."""
    lines = ["", "rounds"]
    for entry in report["rounds"]:
        line = f"  {entry['round']}  accuracy {percent(entry['accuracy'])}  loss {decimal(entry['loss'])}"
        lines.append(f"{line}  accepted {', '.join(name_of(account) for account in entry['accepted']) or 'nobody'}")
        lines += [f"     refused {name_of(refused['trainer'])}: {refused['reason']}" for refused in entry["refused"]]
    lines += ["slashed"] + [
        f"  {name_of(entry['account'])}: {entry['amount']}, {entry['reason']}" for entry in report["slashed"]
    ]
    lines += ["rewards"] + [f"  {name_of(account)}: {amount}" for account, amount in report["rewards"].items()]
    same = set(report["digests_by_node"].values()) == {report["model_digest"]}
    count = len(report["digests_by_node"])
    verified = report["verify"]
    lines += [
        f"model   {report['model_digest']}"
        + (f"  the same on all {count} nodes" if same else "  NOT the same everywhere"),
        f"verify  block {verified['height']}: {verified['verdict']}, {verified['segments_replayed']} segments replayed",
        f"accuracy  {percent(final_accuracy(job))} on the chain, "
        f"{percent(report['plain_torch_accuracy'])} in plain PyTorch",
        f"seconds {report['seconds']}",
    ]
    return lines
