"""Mutates valid programs and runs what still checks: each is refused with a reason or runs within its budget.

    python -m bench.fuzz_programs --count 100000      the campaign; one that was stopped goes on where it was

A mutant is a program of the golden vectors, or a call of one operation, with some of its parts exchanged or with bytes
of its encoding changed. It is decoded, checked against a small budget, and run on tensors that fit its inputs. Anything
but `Rejected` is a finding and ends the campaign with the mutant's number; so does a mutant that takes too long, or
more memory than the budget or than its check said. A whole campaign is kept in `bench/results/fuzz-programs.json`.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import json
import platform
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bench.calls import make_calls
from bench.golden import LEAST_CLASSES, read_vectors, unpack
from milon.base.codec import decode, encode
from milon.base.errors import Rejected
from milon.gpu.interpreter import load
from milon.pol.operations import OPERATIONS
from milon.pol.program import (
    Budget,
    Constant,
    Input,
    InputRole,
    Node,
    Output,
    OutputRole,
    Program,
    StepKey,
    verify_program,
)
from milon.pol.shapes import DType

BUDGET = Budget(memory_bytes_max=32 << 20, operations_max=1 << 26)
MMAP_THRESHOLD, MAPPED_BYTES = -3, 1 << 16  # of mallopt: allocations from this size on are given back when freed
SECONDS_MAX = 20.0  # for one mutant: a budget of 2^26 steps takes well below a second on one busy core
SLACK_BYTES = 8 << 20  # the encoding, decoded, in Python's objects; pages that the allocator keeps
MODELS_SHARE = 0.06  # of the mutants; the others are single operations, which run much more often
WHOLE_CAMPAIGN = 100_000  # mutants; only so many are worth a file
RESULT = Path(__file__).parent / "results" / "fuzz-programs.json"
PROGRESS = Path("build") / "fuzz-programs.json"  # of a whole campaign that was stopped
SPAN = 2_500  # mutants from one note of the progress to the next
SIZES = (-(1 << 63), -1, 0, 1, 2, 3, 5, 8, 64, 1 << 20, 1 << 33, (1 << 63) - 1)
Mutation = Callable[[Program, random.Random], Program]


@dataclass(slots=True)
class Tally:
    """What came of the mutants."""

    done: int = 0  # mutants so far
    ran: int = 0  # accepted, and run to the end
    refused: Counter[str] = field(default_factory=Counter)  # by reason
    seconds_worst: float = 0.0  # of one mutant, of the process's own time
    growth_bytes: int = 0  # of the process's memory during one mutant, at most
    excess_bytes: int = -(1 << 62)  # of that growth above what the check of the mutant had said, at most
    seconds: float = 0.0  # of the process's own time, in all


def _change_sizes(sizes: Sequence[int], chance: random.Random) -> tuple[int, ...]:
    changed = list(sizes)
    kind = chance.randrange(3)
    if kind == 0 and changed:
        changed[chance.randrange(len(changed))] = chance.choice(SIZES)
    elif kind == 1:
        changed.insert(chance.randint(0, len(changed)), chance.choice(SIZES))
    elif changed:
        changed.pop(chance.randrange(len(changed)))
    return tuple(changed)


def _change_node(program: Program, chance: random.Random) -> Program:
    nodes = list(program.nodes)
    place = chance.randrange(len(nodes))
    node = nodes[place]
    earlier = len(program.inputs) + len(program.constants) + place
    kind = chance.randrange(6)
    if kind == 0:
        node = dataclasses.replace(node, operation=chance.choice([*OPERATIONS, "sort", ""]))
    elif kind == 1 and node.operands:
        operands = list(node.operands)
        wanted = chance.choice([chance.randrange(earlier or 1), -1, earlier, 1 << 40])
        operands[chance.randrange(len(operands))] = wanted
        node = dataclasses.replace(node, operands=tuple(operands))
    elif kind == 2:
        node = dataclasses.replace(node, operands=tuple(chance.choices(range(earlier or 1), k=chance.randint(0, 4))))
    elif kind == 3 and node.attributes:
        attributes = list(node.attributes)
        at = chance.randrange(len(attributes))
        attributes[at] = _change_sizes(attributes[at], chance)
        node = Node(node.operation, node.operands, tuple(attributes))
    elif kind == 4:
        other = chance.choice(nodes)
        node = dataclasses.replace(other, operands=node.operands)
    else:
        nodes.insert(place, dataclasses.replace(node))
    nodes[place] = node
    return dataclasses.replace(program, nodes=tuple(nodes))


def _change_input(program: Program, chance: random.Random) -> Program:
    inputs = list(program.inputs) or [Input("x0", InputRole.DRAW, DType.FLOAT32, (2,))]
    place = chance.randrange(len(inputs))
    entry = inputs[place]
    inputs[place] = chance.choice(
        [
            Input(entry.name, entry.role, chance.choice(list(DType)), entry.shape),
            Input(entry.name, chance.choice(list(InputRole)), entry.dtype, entry.shape),
            Input(entry.name, entry.role, entry.dtype, _change_sizes(entry.shape, chance)),
            Input(inputs[0].name, entry.role, entry.dtype, entry.shape),
        ]
    )
    return dataclasses.replace(program, inputs=tuple(inputs))


def _change_constant(program: Program, chance: random.Random) -> Program:
    constants = list(program.constants) or [Constant(DType.FLOAT32, (), b"\0\0\0\0")]
    place = chance.randrange(len(constants))
    found = constants[place]
    raw = bytearray(found.raw)
    if raw:
        raw[chance.randrange(len(raw))] = chance.randrange(256)
    constants[place] = chance.choice(
        [
            Constant(found.dtype, found.shape, bytes(raw)),
            Constant(found.dtype, _change_sizes(found.shape, chance), found.raw),
            Constant(chance.choice(list(DType)), found.shape, found.raw),
        ]
    )
    return dataclasses.replace(program, constants=tuple(constants))


def _change_output(program: Program, chance: random.Random) -> Program:
    outputs = list(program.outputs)
    place = chance.randrange(len(outputs))
    found = outputs[place]
    values = len(program.inputs) + len(program.constants) + len(program.nodes)
    outputs[place] = chance.choice(
        [
            Output(found.role, found.name, chance.randrange(-1, values + 1)),
            Output(chance.choice(list(OutputRole)), found.name, found.value),
            Output(found.role, chance.choice(outputs).name, found.value),
        ]
    )
    return dataclasses.replace(program, outputs=tuple(outputs))


def _change_header(program: Program, chance: random.Random) -> Program:
    return chance.choice(
        [
            dataclasses.replace(program, magnitude_bits=chance.choice([13, *SIZES])),
            dataclasses.replace(program, numerics=chance.choice(["native/1", "exact/1", "x" * 300])),
        ]
    )


def _resize_everywhere(program: Program, chance: random.Random) -> Program:
    """One size becomes another wherever it stands, so that the whole often still fits and takes far more or less."""
    sizes = sorted({size for entry in program.inputs for size in entry.shape})
    if not sizes:
        return program
    old, new = chance.choice(sizes), chance.choice([2, 3, 7, 64, 500, 4096, 1 << 16, 1 << 20])

    def change(values: Sequence[int]) -> tuple[int, ...]:
        return tuple(new if value == old else value for value in values)

    return dataclasses.replace(
        program,
        inputs=tuple(dataclasses.replace(entry, shape=change(entry.shape)) for entry in program.inputs),
        nodes=tuple(
            Node(node.operation, node.operands, tuple(change(attribute) for attribute in node.attributes))
            for node in program.nodes
        ),
    )


MUTATIONS: tuple[Mutation, ...] = (
    *[_change_node] * 8, *[_resize_everywhere] * 3, _change_input, _change_constant, _change_output, _change_header,
)  # fmt: skip


def mutate(program: Program, raw: bytes, chance: random.Random) -> bytes:
    """The encoding of a mutant."""
    if chance.random() < 0.25:
        changed = bytearray(raw)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        return bytes(changed[: chance.randrange(len(changed))] if chance.random() < 0.1 else changed)
    for _ in range(chance.randint(1, 3)):
        program = chance.choice(MUTATIONS)(program, chance)
    return encode(program)


@dataclass(slots=True)
class Gauge:
    """What the process takes from `start` to `stop`."""

    before: int = 0  # bytes of memory at the start
    growth: int = 0  # bytes of memory above that, at most, over all spans
    seconds: float = 0.0  # of the process's own time, over all spans: other work on the machine does not count
    began: float = 0.0

    def start(self) -> None:
        """Begin a span."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        self.before, self.began = _memory_bytes("VmRSS"), time.process_time()

    def stop(self) -> None:
        """End the span."""
        self.seconds += time.process_time() - self.began
        self.growth = max(self.growth, _memory_bytes("VmHWM") - self.before)


def return_memory_at_once() -> None:
    """Tell the C library to give back what is freed, where it is glibc: what it keeps would hide the next growth."""
    known = getattr(ctypes.CDLL(None), "mallopt", None)
    if known is not None:
        known(MMAP_THRESHOLD, MAPPED_BYTES)


def _memory_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"this system does not tell {field}")


def make_input(entry: Input, chance: torch.Generator) -> torch.Tensor:
    """A tensor that fits: small numbers of both signs, and whole ones that are mostly indices."""
    if entry.dtype is DType.FLOAT32:
        return torch.rand(entry.shape, generator=chance) - 0.5
    whole = torch.randint(0, LEAST_CLASSES, entry.shape, generator=chance)
    return whole if entry.dtype is DType.INT64 else whole > 1


def run_mutant(raw: bytes, gauge: Gauge) -> int:
    """Decode, check and run; the bytes of memory that the check said, inputs among them.

    The tensors that a caller passes in are made outside of what is measured. Raises `Rejected`, and nothing else, where
    it does not get so far.
    """
    gauge.start()
    program = decode(Program, raw)
    said = verify_program(program, BUDGET).memory_bytes
    plan = load(program, budget=BUDGET)
    gauge.stop()
    chance = torch.Generator().manual_seed(1)
    pairs = [(entry, make_input(entry, chance)) for entry in program.inputs]
    state = {entry.name: tensor for entry, tensor in pairs if entry.role is InputRole.STATE}
    batch = [tensor for entry, tensor in pairs if entry.role is InputRole.BATCH]
    gauge.start()
    plan.run(state, batch, StepKey(bytes(32), 0, 0, 0))
    gauge.stop()
    return said


def _try_mutant(raw: bytes, tally: Tally) -> None:
    """Run one mutant and enter what it took; `RuntimeError` where that is too much."""
    gauge, said = Gauge(), None
    try:
        said = run_mutant(raw, gauge)
        tally.ran += 1
    except Rejected as refusal:
        gauge.stop()
        tally.refused[refusal.reason.value] += 1
    tally.seconds_worst = max(tally.seconds_worst, gauge.seconds)
    tally.growth_bytes = max(tally.growth_bytes, gauge.growth)
    if said is not None:
        tally.excess_bytes = max(tally.excess_bytes, gauge.growth - said)
    allowed = (BUDGET.memory_bytes_max if said is None else said) + SLACK_BYTES
    if gauge.seconds > SECONDS_MAX or gauge.growth > allowed:
        raise RuntimeError(f"{gauge.seconds:.1f} s and {gauge.growth} bytes where {allowed} were allowed")


def campaign(
    count: int,
    first: int,
    names: Sequence[str],
    tally: Tally | None = None,
    note: Callable[[Tally], None] | None = None,
) -> Tally:
    """Run mutants of the named models and of every operation until there are so many, from number `first` on.

    `tally` is what was done of them before; `note` is told now and then. Raises what a mutant raises besides
    `Rejected`, with the mutant's number in a note.
    """
    tally = Tally() if tally is None else tally
    return_memory_at_once()
    programs = [unpack(read_vectors()[name]["program"]) for name in names]
    models = len(programs)
    programs += [call.make_program() for call in make_calls()]
    raws = [encode(program) for program in programs]
    for raw in raws:
        run_mutant(raw, Gauge())  # the first runs in torch take memory of their own
    weights = [len(raw) ** -2.0 for raw in raws[:models]]  # small models more often: they take less time
    began = time.process_time()
    for number in range(first + tally.done, first + count):
        chance = random.Random(number)
        is_model = chance.random() < MODELS_SHARE
        place = chance.choices(range(models), weights)[0] if is_model else chance.randrange(models, len(programs))
        try:
            _try_mutant(mutate(programs[place], raws[place], chance), tally)
        except Exception as error:
            error.add_note(f"mutant {number} of program {place}")
            raise
        tally.done += 1
        if note is not None and tally.done % SPAN == 0:
            tally.seconds, began = tally.seconds + time.process_time() - began, time.process_time()
            note(tally)
    tally.seconds += time.process_time() - began
    return tally


def note_progress(tally: Tally) -> None:
    """Keep what a whole campaign has come to, so that it goes on there."""
    PROGRESS.parent.mkdir(exist_ok=True)
    kept = {entry.name: getattr(tally, entry.name) for entry in dataclasses.fields(tally)}  # asdict breaks a Counter
    PROGRESS.write_text(json.dumps(kept))
    print(f"{tally.done} mutants: {tally.ran} ran, {tally.refused.total()} refused", flush=True)


def read_progress() -> Tally:
    """What the last whole campaign left unfinished; an empty tally if nothing."""
    if not PROGRESS.exists():
        return Tally()
    kept = json.loads(PROGRESS.read_text())
    return Tally(**{**kept, "refused": Counter(kept["refused"])})


def keep(tally: Tally) -> None:
    """Write what came of a whole campaign to the results."""
    found = {
        "machine": {"processor": platform.processor(), "torch": torch.__version__, "threads": 1},
        "mutants": tally.done,
        "ran": tally.ran,
        "refused": dict(tally.refused.most_common()),
        "crashes": 0,  # either would have ended the campaign
        "over_budget": 0,
        "budget_memory_bytes": BUDGET.memory_bytes_max,
        "budget_operations": BUDGET.operations_max,
        "worst_growth_bytes": tally.growth_bytes,
        "worst_growth_above_what_the_check_said_bytes": tally.excess_bytes,
        "worst_seconds": round(tally.seconds_worst, 3),
        "seconds": round(tally.seconds),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    PROGRESS.unlink(missing_ok=True)


def main() -> None:
    """Run the campaign and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=WHOLE_CAMPAIGN)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant, for a campaign of its own")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = [name for name in read_vectors() if name != "resnet18"]  # its 11 million elements only take time
    is_whole = options.count == WHOLE_CAMPAIGN and options.first == 0
    before = read_progress() if is_whole else None
    tally = campaign(options.count, options.first, names, before, note_progress if is_whole else None)
    print(f"{tally.done} mutants: {tally.ran} ran, {tally.refused.total()} refused, no other end")
    for reason, times in tally.refused.most_common():
        print(f"    {reason}: {times}")
    print(
        f"longest {tally.seconds_worst:.2f} s; memory grew by at most {tally.growth_bytes / 1e6:.0f} MB of a budget of "
        f"{BUDGET.memory_bytes_max / 1e6:.0f}, at most {tally.excess_bytes / 1e6:.1f} above what a check had said; "
        f"{tally.seconds:.0f} s in all"
    )
    if is_whole:
        keep(tally)


if __name__ == "__main__":
    main()
