"""`make exhaustive`: counts, over all 2^32 inputs, how often a function of rule N2 or a root is not correctly rounded.

    python -m bench.exhaustive                            what is still missing of every function, hours if all is
    python -m bench.exhaustive --functions tanh erf       these; a run that was stopped goes on where it was
    python -m bench.exhaustive --stride 4099              a sample, about a second each; nothing is kept

Each input is evaluated three times. **Tested:** the compiled loops that nodes run (way "compiled"), or the plain torch
form that defines them (way "reference"). **Independent:** the same function in binary64 by the C library, which shares
no step and no coefficient with Milon; its documented error is at most two units of that format, 2^-51. Where the
C library's value, moved by 2^-43 of itself either way, rounds to one and the same binary32 number, that number is the
correctly rounded one, with a margin of 256 over the documented error, and the result tested must have its bits.
**Hard cases**, all others: the true value to 60 digits by mpmath, against the way tested and the reference.

So a miss could only hide where the C library is wrong by 256 times what it documents, and Milon in the same way. That
the C library keeps its word is measured too, at inputs from every exponent. A square root needs no second opinion: the
midpoint of two binary32 numbers has 25 bits and its square 50, so the neighbourhood is checked exactly in binary64.

The digest of a function is the sum of its results' bits, each times twice the input's bits plus one, modulo 2^64 (NaN
as 0x7FC00000): another device or another version has the same results if and, in all likelihood, only if it is equal.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import mpmath
import numba
import numpy as np
import torch
from torch import Tensor

from milon.gpu import fast
from milon.gpu.chains import Chain, ChainKernel, machine
from milon.gpu.elementary import FUNCTIONS, evaluate, square_root
from milon.pol.program import NUMERICS, Input, InputRole, Node, Program, ProgramKind
from milon.pol.shapes import DType, TensorType

DOUBT = 2.0**-43  # 256 times the error that the C library documents
INPUTS = 1 << 32
CHUNK = 1 << 15  # inputs at a time: they stay in a core's second cache
SPAN = 1 << 26  # inputs from one note of the progress to the next
HARD_MAX = 1 << 13  # hard cases of one chunk; about one input in 2^17 is one
ERROR_SAMPLE = 1500  # inputs at which the error of the C library is measured
RESULT = Path(__file__).parent / "results" / "exhaustive.json"
PROGRESS = Path("build") / "exhaustive.json"
# Most used in training first.
ORDER = ("tanh", "sigmoid", "erf", "rsqrt", "sqrt", "expm1", "log1p", "exp", "log", "sin", "cos")

TRUE: dict[str, Callable[[mpmath.mpf], mpmath.mpf]] = {
    "cos": mpmath.cos,
    "erf": mpmath.erf,
    "exp": mpmath.exp,
    "expm1": mpmath.expm1,
    "log": mpmath.log,
    "log1p": mpmath.log1p,
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "sin": mpmath.sin,
    "sqrt": mpmath.sqrt,
    "tanh": mpmath.tanh,
}


def _sigmoid(x: float) -> float:
    small = math.exp(-abs(x))
    return (small if x < 0 else 1.0) / (1.0 + small)


INDEPENDENT: dict[str, Callable[[float], float]] = {
    "cos": lambda x: math.cos(x),
    "erf": lambda x: math.erf(x),
    "exp": lambda x: math.exp(x),
    "expm1": lambda x: math.expm1(x),
    "log": lambda x: math.log(x),
    "log1p": lambda x: math.log1p(x),
    "rsqrt": lambda x: 1.0 / math.sqrt(x),
    "sigmoid": _sigmoid,
    "sin": lambda x: math.sin(x),
    "sqrt": lambda x: math.sqrt(x),
    "tanh": lambda x: math.tanh(x),
}
Way = Callable[[Tensor], Tensor]


@dataclass(slots=True)
class Row:
    """What is known of one function by one way."""

    function: str
    way: str  # "compiled" or "reference"
    inputs: int = 0  # looked at so far; those below it, if no stride was given
    hard: int = 0  # of these decided with 60 digits
    misses: list[tuple[int, int]] = field(default_factory=list)  # (input, right result) as bits
    reference_misses: int = 0  # of the plain form, at the hard cases
    digest: int = 0  # as the head of this module says
    seconds: float = 0.0  # of the process's own time

    @property
    def is_whole(self) -> bool:
        """Whether every input was looked at."""
        return self.inputs == INPUTS


def round_to_bits(value: mpmath.mpf) -> int:
    """The bits of the binary32 number nearest to a real `value`, ties to even, subnormals and overflow included."""
    if value == 0:
        return 0
    sign = 0x80000000 if value < 0 else 0
    mantissa, exponent = mpmath.frexp(abs(value))  # 0.5 <= mantissa < 1
    unit = max(int(exponent) - 24, -149)  # exponent of the last bit
    scaled = mpmath.ldexp(mantissa, int(exponent) - unit)
    whole = int(mpmath.floor(scaled))
    rest = scaled - whole
    if rest > mpmath.mpf(1) / 2 or (rest == mpmath.mpf(1) / 2 and whole % 2):
        whole += 1
    if whole < 1 << 23:
        return sign | whole
    if whole == 1 << 24:
        whole, unit = whole >> 1, unit + 1
    biased = unit + 150
    return sign | (0x7F800000 if biased >= 255 else (biased << 23) + (whole - (1 << 23)))


def true_bits(name: str, bits: int) -> int:
    """The bits of the correctly rounded result for a finite input inside the function's domain."""
    return round_to_bits(TRUE[name](mpmath.mpf(_to_float(bits))))


def _to_float(bits: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


_compile = numba.njit(fastmath=False, error_model="numpy", nogil=True)


@_compile
def _bits_of(value):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """The bits of a binary32 number, NaN as one of them."""
    return np.int32(0x7FC00000) if value != value else np.float32(value).view(np.int32)


@_compile
def _float_of(bits):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    return np.float64(np.int32(bits).view(np.float32))


@_compile
def _is_root(x, y, given, found):  # type: ignore[no-untyped-def]  # compiled: types come from the call
    """Whether y is the root of x: between the midpoints around it, whose 25 bits make their squares exact."""
    if (x > 0) & (x < np.inf):
        below = (_float_of(found - 1) + y) * 0.5
        above = (_float_of(found + 1) + y) * 0.5
        return (found > 0) & (below * below < x) & (x < above * above)
    return found == (given if (x == 0) | (x == np.inf) else np.int32(0x7FC00000))


@cache
def make_judge(name: str) -> Callable[..., Any]:
    """A loop over (first input, stride, inputs, results, room for hard cases): how many are hard, and the digest."""
    independent = _compile(INDEPENDENT[name])
    least, most, is_root = 1.0 - DOUBT, 1.0 + DOUBT, name == "sqrt"

    def judge(first, stride, x, results, hard):  # type: ignore[no-untyped-def]  # compiled: types come from the call
        count, digest = 0, np.int64(0)
        for i in range(x.size):
            pattern = first + i * stride
            given, found = np.float64(x[i]), _bits_of(results[i])
            digest += (np.int64(found) & 0xFFFFFFFF) * (2 * pattern + 1)
            if is_root:
                is_sure = _is_root(given, np.float64(results[i]), _bits_of(x[i]), found)
            else:
                y = independent(given)
                low = _bits_of(np.float32(y * least))
                is_sure = (found == low) & (low == _bits_of(np.float32(y * most)))
            if not is_sure:
                hard[count] = pattern
                count += 1
        return count, digest

    made: Callable[..., Any] = _compile(judge)
    return made


def make_reference(name: str) -> Way:
    """The plain form of a function, as `milon.gpu.elementary` defines it."""
    return square_root if name == "sqrt" else lambda x: evaluate(name, x)


def make_compiled(name: str) -> Way:
    """The compiled loop of a function, as nodes run it on a CPU."""
    fast.choose(1 << 62)
    loops = machine()
    if loops is None:
        raise RuntimeError("the compiled loops are not used on this machine; try --ways reference")
    kernels: dict[int, ChainKernel] = {}

    def run(x: Tensor) -> Tensor:
        size = x.numel()
        if size not in kernels:
            kind = TensorType(DType.FLOAT32, (size,))
            inputs = (Input("x", InputRole.BATCH, kind.dtype, kind.shape),)
            program = Program(ProgramKind.PREDICT, NUMERICS, 13, inputs, (), (Node(name, (0,), ()),), ())
            kernels[size] = ChainKernel(Chain(kind.shape, [1]), program, (kind, kind), {1}, loops)
        return kernels[size](x)[0]

    return run


WAYS = {"compiled": make_compiled, "reference": make_reference}


def from_patterns(patterns: Iterable[int]) -> Tensor:
    """Binary32 numbers of these bits."""
    return torch.tensor(list(patterns), dtype=torch.int64).to(torch.int32).view(torch.float32)


def to_patterns(values: Tensor) -> list[int]:
    """The bits of binary32 numbers, every NaN as 0x7FC00000."""
    bits = torch.where(values.isnan(), 0x7FC00000, values.view(torch.int32).to(torch.int64) & 0xFFFFFFFF)
    return [int(pattern) for pattern in bits.tolist()]


def decide(row: Row, run: Way, patterns: list[int]) -> None:
    """Enter hard cases: the true value to 60 digits against the way tested and the reference."""
    row.hard += len(patterns)
    x = from_patterns(patterns)
    found, plain = to_patterns(run(x)), to_patterns(make_reference(row.function)(x))
    for pattern, bits, other in zip(patterns, found, plain, strict=True):
        value = _to_float(pattern)
        is_inside = math.isfinite(value) and TRUE_FROM.get(row.function, -math.inf) < value
        right = true_bits(row.function, pattern) if is_inside else other
        if bits != right:
            row.misses.append((pattern, right))
        row.reference_misses += other != right


TRUE_FROM = {"log": 0.0, "log1p": -1.0, "rsqrt": 0.0, "sqrt": 0.0}  # the open end of the domain


def look(row: Row, run: Way, judge: Callable[..., Any], first: int, last: int, stride: int) -> None:
    """Enter the inputs first, first + stride, ... below last."""
    began = time.process_time()
    hard = np.empty(CHUNK, np.int64)
    for start in range(first, last, CHUNK * stride):
        size = -(-(min(last, start + CHUNK * stride) - start) // stride)
        x = (torch.arange(size, dtype=torch.int64) * stride + start).to(torch.int32).view(torch.float32)
        count, digest = judge(start, stride, x.numpy(), run(x).numpy(), hard)
        row.digest = (row.digest + int(digest)) % (1 << 64)
        if count > HARD_MAX:
            raise RuntimeError(f"{row.function}: {count} of {size} inputs from 0x{start:08X} on are not as expected")
        if count:
            decide(row, run, [int(pattern) for pattern in hard[:count]])
        row.inputs += size
    row.seconds += time.process_time() - began


def measure_independent(name: str) -> float:
    """The greatest relative error of the C library's value at inputs from every exponent (normal results)."""
    worst = 0.0
    for pattern in range(0, INPUTS, INPUTS // ERROR_SAMPLE + 1):
        x = _to_float(pattern)
        if not math.isfinite(x) or x <= TRUE_FROM.get(name, -math.inf) or (abs(x) > 80 and "exp" in name):
            continue
        value, true = INDEPENDENT[name](x), TRUE[name](mpmath.mpf(x))
        if true != 0 and abs(true) > 2.0**-900:
            worst = max(worst, float(abs((mpmath.mpf(value) - true) / true)))
    return worst


def read_rows() -> dict[tuple[str, str], Row]:
    """What runs before this one left, finished or not."""
    rows: dict[tuple[str, str], Row] = {}
    if PROGRESS.exists():
        for entry in json.loads(PROGRESS.read_text()):
            row = Row(**{**entry, "misses": [tuple(pair) for pair in entry["misses"]]})
            rows[row.function, row.way] = row
    return rows


def write_rows(rows: dict[tuple[str, str], Row]) -> None:
    """Keep the progress, and of every function that is through the result."""
    PROGRESS.parent.mkdir(exist_ok=True)
    PROGRESS.write_text(json.dumps([asdict(row) for row in rows.values()]))
    whole = [row for row in rows.values() if row.is_whole]
    if not whole:
        return
    kept = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
    found = {(entry["function"], entry["way"]): entry for entry in kept}
    for row in whole:
        found[row.function, row.way] = {
            "function": row.function,
            "way": row.way,
            "inputs": row.inputs,
            "hard_cases": row.hard,
            "misses": len(row.misses),
            "misses_of_the_reference_at_hard_cases": row.reference_misses,
            "digest": f"{row.digest:016x}",
            "seconds": round(row.seconds),
        }
    machine_of = {"processor": platform.processor(), "torch": torch.__version__, "threads": 1}
    rows_kept = [found[key] for key in sorted(found)]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"machine": machine_of, "rows": rows_kept}, indent=1) + "\n")


def describe(row: Row) -> str:
    """One line for a person, and one for each miss."""
    line = (
        f"{row.function} ({row.way}): {len(row.misses)} misses of {row.inputs} inputs; {row.hard} hard cases, "
        f"{row.reference_misses} misses of the reference among them; digest {row.digest:016x}; {row.seconds:.0f} s"
    )
    return "\n".join([line, *(f"    (0x{bits:08X}, 0x{right:08X})," for bits, right in row.misses)])


def run_whole(name: str, way: str, rows: dict[tuple[str, str], Row]) -> Row:
    """Take one function through all inputs, from where the last run stopped."""
    row = rows.setdefault((name, way), Row(name, way))
    run, judge = WAYS[way](name), make_judge(name)
    while not row.is_whole:
        look(row, run, judge, row.inputs, row.inputs + SPAN, 1)
        write_rows(rows)
        print(f"\r{name} ({way}): {row.inputs * 100 // INPUTS} %, {len(row.misses)} misses ", end="", flush=True)
    print("\r", end="")
    return row


def run_sample(name: str, way: str, stride: int) -> Row:
    """One input in so many."""
    row = Row(name, way)
    look(row, WAYS[way](name), make_judge(name), 0, INPUTS, stride)
    return row


def main() -> None:
    """Print one line per function and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--functions", nargs="*", default=list(ORDER), choices=[*sorted(FUNCTIONS), "sqrt"])
    parser.add_argument("--ways", nargs="*", default=["compiled"], choices=list(WAYS))
    parser.add_argument("--stride", type=int, default=1, help="look at one input in so many only, and keep nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    mpmath.mp.dps = 60
    rows = read_rows()
    for way in options.ways:
        for name in options.functions:
            row = run_whole(name, way, rows) if options.stride == 1 else run_sample(name, way, options.stride)
            print(describe(row), flush=True)
            error = measure_independent(name)
            print(f"    the C library's error is at most 2^{math.log2(error or 2.0**-99):.1f} on a sample", flush=True)


if __name__ == "__main__":
    main()
