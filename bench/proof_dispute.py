"""`python -m bench.proof_dispute`: what a dispute costs, from its opening to the verdict, on real models.

A trainer that computes one value of one step otherwise plays against an honest challenger to the end. Measured: moves,
bytes of all moves, processor seconds of either side, the referee's and its memory, each in a process of its own on one
thread. On a chain each move takes at least a block besides.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import models
from bench.honest import open_model
from milon.base.codec import decode, encode
from milon.base.errors import Rejected
from milon.base.ids import Digest
from milon.base.units import Count
from milon.gpu.attacks_steps import Tamper, flip, tampered
from milon.gpu.capture import capture
from milon.gpu.checkpoint import from_bytes, to_bytes
from milon.gpu.dispute_oracle import Oracle
from milon.gpu.dispute_referee import Referee
from milon.gpu.interpreter import load
from milon.gpu.rows import Dataset, describe_columns
from milon.gpu.train import RoundWork
from milon.gpu.work_library import layout_of
from milon.pol.claim import SegmentRecord
from milon.pol.dispute import Answer, Choice, Game, Turn, advance, open_game, spot_of
from milon.pol.program import StepKey, compute_types
from milon.pol.shapes import DType

RESULT = Path(__file__).parent / "results" / "dispute.json"
SEED = Digest(b"\x05" * 32)
SEGMENT = 2
LARGE = "gpt-1m"


@dataclass(slots=True)
class Played:
    """A game at its end, and what it took."""

    game: Game
    moves: int = 0
    bytes_all: int = 0  # of all moves
    bytes_max: int = 0  # of the longest
    trainer_s: float = 0.0  # computing, all moves together
    challenger_s: float = 0.0
    slowest_s: float = 0.0  # of one move


def play(trainer: Oracle, challenger: Any, steps: int) -> Played:
    """A game until the referees have it."""
    played = Played(open_game(steps))
    while played.game.turn is not Turn.REFEREES:
        is_trainer = played.game.turn is Turn.TRAINER
        began = time.process_time()
        move: Answer | Choice = trainer.answer(spot_of(played.game)) if is_trainer else challenger.choose(played.game)
        took = time.process_time() - began
        played.game = advance(played.game, move)
        size = len(encode(move))
        played.moves += 1
        played.bytes_all += size
        played.bytes_max = max(played.bytes_max, size)
        played.trainer_s += took * is_trainer
        played.challenger_s += took * (not is_trainer)
        played.slowest_s = max(played.slowest_s, took)
    return played


# ---- the models ----


def _tokens(length: int, rows: int) -> tuple[Tensor, Tensor]:
    inputs = torch.randint(0, 64, (rows, length), generator=torch.Generator().manual_seed(1))
    return inputs, inputs.roll(-1, 1)


def _adam(held: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(held, lr=1e-3)


def open_case(name: str, steps: int) -> tuple[RoundWork, bytes]:
    """A segment of so many steps of a model, and the state before it: a golden model, or one of a million weights."""
    if name != LARGE:
        work, start = open_model(name)
        return replace(work, steps_per_segment=steps, seed=SEED), start
    torch.manual_seed(7)
    columns = _tokens(64, 48)
    model = models.Gpt(tokens=64, length=64, width=128, heads=4, layers=4)
    captured = capture(model, models.next_token_loss, _adam, tuple(column[:8] for column in columns), ())
    data = Dataset(describe_columns(["inputs", "target"], columns), columns)
    return RoundWork(load(captured.train), layout_of(captured.train), data, 8, steps, SEED, 0), to_bytes(captured.state)


# ---- measuring ----


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _time_step(work: RoundWork, start: bytes) -> float:
    state, batch = from_bytes(start), work.data.cut(0, work.batch_size)
    began = time.process_time()
    work.plan.run(state, batch, StepKey(SEED, 0, 0, 0))
    return time.process_time() - began


def measure(name: str, steps: int, games: int) -> dict[str, Any]:
    """Games about one element of values of chosen operations; the figures of the costliest, and of the referee."""
    work, start = open_case(name, steps)
    program, types = work.plan.program, compute_types(work.plan.program)
    base, chance = len(program.inputs) + len(program.constants), random.Random(1)
    before = _peak_mib()
    step_s, step_mib = min(_time_step(work, start) for _ in range(2)), _peak_mib()
    challenger = Oracle(work, start, SEGMENT)
    found: list[Played] = []
    verdicts = list[str]()
    referee_s = 0.0
    while len(found) < games:
        number = base + chance.randrange(len(program.nodes))
        change = flip(chance.randrange(types[number].elements), 21 if types[number].dtype is DType.FLOAT32 else 0)
        liar = tampered(work, start, SEGMENT, Tamper(chance.randrange(steps), number, change))
        try:
            played = play(liar, challenger, steps)
        except Rejected:  # its lie left nothing finite to go on from
            continue
        if played.moves == 2:  # the lie made no difference
            continue
        began = time.process_time()
        verdicts.append(Referee(work, SEGMENT).judge(played.game, _NO_RECORD, lambda _: b"").value)
        referee_s = max(referee_s, time.process_time() - began)
        found.append(played)
    largest = max(found, key=lambda played: played.moves)
    return {
        "model": name,
        "parameters": sum(tensor.numel() for key, tensor in work.layout.items() if key.startswith("model.")),
        "values": len(types) + 1,
        "elements": sum(found.elements for found in types),
        "steps": steps,
        "games": games,
        "refuted": verdicts.count("false"),
        "moves_max": largest.moves,
        "bytes_max": max(played.bytes_all for played in found),
        "move_bytes_max": max(played.bytes_max for played in found),
        "trainer_s_max": round(max(played.trainer_s for played in found), 2),
        "challenger_s_max": round(max(played.challenger_s for played in found), 2),
        "slowest_move_s": round(max(played.slowest_s for played in found), 2),
        "referee_s_max": round(referee_s, 4),
        "step_s": round(step_s, 3),
        "mib_loaded": before,
        "mib_step": step_mib,
        "mib_two_sides": _peak_mib(),
        "game": encode(largest.game).hex(),
    }


_NO_RECORD = SegmentRecord(Count(SEGMENT), Digest(bytes(32)), Digest(bytes(32)), Count(0))


def measure_referee(name: str, steps: int, raw: bytes) -> dict[str, Any]:
    """A referee alone, as a validator's worker is: its seconds and memory, the job's program and data loaded before."""
    work, _ = open_case(name, steps)
    game = decode(Game, raw)
    before = _peak_mib()
    began = time.process_time()
    verdict = Referee(work, SEGMENT).judge(game, _NO_RECORD, lambda _: b"")
    took = time.process_time() - began
    return {"verdict": verdict.value, "referee_s": round(took, 4), "referee_mib_more": _peak_mib() - before}


def main() -> None:
    """Measure each model in processes of its own and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="one model")
    parser.add_argument("--steps", type=int, default=20, help="steps of the segment")
    parser.add_argument("--games", type=int, default=8, help="lies, each in another value")
    parser.add_argument("--as", dest="part", default="", help="sides or referee: one measurement, printed as JSON")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.part == "sides":
        print(json.dumps(measure(chosen.only, chosen.steps, chosen.games)))
        return
    if chosen.part == "referee":
        print(json.dumps(measure_referee(chosen.only, chosen.steps, bytes.fromhex(sys.stdin.read()))))
        return
    known = {row["model"]: row for row in json.loads(RESULT.read_text())} if RESULT.exists() else {}
    for name in [chosen.only] if chosen.only else MODELS:
        known[name] = measure_apart(name, chosen.steps, chosen.games)
        print(describe(known[name]))
        RESULT.write_text(json.dumps([known[name] for name in sorted(known)], indent=1) + "\n")


MODELS = ("perceptron", "convolution-net", "gpt", LARGE)


def measure_apart(name: str, steps: int, games: int) -> dict[str, Any]:
    """Both measurements of a model, each in a process of its own."""
    common = [sys.executable, "-m", "bench.proof_dispute", "--only", name, "--steps", str(steps), "--games", str(games)]
    sides = subprocess.run([*common, "--as", "sides"], stdout=subprocess.PIPE, text=True, check=True).stdout
    row: dict[str, Any] = json.loads(sides.splitlines()[-1])
    game = row.pop("game")
    alone = subprocess.run([*common, "--as", "referee"], input=game, stdout=subprocess.PIPE, text=True, check=True)
    return {**row, **json.loads(alone.stdout.splitlines()[-1])}


def describe(row: Mapping[str, Any]) -> str:
    """A row as people read it."""
    return (
        f"{row['model']}: {row['games']} lies, {row['refuted']} refuted; at most {row['moves_max']} moves, "
        f"{row['bytes_max']} bytes (a move {row['move_bytes_max']}), {row['trainer_s_max']} s and "
        f"{row['challenger_s_max']} s of computing (a move {row['slowest_move_s']} s; one step {row['step_s']} s); "
        f"referee {row['referee_s']} s, {row['referee_mib_more']} MiB more; memory {row['mib_loaded']} MiB loaded, "
        f"{row['mib_step']} after a step, {row['mib_two_sides']} for both sides in one process"
    )


if __name__ == "__main__":
    main()
