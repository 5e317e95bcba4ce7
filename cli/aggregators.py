"""`milon aggregators`: the parts of an aggregation pipeline; and a round's aggregation for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from .options import JsonOption
from .output import print_json, print_lines, print_table


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog='Example: milon aggregators; then milon submit-job job.py --aggregator "arc,nnm,median"')(
        aggregators
    )


def aggregators(as_json: JsonOption = False) -> None:
    """List the preparations, rules and outer optimizers that a job's aggregator is made of, with what they need."""
    from milon.client.aggregators import list_aggregators

    parts = list_aggregators()
    if as_json:
        print_json({"aggregators": parts})
        return
    head = ("name", "kind", "breakdown", "needs", "summary")
    print_table(head, [[part[column] for column in head] for part in parts])
    print_lines(["", "A pipeline is [preparation,]... rule [,outer optimizer]; f is the job's faulty_count."])
    for part in parts:
        numbers = ", ".join(f"{entry['meaning']} (default {entry['default']})" for entry in part["parameters"])
        if numbers:
            print_lines([f"  {part['name']}:{':'.join('N' for _ in part['parameters'])}  {numbers}"])


def describe_report(found: dict[str, Any]) -> Iterator[str]:
    """How a round's updates became one, a line an update."""
    report = found["report"]
    yield f"round {found['round']}  aggregator {report['pipeline']}, could bear {report['faulty_count']} more hostile"
    if found["void"]:
        yield f"  void: {found['void']}"
    yield f"  from state {found['before']}"
    agreement = "as validators agreed" if found["is_agreed"] else "OTHERWISE than validators agreed"
    yield f"  to state   {found['after']}, {agreement}; {report['steps']} steps"
    for standing, final in zip(report["standings"], found["finals"], strict=True):
        figures = f"{standing['steps']} steps, weight {standing['weight']}, part {standing['part_ppm'] / 10_000:.2f} %"
        if standing["distance_percent"]:
            figures += f", distance {standing['distance_percent']} %"
        if standing["score_percent"]:
            figures += f", score {standing['score_percent']} %"
        yield f"  {standing['account'][:16]}  final {final[:16]}  {figures}"
        if standing["reason"]:
            yield f"    refused: {standing['reason']}"
