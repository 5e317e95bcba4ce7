"""Trains every model under every setting of a machine that could move a bit, and compares the final states.

    python -m bench.equality                       every case, 100 steps, one factor at a time against a base
    python -m bench.equality --steps 5 gpt unet    fewer

Each run is a process of its own, for most settings hold from a process's start. What this machine lacks is reported as
skipped. A table goes to standard output, the figures to bench/results/equality.json. Exit code 1: some digests differ.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

STEPS = 100  # a difference of one unit in the last place was seen to surface after 15 steps of AdamW
RESULTS = Path(__file__).parent / "results" / "equality.json"
INSTRUCTIONS = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run."""

    name: str  # as the table shows it
    threads: int = 1
    variables: tuple[tuple[str, str], ...] = ()  # of the environment; all others of this list are unset
    needs: str = ""  # an instruction set this processor must have


BASE = Setting("base: 1 thread")
SETTINGS = (
    BASE,
    Setting("2 threads", threads=2),
    Setting("ATEN_CPU_CAPABILITY=default", variables=(("ATEN_CPU_CAPABILITY", "default"),)),
    Setting("ATEN_CPU_CAPABILITY=avx2", variables=(("ATEN_CPU_CAPABILITY", "avx2"),), needs="avx2"),
    Setting("ATEN_CPU_CAPABILITY=avx512", variables=(("ATEN_CPU_CAPABILITY", "avx512"),), needs="avx512f"),
    Setting("MKL_CBWR=COMPATIBLE", variables=(("MKL_CBWR", "COMPATIBLE"),)),
    Setting("ONEDNN_MAX_CPU_ISA=AVX2", variables=(("ONEDNN_MAX_CPU_ISA", "AVX2"),), needs="avx2"),
)
_VARIABLES = sorted({name for setting in SETTINGS for name, _ in setting.variables})


def _train(programs: Path, threads: int, steps: int) -> None:
    """In a process of its own: print, for each program in the folder, the digest after so many steps."""
    import torch
    from safetensors.torch import load_file

    from bench.cases import CASES, digest_of, train
    from milon.base.codec import decode
    from milon.gpu.interpreter import load
    from milon.pol.program import Program

    torch.set_num_threads(threads)
    for path in sorted(programs.glob("*.program")):
        began = time.perf_counter()
        plan = load(decode(Program, path.read_bytes(), 1 << 26))
        state = train(CASES[path.stem], plan, load_file(path.with_suffix(".state")), steps)
        is_finite = all(bool(torch.isfinite(tensor).all()) for tensor in state.values() if tensor.is_floating_point())
        answer = {"case": path.stem, "digest": digest_of(state), "finite": is_finite}
        print(json.dumps({**answer, "seconds": round(time.perf_counter() - began, 2)}), flush=True)


def _capture(names: Iterable[str], folder: Path) -> None:
    """Programs and first states, once for all settings."""
    import torch
    from safetensors.torch import save_file

    from bench.cases import CASES, capture_case
    from milon.base.codec import encode

    torch.set_num_threads(1)
    for name in names:
        captured = capture_case(CASES[name])
        (folder / f"{name}.program").write_bytes(encode(captured.train))
        save_file({key: tensor.contiguous() for key, tensor in captured.state.items()}, folder / f"{name}.state")
        print(f"captured {name}: {len(captured.train.nodes)} operations", file=sys.stderr, flush=True)


def _run(setting: Setting, programs: Path, steps: int) -> dict[str, dict[str, object]]:
    """Digest and seconds of every case under one setting."""
    environment = {name: value for name, value in os.environ.items() if name not in _VARIABLES}
    environment |= {"OMP_NUM_THREADS": str(setting.threads), **dict(setting.variables)}
    command = [sys.executable, "-m", "bench.equality", "--programs", str(programs)]
    command += ["--threads", str(setting.threads), "--steps", str(steps)]
    ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    return {line.pop("case"): line for line in lines}


def _lacks(setting: Setting) -> bool:
    if not setting.needs:
        return False
    return not INSTRUCTIONS.exists() or setting.needs not in INSTRUCTIONS.read_text().split()


def compare(names: list[str], steps: int) -> tuple[dict[str, object], bool]:
    """The figures of all settings, and whether all digests of each case are equal."""
    found: dict[str, dict[str, dict[str, object]]] = {}
    skipped = []
    with tempfile.TemporaryDirectory(prefix="milon-equality-") as folder:
        _capture(names, Path(folder))
        for setting in SETTINGS:
            if _lacks(setting):
                skipped.append(setting.name)
                print(f"{setting.name}: skipped, this processor has no {setting.needs}", flush=True)
                continue
            found[setting.name] = _run(setting, Path(folder), steps)
            for name in names:
                mark = "same" if found[setting.name][name]["digest"] == found[BASE.name][name]["digest"] else "DIFFERS"
                digest, seconds = str(found[setting.name][name]["digest"])[:16], found[setting.name][name]["seconds"]
                print(f"{setting.name:32} {name:20} {digest} {mark:8} {seconds} s", flush=True)
    equal = all(runs[name]["digest"] == found[BASE.name][name]["digest"] for runs in found.values() for name in names)
    figures: dict[str, object] = {"steps": steps, "machine": platform.processor() or platform.machine()}
    return {**figures, "settings": found, "skipped": skipped, "equal": equal}, equal


def main() -> int:
    """Compare the named cases, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="cases; all by default")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--programs", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.programs is not None:
        _train(options.programs, options.threads, options.steps)
        return 0
    from bench.cases import CASES

    figures, is_equal = compare(options.names or sorted(CASES), options.steps)
    if not options.names:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    print("all equal" if is_equal else "NOT EQUAL")
    return 0 if is_equal else 1


if __name__ == "__main__":
    sys.exit(main())
