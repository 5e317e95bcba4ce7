"""Mutates valid programs and runs what still checks: each is refused with a reason or runs within its budget.

    python -m bench.fuzz_programs --count 100000      the campaign; a sample runs with the tests

A mutant is a program of the golden vectors, or a call of one operation, with some of its parts exchanged or with bytes
of its encoding changed. It is decoded, checked against a small budget, and run on tensors that fit its inputs. Anything
but `Rejected` is a finding and ends the campaign with the mutant's number; so does a run that takes more than its
memory or too long.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from bench.calls import make_calls
from bench.golden import make_tensor, read_vectors, unpack
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
)
from milon.pol.shapes import DType

BUDGET = Budget(memory_bytes_max=32 << 20, operations_max=1 << 26)
SECONDS_MAX = 20.0  # for one mutant: a budget of 2^26 steps takes well below a second on one busy core
SLACK_BYTES = 256 << 20  # what torch itself may come to hold while it runs for the first time
MODELS_SHARE = 0.3  # of the mutants; the others are single operations, which run much more often
SIZES = (-(1 << 63), -1, 0, 1, 2, 3, 5, 8, 64, 1 << 20, 1 << 33, (1 << 63) - 1)
Mutation = Callable[[Program, random.Random], Program]


@dataclass(slots=True)
class Tally:
    """What came of the mutants."""

    ran: int = 0  # accepted, and run to the end
    refused: Counter[str] = field(default_factory=Counter)  # by reason
    seconds_worst: float = 0.0  # of one mutant
    growth_bytes: int = 0  # of the process's memory, at most


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
        operands[chance.randrange(len(operands))] = chance.choice([chance.randrange(earlier), -1, earlier, 1 << 40])
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


MUTATIONS: tuple[Mutation, ...] = (*[_change_node] * 8, _change_input, _change_constant, _change_output, _change_header)


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


def run_mutant(raw: bytes) -> None:
    """Decode, check and run; raises `Rejected`, and nothing else, where it does not get so far."""
    program = decode(Program, raw)
    plan = load(program, budget=BUDGET)
    made = [make_tensor(entry, number) for number, entry in enumerate(program.inputs)]
    pairs = list(zip(program.inputs, made, strict=True))
    state = {entry.name: tensor for entry, tensor in pairs if entry.role is InputRole.STATE}
    plan.run(state, [tensor for entry, tensor in pairs if entry.role is InputRole.BATCH], StepKey(bytes(32), 0, 0, 0))


def _memory_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def campaign(count: int, seed: int, names: Sequence[str]) -> Tally:
    """Run so many mutants of the named models and of every operation.

    Raises what a mutant raises besides `Rejected`, with the mutant's number in a note.
    """
    programs = [unpack(read_vectors()[name]["program"]) for name in names]
    models = len(programs)
    programs += [call.make_program() for call in make_calls()]
    raws = [encode(program) for program in programs]
    tally = Tally()
    for raw in raws[:models]:
        run_mutant(raw)  # torch's first runs take memory of their own
    weights = [len(raw) ** -2.0 for raw in raws[:models]]  # small models more often: they take less time
    before = _memory_bytes()
    for number in range(seed, seed + count):
        chance = random.Random(number)
        is_model = chance.random() < MODELS_SHARE
        place = chance.choices(range(models), weights)[0] if is_model else chance.randrange(models, len(programs))
        began = time.process_time()  # other work on the machine does not count
        try:
            run_mutant(mutate(programs[place], raws[place], chance))
            tally.ran += 1
        except Rejected as refusal:
            tally.refused[refusal.reason.value] += 1
        except Exception as error:
            error.add_note(f"mutant {number} of program {place}")
            raise
        tally.seconds_worst = max(tally.seconds_worst, time.process_time() - began)
        tally.growth_bytes = _memory_bytes() - before
        if tally.seconds_worst > SECONDS_MAX or tally.growth_bytes > BUDGET.memory_bytes_max + SLACK_BYTES:
            raise RuntimeError(f"mutant {number} of program {place}: {tally}")
    return tally


def main() -> None:
    """Run the campaign and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="number of the first mutant")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = [name for name in read_vectors() if name != "resnet18"]  # its 11 million elements only take time
    began = time.perf_counter()
    tally = campaign(options.count, options.seed, names)
    print(f"{options.count} mutants: {tally.ran} ran, {tally.refused.total()} refused, no other end")
    for reason, times in tally.refused.most_common():
        print(f"    {reason}: {times}")
    print(
        f"longest {tally.seconds_worst:.2f} s, memory grew by {tally.growth_bytes / 1e6:.0f} MB, "
        f"{time.perf_counter() - began:.0f} s in all"
    )


if __name__ == "__main__":
    sys.exit(main())
