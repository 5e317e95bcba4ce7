"""What a program is and costs, in figures that people can read before they sign or run it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from milon.pol.operations import OPERATIONS
from milon.pol.program import (
    Budget,
    Cost,
    InputRole,
    OutputRole,
    Program,
    ProgramKind,
    compute_types,
    verify_program,
)

MODEL = "model."  # before the name of a parameter or buffer in the state


@dataclass(frozen=True, slots=True)
class OperationUse:
    """How often a program uses one operation."""

    name: str  # in the table of operations
    rule: str  # of the numerics
    count: int  # nodes
    elements: int  # of all their results


@dataclass(frozen=True, slots=True)
class Summary:
    """A checked program in figures."""

    kind: ProgramKind  # what it is for
    numerics: str  # the rules under which it runs
    magnitude_bits: int  # M of rule N4
    parameters: int  # elements of the model's tensors that training moves
    frozen: int  # elements of the model's other tensors: frozen parameters, buffers
    slots: int  # elements of the optimizer's tensors
    batch: tuple[str, ...]  # types of the tensors of a batch, in order
    draws: int  # random numbers in a run
    constant_bytes: int  # of the tensors that are part of the program
    operations: tuple[OperationUse, ...]  # the most frequent first
    cost: Cost  # of one run


def summarize(program: Program, budget: Budget) -> Summary:
    """The program in figures; `Rejected` where it does not check against `budget`."""
    cost = verify_program(program, budget)
    types = compute_types(program)
    trained = {output.name for output in program.outputs if output.role is OutputRole.GRADIENT}
    sizes: Counter[str] = Counter()
    for entry, found in zip(program.inputs, types, strict=False):
        if entry.role is InputRole.STATE:
            is_model = entry.name.startswith(MODEL)
            sizes["parameters" if entry.name in trained else "frozen" if is_model else "slots"] += found.elements
        elif entry.role is InputRole.DRAW:
            sizes["draws"] += found.elements
    base = len(program.inputs) + len(program.constants)
    counts: Counter[str] = Counter(node.operation for node in program.nodes)
    elements: Counter[str] = Counter()
    for number, node in enumerate(program.nodes):
        elements[node.operation] += types[base + number].elements
    return Summary(
        kind=program.kind,
        numerics=program.numerics,
        magnitude_bits=program.magnitude_bits,
        parameters=sizes["parameters"],
        frozen=sizes["frozen"],
        slots=sizes["slots"],
        batch=tuple(
            str(found)
            for entry, found in zip(program.inputs, types, strict=False)
            if entry.role is InputRole.BATCH
        ),
        draws=sizes["draws"],
        constant_bytes=sum(len(constant.raw) for constant in program.constants),
        operations=tuple(
            OperationUse(name, OPERATIONS[name].rule, count, elements[name])
            for name, count in sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
        ),
        cost=cost,
    )
