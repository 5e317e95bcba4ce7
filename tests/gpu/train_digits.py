"""Run as a program of its own: trains the digits model for some steps and prints digests of what came out.

python -m tests.gpu.train_digits PROGRAM STATE THREADS STEPS
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from milon.base.codec import decode
from milon.gpu.interpreter import load
from milon.pol.program import Program
from tests.gpu.programs import digests_of_training


def main() -> None:
    """Print the digest of the last state, then of all losses and gradients."""
    program, state, threads, steps = sys.argv[1:]
    torch.set_num_threads(int(threads))
    plan = load(decode(Program, Path(program).read_bytes()))
    print(*digests_of_training(plan, load_file(state), int(steps)))


if __name__ == "__main__":
    main()
