"""Counts, over all 2^32 inputs or a sample, how often an elementary function of rule N2 is not correctly rounded.

Each input is evaluated in binary64 by `milon.gpu.elementary`. Where the binary64 value lies within `DOUBT` of the
midpoint of two binary32 numbers, and there only, the rounding could be wrong: these inputs are computed again with 60
digits (mpmath) and compared. That the binary64 values are never further off than `DOUBT` is itself measured, on a
sample spread over all exponents; the figure is printed as "worst error" and must stay well below.

    python -m bench.exhaustive exp tanh            a sample of one input in 4,099, about a second each
    python -m bench.exhaustive --all exp           every input, minutes
"""

from __future__ import annotations

import argparse
import struct
import time
from collections.abc import Callable, Iterator

import mpmath
import torch

from milon.gpu.elementary import FUNCTIONS, evaluate

DOUBT = 2.0**-46  # 64 times the error expected of binary64 evaluation
CHUNK = 1 << 16  # inputs at a time: they stay in the processor's cache
SAMPLE_STRIDE = 4099  # a prime, so that a sample meets all low bits
WORST_SAMPLE = 4000  # inputs of the error measurement

REFERENCES: dict[str, Callable[[mpmath.mpf], mpmath.mpf]] = {
    "cos": mpmath.cos,
    "erf": mpmath.erf,
    "exp": mpmath.exp,
    "expm1": mpmath.expm1,
    "log": mpmath.log,
    "log1p": mpmath.log1p,
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "sin": mpmath.sin,
    "tanh": mpmath.tanh,
}


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


def reference_bits(name: str, bits: int) -> int:
    """The bits of the correctly rounded result for a finite input inside the function's domain."""
    x = mpmath.mpf(struct.unpack("<f", struct.pack("<I", bits))[0])
    return round_to_bits(REFERENCES[name](x))


def chunks(stride: int) -> Iterator[torch.Tensor]:
    """All bit patterns that are multiples of `stride`, as binary32 tensors."""
    for start in range(0, 1 << 32, CHUNK * stride):
        patterns = torch.arange(start, min(start + CHUNK * stride, 1 << 32), stride, dtype=torch.int64)
        yield patterns.to(torch.int32).view(torch.float32)  # the conversion keeps the low 32 bits


def find_doubtful(name: str, x: torch.Tensor) -> torch.Tensor:
    """The bits (int64) of the inputs whose binary64 value rounds differently when moved by `DOUBT`."""
    y = FUNCTIONS[name](x.double())
    doubtful = (y * (1.0 - DOUBT)).float() != (y * (1.0 + DOUBT)).float()
    doubtful &= y == y
    return x[doubtful].view(torch.int32).to(torch.int64) & 0xFFFFFFFF


def measure_worst(name: str) -> float:
    """The largest relative error of the binary64 value over a sample of all exponents where the result is normal."""
    worst = 0.0
    patterns = torch.arange(0, 1 << 32, (1 << 32) // WORST_SAMPLE + 1, dtype=torch.int64)
    x = patterns.to(torch.int32).view(torch.float32)
    for point, value in zip(x.tolist(), FUNCTIONS[name](x.double()).tolist(), strict=True):
        if not 2.0**-140 < abs(value) < 2.0**128 or abs(value) == 1.0:
            continue  # 1 is where erf, tanh and sigmoid stop computing: far above the last midpoint below it
        true = REFERENCES[name](mpmath.mpf(point))
        worst = max(worst, float(abs((mpmath.mpf(value) - true) / true)))
    return worst


def count_misrounded(name: str, stride: int) -> tuple[int, int, list[tuple[int, int]]]:
    """Inputs looked at, doubtful ones, and the misrounded ones as (input bits, right result bits)."""
    looked = doubtful = 0
    wrong = []
    for x in chunks(stride):
        looked += x.numel()
        for bits in find_doubtful(name, x).tolist():
            doubtful += 1
            right = reference_bits(name, bits)
            found = evaluate(name, torch.tensor([bits]).to(torch.int32).view(torch.float32))
            if int(found.view(torch.int32)) & 0xFFFFFFFF != right:
                wrong.append((bits, right))
    return looked, doubtful, wrong


def main() -> None:
    """Print one line per function."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=sorted(FUNCTIONS), help="functions; all by default")
    parser.add_argument("--all", action="store_true", help="every input")
    options = parser.parse_args()
    torch.set_num_threads(1)
    mpmath.mp.dps = 60
    for name in options.names:
        began = time.monotonic()
        looked, doubtful, wrong = count_misrounded(name, 1 if options.all else SAMPLE_STRIDE)
        seconds = time.monotonic() - began
        print(
            f"{name}: {len(wrong)} misrounded of {looked} inputs ({doubtful} in doubt), "
            f"worst error 2^{mpmath.nstr(mpmath.log(measure_worst(name) or 2.0**-99, 2), 4)}, {seconds:.0f} s",
            flush=True,
        )
        for bits, right in wrong:
            print(f"    (0x{bits:08X}, 0x{right:08X}),", flush=True)


if __name__ == "__main__":
    main()
