"""What a table of the lab says: means and spreads over the seeds, as text, JSON, CSV and a picture."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from milon.client.lab import Finished
from milon.client.lab_plan import HONEST, REFERENCE, LabPlan, plan_to_json

JSON_FILE, CSV_FILE, PICTURE = "lab.json", "lab.csv", "lab.svg"
OUTCOME_FIELDS = ("accuracy", "loss_bits", "selected", "void_rounds", "lost_rounds", "seconds")
CELL_WIDTH, CELL_HEIGHT, HEAD_WIDTH, HEAD_HEIGHT, GAP = 132, 34, 150, 62, 24  # pixels


@dataclass(frozen=True, slots=True)
class Entry:
    """One place of the table: a rule against an attack on a split, over all seeds."""

    rule: str  # the column
    attack: str  # the row
    split: str  # the table
    runs: int  # seeds that ran; 0: the rule refused
    accuracy: float  # mean over the seeds
    spread: float  # standard deviation over the seeds, n - 1; 0 for one seed
    accuracy_min: float  # of the worst seed
    points_lost: float  # the honest run's mean accuracy on this split minus this one, in points of 100
    selected: float  # the attackers' share in the results, mean over the seeds
    void_rounds: int  # over all seeds
    refusal: str  # why nothing ran


def summarize(plan: LabPlan, finished: Sequence[Finished]) -> list[Entry]:
    """The table, split by split, row by row; the honest run is plain `REFERENCE` without attackers."""
    places: dict[tuple[str, str, str], list[Finished]] = {}
    for one in finished:
        places.setdefault((one.cell.split, one.cell.attack, one.cell.rule), []).append(one)
    entries = []
    for (split, attack, rule), group in places.items():
        honest = statistics.fmean(_accuracies(places.get((split, HONEST, REFERENCE), ())) or [0.0])
        entries.append(_summarize(rule, attack, split, group, honest))
    order = {attack: place for place, attack in enumerate((HONEST, *plan.attacks))}
    entries.sort(key=lambda entry: (plan.splits.index(entry.split), order[entry.attack]))
    return entries


def _accuracies(group: Sequence[Finished]) -> list[float]:
    return [float(one.outcome["accuracy"]) for one in group if one.outcome is not None]


def _summarize(rule: str, attack: str, split: str, group: Sequence[Finished], honest: float) -> Entry:
    values = _accuracies(group)
    if not values:
        return Entry(rule, attack, split, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, group[0].refusal)
    outcomes = [one.outcome for one in group if one.outcome is not None]
    mean = statistics.fmean(values)
    return Entry(
        rule=rule,
        attack=attack,
        split=split,
        runs=len(values),
        accuracy=mean,
        spread=statistics.stdev(values) if len(values) > 1 else 0.0,
        accuracy_min=min(values),
        points_lost=100 * (honest - mean),
        selected=statistics.fmean(float(outcome["selected"]) for outcome in outcomes),
        void_rounds=sum(int(outcome["void_rounds"]) for outcome in outcomes),
        refusal="",
    )


def describe(entry: Entry) -> str:
    """One place in a few characters: mean, spread over seeds, the attackers' share where there are any."""
    if not entry.runs:
        return "refused"
    text = f"{100 * entry.accuracy:.1f}" + (f" ±{100 * entry.spread:.1f}" if entry.runs > 1 else "")
    return text if entry.attack == HONEST else f"{text} | {100 * entry.selected:.0f} %"


def list_tables(entries: Sequence[Entry]) -> list[tuple[str, list[str], list[list[str]]]]:
    """For each split its name, the head and the rows, as text."""
    tables = []
    for split in dict.fromkeys(entry.split for entry in entries):
        here = [entry for entry in entries if entry.split == split]
        rules = list(dict.fromkeys(entry.rule for entry in here))
        found = {(entry.attack, entry.rule): describe(entry) for entry in here}
        attacks = list(dict.fromkeys(entry.attack for entry in here))
        rows = [[attack, *(found.get((attack, rule), "") for rule in rules)] for attack in attacks]
        tables.append((split, ["attack", *rules], rows))
    return tables


def to_json(plan: LabPlan, entries: Sequence[Entry], finished: Sequence[Finished]) -> dict[str, Any]:
    """The whole table for programs; its fields only grow."""
    return {
        "plan": plan_to_json(plan),
        "table": [asdict(entry) for entry in entries],
        "runs": [{**asdict(one.cell), "refusal": one.refusal, **(one.outcome or {})} for one in finished],
    }


def to_csv(finished: Sequence[Finished]) -> str:
    """A line for every run."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(["split", "attack", "rule", "seed", *OUTCOME_FIELDS, "refusal"])
    for one in finished:
        outcome = one.outcome or dict.fromkeys(OUTCOME_FIELDS, "")
        cell = one.cell
        numbers = [outcome[name] for name in OUTCOME_FIELDS]
        writer.writerow([cell.split, cell.attack, cell.rule, cell.seed, *numbers, one.refusal])
    return sink.getvalue()


def draw(entries: Sequence[Entry]) -> str:
    """The tables as a picture (SVG): green where an attack costs nothing, red where it costs 20 points and more."""
    tables = list(dict.fromkeys(entry.split for entry in entries))
    parts: list[str] = []
    width, top = 0, GAP
    for split in tables:
        here = [entry for entry in entries if entry.split == split]
        rules = list(dict.fromkeys(entry.rule for entry in here))
        attacks = list(dict.fromkeys(entry.attack for entry in here))
        parts += _draw_table(split, here, rules, attacks, top)
        width = max(width, HEAD_WIDTH + CELL_WIDTH * len(rules) + GAP)
        top += HEAD_HEIGHT + CELL_HEIGHT * len(attacks) + GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}" font-family="sans-serif" '
        'font-size="12">\n<rect width="100%" height="100%" fill="white"/>'
    )
    return "\n".join([head, *parts, "</svg>"]) + "\n"


def _draw_table(split: str, here: Sequence[Entry], rules: list[str], attacks: list[str], top: int) -> list[str]:
    title = f"{split}: accuracy in per cent, ± standard deviation; below, the attackers' share in the result"
    parts = [f'<text x="{GAP}" y="{top + 14}" font-weight="bold">{escape(title)}</text>']
    for column, rule in enumerate(rules):
        x = HEAD_WIDTH + CELL_WIDTH * column + CELL_WIDTH // 2
        parts.append(f'<text x="{x}" y="{top + HEAD_HEIGHT - 10}" text-anchor="middle">{escape(rule)}</text>')
    for row, attack in enumerate(attacks):
        y = top + HEAD_HEIGHT + CELL_HEIGHT * row
        parts.append(f'<text x="{HEAD_WIDTH - 8}" y="{y + 21}" text-anchor="end">{escape(attack)}</text>')
    for entry in here:
        x = HEAD_WIDTH + CELL_WIDTH * rules.index(entry.rule)
        parts += _draw_place(entry, x, top + HEAD_HEIGHT + CELL_HEIGHT * attacks.index(entry.attack))
    return parts


def _draw_place(entry: Entry, x: int, y: int) -> list[str]:
    colour = _choose_colour(entry.points_lost) if entry.runs else "#e4e4e4"
    middle = x + CELL_WIDTH // 2
    first, _, second = describe(entry).partition(" | ")
    parts = [
        f'<rect x="{x}" y="{y}" width="{CELL_WIDTH - 2}" height="{CELL_HEIGHT - 2}" fill="{colour}"/>',
        f'<text x="{middle}" y="{y + (14 if second else 20)}" text-anchor="middle">{escape(first)}</text>',
    ]
    if second:
        parts.append(f'<text x="{middle}" y="{y + 27}" text-anchor="middle" font-size="10">{escape(second)}</text>')
    return parts


def _choose_colour(points_lost: float) -> str:
    share = min(max(points_lost / 20, 0.0), 1.0)
    red, green = round(150 + 95 * min(1.0, 2 * share)), round(215 - 75 * max(0.0, 2 * share - 1))
    return f"#{red:02x}{green:02x}96"


def write_report(plan: LabPlan, finished: Sequence[Finished], out: Path) -> list[Entry]:
    """Write JSON, CSV and picture into `out`; the table."""
    entries = summarize(plan, finished)
    files = (
        (JSON_FILE, json.dumps(to_json(plan, entries, finished), indent=1) + "\n"),
        (CSV_FILE, to_csv(finished)),
        (PICTURE, draw(entries)),
    )
    for name, text in files:
        part = out / f".{name}.part"
        part.write_text(text)
        part.replace(out / name)
    return entries
