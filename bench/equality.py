"""Trains every model under every setting of a machine that could move a bit, and compares the final states.

    python -m bench.equality                       every case, 100 steps, one factor at a time against a base
    python -m bench.equality --steps 5 gpt unet    fewer
    python -m bench.equality --python PATH         also with that interpreter's torch; repeat, or name several in
                                                   MILON_EQUALITY_PYTHONS, with colons between

Each run is a process of its own, for most settings hold from a process's start; a setting of several ranks is so many
processes. What this machine lacks is reported as skipped, with the reason. A table goes to standard output, the rows to
bench/results/equality.json, anew after each setting; with --add beside those that are there, and what was run with so
many steps is not run again. Exit code 1: some digests differ.
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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

STEPS = 100  # a difference of one unit in the last place was seen to surface after 15 steps of AdamW
RESULTS = Path(__file__).parent / "results" / "equality.json"
INSTRUCTIONS = Path("/proc/cpuinfo")
PYTHONS = "MILON_EQUALITY_PYTHONS"
TORCHES = ("2.11", "2.12", "2.13")  # the versions that this release is made for
Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run."""

    name: str  # as the table shows it
    threads: int = 1
    variables: tuple[tuple[str, str], ...] = ()  # of the environment; all others of this list are unset
    needs: str = ""  # an instruction set this processor must have
    shards: int = 0  # parts of every batch in one process; 0: the ordinary way
    ranks: int = 1  # processes that hold one part each
    compiled: bool = False  # whether compiled loops are used however small a step is
    device: str = "cpu"
    python: str = sys.executable
    lacking: str = ""  # why it cannot run here


BASE = Setting("base: 1 thread")
SETTINGS = (
    Setting("3 shards", shards=3),
    Setting("2 ranks (gloo)", ranks=2),
    Setting("2 threads", threads=2),
    Setting("ATEN_CPU_CAPABILITY=default", variables=(("ATEN_CPU_CAPABILITY", "default"),)),
    Setting("ATEN_CPU_CAPABILITY=avx2", variables=(("ATEN_CPU_CAPABILITY", "avx2"),), needs="avx2"),
    Setting("ATEN_CPU_CAPABILITY=avx512", variables=(("ATEN_CPU_CAPABILITY", "avx512"),), needs="avx512f"),
    Setting("MKL_CBWR=COMPATIBLE", variables=(("MKL_CBWR", "COMPATIBLE"),)),
    Setting("ONEDNN_MAX_CPU_ISA=AVX2", variables=(("ONEDNN_MAX_CPU_ISA", "AVX2"),), needs="avx2"),
    Setting("compiled loops", threads=2, compiled=True),
)
_VARIABLES = sorted({name for setting in SETTINGS for name, _ in setting.variables})


def _list_settings(pythons: Sequence[str]) -> list[Setting]:
    """All settings, those that cannot run here with the reason."""
    settings = [_find_device()]
    found = {_ask_version(python): python for python in pythons}
    own = _ask_version(sys.executable)
    for version in TORCHES:
        if own.startswith(version):
            continue  # the base
        others = [name for name in found if name.startswith(version)]
        lacking = "" if others else f"no interpreter with torch {version} was named (--python PATH)"
        python = found[others[0]] if others else sys.executable
        settings.append(Setting(f"torch {others[0] if others else version}", python=python, lacking=lacking))
    return [BASE, *settings, *(_find_lack(setting) for setting in SETTINGS)]


def _ask_version(python: str) -> str:
    command = [python, "-c", "from importlib.metadata import version; print(version('torch'))"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def _find_lack(setting: Setting) -> Setting:
    if not setting.needs or (INSTRUCTIONS.exists() and setting.needs in INSTRUCTIONS.read_text().split()):
        return setting
    return replace(setting, lacking=f"this processor has no {setting.needs}")


def _find_device() -> Setting:
    from milon.gpu.devices import choose

    first = choose("auto").devices[0]
    if first == "cpu":
        return Setting("device: GPU", lacking="torch sees no GPU on this machine")
    return Setting(f"device: {first}", device=first)


def _train(options: argparse.Namespace) -> None:
    """In a process of its own: print, for each program in the folder, the digest after so many steps."""
    import torch
    from safetensors.torch import load_file

    from bench.cases import CASES, digest_of, train
    from milon.base.codec import decode
    from milon.gpu import devices, fast
    from milon.gpu.interpreter import load
    from milon.gpu.sharding import load_sharded
    from milon.gpu.sharding_ports import Port, join_ranks, leave_ranks
    from milon.pol.program import Program

    torch.set_num_threads(options.threads)
    devices.prepare(devices.choose(options.device))
    if options.compiled:
        fast.choose(fast.COMPILED_OPERATIONS_MIN)
    port: Port | None = join_ranks(options.rank, options.ranks, options.meeting) if options.ranks > 1 else None
    for name in options.names:
        path = options.programs / f"{name}.program"
        began = time.perf_counter()
        program = decode(Program, path.read_bytes(), 1 << 26)
        is_split = port is not None or options.shards
        devices_held = [options.device] * (options.shards or 1)
        plan = load_sharded(program, devices_held, port) if is_split else load(program, options.device)
        trained = train(CASES[name], plan, load_file(path.with_suffix(".state")), options.steps)
        state = {key: tensor.cpu() for key, tensor in trained.items()}
        is_finite = all(bool(torch.isfinite(tensor).all()) for tensor in state.values() if tensor.is_floating_point())
        answer = {"case": name, "rank": options.rank, "digest": digest_of(state), "finite": is_finite}
        print(json.dumps({**answer, "seconds": round(time.perf_counter() - began, 2)}), flush=True)
    if port is not None:
        leave_ranks()


def _capture(names: Iterable[str], folder: Path) -> None:
    """Programs and first states, once for all settings; those that are there are kept."""
    import torch
    from safetensors.torch import save_file

    from bench.cases import CASES, capture_case
    from milon.base.codec import encode

    torch.set_num_threads(1)
    for name in names:
        if (folder / f"{name}.state").exists():
            continue
        captured = capture_case(CASES[name])
        (folder / f"{name}.program").write_bytes(encode(captured.train))
        save_file({key: tensor.contiguous() for key, tensor in captured.state.items()}, folder / f"{name}.state")
        print(f"captured {name}: {len(captured.train.nodes)} operations", file=sys.stderr, flush=True)


def _run(setting: Setting, programs: Path, steps: int, names: list[str]) -> list[Row]:
    """What every case gave under one setting; of several ranks, what each of them gave."""
    environment = {name: value for name, value in os.environ.items() if name not in _VARIABLES}
    environment |= {"OMP_NUM_THREADS": str(setting.threads), **dict(setting.variables)}
    command = [setting.python, "-m", "bench.equality", "--programs", str(programs), "--steps", str(steps)]
    command += ["--threads", str(setting.threads), "--device", setting.device, "--shards", str(setting.shards)]
    command += ["--compiled"] * setting.compiled
    with tempfile.TemporaryDirectory(prefix="milon-ranks-") as folder:
        if setting.ranks > 1:
            command += ["--ranks", str(setting.ranks), "--meeting", str(Path(folder) / "meeting")]
            environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
        commands = [[*command, "--rank", str(rank), *names] for rank in range(setting.ranks)]
        started = [subprocess.Popen(each, env=environment, stdout=subprocess.PIPE, text=True) for each in commands]
        outputs = [process.communicate()[0] for process in started]
    failed = [process.returncode for process in started if process.returncode]
    if failed:
        raise SystemExit(f"{setting.name}: a process ended with {failed[0]}")
    return [json.loads(line) for output in outputs for line in output.splitlines() if line.startswith("{")]


def compare(options: argparse.Namespace, names: list[str], results: Path | None) -> bool:
    """Run everything; whether all digests of each case are equal."""
    pythons = [*options.python, *filter(None, os.environ.get(PYTHONS, "").split(":"))]
    settings = _list_settings(pythons)
    rows: list[Row] = []
    before = _read_rows(results) if options.add else []
    skipped = [{"setting": setting.name, "reason": setting.lacking} for setting in settings if setting.lacking]
    for entry in skipped:
        print(f"{entry['setting']}: skipped, {entry['reason']}", flush=True)
    figures: dict[str, object] = {
        "machine": platform.processor() or platform.machine(),
        "torch": _ask_version(sys.executable),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    with tempfile.TemporaryDirectory(prefix="milon-equality-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        _capture(names, folder)
        wanted = _find_wanted(before, options.steps)
        for setting in (setting for setting in settings if not setting.lacking):
            if _is_done(setting, before, options.steps, names) or not _is_asked(setting, options.setting):
                continue
            for row in _run(setting, folder, options.steps, names):
                wanted.setdefault(row["case"], row["digest"])  # the base runs first
                is_same = row["digest"] == wanted[row["case"]]
                rows.append({"setting": setting.name, "steps": options.steps, **row, "same": is_same})
                seen = f"{row['case']!s:20} {str(row['digest'])[:16]} {'same' if is_same else 'DIFFERS':8}"
                print(f"{setting.name:32} {seen} {row['seconds']} s", flush=True)
            equal = all(row["same"] for row in [*before, *rows])
            if results is not None:
                results.parent.mkdir(exist_ok=True)
                found = {**figures, "equal": equal, "skipped": skipped, "rows": [*before, *rows]}
                results.write_text(json.dumps(found, indent=1) + "\n")
    return all(row["same"] for row in rows)


def _read_rows(results: Path | None) -> list[Row]:
    """The rows of earlier runs."""
    if results is None or not results.exists():
        return []
    rows: list[Row] = json.loads(results.read_text())["rows"]
    return rows


def _find_wanted(rows: list[Row], steps: int) -> dict[object, object]:
    """The digest of each case under the base, where it ran with so many steps."""
    return {row["case"]: row["digest"] for row in rows if (row["setting"], row["steps"]) == (BASE.name, steps)}


def _is_done(setting: Setting, rows: list[Row], steps: int, names: list[str]) -> bool:
    done = {row["case"] for row in rows if (row["setting"], row["steps"]) == (setting.name, steps)}
    return done.issuperset(names)


def _is_asked(setting: Setting, texts: list[str]) -> bool:
    return not texts or setting is BASE or any(text in setting.name for text in texts)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="cases; all by default")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--python", action="append", default=[], help="an interpreter with another torch; repeat")
    parser.add_argument("--keep", type=Path, help="folder of the captured programs, used again where they are there")
    parser.add_argument("--add", action="store_true", help="keep the rows that are there, and run what is missing")
    parser.add_argument("--setting", action="append", default=[], help="only settings whose name holds this; repeat")
    for name in ("--programs", "--meeting"):
        parser.add_argument(name, type=Path, help=argparse.SUPPRESS)
    for name, number in (("--threads", 1), ("--shards", 0), ("--ranks", 1), ("--rank", 0)):
        parser.add_argument(name, type=int, default=number, help=argparse.SUPPRESS)
    parser.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    parser.add_argument("--compiled", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Compare the named cases, or all."""
    options = _parse()
    if options.programs is not None:
        _train(options)
        return 0
    from bench.cases import CASES

    is_equal = compare(options, options.names or sorted(CASES), None if options.names and not options.add else RESULTS)
    print("all equal" if is_equal else "NOT EQUAL")
    return 0 if is_equal else 1


if __name__ == "__main__":
    sys.exit(main())
