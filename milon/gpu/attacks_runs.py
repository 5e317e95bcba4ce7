"""What a node of a test network claims when it was told to be an adversary: its segments' runs, not all as prescribed.

Such a node cannot see the others' finals before it claims its own, but it need not: rows are public and batches
prescribed, so it can train any other segment of the round itself. `copy` and `duplicate` claim such work as their own;
the attacks that read the honest updates take it for guesses of them (`attacks_kinds.guess_finals`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from milon.base.errors import Rejected
from milon.base.hashing import digest
from milon.gpu.aggregate import aggregate_round
from milon.gpu.attacks_crowd import Crowd, Judge, compute_squared_distance
from milon.gpu.attacks_kinds import ATTACKS, GUESSES_MAX, LABEL_FLIP, apply_attack, guess_finals
from milon.gpu.attacks_rows import count_classes, flip_labels
from milon.gpu.attacks_steps import BIT_FLIP, flip_bit
from milon.gpu.checkpoint import OPTIMIZER_PREFIX, from_bytes, to_bytes
from milon.gpu.train import RoundWork, SegmentRun, train_segments
from milon.gpu.work_library import statistics_of
from milon.pol.pipeline import compute_count_needed
from milon.pol.work import TrainSegments

LAZY = "lazy"  # the adversary that does not train: it claims that every segment left the state as it was
COPY, DUPLICATE = "copy", "duplicate"  # adversaries that train other segments than their own
GUESSES_MIN = 3  # of the honest finals: with fewer there is hardly a spread to hide in, with one none

State = Mapping[str, Tensor]


def run_hostile(request: TrainSegments, work: RoundWork, start: bytes) -> Iterator[SegmentRun]:
    """The runs as an adversary of the kind `request.tamper` claims them: the last one at least is false.

    `work` and `start`: as the honest have them. Raises `Rejected(UNKNOWN)` for a kind that does not exist.
    """
    kind, first, count = request.tamper, int(request.first), int(request.count)
    if kind == LAZY:
        yield from [SegmentRun(start, (0,) * work.steps_per_segment, 0, None)] * count
    elif kind == LABEL_FLIP:
        flipped = replace(work, data=flip_labels(work.data, count_classes(work.data)))
        yield from train_segments(flipped, start, first, count)
    elif kind == BIT_FLIP:
        yield from _run_flipped(work, start, first, count)
    elif kind in (COPY, DUPLICATE):
        yield from train_segments(work, start, 0 if kind == DUPLICATE else _choose_copied(request), count)
    else:
        yield from _run_crafted(request, work, start)


def _choose_copied(request: TrainSegments) -> int:
    """The first segment of a trainer beside this one, where all have as many; its own where it is alone."""
    first, count = int(request.first), int(request.count)
    if first >= count:
        return first - count
    return min(first + count, int(request.spec.terms.segments_per_round) - count)


def _run_flipped(work: RoundWork, start: bytes, first: int, count: int) -> Iterator[SegmentRun]:
    """Honest runs but for the last one, which goes on from a number that is false."""
    last = first + count - 1
    for segment in range(first, last + 1):
        own = work if segment < last else flip_bit(work, segment)
        for run in train_segments(own, start, segment, 1):
            yield run
            start = run.state


def _run_crafted(request: TrainSegments, work: RoundWork, start: bytes) -> Iterator[SegmentRun]:
    """Honest runs but for the last one: a hostile state under the traces of the real steps."""
    held: SegmentRun | None = None
    kept = [start]  # the states before and after its first segments, which tell how honest updates differ
    for run in train_segments(work, start, request.first, request.count):
        if held is not None:
            yield held
        held = run
        if len(kept) <= GUESSES_MAX:
            kept.append(run.state)
    if held is None:
        return
    seed = int.from_bytes(digest("adversary", request.seed, request.first.to_bytes(8, "big"))[:4], "big")
    round_state, final = from_bytes(start), from_bytes(held.state)
    guesses: Sequence[State] = ()
    kind = ATTACKS.get(request.tamper)
    if kind is not None and kind.needs != "own":
        guesses = _guess(request, work, kept)
    judge = _make_judge(request, work, round_state, guesses)
    yield replace(held, state=to_bytes(apply_attack(request.tamper, round_state, final, seed, guesses, judge)))


def _guess(request: TrainSegments, work: RoundWork, kept: Sequence[bytes]) -> list[dict[str, Tensor]]:
    """The others' finals as its own segments suggest them; where these are few, as others' segments do."""
    count, total = int(request.count), int(request.spec.terms.segments_per_round)
    guesses = guess_finals([from_bytes(raw) for raw in kept], count)
    for ahead in range(min(GUESSES_MIN - len(guesses), total - count)):
        other = (int(request.first) + count + ahead) % total
        runs = train_segments(work, kept[0], other, 1)
        guesses += [
            guess for run in runs for guess in guess_finals([from_bytes(kept[0]), from_bytes(run.state)], count)
        ]
    return guesses


def _make_judge(request: TrainSegments, work: RoundWork, round_state: State, guesses: Sequence[State]) -> Judge:
    """How far the job's own rule is led astray from the mean of `guesses`, if all whom it bears send one state.

    The honest are as many as the rule needs beside these; where guesses are fewer, they stand there several times.
    """
    terms = request.spec.terms
    faulty = max(1, int(terms.faulty_count))
    honest = max(int(terms.trainers_min), compute_count_needed(terms.aggregator, int(terms.faulty_count)) + 1) - faulty
    slots = {name: tensor for name, tensor in round_state.items() if name.startswith(OPTIMIZER_PREFIX)}
    statistics = statistics_of(work.plan.program)

    def judge(final: State) -> int:
        crowd = Crowd(round_state, guesses)
        target = crowd.make_final(crowd.compute_mean())
        states = [final] * faulty + [guesses[place % len(guesses)] for place in range(max(1, honest))]
        finals = [(place.to_bytes(32, "big"), 1, state) for place, state in enumerate(states)]
        rule, seed = (terms.aggregator, int(terms.faulty_count)), bytes(request.seed)
        try:
            reached, _ = aggregate_round(round_state, finals, *rule, slots, statistics=statistics, seed=seed)
        except Rejected:
            reached = dict(round_state)
        return compute_squared_distance(reached, target)

    return judge
