"""Many seeds, each with faults and an adversary: `python -m tests.simulation.campaign --seeds N --first K`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation.run import Outcome, run_seed
from tests.simulation.scenario import KINDS
from tests.simulation.trace import replay_trace, write_trace

TRACES = Path("build/simulation")  # where traces of failed seeds go
BAR_CHARS = 24
LOT = 4  # seeds handed to a process at a time: a few seconds of work


@dataclass
class Tally:
    """What all seeds so far came to."""

    seeds: int = 0
    events: int = 0
    blocks: int = 0  # final ones, by the slowest honest node of each seed
    recovery_ms: int = 0  # the longest
    epochs: int = 0  # that ended
    changes: int = 0  # of the validator set
    punished: int = 0  # offenders
    jailed: int = 0  # seeds in which somebody went to jail
    over: int = 0  # seeds that ended early, since with jail or a lost log the faulty had a third of the power
    failed: list[Outcome] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)

    def add(self, outcome: Outcome) -> None:
        """Count one seed."""
        self.seeds += 1
        self.events += outcome.events
        self.blocks += outcome.heights[1]
        self.recovery_ms = max(self.recovery_ms, outcome.recovery_ms)
        self.epochs += outcome.epochs
        self.changes += outcome.changes
        self.punished += outcome.punished
        self.jailed += outcome.jailed > 0
        self.over += outcome.is_over
        self.kinds[outcome.kind] += 1
        if outcome.problem:
            self.failed.append(outcome)

    def draw_bar(self, total: int) -> str:
        """The line that says how far the campaign is."""
        seconds = max(0.001, time.monotonic() - self.began)
        done = BAR_CHARS * self.seeds // total
        left_s = int(seconds / max(1, self.seeds) * (total - self.seeds))
        bar = "#" * done + "." * (BAR_CHARS - done)
        return (
            f"[{bar}] {self.seeds}/{total} seeds  {self.events / seconds:,.0f} events/s"
            f"  {len(self.failed)} violations  {left_s // 60}:{left_s % 60:02} left"
        )


def _run_lot(seeds: range, kind: str | None) -> list[Outcome]:
    return [run_seed(seed, kind) for seed in seeds]


def _run_all(first: int, seeds: int, kind: str | None, processes: int) -> Iterator[Outcome]:
    """The outcomes as they come; with few enough lots under way that a failure ends the campaign soon."""
    lots = iter(range(start, min(start + LOT, first + seeds)) for start in range(first, first + seeds, LOT))
    if processes == 1:
        for lot in lots:
            yield from _run_lot(lot, kind)
        return
    pool = ProcessPoolExecutor(processes)
    try:
        waiting: set[Future[list[Outcome]]] = set()
        for lot in lots:
            waiting.add(pool.submit(_run_lot, lot, kind))
            if len(waiting) >= 2 * processes:
                ready, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ready:
                    yield from future.result()
        for future in waiting:
            yield from future.result()
    finally:
        pool.shutdown(cancel_futures=True)  # whoever has heard enough waits for no more than what is under way


def _report(tally: Tally, processes: int) -> None:
    seconds = time.monotonic() - tally.began
    rate = tally.events / max(0.001, seconds)
    print(
        f"{tally.seeds} seeds, {tally.events:,} events, {tally.blocks:,} final blocks in {seconds:.0f} s with "
        f"{processes} processes: {rate:,.0f} events/s\n"
        f"{tally.epochs:,} epochs ended, {tally.changes:,} with another validator set; {tally.punished:,} offenders "
        f"lost stake; jail in {tally.jailed:,} seeds; {tally.over:,} seeds ended early, a third of the power faulty\n"
        f"longest recovery {tally.recovery_ms} ms; {len(tally.failed)} violations"
    )
    print("   ".join(f"{kind} {count}" for kind, count in sorted(tally.kinds.items())))


def _tell_failure(outcome: Outcome) -> None:
    path = TRACES / f"{outcome.kind.replace(' ', '-')}-{outcome.seed}.trace"
    write_trace(path, outcome.seed, outcome.kind)
    print(f"seed {outcome.seed} with {outcome.kind!r} fails: {outcome.problem}", file=sys.stderr)
    print(f"  again: python -m tests.simulation.campaign --trace {path}", file=sys.stderr)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the consensus engine against faults and adversaries.")
    parser.add_argument("--seeds", type=int, default=100, help="how many (default: 100)")
    parser.add_argument("--first", type=int, default=0, help="the first one (default: 0)")
    parser.add_argument("--kind", choices=KINDS, default=None, help="of adversary; by default they take turns")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="by default one a core")
    parser.add_argument("--minutes", type=float, default=None, help="end then, however many seeds were run")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first failure")
    parser.add_argument("--trace", type=Path, default=None, help="replay the trace of a failed seed instead")
    return parser.parse_args()


def main() -> int:
    """Run the seeds behind a progress bar; exit 1 at the first one with a problem, with a trace that replays it."""
    options = _parse()
    if options.trace is not None:
        return 0 if replay_trace(options.trace) else 1
    tally, shown = Tally(), 0.0
    for outcome in _run_all(options.first, options.seeds, options.kind, options.processes):
        tally.add(outcome)
        if outcome.problem:
            _tell_failure(outcome)
            if not options.keep_going:
                break
        if options.minutes is not None and time.monotonic() - tally.began > 60 * options.minutes:
            break
        if sys.stderr.isatty() or time.monotonic() - shown > 30:
            shown = time.monotonic()
            end = "\r" if sys.stderr.isatty() else "\n"
            print(tally.draw_bar(options.seeds), end=end, file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print(tally.draw_bar(options.seeds), file=sys.stderr)
    _report(tally, options.processes)
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
