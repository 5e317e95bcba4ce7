"""`make honest`: honest segments of ordinary models, trained in one setting of a machine and replayed in another.

    python -m bench.honest                       10,000 segments; a run that was stopped goes on
    python -m bench.honest --segments 500 gpt    fewer, of some models

How many does the replay refuse? The answer should be none, and then at most 3/N are, with 95 % confidence. A lot is so
many segments of every model in a round of its own: one process trains it in its setting and writes states and records,
another takes them up in its own and replays them with the product's `replay_segment`. Settings: threads, instruction
sets that torch may use, and compiled loops on or off. Results: bench/results/honest.json, anew after every lot.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any

import torch

from bench.golden import make_tensor, read_vectors, unpack
from milon.base.codec import decode, encode, wire
from milon.base.hashing import digest
from milon.base.ids import NO_DIGEST, Digest
from milon.base.units import Count
from milon.gpu import fast
from milon.gpu.checkpoint import state_digest, to_bytes
from milon.gpu.interpreter import load
from milon.gpu.replay import replay_segment
from milon.gpu.rows import Dataset, describe_columns
from milon.gpu.train import RoundWork, run_segment
from milon.gpu.work_library import layout_of
from milon.pol.claim import SegmentRecord, commit_trace, compute_trace
from milon.pol.program import InputRole
from milon.pol.work import ReplayItem

SEGMENTS = 10_000
EACH = 25  # segments of one model in a lot: starting two processes costs as much as training forty
STEPS = 1  # of a segment: what differs in one step differs in many
BATCHES = 8  # that a model's data is made of
RESULT = Path(__file__).parent / "results" / "honest.json"
KEPT = Path("build") / "honest"
VARIABLE = "ATEN_CPU_CAPABILITY"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run."""

    name: str  # as the table shows it
    threads: int = 1
    instructions: str = ""  # that torch may use; empty: whatever the processor has
    is_compiled: bool = False  # compiled loops, however small a step is


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("1 thread"),
        Setting("2 threads", threads=2),
        Setting("default instructions", instructions="default"),
        Setting("avx2", instructions="avx2"),
        Setting("compiled loops", is_compiled=True),
    )
}
PAIRS = tuple(permutations(SETTINGS, 2))


@wire("honest-lot/1")
@dataclass(frozen=True, slots=True)
class Lot:
    """One model's part of a lot, as its trainer hands it over."""

    records: tuple[SegmentRecord, ...]  # consecutive segments


@cache
def _vectors() -> Mapping[str, Mapping[str, str]]:
    return read_vectors()


@cache
def open_model(name: str) -> tuple[RoundWork, bytes]:
    """The work of a model's rounds, its seed still to be set, and the bytes of its first state.

    Programs are those of the golden vectors, states and rows are made of rule N5's numbers: nothing is captured, so
    that a setting can touch only what trains and replays.
    """
    program = unpack(_vectors()[name]["program"])
    entries = list(enumerate(program.inputs))
    state = {entry.name: make_tensor(entry, number) for number, entry in entries if entry.role is InputRole.STATE}
    batch = [(number, entry) for number, entry in entries if entry.role is InputRole.BATCH]
    columns = tuple(
        torch.cat([make_tensor(entry, number + 1_000 * part) for part in range(1, BATCHES + 1)])
        for number, entry in batch
    )
    names = [f"column-{place}" for place in range(len(columns))]
    data = Dataset(describe_columns(names, columns), columns)
    work = RoundWork(load(program), layout_of(program), data, batch[0][1].shape[0], STEPS, NO_DIGEST, 0)
    return work, to_bytes(state)


def _of_lot(work: RoundWork, lot: int) -> RoundWork:
    seed = Digest(digest("honest-lot", lot.to_bytes(8, "big")))
    return RoundWork(work.plan, work.layout, work.data, work.batch_size, work.steps_per_segment, seed, 0)


def train_lot(folder: Path, name: str, lot: int, count: int) -> None:
    """Train so many segments of a model, and leave the states and records for somebody else."""
    opened, state = open_model(name)
    work = _of_lot(opened, lot)
    records = []
    for segment in range(count):
        run = run_segment(work, state, segment)
        if run.diverged_step is not None:
            break  # an honest trainer claims what it has
        trace = commit_trace(compute_trace(run.fingerprints))
        records.append(SegmentRecord(Count(segment), state_digest(run.state), trace, Count(run.loss_bits)))
        state = run.state
        (folder / f"{name}.{segment}.after").write_bytes(state)
    (folder / f"{name}.records").write_bytes(encode(Lot(tuple(records))))


def replay_lot(folder: Path, name: str, lot: int) -> Iterator[bool]:
    """Whether the product's replay takes each of the segments that were left."""
    opened, state = open_model(name)
    work = _of_lot(opened, lot)
    for record in decode(Lot, (folder / f"{name}.records").read_bytes()).records:
        yield replay_segment(work, state, ReplayItem(record.segment, NO_DIGEST, record)).is_same
        state = (folder / f"{name}.{record.segment}.after").read_bytes()


def _work(options: argparse.Namespace) -> None:
    """In a process of its own: one part of a lot in one setting."""
    setting = SETTINGS[options.setting]
    torch.set_num_threads(setting.threads)
    if setting.is_compiled:
        fast.choose(fast.COMPILED_OPERATIONS_MIN)
    for name in options.names:
        if options.part == "train":
            train_lot(options.folder, name, options.lot, options.each)
        else:
            verdicts = list(replay_lot(options.folder, name, options.lot))
            print(json.dumps({"case": name, "segments": len(verdicts), "refused": verdicts.count(False)}), flush=True)


def _start(part: str, setting: str, lot: int, options: argparse.Namespace) -> str:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    chosen = SETTINGS[setting]
    environment["OMP_NUM_THREADS"] = str(chosen.threads)
    if chosen.instructions:
        environment[VARIABLE] = chosen.instructions
    command = [sys.executable, "-m", "bench.honest", "--part", part, "--setting", setting, "--lot", str(lot)]
    command += ["--folder", str(options.folder), "--each", str(options.each), *options.names]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def run_lot(lot: int, options: argparse.Namespace) -> list[Json]:
    """One lot, trained in one setting and replayed in another; a row per model."""
    trained, replayed = PAIRS[lot % len(PAIRS)]
    _start("train", trained, lot, options)
    output = _start("replay", replayed, lot, options)
    rows = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [{"lot": lot, "trained": trained, "replayed": replayed, **row} for row in rows]


def summarize(rows: list[Json]) -> Json:
    """The figures of all lots so far."""
    segments = sum(row["segments"] for row in rows)
    refused = sum(row["refused"] for row in rows)
    cases: Counter[str] = Counter()
    for row in rows:
        cases[row["case"]] += row["segments"]
    return {
        "segments": segments,
        "steps_per_segment": STEPS,
        "false_rejects": refused,
        "false_rejects_at_most": min(1.0, 3 / segments) if segments and not refused else None,
        "pairs_of_settings": len({(row["trained"], row["replayed"]) for row in rows}),
        "segments_by_model": dict(sorted(cases.items())),
        "machine": {"processor": platform.processor(), "python": platform.python_version(), "torch": torch.__version__},
        "rows": rows,
    }


def describe(found: Json) -> str:
    """One line for a person."""
    if not found["segments"]:
        return "no segments yet"
    bound = found["false_rejects_at_most"]
    beside = f"; at most {100 * bound:.3f} % with 95 % confidence (rule of three)" if bound is not None else ""
    return f"{found['false_rejects']} of {found['segments']} honest segments refused{beside}"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="models of the golden vectors; all by default")
    parser.add_argument("--segments", type=int, default=SEGMENTS)
    parser.add_argument("--each", type=int, default=EACH, help="segments of one model in a lot")
    parser.add_argument("--folder", type=Path, default=KEPT)
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--part", choices=("train", "replay"), help=argparse.SUPPRESS)
    parser.add_argument("--setting", choices=list(SETTINGS), help=argparse.SUPPRESS)
    parser.add_argument("--lot", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Run lots until there are enough segments."""
    options = _parse()
    options.names = options.names or sorted(_vectors())
    if options.part is not None:
        _work(options)
        return 0
    torch.set_num_threads(1)
    rows: list[Json] = json.loads(options.result.read_text())["rows"] if options.result.exists() else []
    options.folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    while (found := summarize(rows))["segments"] < options.segments:
        lot = 1 + max((row["lot"] for row in rows), default=-1)
        rows += run_lot(lot, options)
        options.result.parent.mkdir(exist_ok=True)
        options.result.write_text(json.dumps(summarize(rows), indent=1) + "\n")
        seconds = time.monotonic() - began
        print(f"lot {lot}, {seconds:.0f} s: {describe(summarize(rows))}", file=sys.stderr, flush=True)
    print(describe(found))
    return 0 if not found["false_rejects"] else 1


if __name__ == "__main__":
    sys.exit(main())
