"""Snapshots as JSON values: identifiers in hexadecimal, floats from their bits, and the figures people ask for."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping
from enum import Enum
from math import isfinite
from typing import Any

from milon.base.errors import Rejected
from milon.chain.genesis import Genesis, compute_genesis_hash
from milon.node.view import (
    AccountView,
    BlockView,
    JobView,
    ReceiptView,
    ReportView,
    RoundView,
    StatusView,
    ValidatorView,
)

Json = dict[str, Any]


def float_from_bits(bits: int) -> float | None:
    """The binary32 number with these bits; None for an infinity or NaN, which JSON cannot hold."""
    number: float = struct.unpack("<f", struct.pack("<I", bits & 0xFFFFFFFF))[0]
    return number if isfinite(number) else None


def to_json(value: Any) -> Any:
    """A frozen value as JSON: fields by name, bytes in hexadecimal; `loss_bits` becomes the number `loss`."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [to_json(entry) for entry in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return dict(_field_to_json(name, entry) for name, entry in pairs)
    return value


def _field_to_json(name: str, entry: Any) -> tuple[str, Any]:
    if name == "loss_bits":
        return "loss", None if entry is None else float_from_bits(entry)
    return name, to_json(entry)


def shape_status(view: StatusView) -> Json:
    """A node's status; `height` and `peers` are what scripts wait for."""
    shaped: Json = to_json(view)
    return shaped


def shape_round(view: RoundView) -> Json:
    """A closed round, with `accuracy` (0 to 1; None where the job has no rows to count) beside the counts."""
    shaped: Json = to_json(view)
    outcome = view.outcome
    shaped["outcome"]["accuracy"] = outcome.correct / outcome.rows if outcome.rows else None
    return shaped


def shape_report(view: ReportView) -> Json:
    """How a round's updates became one: the record's fields beside `round` and `is_agreed`."""
    shaped: Json = to_json(view)
    return {**shaped, **shaped.pop("record")}


def shape_job(view: JobView) -> Json:
    """A job with its rounds."""
    shaped: Json = to_json(view)
    shaped["rounds"] = [shape_round(closed) for closed in view.rounds]
    return shaped


def shape_job_summary(view: JobView) -> Json:
    """A line of the list of jobs: the newest accuracy and loss, without rounds and claims."""
    shaped: Json = {
        "job": view.job.hex(),
        "name": view.name,
        "submitter": view.submitter.hex(),
        "status": view.status,
        "reason": view.reason,
        "round": view.round,
        "rounds": view.terms.rounds,
        "trainers": len(view.trainers),
        "escrow": view.escrow,
        "paid": view.paid,
        "accuracy": None,
        "loss": None,
    }
    if view.rounds:
        newest = shape_round(view.rounds[-1])["outcome"]
        shaped["accuracy"], shaped["loss"] = newest["accuracy"], newest["loss"]
    return shaped


def shape_block(view: BlockView) -> Json:
    """A block, with the number of its transactions and of those that were refused."""
    shaped: Json = to_json(view)
    shaped["transaction_count"] = len(view.transactions)
    shaped["refused_count"] = sum(1 for receipt in view.receipts if receipt.problem)
    return shaped


def shape_account(view: AccountView) -> Json:
    """An account."""
    shaped: Json = to_json(view)
    return shaped


def shape_validator(view: ValidatorView) -> Json:
    """An account as a validator; `status` says in a word how it stands."""
    words = (
        (view.is_tombstoned, "tombstoned"),
        (view.jailed_until > 0, "jailed"),
        (view.power > 0 and view.is_candidate, "active"),
        (view.power > 0, "leaving"),
        (view.is_candidate, "waiting"),
    )
    return {**to_json(view), "status": next((word for holds, word in words if holds), "none")}


def shape_receipt(view: ReceiptView) -> Json:
    """What became of a transaction; `status` is "pending", "done" or "refused"."""
    status = "pending" if view.height is None else "refused" if view.problem else "done"
    return {**to_json(view), "status": status}


def shape_genesis(genesis: Genesis) -> Json:
    """Genesis with its hash, which is what a newcomer must be told."""
    return {"genesis_hash": compute_genesis_hash(genesis).hex(), **to_json(genesis)}


def shape_refusal(refusal: Rejected) -> Mapping[str, str]:
    """Every error of the API has these two fields."""
    return {"reason": refusal.reason.value, "detail": refusal.detail}
