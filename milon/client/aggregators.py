"""The parts of which a job's aggregator is made, as plain values for people and programs."""

from __future__ import annotations

from typing import Any

from milon.pol.pipeline import FACTS, Outer, Preparation, Rule

_KINDS = (("preparation", Preparation), ("rule", Rule), ("outer optimizer", Outer))


def list_aggregators() -> list[dict[str, Any]]:
    """Every preparation, rule and outer optimizer: name, kind, summary, breakdown, needs, source, parameters."""
    return [_shape(part.value, kind) for kind, parts in _KINDS for part in parts]


def _shape(name: str, kind: str) -> dict[str, Any]:
    facts = FACTS[name]
    parameters = [
        {"meaning": entry.meaning, "default": entry.default, "low": entry.low, "high": entry.high}
        for entry in facts.parameters
    ]
    return {
        "name": name, "kind": kind, "summary": facts.summary, "breakdown": facts.breakdown, "needs": facts.needs,
        "source": facts.source, "parameters": parameters,
    }  # fmt: skip
