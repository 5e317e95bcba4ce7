"""A table of the lab as a value: which rules meet which attacks, on which data, and the cells this makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import milon
from milon.base.errors import Reason, Rejected, require
from milon.client.lab_split import parse_split
from milon.pol.terms import JobSpec

HONEST = "none"  # the row without attackers: the honest trainers alone, under the same rule and tolerance
REFERENCE = "mean"  # under it, that row is the honest run all others are held against
TRAINERS_MAX = 1_024  # as many as an aggregation takes
ROUNDS_MAX = 10_000  # as a job may have
CELLS_MAX = 100_000  # a list of them, and a file each

# What a cell's result depends on besides the job and the settings: kept cells of other code are not taken.
_CODE = (
    "pol/aggregation*.py", "pol/pipeline*.py", "gpu/aggregate*.py", "gpu/kernels_aggregate*.py", "gpu/attacks.py",
    "gpu/attacks_crowd.py", "gpu/attacks_kinds.py", "gpu/attacks_rows.py", "client/lab_cell.py",
    "client/lab_rules.py", "client/lab_split.py",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the table."""

    rule: str  # as `milon.client.lab_rules` reads it
    attack: str  # `HONEST`, a kind, or "KIND:FACTOR"
    split: str  # as `milon.client.lab_split` reads it
    seed: int  # of the split, the batches and what an attack draws; the first weights are the job's


@dataclass(frozen=True, slots=True)
class LabPlan:
    """What a table is made of."""

    rules: tuple[str, ...]  # columns
    attacks: tuple[str, ...]  # rows, without `HONEST`
    splits: tuple[str, ...]  # a table each
    seeds: int  # runs per cell of the printed table, seeds 0 and on
    trainers: int  # attackers included
    attackers: int  # hostile ones, the first accounts: ties go to them
    tolerance: int  # the f a rule is told
    rounds: int  # per run
    steps: int  # optimizer steps a trainer takes per round

    def list_cells(self) -> list[Cell]:
        """All runs, the honest ones of each split and seed first; `REFERENCE` without attackers is always there."""
        attacks = (HONEST, *(attack for attack in self.attacks if attack != HONEST))
        pairs = [(REFERENCE, HONEST), *((rule, attack) for attack in attacks for rule in self.rules)]
        unique = list(dict.fromkeys(pairs))
        return [
            Cell(rule, attack, split, seed)
            for seed in range(self.seeds)
            for split in self.splits
            for rule, attack in unique
        ]


def verify_plan(plan: LabPlan) -> None:
    """Raise `Rejected` for numbers that make no table; rules and attacks are read where they are used."""
    honest = plan.trainers - plan.attackers
    ranges = (
        ("trainers", plan.trainers, 1, TRAINERS_MAX),
        ("attackers", plan.attackers, 0, plan.trainers - 1),
        ("the tolerance", plan.tolerance, 0, plan.trainers),
        ("seeds", plan.seeds, 1, CELLS_MAX),
        ("rounds", plan.rounds, 1, ROUNDS_MAX),
        ("steps", plan.steps, 1, ROUNDS_MAX),
    )
    for name, number, low, high in ranges:
        require(low <= number <= high, Reason.OUT_OF_RANGE, f"{name}: {number}; it may be {low} to {high}")
    require(honest > 0, Reason.TOO_FEW, "a table needs an honest trainer")
    if not plan.rules or not plan.splits:
        raise Rejected(Reason.TOO_FEW, "a table needs a rule and a split")
    for split in plan.splits:
        parse_split(split)
    count = (len(plan.rules) * (len(plan.attacks) + 1) + 1) * len(plan.splits) * plan.seeds
    require(count <= CELLS_MAX, Reason.TOO_LARGE, f"a table of {count} runs; {CELLS_MAX} are allowed")


def compute_code_digest() -> str:
    """A digest of the sources a result depends on, hexadecimal."""
    state, root = hashlib.sha256(), Path(milon.__file__).parent
    for pattern in _CODE:
        for path in sorted(root.glob(pattern)):
            state.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return state.hexdigest()


def compute_job_digest(spec: JobSpec) -> str:
    """A digest of what is trained, on what, in which batches; names, prices and deadlines do not count."""
    blobs = (spec.train, *(entry.program for entry in spec.evaluate), spec.initial_state, spec.train_rows)
    text = b"".join((*blobs, spec.evaluation_rows)) + int(spec.terms.batch_size).to_bytes(4, "big")
    return hashlib.sha256(text).hexdigest()


def compute_cell_name(plan: LabPlan, cell: Cell, job: str, code: str) -> str:
    """The name a finished cell is kept under: the same for the same run and for no other, 32 hexadecimal digits."""
    numbers = (plan.trainers, plan.attackers, plan.tolerance, plan.rounds, plan.steps)
    text = json.dumps([asdict(cell), numbers, job, code], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def plan_to_json(plan: LabPlan) -> dict[str, Any]:
    """The plan for programs and for the workers."""
    return asdict(plan)


def plan_from_json(value: Mapping[str, Any]) -> LabPlan:
    """The plan that `plan_to_json` gave."""
    lists = {name: tuple(value[name]) for name in ("rules", "attacks", "splits")}
    return LabPlan(**{**value, **lists})
