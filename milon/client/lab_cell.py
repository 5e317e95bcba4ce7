"""One run of the lab: rounds of exact training, an attack and a rule, in one process and without a network.

Everything is the product's own: the captured programs and their interpreter, the canonical states, the prescribed
batches, the aggregation and the evaluation. What differs from a job on the chain: every trainer has rows of its own
(`lab_split`), takes the same number of steps, and nothing is audited; so a table shows what the rules alone can do.
Attackers see everything: the honest finals of the round, and the rule.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milon.base.codec import decode
from milon.base.errors import Reason, Rejected
from milon.base.hashing import digest
from milon.base.ids import Digest
from milon.client.lab_plan import HONEST, Cell, LabPlan, verify_plan
from milon.client.lab_rules import Aggregated, apply_rule, verify_rule
from milon.client.lab_split import split_rows
from milon.client.prepare import SPEC_FILE
from milon.gpu.attacks_crowd import Crowd, compute_squared_distance
from milon.gpu.attacks_kinds import LABEL_FLIP, Scene, make_finals, parse_attack
from milon.gpu.attacks_rows import count_classes, flip_labels
from milon.gpu.checkpoint import OPTIMIZER_PREFIX, from_bytes, to_bytes
from milon.gpu.evaluate import evaluate_state
from milon.gpu.rows import Dataset
from milon.gpu.train import RoundWork, run_segment
from milon.gpu.work_library import Files, Library, layout_of, statistics_of
from milon.pol.pipeline import parse_pipeline
from milon.pol.program import ProgramKind
from milon.pol.terms import JobSpec
from milon.pol.work import BlobFile

if TYPE_CHECKING:
    from torch import Tensor

State = Mapping[str, "Tensor"]
SEED_BITS = 32  # of what an attack draws


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    accuracy: float  # of the last state, 0 to 1; 0 where the job has no classes
    loss_bits: int  # binary32 bits of its mean loss
    selected: float  # mean over the rounds that closed: the attackers' share in the result, 0 to 1
    void_rounds: int  # that changed nothing: the rule refused, or its result was not finite
    lost_rounds: int  # in which an honest trainer's work diverged
    seconds: float  # of this process


class Bench:
    """A prepared job, opened for runs."""

    def __init__(self, folder: Path) -> None:
        """`folder`: as `milon.client.prepare` fills it."""
        self.spec = decode(JobSpec, (folder / SPEC_FILE).read_bytes())
        paths = [path for path in folder.iterdir() if len(path.name) == 64]
        self._files = Files(BlobFile(Digest(bytes.fromhex(path.name)), str(path)) for path in paths)
        library = Library()
        self.plan = library.open_program(self._files, self.spec.train, ProgramKind.TRAIN)
        self._evaluate = [
            (int(entry.rows), library.open_program(self._files, entry.program, ProgramKind.EVALUATE))
            for entry in self.spec.evaluate
        ]
        self.data = library.open_dataset(self._files, self.spec.train_rows)
        self._evaluation = library.open_dataset(self._files, self.spec.evaluation_rows)
        self.classes = count_classes(self.data)
        self.statistics = statistics_of(self.plan.program)
        self.initial = from_bytes(self._files.read(self.spec.initial_state))
        self._splits: dict[tuple[str, int, int], list[Dataset]] = {}

    def split(self, split: str, trainers: int, seed: int) -> list[Dataset]:
        """The rows of each trainer; the last split is kept, since runs of a table come in this order."""
        key = (split, trainers, seed)
        if key not in self._splits:
            labels = self.data.columns[-1].tolist() if self.classes else [0] * self.data.rows
            parts = split_rows(labels, trainers, split, seed)
            self._splits = {key: [Dataset(self.data.fields, self.data.take(rows)) for rows in parts]}
        return self._splits[key]

    def measure(self, state: State) -> tuple[float, int]:
        """Accuracy and the bits of the loss on the evaluation rows."""
        found = evaluate_state(state, self._evaluate, self._evaluation)
        return found.correct / found.rows, found.loss_bits


class _Run:
    """One cell on its way."""

    def __init__(self, bench: Bench, plan: LabPlan, cell: Cell) -> None:
        self._bench, self._plan, self._cell = bench, plan, cell
        honest = plan.trainers - plan.attackers
        self._rows = bench.split(cell.split, honest, cell.seed)
        self._hostile_rows = self._open_hostile_rows(honest)
        terms = bench.spec.terms
        self._work = RoundWork(
            bench.plan, layout_of(bench.plan.program), bench.data, terms.batch_size, plan.steps, Digest(bytes(32)), 0
        )
        self._slots = {name: value for name, value in bench.initial.items() if name.startswith(OPTIMIZER_PREFIX)}
        self.state: State = bench.initial
        self.selected: list[float] = []
        self.void_rounds = self.lost_rounds = 0

    def _open_hostile_rows(self, honest: int) -> list[Dataset]:
        """What the attackers train on, where their kind needs own work: honest trainers' rows once more."""
        if self._cell.attack == HONEST:
            return []
        kind, _ = parse_attack(self._cell.attack)
        if kind.needs != "own" and kind.name != "duplicate":
            return []
        rows = [self._rows[place % honest] for place in range(self._plan.attackers)]
        return [flip_labels(part, self._bench.classes) for part in rows] if kind.name == LABEL_FLIP else rows

    def _train(self, rows: Sequence[Dataset], seed: Digest) -> Iterator[State]:
        """The finals of trainers with these rows; one whose training diverges has none."""
        fields = self._work.layout
        start = to_bytes({name: self.state[name] for name in fields})
        for place, part in enumerate(rows):
            own = digest("lab-trainer", seed, place.to_bytes(4, "big"))
            run = run_segment(replace(self._work, data=part, seed=own), start, 0)
            if run.diverged_step is None:
                yield from_bytes(run.state)

    def _attack(self, honest: Sequence[State], seed: Digest) -> list[State]:
        if self._cell.attack == HONEST or not self._plan.attackers:
            return []
        # Diverging or not, an attacker of a kind without own work claims as many finals as there are attackers.
        own = list(self._train(self._hostile_rows, seed)) if self._hostile_rows else []
        own = own or [honest[0]] * self._plan.attackers
        middle = Crowd(self.state, honest)
        target = middle.make_final(middle.compute_mean())

        def judge(final: State) -> int:
            hostile: list[State] = [final] * self._plan.attackers
            try:
                return compute_squared_distance(self._combine(hostile, honest, seed).state, target)
            except Rejected:
                return compute_squared_distance(self.state, target)

        drawn = int.from_bytes(seed[: SEED_BITS // 8], "big")
        return list(make_finals(self._cell.attack, Scene(self.state, own, honest, drawn, judge)))

    def _combine(self, hostile: Sequence[State], honest: Sequence[State], seed: Digest) -> Aggregated:
        states = [*hostile, *honest]
        finals = [(_account(place), self._plan.steps, state) for place, state in enumerate(states)]
        rule, tolerance = self._cell.rule, self._plan.tolerance
        return apply_rule(rule, tolerance, self.state, finals, self._bench.statistics, self._slots, seed)

    def advance(self, number: int) -> None:
        """One round."""
        seed = digest("lab-round", self._cell.seed.to_bytes(8, "big"), number.to_bytes(8, "big"))
        honest = list(self._train(self._rows, seed))
        self.lost_rounds += len(honest) < len(self._rows)
        if not honest:
            self.void_rounds += 1
            return
        hostile = self._attack(honest, digest("lab-attack", seed))
        try:
            aggregated = self._combine(hostile, honest, seed)
        except Rejected as rejected:
            if rejected.reason not in (Reason.TOO_FEW, Reason.NOT_FINITE):
                raise
            self.void_rounds += 1
            return
        self.state = aggregated.state
        parts = aggregated.parts.items()
        total = sum(part for _, part in parts)
        taken = sum(part for account, part in parts if _number(account) < len(hostile))
        self.selected.append(taken / total if total else 0.0)


def _account(place: int) -> bytes:
    return place.to_bytes(32, "big")


def _number(account: bytes) -> int:
    return int.from_bytes(account, "big")


def verify_names(plan: LabPlan) -> None:
    """Raise `Rejected` unless every rule, attack and split of the plan exists."""
    verify_plan(plan)
    for rule in plan.rules:
        parse_pipeline(rule)
    for attack in plan.attacks:
        if attack != HONEST:
            parse_attack(attack)


def run_cell(bench: Bench, plan: LabPlan, cell: Cell, report: Callable[[int], None] = lambda rounds: None) -> Outcome:
    """Run one cell from the job's first state; `report` is told the rounds done. The same arguments, the same outcome.

    Raises `Rejected` for a rule, an attack or a split that does not exist or does not fit the job, and for a rule that
    does not bear the tolerance with so many trainers.
    """
    began = time.process_time()
    here = plan.trainers - plan.attackers if cell.attack == HONEST else plan.trainers
    verify_rule(cell.rule, here, plan.tolerance)
    run = _Run(bench, plan, cell)
    for number in range(plan.rounds):
        run.advance(number)
        report(number + 1)
    accuracy, loss_bits = bench.measure(run.state)
    selected = sum(run.selected) / len(run.selected) if run.selected else 0.0
    seconds = time.process_time() - began
    return Outcome(accuracy, loss_bits, selected, run.void_rounds, run.lost_rounds, round(seconds, 2))


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """The outcome for programs."""
    return {name: getattr(outcome, name) for name in Outcome.__slots__}
